"""`readonlyctl on` and `wait`: 0 only when nothing can commit any more, and by name who is missing."""

from __future__ import annotations

import itertools
import re
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from readonly.members import Report
from readonly.record import Mode
from readonly.stores._sqlite_files import Files
from readonly.stores.sqlite import SQLiteStore
from support.operating import ANNA, BEN, Member, Shop, json_lines, members
from support.waiting import eventually


def test_it_returns_when_every_process_obeys(served: tuple[Shop, Member]) -> None:
    """`on` says SAFE with its level, and says what it means."""
    shop, _ = served
    done = shop.ctl("on", "--for", "45m", "--reason", "INC-441", "--message", "Back soon")
    assert done.returncode == 0, done.stderr
    first, second, *rest = done.stdout.splitlines()
    assert first == f"shop · {shop.url} · 1 member"
    assert second.startswith("READ-ONLY since ")
    assert second.endswith(", in 45 min, epoch " + str(shop.look().state.epoch))
    assert "INC-441" in rest[0]
    assert rest[1].strip() == 'visitors read: "Back soon"'
    assert "web       1 of 1 obey and have drained" in done.stdout
    assert "SAFE (app only)" in done.stdout
    assert "cron, consoles and other programs can still write" in done.stdout
    assert shop.standing() == ["anna"]


def test_it_waits_in_a_pipe_for_a_write_in_flight(served: tuple[Shop, Member]) -> None:
    """Waiting is the default everywhere; progress names the process, and the end of its write ends the wait."""
    shop, member = served
    member.begins()
    with shop.start("on") as command:
        command.says("1 write in flight")
        assert member.name in command.err
        assert command.process.poll() is None
        assert "SAFE" not in command.out
        member.tell("end")
        assert command.ends() == 0
        assert "SAFE" in command.out
    assert member.tell("begin") == "refused"


def test_a_timeout_names_who_is_missing_and_what_to_type(served: tuple[Shop, Member]) -> None:
    """Exit 3: the site is read-only all the same."""
    shop, member = served
    member.begins()
    shop.on(BEN)
    shop.reports()  # by now it drains: how long it takes to hear of it is not what the time is for
    done = shop.ctl("--as", "ben", "on", "--timeout", "500ms")
    assert done.returncode == 3
    assert "NOT CONFIRMED" in done.stdout
    assert "start nothing irreversible" in done.stdout
    assert f"{member.name}: 1 write in flight" in done.stdout
    # Typed as it stands, it means the same person.
    assert "readonlyctl --as ben wait --timeout 10m" in done.stdout
    assert "readonlyctl --as ben off" in done.stdout
    assert shop.standing() == ["ben"]


def test_progress_repeats_no_line_for_an_age_that_grew(shop: Shop) -> None:
    """In a pipe there is one line a change, not one a look."""
    cause = shop.on(BEN)
    told: dict[str, Any] = {"id": "d" * 32, "host": "web-3", "pid": 7, "role": "web", "interval": 300.0}
    drains = Report(**told, causes=(cause,), closed=True, synced=True, in_flight=1)
    shop.reported(drains)
    with shop.start("wait") as command:
        command.says("1 write in flight")
        for seconds in range(1, 5):
            shop.reported(replace(drains, oldest_seconds=float(seconds)))
        # Each report is a reason to look again; this one is a change.
        shop.reported(replace(drains, oldest_seconds=5.0, in_flight=2))
        command.says("2 writes in flight")
        shop.reported(replace(drains, in_flight=0))
        assert command.ends() == 0
    assert command.err.count("1 write in flight") == 1


def test_nobody_there_is_never_safe(shop: Shop) -> None:
    """Without a process the command can't know whether anybody obeys."""
    done = shop.here("on", "--timeout", "300ms")
    assert done.returncode == 3
    assert "no process of the site reports" in done.stdout
    assert shop.standing() == ["anna"]


def test_fewer_than_expected_are_not_safe(served: tuple[Shop, Member]) -> None:
    """--expect is part of the proof, for `on` and for `wait`."""
    shop, _ = served
    done = shop.here("on", "--expect", "web=2", "--timeout", "300ms")
    assert done.returncode == 3
    assert "web: 1 report, expected 2" in done.stdout
    assert shop.here("wait", "--expect", "web=2,celery=1", "--timeout", "300ms").returncode == 3
    assert shop.here("wait", "--expect", "web=1").returncode == 0


def test_no_wait_sets_it_and_says_what_that_is_worth(served: tuple[Shop, Member]) -> None:
    """Exit 0, and no word of safe."""
    shop, member = served
    member.begins()
    done = shop.here("on", "--no-wait")
    assert done.returncode == 0
    assert "Set, not confirmed. Start nothing irreversible before: readonlyctl wait" in done.stdout
    assert "SAFE" not in done.stdout
    assert shop.here("wait", "--timeout", "300ms").returncode == 3
    member.tell("end")
    waited = shop.ctl("wait")
    assert waited.returncode == 0
    assert "SAFE (app only)" in waited.stdout


def test_the_same_person_changes_what_was_said(served: tuple[Shop, Member]) -> None:
    """A second `on` updates the cause: what is not said again stays."""
    shop, _ = served
    assert shop.here("on", "--reason", "first", "--for", "10m").returncode == 0
    again = shop.here("on", "--for", "2h")
    assert again.returncode == 0
    assert shop.standing() == ["anna"]
    record = shop.look().record
    assert record is not None
    (cause,) = record.causes
    assert cause.reason == "first"
    assert cause.expected_end is not None
    assert (cause.expected_end - cause.since).total_seconds() > 7000
    same = shop.here("on")
    assert same.returncode == 0
    assert "nothing was changed" in same.stdout
    assert "SAFE" in same.stdout


def test_another_person_adds_a_cause(served: tuple[Shop, Member]) -> None:
    """Both are told the truth, and both causes stand."""
    shop, _ = served
    shop.on(BEN, reason="index")
    done = shop.here("on")
    assert done.returncode == 0
    assert shop.standing() == ["anna", "ben"]
    assert "ben @ desk" in done.stdout


def test_sessions_are_what_the_operator_says(served: tuple[Shop, Member]) -> None:
    """--sessions goes into the record; a wrong word changes nothing."""
    shop, _ = served
    assert shop.here("on", "--sessions", "maybe").returncode == 2
    assert shop.standing() == []
    assert shop.here("on", "--sessions", "keep", "--no-wait").returncode == 0
    record = shop.look().record
    assert record is not None
    assert record.causes[0].sessions == "keep"


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("45", "45 what? Write 45m or 45s"),
        ("-5m", "not longer than nothing"),
        ("0s", "not longer than nothing"),
        ("soon", "no duration"),
        ("9999999h", "longer than a year"),
        ("", "no duration"),
    ],
)
def test_a_duration_must_make_sense(shop: Shop, typed: str, said: str) -> None:
    """One clear line, exit 2, and nothing was changed."""
    done = shop.here("on", "--for", typed)
    assert done.returncode == 2
    assert said in done.stderr
    assert shop.standing() == []


def test_somebody_lifts_it_while_it_waits(served: tuple[Shop, Member]) -> None:
    """Exit 5, the name of who did it, and what stands."""
    shop, member = served
    member.begins()
    with shop.start("on") as command:
        command.says("in flight")
        assert shop.here("--as", "ben", "off", "--all", "--timeout", "100ms").returncode in (0, 3)
        assert command.ends() == 5
        assert "ben lifted" in command.err
        assert "What stands now: WRITABLE" in command.err


def test_wait_takes_in_what_changes_meanwhile(served: tuple[Shop, Member]) -> None:
    """`wait` is for what is in force, whosever it is, as long as the site is read-only at all."""
    shop, member = served
    member.begins()
    mine = shop.on(BEN)
    with shop.start("wait", "--json") as command:
        command.says('"in_flight": 1')
        assert shop.here("on", "--no-wait").returncode == 0
        assert shop.here("off", "--cause", mine, "--timeout", "1s").returncode == 3
        member.tell("end")
        assert command.ends() == 0
        assert json_lines(command.out)[-1]["safe"] is True
    member.tell("end")
    with members(shop, ["worker"]) as (worker,):
        shop.open()
        shop.reports(2)
        worker.begins()
        shop.on(BEN)
        with shop.start("wait") as command:
            command.says("in flight")
            shop.open()
            # Whoever waits to begin something irreversible must not be told 0 by an open site.
            assert command.ends() == 5


def test_a_silent_process_is_named(shop: Shop) -> None:
    """A process that fell silent may still write: never safe, and it is said since when."""
    shop.silent_member(75, in_flight=3)
    shop.on(ANNA)
    with members(shop):
        done = shop.here("on", "--timeout", "1s")
        assert done.returncode == 3
        silent = re.search(r"web web-2/4711: silent for (\d+) s", done.stdout)
        assert silent is not None
        assert int(silent[1]) >= 75  # and as much as this machine took until it was asked
        assert "3 writes in flight then" in done.stdout
        assert "web       1 of 2 obey and have drained, 1 silent" in done.stdout


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupted_it_says_what_stands(served: tuple[Shop, Member], sent: signal.Signals, code: int) -> None:
    """The site stays read-only, and that is said."""
    shop, member = served
    member.begins()
    with shop.start("on") as command:
        command.says("in flight")
        command.process.send_signal(sent)
        assert command.ends() == code
        assert "READ-ONLY stands (epoch" in command.err
        assert "0 of 1 confirmed). Not safe yet." in command.err
        assert "readonlyctl wait" in command.err
        assert "readonlyctl off --undo" in command.err
    assert shop.standing() == ["anna"]
    with shop.start("wait", "--json") as waiting:
        waiting.says("in_flight")
        waiting.process.send_signal(sent)
        assert waiting.ends() == code
        told = json_lines(waiting.out)[-1]
        assert (told["event"], told["exit"], told["mode"], told["causes"][0]["by"]) == (
            "result",
            code,
            "read-only",
            "anna",
        )
    eventually(lambda: member.process.poll() is None)


def test_a_missing_file_is_not_made(tmp_path_factory: pytest.TempPathFactory, shop: Shop) -> None:
    """Only `init` makes a store: `on` at a mistyped path must not confirm an empty one."""
    folder = tmp_path_factory.mktemp("elsewhere")
    for command in ("on", "off", "wait", "status", "members"):
        done = shop.here("--store", f"sqlite:///{folder}/typo.db?site=shop", command)
        assert done.returncode == 4
        assert "typo.db does not exist" in done.stderr
        assert "init shop" in done.stderr
        assert done.stdout == ""
    assert list(folder.iterdir()) == []


class _Interrupting:
    """Sends this process a signal when a transaction of its store has just begun, once."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        begun = Files._begun
        self._left = -1

        def then_interrupted(files: Files, *given: Any) -> Any:
            db = begun(files, *given)
            if threading.current_thread() is threading.main_thread():
                self._left -= 1
                if self._left == -1:
                    signal.raise_signal(signal.SIGINT)
            return db

        monkeypatch.setattr(Files, "_begun", then_interrupted)

    def everywhere(self, run: Callable[[], int]) -> Iterator[int]:
        """Run something once for each of its transactions, interrupted in it, and yield what it returns."""
        for transaction in itertools.count():
            self._left = transaction
            code = run()
            arrived, self._left = self._left < 0, -1
            if not arrived:
                return
            yield code


def test_interrupted_inside_any_store_call_it_says_what_stands(
    served: tuple[Shop, Member], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever Ctrl-C cuts, the record can be read, and what is said of it is true."""
    shop, _ = served
    interrupting = _Interrupting(monkeypatch)
    said: list[str] = []

    def typed(*words: str) -> int:
        done = shop.here(*words, "--json")
        said.append(done.stdout)
        return done.returncode

    found = []
    for code in interrupting.everywhere(lambda: typed("on")):
        told, mode = json_lines(said[-1])[-1], shop.look().state.mode
        assert (code, told["exit"]) == (130, 130)
        assert mode == (Mode.WRITABLE if told.get("changed") is False else told["mode"])
        found.append(mode)
        shop.open()
    # Before anything was set, while it was set (which is gone through with), and while it waited.
    assert (found[0], found[-1]) == (Mode.WRITABLE, Mode.READ_ONLY)
    assert found.count(Mode.READ_ONLY) > 2
    assert shop.here("on").returncode == 0
    for code in interrupting.everywhere(lambda: typed("wait")):
        assert (code, json_lines(said[-1])[-1].get("mode", "read-only")) == (130, "read-only")


def test_a_change_on_its_way_is_waited_for(served: tuple[Shop, Member], monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C while it is being set: it is set, and said with how to take it back; a second one does not wait."""
    shop, _ = served
    really, signals = SQLiteStore.replace, [signal.SIGINT]

    def hasty(store: SQLiteStore, record: bytes, **given: Any) -> Any:
        done = really(store, record, **given)
        for one in signals:
            signal.raise_signal(one)
        return done

    monkeypatch.setattr(SQLiteStore, "replace", hasty)
    done = shop.here("on")
    assert done.returncode == 130
    assert "READ-ONLY stands (epoch" in done.stderr
    assert "readonlyctl off --undo" in done.stderr
    assert shop.standing() == ["anna"]
    monkeypatch.undo()
    shop.open()
    monkeypatch.setattr(SQLiteStore, "replace", hasty)
    signals.append(signal.SIGTERM)
    done = shop.here("on")
    assert done.returncode == 143
    assert "What stands now: READ-ONLY" in done.stderr
