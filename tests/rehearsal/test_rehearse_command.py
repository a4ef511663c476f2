"""rehearse, rehearse report and rehearse stop, as they are typed; and what many processes counted, added up."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from readonly import Switch
from readonly.members import Report
from readonly.record import Rehearsal
from readonly.record_format import dump
from readonly.rehearsal import Found
from readonly.rehearsal_counts import LOG, Counts, Numbers, Sketch, count, keep
from readonly.rehearsal_page import page
from support.hostile import HOSTILE, assert_harmless_html
from support.operating import Shop, json_lines, made


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    """A writable site in an SQLite file, without a process."""
    found = made(tmp_path / "shop.db")
    yield found
    found.store.close()


def rehearsing(shop: Shop) -> Rehearsal:
    """Have a rehearsal go on."""
    done = shop.here("rehearse", "--for", "1h", "--no-wait")
    assert done.returncode == 0, done.stderr
    record = shop.look().record
    assert record is not None
    assert record.rehearsal is not None
    return record.rehearsal


def counted(rehearsal: str, route: str = "POST /notes", *, refused: int = 2, reader: str = "ann") -> dict[str, Any]:
    """Return what a process has counted."""
    counts = Counts()
    counts.take_part(rehearsal)
    with counts.adding(rehearsal) as numbers:
        numbers.requests += refused
        numbers.signed_in += 1
        numbers.readers.add(rehearsal, reader)
        one = numbers.route(route)
        one.act, one.refused, one.wrote, one.asked = "undeclared", refused, refused, refused
        count(one.families, "browser", refused)
        keep(one.tables, "main.notes", "shop/notes.py:12 in add")
    return counts.totals()


def report_of(**said: Any) -> Report:
    """Return the report of a process on another machine."""
    told: dict[str, Any] = {"id": secrets.token_hex(16), "host": "web-3", "pid": 7, "role": "web", "interval": 300.0}
    return Report(**(told | said))


def result(shop: Shop, *words: str, code: int = 0) -> dict[str, Any]:
    """Type a command and return its result."""
    done = shop.here("--json", *words)
    assert done.returncode == code, done.stdout + done.stderr
    return json_lines(done.stdout)[-1]


def test_it_begins_says_until_when_and_stops(shop: Shop) -> None:
    """`status` knows of it; nobody was rehearsed before the first; the history tells."""
    assert shop.here("rehearse", "report").returncode == 6
    assert "never rehearsed" in shop.here("rehearse", "report").stderr
    begun = shop.here("rehearse", "--for", "1h", "--no-wait")
    assert begun.returncode == 0
    assert "Rehearsing until" in begun.stdout
    assert "rehearse report" in begun.stdout
    assert "rehearsing until" in shop.here("status").stdout
    assert shop.here("status", "--expect", "writable").returncode == 0
    assert shop.here("rehearse", "--for", "1h").returncode == 6
    assert result(shop, "rehearse", "stop")["changed"] is True
    assert result(shop, "rehearse", "stop")["changed"] is False
    assert "rehearsing" not in shop.here("status").stdout
    told = shop.here("history").stdout
    assert "rehearse " in told
    assert "rehearsed" in told


def test_it_is_typed_with_a_length(shop: Shop) -> None:
    """Nothing is begun by accident."""
    for words in (["rehearse"], ["rehearse", "--for", "1h", "report"], ["rehearse", "--for", "90"]):
        assert shop.here(*words).returncode == 2
    assert shop.here("rehearse", "--for", "30d").returncode == 2
    assert shop.look().state.rehearsal is None


def test_it_needs_a_record(tmp_path: Path) -> None:
    """Over an empty store nothing is begun, and `init` is named."""
    empty = made(tmp_path / "empty.db", initialised=False)
    done = empty.here("rehearse", "--for", "1h")
    assert (done.returncode, "readonlyctl init shop" in done.stderr) == (4, True)
    empty.store.close()


def test_what_many_processes_counted_is_added_up(shop: Shop) -> None:
    """Living ones, one that was killed, one that said goodbye, and what was kept in the store; each once."""
    name = rehearsing(shop).id
    first = report_of(rehearsal=counted(name))
    shop.reported(first, report_of(host="web-4", rehearsal=counted(name, reader="ben"), gone=True))
    shop.silent_member(900, rehearsal=counted(name, "DELETE /notes/{id}", refused=1, reader="cleo"))
    shop.reported(report_of(host="old", rehearsal=counted("r-another")))
    kept = {"member": "m1", **counted(name, reader="ann")}
    again = {"member": first.id, **counted(name, refused=9)}
    for document in (kept, kept, again, {"member": "m2", **counted("r-another")}):
        shop.store.append(LOG, json.dumps(document).encode(), keep=10)
    shop.store.append(LOG, b"rubbish", keep=10)
    told = result(shop, "rehearse", "report", code=3)
    assert (told["processes"], told["requests"], told["signed_in"], told["readers"]) == (4, 7, 4, 3)
    assert {rule: one["refused"] for rule, one in told["routes"].items()} == {"POST /notes": 6, "DELETE /notes/{id}": 1}
    assert told["policy"] == {"writes": ["DELETE /notes/{id}", "POST /notes"]}
    assert told["clean"] is False
    said = shop.here("rehearse", "report").stdout
    assert 'writes=["DELETE /notes/{id}", "POST /notes"],' in said
    assert "writes main.notes at shop/notes.py:12 in add" in said


def test_who_takes_no_part_is_named(shop: Shop) -> None:
    """An older version, one that was told to obey nothing, one that has not said so yet; not one that is gone."""
    name = rehearsing(shop).id
    shop.reported(
        report_of(host="old-1", lacks=("rehearsal",), library="0.9"),
        report_of(host="off-1", inert=True),
        report_of(host="new-1"),
        report_of(host="good-1", rehearsal=counted(name)),
        report_of(host="half-1", rehearsal={"id": name}),
        report_of(host="gone-1", gone=True),
    )
    without = result(shop, "rehearse", "report", code=3)["without"]
    hosts = ("half-1", "new-1", "off-1", "old-1")
    assert [one.partition(":")[0] for one in sorted(without)] == [f"web {host}/7" for host in hosts]
    assert "web old-1/7: its readonly-mode 0.9 knows no rehearsals: upgrade it" in without


def test_a_clean_one_says_so_and_is_told_from_one_in_which_nothing_happened(shop: Shop) -> None:
    """Exit 0; and the page is written where it was asked for."""
    name = rehearsing(shop).id
    counts = Counts()
    with counts.adding(name) as numbers:
        numbers.requests = 5
        route = numbers.route("POST /notes")
        route.act, route.refused = "write", 5
    shop.reported(report_of(rehearsal=counts.totals()))
    assert result(shop, "rehearse", "stop", "--no-wait")["changed"]
    done = shop.here("rehearse", "report", "--html", "found.html")
    assert done.returncode == 0
    assert "Clean" in done.stdout
    assert "5 requests, none refused" in done.stdout
    assert "Clean." in (shop.folder / "found.html").read_text()
    assert shop.here("rehearse", "report", "--html", "none/found.html").returncode == 1


def test_one_in_which_nothing_was_asked_says_nothing(shop: Shop) -> None:
    """Nobody takes an idle hour for a clean one: exit 3, in the page and in JSON as well."""
    name = rehearsing(shop).id
    counts = Counts()
    with counts.adding(name):
        pass
    shop.reported(report_of(rehearsal=counts.totals()))
    done = shop.here("rehearse", "report", "--html", "idle.html")
    assert done.returncode == 3
    for said in (done.stdout, (shop.folder / "idle.html").read_text()):
        assert "Nothing was asked of the site yet" in said
        assert "Clean" not in said
    assert result(shop, "rehearse", "report", code=3)["clean"] is False


def test_a_process_that_does_not_know_it_goes_on_and_says_so(shop: Shop) -> None:
    """By the record's `needs`: one of tomorrow's features that may be done without, for today's members."""
    reading = shop.store.read()
    record = shop.look().record
    assert record is not None
    newer = replace(record, epoch=record.epoch + 1, id="newer", needs=("by-moonlight?",))
    shop.store.replace(dump(newer), was=reading.record)
    switch = Switch(shop.store.reopened(), interval=0.1)
    switch.start()
    assert not switch.state.read_only
    assert any(report.lacks == ("by-moonlight",) for report in switch.members())
    switch.close()


@pytest.mark.parametrize("hostile", HOSTILE, ids=range(len(HOSTILE)))
def test_the_page_is_told_nothing_by_visitors(hostile: str) -> None:
    """Whatever a label is made of, also one that another process sent uncleaned."""
    numbers = Numbers()
    route = numbers.route(hostile)
    route.act, route.refused, route.families[hostile], route.tables[hostile] = hostile, 1, 1, hostile
    numbers.jobs[hostile] = numbers.unnamed[hostile] = 1
    numbers.outside[hostile] = hostile
    numbers.readers = Sketch([1])
    now = datetime(2026, 5, 1, 12, tzinfo=UTC)
    made_up = Rehearsal("r1", hostile, now, now + timedelta(hours=1))
    assert_harmless_html(page(hostile, Found(made_up, now, numbers, 1, (hostile,), going_on=True)))
