"""schedule, extend, on --in and run --window, as they are typed."""

from __future__ import annotations

import re
import shlex
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from support.operating import Member, Shop, json_lines, made
from support.planning import in_force, record, result, with_windows
from support.waiting import eventually

BERLIN = ("--tz", "Europe/Berlin")


# --- add -------------------------------------------------------------------------------------------------------------


def test_the_echo_shows_utc_and_local_time(shop: Shop) -> None:
    """What the clocks made of it, once; and how far it is."""
    done = shop.here("schedule", "add", "--at", "2035-11-25 02:00", *BERLIN, "--for", "90m", "--reason", "INC-441")
    assert done.returncode == 0
    assert "2035-11-25 01:00 to 02:30 UTC (02:00 to 03:30 CET, Europe/Berlin), 1 h 30 min, in" in done.stdout
    (window,) = record(shop).windows
    assert (window.start, window.end) == (
        datetime(2035, 11, 25, 1, tzinfo=UTC),
        datetime(2035, 11, 25, 2, 30, tzinfo=UTC),
    )
    assert (window.typed, window.zone, window.by, window.reason) == (
        "2035-11-25 02:00", "Europe/Berlin", "anna", "INC-441",
    )  # fmt: skip
    assert "no process that could raise a fence or wait" in done.stdout
    assert f"run --window {window.id} -- COMMAND" in done.stdout


def test_a_time_without_a_zone_is_refused_unless_somebody_said_one(shop: Shop) -> None:
    """By option, environment or file; nothing is guessed."""
    words = ("schedule", "add", "--at", "2035-11-25 02:00", "--for", "90m")
    done = shop.here(*words)
    assert (done.returncode, "by whose clocks?" in done.stderr) == (2, True)
    assert record(shop).windows == ()
    assert shop.here("schedule", "add", "--every", "Sun 02:00", "--for", "90m").returncode == 2
    assert shop.here(*words, environment={"READONLY_TIMEZONE": "Europe/Berlin"}).returncode == 0
    (shop.folder / "readonly.toml").write_text('timezone = "Asia/Tokyo"\n')
    assert shop.here(*words, "--yes").returncode == 0
    (shop.folder / "readonly.toml").unlink()
    assert sorted(w.start.hour for w in record(shop).windows) == [1, 17]
    wrong = shop.here(*words, "--tz", "Berlin")
    assert (wrong.returncode, "Europe/Berlin" in wrong.stderr) == (2, True)


@pytest.mark.parametrize("typed", ["2035-03-25 02:30", "2035-10-28 02:30"])
def test_what_may_be_meant_is_offered_as_commands(shop: Shop, typed: str) -> None:
    """Each of them works as it is printed."""
    done = shop.here("schedule", "add", "--at", typed, *BERLIN, "--for", "90m", "--reason", "it's")
    assert done.returncode == 2
    assert record(shop).windows == ()
    offered = re.findall(r"readonlyctl (schedule add .*)", done.stdout)
    assert len(offered) == 2
    for command in offered:
        assert shop.here(*shlex.split(command), "--yes").returncode == 0
    found = record(shop).windows
    assert found[0].start < found[1].start
    assert {w.reason for w in found} == {"it's"}
    refused = json_lines(shop.here("--json", "schedule", "add", "--at", typed, *BERLIN, "--for", "90m").stdout)
    assert [one["event"] for one in refused[-2:]] == ["error", "result"]
    assert refused[-1]["changed"] is False


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--at", "{past}Z", "--for", "2h"), "has passed"),
        (("--at", "2035-11-25T02:00Z", "--for", "25h"), "longer than a day"),
        (("--at", "2035-06-03T01:30Z", "--for", "1h"), "lies across s"),
    ],
)
def test_what_may_be_a_slip_wants_yes(shop: Shop, words: tuple[str, ...], says: str) -> None:
    """With a clear word, and the command that means it."""
    past = f"{datetime.now(UTC) - timedelta(hours=1):%Y-%m-%dT%H:%M}"
    words = tuple(word.replace("{past}", past) for word in words)
    shop.here("schedule", "add", "--every", "day 01:00", "--tz", "UTC", "--for", "1h")
    (plan,) = record(shop).schedules
    first = record(shop).windows[0]
    with_windows(
        shop,
        replace(first, start=datetime(2035, 6, 3, 1, tzinfo=UTC), end=datetime(2035, 6, 3, 2, tzinfo=UTC)),
        schedules=(plan,),
    )
    done = shop.here("schedule", "add", *words)
    assert (done.returncode, says in done.stdout) == (6, True), done.stdout
    (typed,) = re.findall(r"readonlyctl (schedule add .* --yes)", done.stdout)
    before = len(record(shop).windows)
    assert shop.here(*shlex.split(typed)).returncode == 0
    assert len(record(shop).windows) == before + 1
    if says == "has passed":
        # It begins now: nobody's session ended an hour ago.
        began = max(w.start for w in record(shop).windows if not w.schedule)
        assert began > datetime.now(UTC) - timedelta(minutes=1)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--at", "2020-01-01T02:00Z", "--for", "1h"), "is over"),
        (("--at", "2020-01-01T02:00Z", "--every", "day 02:00", "--for", "1h"), "only one"),
        (("--for", "1h"), "when?"),
        (("--every", "day 02:00", "--tz", "UTC", "--for", "25h"), "comes again after"),
        (("--cron", "*/10 * * * *", "--tz", "UTC", "--for", "15m"), "comes again after"),
        (("--cron", "0 2 30 2 *", "--tz", "UTC", "--for", "15m"), "no cron expression"),
        (("--at", "9999-12-31T02:00Z", "--for", "1h"), "ten years"),
        (("--at", "2035-11-25 02:00", "--for", "90"), "90 what"),
    ],
)
def test_what_makes_no_sense_is_refused(shop: Shop, words: tuple[str, ...], says: str) -> None:
    """Also with --yes; nothing was changed."""
    done = shop.here("schedule", "add", *words, "--yes")
    assert (done.returncode, says in done.stderr) == (2, True), done.stderr
    assert record(shop).windows == ()


def test_nothing_is_planned_over_nothing(tmp_path: Any) -> None:
    """A window in a store that was emptied would be known to nobody."""
    empty = made(tmp_path / "empty.db", initialised=False)
    done = empty.here("schedule", "add", "--at", "2035-11-25T02:00Z", "--for", "1h")
    assert (done.returncode, "nothing to plan in" in done.stderr) == (4, True)
    assert empty.here("schedule", "list").returncode == 4
    empty.store.close()


def test_a_protected_site_wants_its_name(tmp_path: Any) -> None:
    """It will be read-only by that."""
    shop = made(tmp_path / "shop.db", protected=True)
    words = ("schedule", "add", "--at", "2035-11-25T02:00Z", "--for", "1h", "--yes")
    assert shop.here(*words).returncode == 6
    assert shop.here("--site", "shop", *words).returncode == 0
    (window,) = record(shop).windows
    assert shop.here("schedule", "cancel", window.id).returncode == 6
    assert shop.here("extend", "30m").returncode == 6
    shop.store.close()


# --- list, skip, cancel ----------------------------------------------------------------------------------------------


def test_list_marks_what_the_clocks_do(shop: Shop) -> None:
    """And says which are skipped, across others, or in force."""
    plan = result(shop, "schedule", "add", "--cron", "30 2 * 3,10 SUN", *BERLIN, "--for", "1h", "--reason", "weekly")
    assert [len(plan["windows"]), plan["schedules"][0]["left"]] == [12, 12]
    name = plan["schedules"][0]["id"]
    first = plan["windows"][0]["id"]
    at = plan["windows"][1]["start"]
    other = result(shop, "schedule", "add", "--at", at, "--for", "2h", "--yes")["windows"][0]["id"]
    assert result(shop, "schedule", "skip", name)["left_out"] == [first]
    done = shop.here("schedule", "list").stdout
    lines = {line.split()[0]: line for line in done.splitlines() if line.strip()}
    assert lines[name].startswith(f"{name}   cron 30 2 * 3,10 SUN by the clocks of Europe/Berlin, 1 h each, by anna")
    assert lines[first].endswith("skipped")
    assert f"across {other}" in lines[plan["windows"][1]["id"]]
    marks = {w["mark"] for w in result(shop, "schedule", "list")["windows"]}
    assert {"gap", "fold"} <= marks
    assert "   gap: the clocks are put forward over that time: it begins at the first instant after" in done
    assert "   fold: the clocks are put back, and that time comes twice: it begins at the first of the two" in done
    assert "A window has no process that could raise a fence" in done
    assert len(result(shop, "schedule", "cancel", name)["left_out"]) == 12
    assert shop.here("schedule", "cancel", name).stdout.endswith("Nothing was changed.\n")
    assert [w["id"] for w in result(shop, "schedule", "list")["windows"]] == [other]
    assert result(shop, "schedule", "cancel", other)["left_out"] == [other]
    # A window that was cancelled is shown until its time.
    assert [w["status"] for w in result(shop, "schedule", "list")["windows"]] == ["cancelled"]
    assert shop.here("schedule", "list").stdout.endswith("Nothing is planned.\n")
    assert shop.here("schedule", "skip", "w0").returncode == 6


def test_list_says_that_nobody_tops_up(shop: Shop) -> None:
    """Members do that; where few are left, none of them does."""
    plan = result(shop, "schedule", "add", "--every", "Sun 02:00", *BERLIN, "--for", "1h")
    found = record(shop)
    with_windows(shop, *found.windows[:3], schedules=found.schedules)
    assert "warning: 3 are left" in shop.here("schedule", "list").stdout
    assert result(shop, "schedule", "list")["schedules"][0]["left"] == 3
    assert plan["schedules"][0]["typed"] == "Sun 02:00"


def test_what_has_begun_is_for_off(shop: Shop) -> None:
    """Cancel and skip say so; off of somebody else refuses, and off --cause ends it."""
    with_windows(shop, in_force())
    done = shop.here("schedule", "cancel", "w1")
    assert (done.returncode, "off --cause w1" in done.stderr) == (6, True)
    assert "w1 " in shop.here("schedule", "list").stdout
    assert result(shop, "schedule", "list")["windows"][0]["status"] == "in force"
    refused = shop.here("--as", "ben", "off", "--timeout", "10ms")
    assert (refused.returncode, "off --cause w1" in refused.stdout) == (6, True)
    assert "Lifted   window w1   anna" in shop.here("off", "--timeout", "10ms").stdout
    assert record(shop).windows[0].ended
    assert "Nothing is planned." in shop.here("schedule", "list").stdout


# --- extend ----------------------------------------------------------------------------------------------------------


def test_extend_moves_what_is_ones_own(shop: Shop) -> None:
    """A window's end opens, a cause's announces; from its end on, or from now where that has passed."""
    window = in_force()
    with_windows(shop, window, in_force("w2", by="ben"))
    done = shop.here("extend", "30m")
    assert done.returncode == 0
    assert "Extended window w1: until" in done.stdout
    assert "opens then by itself" in done.stdout
    assert window.end is not None
    ends = {w.id: w.end for w in record(shop).windows}
    assert ends["w1"] == window.end + timedelta(minutes=30)
    assert result(shop, "extend", "--until-off", "--cause", "w2")["extended"] == ["w2"]
    assert {w.id: w.end for w in record(shop).windows}["w2"] is None
    shop.here("on", "--no-wait", "--for", "5m")
    assert "that opens nothing, `off` does" in shop.here("extend", "30m").stdout
    # Of several the latest counts, for all of them.
    assert {c.expected_end for c in shop.look().state.causes if c.by == "anna"} == {ends["w1"] + timedelta(minutes=30)}
    shop.here("off", "--all", "--timeout", "10ms")


def test_extend_until_a_time_of_day(shop: Shop) -> None:
    """The next one, by the clocks of a zone; or an instant."""
    with_windows(shop, in_force(minutes=1))
    local = datetime.now(UTC) + timedelta(hours=9, minutes=50)  # Tokyo, fifty minutes ahead
    found = result(shop, "extend", "--until", f"{local:%H:%M}", "--tz", "Asia/Tokyo")
    end = datetime.fromisoformat(found["expected_end"])
    assert timedelta(minutes=48) < end - datetime.now(UTC) <= timedelta(minutes=50)
    assert shop.here("extend", "--until", f"{local:%H:%M}").returncode == 2
    later = f"{datetime.now(UTC) + timedelta(hours=5):%Y-%m-%d %H:%M}Z"
    assert result(shop, "extend", "--until", later)["exit"] == 0


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        ((), 2, "until when?"),
        (("30m", "--until-off"), 2, "only one"),
        (("30m", "--cause", "w9"), 6, "no cause w9 stands: there is window w1 by anna"),
        (("--until", "2020-01-01T00:00Z"), 2, "makes no sense"),
        (("--until", "{soon}"), 2, "earlier than"),
        (("--as-ben",), 6, "nothing of yours (ben)"),
    ],
)
def test_extend_says_no(shop: Shop, words: tuple[str, ...], code: int, says: str) -> None:
    """With what is there, and what was meant perhaps."""
    with_windows(shop, in_force())
    soon = f"{datetime.now(UTC) + timedelta(minutes=2):%Y-%m-%dT%H:%M:%SZ}"
    typed = ["--as", "ben", "extend", "30m"] if words == ("--as-ben",) else ["extend", *words]
    done = shop.here(*(word.replace("{soon}", soon) for word in typed))
    assert (done.returncode, says in done.stderr) == (code, True), done.stderr


# --- on --in, wait, run --window -------------------------------------------------------------------------------------


def begins_at_once(shop: Shop, ahead: timedelta = timedelta(0)) -> tuple[str, datetime]:
    """Plan a window for now or in a moment, also where it is later by then; return its id and when it begins."""
    at = datetime.now(UTC) + ahead
    (window,) = result(shop, "schedule", "add", "--at", at.isoformat(), "--for", "10m", "--yes")["windows"]
    eventually(lambda: ahead or shop.look().state.read_only)
    return window["id"], datetime.fromisoformat(window["start"])


def test_on_in_announces_turns_and_is_proven(served: tuple[Shop, Member]) -> None:
    """With a cause of its own; off lifts both."""
    shop, _ = served
    done = shop.here("on", "--in", "300ms", "--for", "20m", "--reason", "later")
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert lines[1].startswith("ANNOUNCED: read-only from ")
    assert lines[2].startswith("READ-ONLY since ")
    assert "SAFE (app only)" in done.stdout
    assert [c.kind for c in shop.look().state.causes] == ["operator", "window"] or [
        c.kind for c in shop.look().state.causes
    ] == ["window", "operator"]
    assert shop.here("off").returncode == 0
    assert not shop.look().state.read_only


def test_on_in_turns_though_nobody_waits(served: tuple[Shop, Member]) -> None:
    """Typed without waiting, or interrupted: the window stands, and is cancelled by its id."""
    shop, _ = served
    found = result(shop, "on", "--in", "10m", "--no-wait")
    assert (found["safe"], found["mode"]) == (False, "writable")
    assert result(shop, "schedule", "cancel", found["cause"])["left_out"] == [found["cause"]]
    with shop.start("on", "--in", "1h") as command:
        command.says("ANNOUNCED")
        (window,) = (w for w in record(shop).windows if not w.ended)
        command.process.send_signal(2)
        assert command.ends() == 130
        assert f"schedule cancel {window.id}" in command.err
    with shop.start("on", "--in", "1h") as command:
        command.says("ANNOUNCED")
        for one in record(shop).windows:
            if not one.ended:
                assert shop.here("schedule", "cancel", one.id).returncode == 0
        assert command.ends() == 6
    assert not shop.look().state.read_only


def test_wait_confirms_a_window_in_force(served: tuple[Shop, Member]) -> None:
    """Members report what is in force, not an epoch; and a window raises no fence."""
    shop, member = served
    member.begins()
    found, _ = begins_at_once(shop)

    def drains() -> bool:
        (missing,) = result(shop, "wait", "--timeout", "100ms", code=3)["missing"]
        return "1 write in flight" in missing

    eventually(drains, what="it having closed, with its write in flight")
    member.tell("end")
    assert member.tell("begin") == "refused"
    done = result(shop, "wait")
    assert (done["safe"], done["level"], [c["id"] for c in done["causes"]]) == (True, "app only", [found])
    assert result(shop, "off")["mode"] == "writable"
    assert member.tell("begin") == "begun"
    member.tell("end")


def test_run_starts_with_its_window_and_ends_it(served: tuple[Shop, Member]) -> None:
    """Before the window's own end, if the command succeeded; else the site stays closed past it."""
    shop, _ = served
    name, start = begins_at_once(shop, ahead=timedelta(milliseconds=600))
    with shop.start("run", "--window", name, "--", "date", "+at %s.%N") as command:
        assert command.ends() == 0
    (at,) = re.findall(r"at (\d+\.\d+)", command.out)
    assert float(at) >= start.timestamp()
    assert not shop.look().state.read_only
    assert next(w for w in record(shop).windows if w.id == name).ended
    for gone in (name, "w0"):
        done = shop.here("run", "--window", gone, "--", "true")
        assert done.returncode == 6, done.stderr


def test_run_inside_anothers_window_says_that_it_stands(served: tuple[Shop, Member]) -> None:
    """The run is over, and the site is not open: that is no success to go on from."""
    shop, _ = served
    name, _ = begins_at_once(shop)
    with shop.start("run", "--", "true") as command:
        assert command.ends() == 123
    assert f"still read-only: window {name} by anna" in command.err
    assert shop.here("off").returncode == 0


def test_past_the_announced_end_commands_say_so(shop: Shop) -> None:
    """`status` names how long it is overdue, of a window that nobody has ended yet."""
    window = in_force(minutes=-1)
    with_windows(shop, window)
    assert "overdue 1 min" in shop.here("status").stdout
    assert "its end has passed" in shop.here("schedule", "list").stdout
    done = shop.here("extend", "30m")
    assert (done.returncode, "is over" in done.stderr) == (6, True)
