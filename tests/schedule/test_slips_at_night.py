"""What an operator types too early, twice, or of the wrong thing: said before it does harm, with what is meant."""

from __future__ import annotations

import re
import shlex
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from unittest import mock

import pytest

from readonly import scheduling
from readonly.changes import start_run
from readonly.cli.extend import _instant
from readonly.errors import NoRecord, NotYours, StoreUnreachable
from readonly.record import Window
from readonly.record_format import dump
from readonly.schedules import NoSuchTime
from readonly.scheduling import await_start
from support.operating import BEN, Member, Shop, made
from support.planning import in_force, moved, record, result, with_windows

HOUR, MINUTE = timedelta(hours=1), timedelta(minutes=1)


def planned(name: str = "w1", ahead: timedelta = HOUR, by: str = "anna") -> Window:
    """Return a window that has not begun."""
    start = datetime.now(UTC) + ahead
    return Window(name, start, start + HOUR, by)


# --- on --in ---------------------------------------------------------------------------------------------------------


def test_on_in_typed_again_moves_what_was_announced(shop: Shop) -> None:
    """Put off, the site must not turn at the first time; what is not said anew stays."""
    first = result(shop, "on", "--in", "10m", "--for", "45m", "--reason", "INC-1", "--no-wait")["cause"]
    done = shop.here("on", "--in", "20m", "--message", "Soon.", "--no-wait")
    assert (done.returncode, f"{first}\n" in done.stdout, "instead of" in done.stdout) == (0, True, True), done.stdout
    (window,) = record(shop).windows
    assert (window.id, window.reason, window.message) == (first, "INC-1", "Soon.")
    left = window.start - datetime.now(UTC)
    assert timedelta(minutes=19) < left <= timedelta(minutes=20)
    assert window.expected_end == window.start + timedelta(minutes=45)
    # Another person's is another one; and so is what was planned otherwise.
    assert result(shop, "--as", "ben", "on", "--in", "5m", "--no-wait")["cause"] != first
    assert len(record(shop).windows) == 2


def test_whoever_waits_for_it_is_told_of_its_new_time(shop: Shop) -> None:
    """And leaves with that one."""
    with shop.start("on", "--in", "1h") as command:
        command.says("ANNOUNCED")
        assert shop.here("on", "--in", "3h", "--no-wait").returncode == 0
        (window,) = record(shop).windows
        command.says(f"{window.id} begins at")
        command.process.send_signal(2)
        assert command.ends() == 130
    when = f"{window.start:%H:%M:%S} UTC"
    assert [line.rstrip(".").endswith(when) for line in command.err.splitlines() if " stands: " in line] == [True]


def test_nobody_is_there_to_raise_a_fence(shop: Shop) -> None:
    """Said where one is configured; the command that stays raises it."""
    assert "fence" not in shop.here("on", "--in", "10m", "--no-wait").stdout
    (shop.folder / "readonly.toml").write_text('[fence.main]\nurl = "postgresql://db1/shop"\nwriters = ["shop_app"]\n')
    done = shop.here("on", "--in", "10m", "--no-wait")
    assert (done.returncode, "It raises no fence" in done.stdout) == (0, True), done.stdout + done.stderr


def test_off_says_what_was_announced(shop: Shop) -> None:
    """Whoever takes it back by `off` is told that it comes all the same, and what takes it back."""
    with_windows(shop, planned(by="ben"))
    done = shop.here("off", "--timeout", "10ms")
    assert "It will not stay so: window w1 by ben begins at" in done.stdout
    assert "readonlyctl schedule cancel w1" in done.stdout
    assert "It will not stay so" in shop.here("wait", "--timeout", "10ms").stdout
    assert "next: window w1 by ben begins at" in shop.here("status").stdout
    with_windows(shop, planned(ahead=timedelta(days=3)))
    assert "It will not stay so" not in shop.here("off", "--timeout", "10ms").stdout


@pytest.mark.parametrize("typed", [("off", "--cause", "w1"), ("extend", "30m", "--cause", "w1")])
def test_what_has_not_begun_is_named_as_that(shop: Shop, typed: tuple[str, ...]) -> None:
    """It is there, though no cause of that id stands."""
    with_windows(shop, planned())
    done = shop.here(*typed)
    assert (done.returncode, "w1 has not begun" in done.stderr) == (6, True), done.stderr
    assert "schedule cancel w1" in done.stderr


# --- in force --------------------------------------------------------------------------------------------------------


def test_a_window_is_not_safe_until_off(served: tuple[Shop, Member]) -> None:
    """It opens by itself: `wait` and `status` say when, and what keeps it closed for longer."""
    shop, _ = served
    with_windows(shop, in_force())
    done = shop.here("wait", "--timeout", "60s")
    assert done.returncode == 0, done.stdout
    assert re.search(r"SAFE \(app only\) .*, until [\d: -]+ UTC: then it opens by itself", done.stdout)
    assert "until `off`" not in done.stdout
    assert "readonlyctl extend 30m" in done.stdout
    assert "opens by itself at" in shop.here("status").stdout
    assert "and opens then by itself" in shop.here("extend", "30m").stdout
    # What stands beside it, or has no end, opens by `off` alone.
    shop.here("--as", "ben", "on", "--no-wait")
    assert "and is over then; the site is not" in shop.here("extend", "30m").stdout
    assert "until `off`" in shop.here("wait", "--timeout", "60s").stdout
    shop.here("extend", "--until-off")
    shop.here("--as", "ben", "off", "--timeout", "10ms")
    assert "opens by itself" not in shop.here("status").stdout
    shop.here("off", "--timeout", "60s")


def test_a_window_that_ends_while_somebody_waits_for_proof(served: tuple[Shop, Member]) -> None:
    """It is not read-only any more, and that is what is said, at once."""
    shop, member = served
    member.begins()
    window = in_force("w7")
    with_windows(shop, *record(shop).windows, window)
    with shop.start("wait") as command:
        command.says("1 write in flight")
        moved(shop, "w7", window.start, datetime.now(UTC))
        assert command.ends() == 5, command.out + command.err
    assert "window w7 by anna ended at" in command.err
    assert "What stands now: WRITABLE" in command.err
    assert "The site is read-only" not in command.out


@pytest.mark.parametrize("leave", ["cancel", "skip"])
def test_what_has_begun_of_one_that_recurs_goes_on(shop: Shop, leave: str) -> None:
    """Whoever cancels the rest in the middle of one is told that the site does not open by that."""
    plan = result(shop, "schedule", "add", "--every", "Sun 02:00", "--tz", "UTC", "--for", "1h")["schedules"][0]["id"]
    found = record(shop)
    with_windows(shop, replace(in_force(f"{plan}-x"), schedule=plan), *found.windows, schedules=found.schedules)
    done = shop.here("schedule", leave, plan)
    assert (done.returncode, f"One has begun, and goes on: {plan}-x" in done.stdout) == (0, True), done.stdout
    assert f"off --cause {plan}-x" in done.stdout


def test_a_run_is_lifted_by_what_lifts_runs(shop: Shop) -> None:
    """`off --cause` refuses a run, so it is not what is offered."""
    start_run(shop.store, BEN, "r1")
    shop.here("on", "--no-wait")
    done = shop.here("off", "--timeout", "10ms")
    assert (done.returncode, "abandon r1" in done.stdout) == (3, True), done.stdout
    assert "off --cause r1" not in done.stdout


def test_nothing_begins_with_a_window_that_is_over(shop: Shop) -> None:
    """Where no process was there to write down its end: a command for the next night must not begin by day."""
    plan = result(shop, "schedule", "add", "--every", "Sun 02:00", "--tz", "UTC", "--for", "1h")["schedules"][0]["id"]
    found = record(shop)
    late = replace(found.windows[0], start=found.windows[0].start - timedelta(days=7), end=found.changed_at, id="late")
    with_windows(shop, late, *found.windows, schedules=found.schedules)

    def told(what: Window | Exception, _at: datetime) -> None:
        assert what == found.windows[0]
        raise InterruptedError

    with pytest.raises(InterruptedError):
        await_start(shop.store, plan, waiting=told)
    with pytest.raises(NotYours, match="late is over"):
        await_start(shop.store, "late", waiting=told)


def test_a_store_that_is_away_is_said_once(shop: Shop) -> None:
    """Whoever waits for a window for an hour need not read so every second; nor does an emptied store end that."""
    with_windows(shop, planned())
    begins = replace(shop.store.read(), at=datetime.now(UTC) + 90 * MINUTE)
    away, gone = StoreUnreachable("away"), NoRecord("gone")
    answers = [shop.store.read(), away, away, gone, gone, away, begins]
    said: list[object] = []
    with (
        mock.patch.object(shop.store, "read", side_effect=answers),
        mock.patch.object(shop.store, "wait"),
        mock.patch.object(scheduling, "RETRY_SECONDS", 0.0),
    ):
        found = await_start(shop.store, "w1", waiting=lambda what, _: said.append(what))
    assert (found.id, said[1:]) == ("w1", [away, gone, away])


def test_who_waits_no_longer_is_told_that_the_window_comes(shop: Shop) -> None:
    """Ctrl-C ends the waiting, and not what was planned."""
    with_windows(shop, planned())
    with shop.start("run", "--window", "w1", "--", "true") as command:
        command.says("waiting for w1")
        command.process.send_signal(2)
        assert command.ends() == 130
    assert "w1 stands: the site turns read-only by itself" in command.err
    assert "schedule cancel w1" in command.err


# --- times -----------------------------------------------------------------------------------------------------------


def test_extend_until_a_time_that_is_no_time(shop: Shop) -> None:
    """Refused with both as commands; one that lies behind stands in nobody's way."""
    # 25 October 2026, by Berlin's clocks: 02:30 comes at 00:30 UTC and at 01:30 UTC.
    for hour, expected in ((0, None), (2, datetime(2026, 10, 26, 1, 30, tzinfo=UTC))):
        at = datetime(2026, 10, 25, hour, tzinfo=UTC)
        if expected is None:
            with pytest.raises(NoSuchTime):
                _instant("02:30", "Europe/Berlin", at)
        else:
            assert _instant("2:30", "Europe/Berlin", at) == expected
    # On the evening before the clocks are put forward.
    with pytest.raises(NoSuchTime):
        _instant("02:30", "Europe/Berlin", datetime(2026, 3, 28, 20, tzinfo=UTC))
    with_windows(shop, in_force())
    done = shop.here("extend", "--until", "2035-10-28 02:30", "--tz", "Europe/Berlin", "--cause", "w1")
    assert (done.returncode, record(shop).windows[0].revision) == (2, 1), done.stderr
    offered = re.findall(r"readonlyctl (extend .*)", done.stdout)
    assert len(offered) == 2
    assert "--cause w1" in offered[0]
    assert result(shop, *shlex.split(offered[1]))["expected_end"] == "2035-10-28T01:30:00Z"


def test_seconds_are_shown_where_there_are_any(shop: Shop) -> None:
    """Of the end as well: one from 18:37 to 18:37 would be none."""
    at = datetime(2035, 11, 25, 2, tzinfo=UTC)
    with_windows(shop, Window("w1", at, at + timedelta(seconds=20), "anna"))
    assert "02:00:00 to 02:00:20 UTC, 20 s" in shop.here("schedule", "list").stdout


def test_what_would_never_open_is_refused(shop: Shop) -> None:
    """Each begins where the last one ends."""
    done = shop.here("schedule", "add", "--every", "day 02:00", "--tz", "UTC", "--for", "24h", "--yes")
    assert (done.returncode, "would not open in between" in done.stderr) == (2, True), done.stderr
    assert "24h" in done.stderr


@pytest.mark.parametrize(("rule", "doubted"), [("0 2 1-7 * SUN", True), ("0 2 * * SUN#1", False), ("0 2 1 * *", False)])
def test_days_of_the_month_and_weekdays(shop: Shop, rule: str, doubted: bool) -> None:
    """The first Sunday is not what that means."""
    words = ("schedule", "add", "--cron", rule, "--tz", "UTC", "--for", "1h")
    done = shop.here(*words)
    assert (done.returncode, "so cron reads it" in done.stdout) == (6 if doubted else 0, doubted), done.stdout
    assert shop.here(*words, "--yes").returncode == 0
    starts = [w.start for w in record(shop).windows if w.schedule]
    assert any(at.day > 7 for at in starts) is doubted


def test_an_id_that_is_not_there_is_answered_with_those_that_are(shop: Shop) -> None:
    """Of one that recurs with its own: it has twelve occurrences."""
    plan = result(shop, "schedule", "add", "--every", "Sun 02:00", "--tz", "UTC", "--for", "1h")["schedules"][0]["id"]
    assert f"there are: {plan}. Nothing" in shop.here("schedule", "cancel", "w0").stderr


def test_plans_that_are_lost_are_named(tmp_path: Path) -> None:
    """By who starts anew on purpose; and a store that was emptied does not say that nothing is planned."""
    shop = made(tmp_path / "shop.db")
    plan = result(shop, "schedule", "add", "--every", "Sun 02:00", "--tz", "UTC", "--for", "1h")["schedules"][0]["id"]
    with_windows(shop, *record(shop).windows, planned(), schedules=record(shop).schedules)
    assert f"No longer planned: w1, {plan}\n" in shop.here("init", "shop", "--replace").stdout
    assert "No longer planned" not in shop.here("init", "shop", "--replace").stdout
    partial = replace(record(shop), lineage="")
    assert shop.store.replace(dump(partial), was=shop.store.read().record).record == dump(partial)
    done = shop.here("schedule", "list")
    assert (done.returncode, "was emptied" in done.stderr) == (4, True), done.stdout
    shop.store.close()
