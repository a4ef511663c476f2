"""`readonlyctl history`, `history show` and `members forget`: the morning after, and a person's word."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from readonly import history
from readonly.changes import lift_exactly, start_run
from support.operating import ANNA, Member, Shop, json_lines, made, members
from support.planning import moved, record, result
from support.waiting import eventually

Served = tuple[Shop, Member]


def entries(shop: Shop) -> list[tuple[str, str]]:
    """Return what was done, and by whom."""
    lines = json_lines(shop.here("history", "--json", "--last", "1000").stdout)
    return [(line["what"], line["by"]) for line in lines if line["event"] == "entry"]


def epoch_of(shop: Shop) -> int:
    """Return the epoch that stands."""
    return record(shop).epoch


def test_everything_that_is_done_is_kept(served: Served) -> None:
    """Who, what, why, for how long, and whether it was proven; in the store and on this host."""
    shop, _ = served
    before = len(entries(shop))
    assert shop.here("on", "--reason", "INC-441", "--message", "moving").returncode == 0
    assert shop.here("--as", "ben", "on").returncode == 0
    assert shop.here("--as", "ben", "off").returncode == 3
    assert shop.here("off").returncode == 0
    done = entries(shop)[before:]
    assert done == [
        ("on", "anna"),
        ("confirmed", "anna"),
        ("on", "ben"),
        ("confirmed", "ben"),
        ("off", "ben"),
        ("opened", "ben"),
        ("off", "anna"),
        ("opened", "anna"),
    ]
    kept = (shop.folder / "state" / "shop-history.jsonl").read_text().splitlines()
    assert [json.loads(line)["what"] for line in kept][-8:] == [what for what, _ in done]


def test_one_read_only_time_is_shown_whole(served: Served) -> None:
    """From the first `on` to what opened it, by any epoch in it; what visitors read and who was there included."""
    shop, _ = served
    shop.here("on", "--reason", "INC-441", "--message", "moving")
    epoch = epoch_of(shop)
    shop.here("off")
    shown = shop.here("history", "show", str(epoch))
    assert shown.returncode == 0
    for text in ("INC-441", "moving", "SAFE (app only)", "1 obeys", "off", "opened"):
        assert text in shown.stdout
    assert "INC-441" not in shop.here("history", "show", str(epoch + 2)).stdout
    unknown = shop.here("history", "show", "999999")
    assert unknown.returncode == 1
    assert "knows no read-only time" in unknown.stderr


def test_what_a_bypass_let_through_says_how_often(served: Served) -> None:
    """On the line itself, for its route."""
    shop, _ = served
    at = history.instant(datetime.now(UTC))
    use = history.Entry(at, "shop", history.LET_THROUGH, "ann", "web-1", reason="POST /a", tally={"bypassed": 3})
    history.write(shop.store, None, use)
    (line,) = [line for line in shop.here("history").stdout.splitlines() if history.LET_THROUGH in line]
    assert line.endswith('ann @ web-1   "POST /a"   3 requests')


def test_what_comes_later_belongs_to_no_time_that_is_over(served: Served) -> None:
    """What was planned after it does not keep it from having ended; and it is named."""
    shop, _ = served
    shop.here("on", "--reason", "INC-442")
    epoch = epoch_of(shop)
    shop.here("off")
    name = json_lines(shop.here("--json", "on", "--in", "1h", "--no-wait").stdout)[-1]["cause"]
    shown = shop.here("history", "show", str(epoch)).stdout
    assert "still read-only" not in shown
    assert name not in shown
    shop.here("schedule", "cancel", name)
    assert [name in line for line in shop.here("history").stdout.splitlines()[-2:]] == [True, True]
    assert shop.here("history", "show", str(epoch_of(shop))).returncode == 1


def test_the_time_of_a_window_and_of_a_run_are_shown(tmp_path: Path) -> None:
    """A window begins by itself, and no entry says so: from its end and how long it lasted."""
    shop = made(tmp_path / "shop.db")
    with members(shop):
        words = ("schedule", "add", "--at", "2035-11-25T02:00Z", "--for", "1h", "--reason", "INC-443")
        (window,) = result(shop, *words)["windows"]
        # As if its time had come since; in the middle of a second, since the history keeps tenths.
        start = (datetime.now(UTC) - timedelta(minutes=5)).replace(microsecond=500_000)
        moved(shop, window["id"], start, start + timedelta(minutes=4))
        eventually(lambda: "ended" in [what for what, _ in entries(shop)][-1:])
    shown = shop.here("history", "show", str(epoch_of(shop))).stdout.splitlines()
    assert shown[0].startswith(f"shop   {start:%Y-%m-%dT%H:%M:%S}")
    assert "still read-only" not in shown[0]
    assert [line.split()[5] for line in shown[1:]] == ["scheduled", "ended"]
    assert all(window["id"] in line and "INC-443" in line for line in shown[1:])
    run = start_run(shop.store, ANNA, "r1", reason="INC-444")
    lift_exactly(shop.store, ANNA, "r1")
    shown = shop.here("history", "show", str(run.record.epoch)).stdout.splitlines()
    assert [line.split()[5] for line in shown[1:]] == ["run", "off"]
    assert "still read-only" not in shown[0]
    shop.store.close()


def test_a_lost_history_affects_nothing_and_this_host_remembers(served: Served) -> None:
    """Wiped in the store, it is read from this host's file."""
    shop, _ = served
    shop.here("on", "--reason", "before the loss")
    shop.here("off")
    shop.store.append("history", b"{}", keep=1)
    assert shop.here("status", "--expect", "writable").returncode == 0
    assert "before the loss" in shop.here("history").stdout


def test_what_was_written_by_others_is_harmless(served: Served) -> None:
    """Reasons are printed with nothing that a terminal would obey; what can't be read is left out."""
    shop, _ = served
    shop.here("on", "--reason", "a\x1b[2Jb")
    shop.here("off")
    shop.store.append("history", b"\xff not json", keep=1000)
    shop.store.append("history", b'{"at": 1}', keep=1000)
    shown = shop.here("history")
    assert shown.returncode == 0
    assert "\x1b" not in shown.stdout


def test_a_lost_member_is_forgotten_on_somebodys_word(served: Served) -> None:
    """It blocks until then; the history says who said so, and why."""
    shop, _ = served
    lost = shop.silent_member(120.0)
    assert shop.here("on", "--timeout", "1s").returncode == 3
    without = shop.here("members", "forget", lost.id[:8])
    assert without.returncode == 2  # a reason is wanted
    done = shop.here("members", "forget", lost.id[:8], "--reason", "powered off in IPMI")
    assert done.returncode == 0, done.stderr
    assert "web-2" in done.stdout
    assert shop.here("wait", "--timeout", "60s").returncode == 0
    assert ("forgot", "anna") in entries(shop)
    assert "powered off in IPMI" in shop.here("history").stdout
    shop.here("off")  # so that the history of this file's other tests does not begin in a read-only time


def test_a_member_at_work_is_not_forgotten(served: Served) -> None:
    """Nor is one of several that begin alike; nothing is changed."""
    shop, _ = served
    (report,) = [json.loads(seen.report) for seen in shop.look().census.reports if not json.loads(seen.report)["gone"]]
    refused = shop.here("members", "forget", report["id"], "--reason", "I think so")
    assert refused.returncode == 2
    assert "it is at work" in refused.stderr
    one, other = shop.silent_member(120.0, id="aa" * 16), shop.silent_member(120.0, id="ab" * 16)
    ambiguous = shop.here("members", "forget", "a", "--reason", "both")
    assert ambiguous.returncode == 2
    mistyped = shop.here("members", "forget", "web-22", "--reason", "a slip")
    assert mistyped.returncode == 2
    assert "nobody is registered as 'web-22'" in mistyped.stderr
    assert ("forgot", "a slip") not in [(e["what"], e["reason"]) for e in _all(shop)]
    assert shop.here("members", "forget", "web-2", "--reason", "the rack is off").returncode == 0
    assert [e["missing"] for e in _all(shop)][-1] == [one.name, other.name]
    assert re.search(r'forgot +anna.* web web-2/4711, web web-2/4711 +"the rack is off"', shop.here("history").stdout)


def _all(shop: Shop) -> list[dict[str, Any]]:
    return [line for line in json_lines(shop.here("history", "--json").stdout) if line["event"] == "entry"]
