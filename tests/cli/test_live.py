"""What an operator sees while a command waits: groups on a terminal, plain lines elsewhere, whole and harmless."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from readonly.cli.progress import Progress
from readonly.cli.terminal import Output
from readonly.confirmation import Condition, Confirmation, Member
from readonly.errors import NotConfirmed, StoreUnreachable
from readonly.members import Report
from support.operating import ANNA, Shop, made
from support.operating import Member as Process
from support.terminal import Terminal, squeezed

HOSTILE = "pod-\x1b[31m\x1b]0;owned\x07\u202e[bold]-" + "x" * 70
SHOWN_HOSTILE = "pod-\\x1b[31m\\x1b]0;owned\\x07\\u202e[bold]-" + "x" * 70
COLOUR = re.compile(r"\x1b\[(?:\d+;)*[349][0-7](?:;\d+)*m")
HOSTS, A_HOST = 30, 10
STANDS = {"closed": True, "synced": True, "interval": 600.0, "library": "0.1.0"}


def said(host: str, pid: int, **more: object) -> Report:
    """Return a report of a web process."""
    return Report(**{"id": secrets.token_hex(16), "host": host, "pid": pid, "role": "web", **STANDS, **more})  # type: ignore[arg-type]  # fields of a report


@pytest.fixture(scope="module")
def crowd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """A site that is read-only, with 313 members on 32 hosts: 300 obey, and 13 hold things up in three ways."""
    shop = made(tmp_path_factory.mktemp("crowd") / "shop.db")
    cause = shop.on(ANNA)
    obeys = [said(f"app-{host}", 100 + n, causes=(cause,)) for host in range(HOSTS) for n in range(A_HOST)]
    drains = said("app-3", 7, causes=(cause,), in_flight=2, oldest_seconds=12.0)
    hangs = [said(HOSTILE, 4000 + n, causes=(cause,), in_flight=1, oldest_seconds=3.0) for n in range(4)]
    shop.reported(*obeys, drains, *hangs)
    for n in range(8):
        shop.silent_member(75, pid=4711 + n, in_flight=1)
    yield shop
    shop.store.close()


@pytest.mark.parametrize("size", [(60, 30), (120, 24)], ids=["60", "120"])
def test_a_terminal_shows_groups(crowd: Shop, size: tuple[int, int]) -> None:
    """One line a role, who holds things up by name, the worst first: whole at any width, and no line a member."""
    with Terminal(crowd, "wait", "--timeout", "1h", size=size) as terminal:
        terminal.until("(pid 4000, 4001, 4002, 4003)")  # what stands last
        rows, text = terminal.rows, terminal.text
        assert "300 of 313 members" in " ".join(rows)
        assert squeezed("web       300 of 313 obey and have drained, 5 drain, 8 silent") in text
        lost = squeezed("web web-2: 8 lost, heard last")
        group = squeezed(f"web {SHOWN_HOSTILE}: 4 drains, 4 writes in flight, the oldest for 3.0 s or more")
        assert text.index(lost) < text.index(squeezed("web app-3/7: 2 writes in flight")) < text.index(group)
        assert squeezed("8 writes in flight then; they may still accept writes (pid 4711, 4712,") in text
        assert sum(bool(row) for row in rows) < size[1]
        assert not {"\x07", "\u202e"} & set(terminal.shown)
        assert "\x1b]" not in terminal.shown
        assert COLOUR.search(terminal.shown)
        terminal.presses("\x03")
        assert terminal.ends() == 130
        assert "What stands now: READ-ONLY" in " ".join(terminal.rows)
        assert "Waiting until" not in " ".join(terminal.rows)  # what was live is taken away; what is said stays


def test_what_does_not_fit_is_counted(crowd: Shop) -> None:
    """On a terminal of few rows the heading stays, lines are left out whole, and it is said how many."""
    with Terminal(crowd, "wait", "--timeout", "1h", size=(90, 9), environment={"NO_COLOR": "1"}) as terminal:
        terminal.until("more: readonlyctl members")
        assert any(row.startswith("Waiting until all obey") for row in terminal.rows)
        assert re.search(r"and \d more: readonlyctl members", " ".join(terminal.rows))
        assert not COLOUR.search(terminal.shown)


def test_a_terminal_that_can_do_nothing_gets_plain_lines(crowd: Shop) -> None:
    """TERM=dumb: no escape sequence at all, and lines that are whole."""
    with Terminal(crowd, "wait", "--timeout", "300ms", size=(60, 30), environment={"TERM": "dumb"}) as terminal:
        assert terminal.ends() == 3
    assert "\x1b" not in terminal.shown
    assert f"web {SHOWN_HOSTILE}: 4 drains" in terminal.shown
    assert "  300 of 313 members there; missing: web web-2: 8 lost" in terminal.shown


def test_a_pipe_gets_a_line_and_no_line_a_member(crowd: Shop) -> None:
    """Progress on one line, the result with who is missing in groups, and what to type for a host that is over."""
    done = crowd.here("wait", "--timeout", "300ms")
    assert done.returncode == 3
    assert len(done.stderr.splitlines()) == 1
    assert len(done.stdout.splitlines()) < 12
    assert f"web {SHOWN_HOSTILE}: 4 drains" in done.stdout
    assert re.search(r"web-2 is over, you checked: +readonlyctl members forget web-2 --reason", done.stdout)
    told = crowd.here("wait", "--json", "--timeout", "300ms").stdout.splitlines()
    assert len(told[-2]) < 15_000  # progress names those alone that hold things up
    assert len(told[-1]) > 100_000


def test_many_groups_are_shortened(tmp_path: Path) -> None:
    """On a site of one process a host, the result names twenty lines of them and counts the rest."""
    shop = made(tmp_path / "shop.db")
    shop.on(ANNA)
    shop.reported(*(said(f"pod-{n}", 1) for n in range(60)))
    done = shop.here("wait", "--timeout", "100ms")
    assert done.returncode == 3
    assert "  and 41 more: readonlyctl members" in done.stdout
    assert "  missing   and 41 more: readonlyctl members" in shop.here("status").stdout
    assert len(shop.here("members").stdout.splitlines()) == 61
    shop.store.close()


def test_many_changes_are_few_lines(capsys: pytest.CaptureFixture[str]) -> None:
    """Each process that comes to obey is a change; they are not a line each."""
    late = [Member(said(f"web-{n}", 1), 0.1, Condition.LATE, "has not taken the change in yet") for n in range(80)]
    with Progress(Output(as_json=False, command="on"), seconds=60) as progress:
        for done in range(81):
            members = tuple(replace(m, condition=Condition.OBEYS, why="") for m in late[:done])
            progress.show(Confirmation(1, ("c1",), True, datetime.now(UTC), (*members, *late[done:])))
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("  0 of 80 members there; missing: web web-0/1: has not taken")
    assert lines[0].endswith("; and 77 more")
    assert len(lines) < 40  # one in a while: a busy machine takes a while longer for all of them


def test_a_trouble_that_only_ages_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    """A store that is away, or young, is told with other words each time; what has another cause is another line."""
    with Progress(Output(as_json=False, command="off"), seconds=60) as progress:
        for seconds in range(5):
            progress.trouble(NotConfirmed(f"the store is known for {seconds} s only", missing=()))
        for port in range(5):
            progress.trouble(StoreUnreachable(f"connection {port} refused"))
    said = capsys.readouterr().err.splitlines()
    assert said == ["  waiting: the store is known for 0 s only", "  waiting: connection 0 refused"]


def test_it_ends_by_itself_on_a_terminal(served: tuple[Shop, Process]) -> None:
    """The last write ends, and what stays on the screen is the result."""
    shop, member = served
    member.begins()
    with Terminal(shop, "on", size=(120, 20)) as terminal:
        terminal.until("1 write in flight")
        member.tell("end")
        assert terminal.ends() == 0
        assert any(row.startswith("SAFE (app only)") for row in terminal.rows)
    with Terminal(shop, "wait", environment={"TERM": "dumb"}) as dumb:
        assert dumb.ends() == 0
        assert "\x1b" not in dumb.shown
