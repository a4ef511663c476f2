"""`rehearse` returns when every process counts, and `rehearse stop` when every process has said what it counted."""

from __future__ import annotations

import secrets
import signal
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from readonly import Switch, changes, rehearsal
from readonly.confirmation import NOBODY, parse_expect
from readonly.members import Report
from readonly.rehearsal_attendance import attendance, heard_anew, wait_begun
from readonly.rehearsal_counts import WHOLE
from readonly.site import Site
from support.operating import ANNA, BEN, Shop, json_lines, made, members
from support.waiting import eventually

HOUR = timedelta(hours=1)


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    """A writable site in an SQLite file, without a process."""
    found = made(tmp_path / "shop.db")
    yield found
    found.store.close()


def report_of(host: str, **said: Any) -> Report:
    """Return the report of a process on another machine, which is not due again for minutes."""
    told: dict[str, Any] = {"id": secrets.token_hex(16), "host": host, "pid": 7, "role": "web", "interval": 300.0}
    return Report(**(told | said))


def test_it_returns_when_every_process_counts(shop: Shop) -> None:
    """One that hangs is waited for, at the beginning and at the end; what is done in between is counted."""
    with members(shop, ["web", "celery"], interval=5.0) as (web, celery):
        celery.stop()
        with shop.start("rehearse", "--for", "1h") as begins:
            begins.says("missing: celery")
            celery.go_on()
            assert begins.ends() == 0
        assert "Whole from" in begins.out
        assert "every request of 2 processes is counted" in begins.out
        for member in (web, celery):
            member.begins()
            member.tell("end")
        celery.stop()
        with shop.start("rehearse", "stop") as ends:
            ends.says("missing: celery")
            assert "it has not said yet all that it has counted" in ends.err
            celery.go_on()
            assert ends.ends() == 0
        assert "all that was counted is told" in ends.out
        told = json_lines(shop.here("--json", "rehearse", "report").stdout)[-1]
        assert sum(told["jobs"].values()) == 2
        assert told["without"] == []


def test_who_has_just_fallen_silent_is_waited_for(shop: Shop) -> None:
    """Another process of its host may find it dead, and then it counts nothing any more."""
    shop.here("rehearse", "--for", "1h", "--no-wait")
    was = shop.silent_member(10)
    with shop.start("rehearse", "stop", "--timeout", "1h") as command:
        command.says("silent for")
        shop.reported(replace(was, found_gone=True))
        assert command.ends() == 0


def told_jobs(shop: Shop) -> int:
    """Return how many jobs the report has."""
    return sum(json_lines(shop.here("--json", "rehearse", "report").stdout)[-1]["jobs"].values())


def test_the_report_has_all_that_was_counted_before_it_was_asked_for(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Processes report once in a while: it waits for the next time, of those that do so soon."""
    # It does without one that is too late; here that is none, however slow this machine is.
    monkeypatch.setattr(heard_anew, "__kwdefaults__", {"timeout": 60.0})
    with members(shop, ["web"], interval=0.5) as (web,):
        shop.reported(report_of("slow-1"))
        assert shop.here("rehearse", "--for", "1h", "--timeout", "1s").returncode == 3
        for number in range(1, 3):
            web.begins()
            web.tell("end")
            assert told_jobs(shop) == number


def test_who_can_not_take_part_is_named_and_not_waited_for(shop: Shop) -> None:
    """An older version, one that was told to obey nothing, one that is silent: exit 3, in whatever time was given."""
    shop.reported(
        report_of("old-1", lacks=("rehearsal",), library="0.9"),
        report_of("off-1", inert=True),
    )
    shop.silent_member(900)
    done = shop.here("rehearse", "--for", "1h", "--timeout", "1h")
    assert done.returncode == 3
    assert "NOT WHOLE" in done.stdout
    assert "web old-1/7: its readonly-mode 0.9 knows no rehearsals: upgrade it" in done.stdout
    assert "web off-1/7: READONLY_DISABLED is set" in done.stdout
    assert "web web-2/4711: silent for 900 s" in done.stdout
    assert shop.look().state.rehearsal is not None, "it goes on without them"
    done = shop.here("rehearse", "stop", "--timeout", "10ms")
    assert done.returncode == 3
    assert "web old-1/7 took no part: its readonly-mode 0.9 knows no rehearsals: upgrade it" in done.stdout


def test_who_does_not_say_so_in_time_is_named(shop: Shop) -> None:
    """In words, as JSON, and again by the report, also when it is over; nobody at all is no proof either."""
    done = json_lines(shop.here("--json", "rehearse", "--for", "1h", "--timeout", "10ms").stdout)[-1]
    assert (done["exit"], done["whole_from"], done["missing"]) == (3, None, [NOBODY])
    shop.reported(report_of("late-1"))
    shop.here("rehearse", "stop", "--no-wait")
    done = json_lines(shop.here("--json", "rehearse", "--for", "1h", "--timeout", "10ms").stdout)[-1]
    late = ["web late-1/7: it has not said yet that it takes part"]
    assert (done["exit"], done["confirmed"], done["missing"]) == (3, False, late)
    assert json_lines(shop.here("--json", "rehearse", "report").stdout)[-1]["without"] == late
    counting = shop.look().record
    assert counting is not None
    assert counting.rehearsal is not None
    (seen,) = shop.look().census.reports
    shop.reported(replace(Report.load(seen.member, seen.report), rehearsal={"id": counting.rehearsal.id, WHOLE: True}))
    assert json_lines(shop.here("--json", "rehearse", "report").stdout)[-1]["without"] == []
    done = json_lines(shop.here("--json", "rehearse", "stop", "--timeout", "10ms").stdout)[-1]
    said = ["web late-1/7: it has not said yet all that it has counted"]
    assert (done["exit"], done["confirmed"], done["missing"]) == (3, False, said)
    assert json_lines(shop.here("--json", "rehearse", "report").stdout)[-1]["without"] == said


def test_without_waiting_nothing_is_proven_and_nothing_failed(shop: Shop) -> None:
    """Exit 0, and it says that not every process counts yet."""
    shop.reported(report_of("late-1"))
    for words in (["rehearse", "--for", "1h", "--no-wait"], ["rehearse", "stop", "--no-wait"]):
        done = shop.here(*words)
        assert done.returncode == 0
        assert "not every process" in done.stdout.lower()


def test_roles_that_are_expected_are_waited_for(shop: Shop) -> None:
    """As by `on`: whom readonly.toml wants there, and is not, does not count."""
    shop.reported(report_of("web-1"))
    site = Site(Switch(shop.store), expect=parse_expect("web=1,celery=2"))
    change = rehearsal.begin(site.store, ANNA, lasting=HOUR)
    assert wait_begun(site, change, timeout=0.0).found.problems == ("celery: 0 report, expected 2",)


def test_a_registry_that_is_young_proves_nothing(shop: Shop) -> None:
    """Who was there before the store was started again may not have reported to it yet."""
    site = Site(Switch(shop.store))
    change = rehearsal.begin(site.store, ANNA, lasting=HOUR)
    assert change.record.rehearsal is not None
    shop.reported(report_of("web-1", rehearsal={"id": change.record.rehearsal.id, WHOLE: True}))
    look = site.look()
    assert attendance(site, look, change.record.rehearsal).safe
    young = replace(look.census.reading, incarnation_seconds=0.5)
    look = replace(look, census=replace(look.census, reading=young))
    assert not attendance(site, look, change.record.rehearsal).safe


@pytest.mark.parametrize(
    ("what", "code", "word"),
    [("on", 3, "the site is read-only"), ("stop", 5, "ben has ended the rehearsal"), ("ctrl-c", 130, "goes on")],
)
def test_what_comes_between(shop: Shop, what: str, code: int, word: str) -> None:
    """A real `on`, another one's `stop`, Ctrl-C: each is said at once, and none waited out."""
    shop.reported(report_of("late-1"))
    with shop.start("rehearse", "--for", "1h", "--timeout", "1h") as command:
        command.says("missing: web late-1/7")
        if what == "on":
            shop.on(BEN)
        elif what == "stop":
            rehearsal.stop(shop.store, BEN)
        else:
            command.process.send_signal(signal.SIGINT)
        assert command.ends() == code
    assert word in command.out + command.err
    changes.turn_off(shop.store, ANNA, every=True)
    assert (shop.look().state.rehearsal is None) == (what == "stop")


def test_one_that_is_too_short_says_so(shop: Shop) -> None:
    """It is over before anybody took part: that is not waited for."""
    shop.reported(report_of("late-1"))
    done = shop.here("rehearse", "--for", "1ms", "--timeout", "1h")
    assert (done.returncode, "it was too short" in done.stdout) == (3, True)


def test_a_process_says_that_it_takes_part_when_its_databases_are_hooked_into(shop: Shop) -> None:
    """They are by a callback: who says so before would miss what the next request writes."""
    switch = Switch(shop.store.reopened(), interval=0.1)
    entered, go_on = threading.Event(), threading.Event()

    def hooks(_state: object) -> None:
        if switch.state.rehearsal is not None:
            entered.set()
            go_on.wait(60)

    switch.on_change(hooks)
    switch.start()
    eventually(lambda: not switch.state.read_only)
    rehearsal.begin(shop.store, ANNA, lasting=HOUR)
    assert entered.wait(60)
    with switch.rehearsed.adding(getattr(switch.state.rehearsal, "id", "")) as numbers:
        numbers.requests += 1
    assert WHOLE not in switch.rehearsed.totals()
    go_on.set()
    eventually(lambda: any(r.rehearsal.get(WHOLE) for r in switch.members()), what="its word that it takes part")
    switch.close()


def test_options_of_the_beginning_belong_to_it(shop: Shop) -> None:
    """`rehearse --timeout 5s report` would be without meaning."""
    for option in (["--timeout", "5s"], ["--no-wait"], ["--for", "1h"]):
        done = shop.here("rehearse", *option, "report")
        assert (done.returncode, f"{option[0]}" in done.stderr) == (2, True)
