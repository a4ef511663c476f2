"""A site under test as its operators meet it: a store, processes that obey it, and the command."""

from __future__ import annotations

import contextlib
import io
import json
import os
import secrets
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any
from unittest import mock

from readonly import changes
from readonly.changes import Operator
from readonly.cli import main
from readonly.clock import SystemClock
from readonly.members import Report
from readonly.site import Look, Site
from readonly.stores import store_from_url
from readonly.stores.sqlite import SQLiteStore
from readonly.switch import Switch
from support import children, output_schema
from support.forked import WHERE_ARE_YOU, Forked, forker
from support.waiting import PATIENCE, NeverHappened, eventually

ANNA, BEN = Operator("anna", "bastion"), Operator("ben", "desk")
# A process that was told to end, or killed, has ended by then.
ENDS_SECONDS = 10 * PATIENCE
MEMBER = Path(__file__).with_name("member_process.py")


class Past(SystemClock):
    """A clock that is behind: what is made by it is old."""

    def __init__(self, ago: timedelta = timedelta(hours=1)) -> None:
        self.ago = ago

    def now(self) -> datetime:
        """Return the time then."""
        return datetime.now(UTC) - self.ago


class Member:
    """One process of the site. Use as a context manager.

    Args:
        url: The store's URL.
        role: Its role.
        environment: Added to ours.
        settings: A switch's own, and `database`, the URL of one that it guards.
    """

    def __init__(
        self, url: str, role: str = "web", *, environment: Mapping[str, str] | None = None, **settings: Any
    ) -> None:
        self.role = role
        self._url = url
        given = [url, role, json.dumps(settings)]
        whole = children.without_ours(os.environ) | dict(environment or {})
        reading, theirs = os.pipe()
        mine, writing = os.pipe()
        self.process: subprocess.Popen[bytes] | Forked
        if "PYTHONPATH" in whole:  # another copy of the library: nothing of ours may be loaded
            self.process = subprocess.Popen([sys.executable, MEMBER, *given], stdin=reading, stdout=writing, env=whole)
        else:
            self.process = forker().start("member", given, files=(reading, writing, 2), environment=whole)
        os.close(reading)
        os.close(writing)
        self._to, self._from = os.fdopen(theirs, "w"), os.fdopen(mine)

    def starts(self) -> None:
        """Wait until it has started; what it answers next is an answer to something that it was told."""
        assert self._answer().startswith("started ")

    @property
    def name(self) -> str:
        """How commands name it."""
        return f"/{self.process.pid}"

    def tell(self, what: str) -> str:
        """Send one command and return the answer."""
        self._to.write(what + "\n")
        self._to.flush()
        return self._answer()

    def begins(self) -> None:
        """Have it begin a write, as soon as it takes any (a process that has just started may not yet)."""
        eventually(lambda: self.tell("begin") == "begun")

    def _answer(self) -> str:
        return self._from.readline().strip()

    def stop(self) -> None:
        """Stop it, as a machine that hangs does, but never in the middle of a transaction of its store's file.

        The file would be locked for everybody else until it goes on.
        """
        with _nobody_in_a_transaction(self._url):
            os.kill(self.process.pid, signal.SIGSTOP)
            eventually(self._stands_still, what="all of its threads stand still")

    def _stands_still(self) -> bool:
        states = []
        for task in Path(f"/proc/{self.process.pid}/task").iterdir():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # a thread that has just ended
                states.append((task / "stat").read_text().rpartition(")")[2].split()[0])
        return set(states) == {"T"}

    def go_on(self) -> None:
        """Let it go on."""
        os.kill(self.process.pid, signal.SIGCONT)

    def kill(self) -> None:
        """End it as `kill -9` does."""
        self.process.kill()
        self.process.wait(ENDS_SECONDS)

    def __enter__(self) -> Member:
        return self

    def __exit__(self, *_exc: object) -> None:
        if self.process.poll() is None:
            self.go_on()
            with contextlib.suppress(BrokenPipeError):
                self._to.close()
            try:
                self.process.wait(ENDS_SECONDS)
            except subprocess.TimeoutExpired:
                self.kill()
        for stream in (self._to, self._from):
            with contextlib.suppress(BrokenPipeError):
                stream.close()


class Running:
    """A command that has not ended yet; its output is read while it runs.

    Args:
        process: It.
        out: Where its standard output can be read; None: it goes elsewhere.
        err: Where its standard error can be read.
    """

    def __init__(self, process: Forked, out: int | None, err: int) -> None:
        self.process = process
        self._texts = {"out": "", "err": ""}
        self._streams = [os.fdopen(number) for number in (out, err) if number is not None]
        self._readers = [
            threading.Thread(target=self._read, args=(name, stream), daemon=True)
            for name, stream in zip(("out", "err")[-len(self._streams) :], self._streams, strict=True)
        ]
        for reader in self._readers:
            reader.start()

    def _read(self, name: str, stream: Any) -> None:
        for line in stream:
            self._texts[name] += line

    @property
    def out(self) -> str:
        """What it wrote to standard output so far."""
        return self._texts["out"]

    @property
    def err(self) -> str:
        """What it wrote to standard error so far."""
        return self._texts["err"]

    def says(self, text: str, timeout: float = 10.0) -> None:
        """Wait until a text is in its output."""
        with contextlib.suppress(NeverHappened):
            eventually(lambda: text in self.out + self.err or self.process.poll() is not None, timeout)
            # What it said last may still be on its way when it has ended.
            eventually(lambda: text in self.out + self.err or not any(r.is_alive() for r in self._readers), 1.0)
        if text not in self.out + self.err:
            said = f"{self.out}{self.err}"
            self.process.send_signal(WHERE_ARE_YOU)
            with contextlib.suppress(NeverHappened):
                eventually(lambda: "most recent call first" in self.err, 1.0)
            raise AssertionError(f"{text!r} was not said:\n{said}\nwhere it is:\n{self.err}")

    def ends(self, timeout: float = 60.0) -> int:
        """Wait for its end and return its exit code."""
        code = self.process.wait(timeout)
        for reader in self._readers:
            reader.join(timeout)
        return code

    def __enter__(self) -> Running:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(ENDS_SECONDS)
        for reader, stream in zip(self._readers, self._streams, strict=True):
            reader.join(ENDS_SECONDS)
            stream.close()


class Shop:
    """The site `shop` on one store; `ctl` is typed by anna."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url = url
        self.folder = folder
        self.store = store_from_url(url, create=False)
        self.name = self.store.site

    @property
    def environment(self) -> dict[str, str]:
        """What the operator's shell has."""
        return {
            "READONLY_STORE": self.url,
            "READONLY_OPERATOR": "anna",
            "READONLY_STATE_DIR": str(self.folder / "state"),
            "TZ": "UTC",
            "COLUMNS": "40",
        }

    def ctl(self, *words: str, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        """Run a command to its end, as a process of its own."""
        with self.start(*words, environment=environment) as command:
            code = command.ends(60)
        return subprocess.CompletedProcess(words, code, command.out, command.err)

    def here(self, *words: str, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        """Run a command to its end in this process: the same code, without the cost of starting Python."""
        out, err = io.StringIO(), io.StringIO()
        code: object = None
        with (
            mock.patch.dict(os.environ, self.environment | (environment or {})),
            mock.patch.object(sys, "stdin", io.StringIO()),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
            contextlib.chdir(self.folder),
        ):
            try:
                main(list(words))
            except SystemExit as end:
                code = end.code
        assert isinstance(code, int)
        return subprocess.CompletedProcess(words, code, out.getvalue(), err.getvalue())

    def start(
        self,
        *words: str,
        stdout: int | None = None,
        environment: dict[str, str] | None = None,
        program: str = "readonlyctl",
    ) -> Running:
        """Start a command and return it while it runs.

        Args:
            words: What is typed.
            stdout: Where its standard output goes; None: it is read.
            environment: Added to the operator's.
            program: Another one of `support.forked.PROGRAMS`.
        """
        out, writing = os.pipe() if stdout is None else (None, stdout)
        err, complaining = os.pipe()
        with open(os.devnull) as nothing:  # noqa: PTH123 - no file
            process = forker().start(
                program,
                words,
                files=(nothing.fileno(), writing, complaining),
                environment=children.without_ours(os.environ) | self.environment | (environment or {}),
                folder=self.folder,
            )
        os.close(complaining)
        if stdout is None:
            os.close(writing)
        return Running(process, out, err)

    def on(self, by: Operator, **said: Any) -> str:
        """Have somebody turn it read-only, without a command; return the cause."""
        return changes.turn_on(self.store, by, **said).causes[0]

    def open(self) -> None:
        """Lift everything, without a command."""
        changes.turn_off(self.store, ANNA, every=True)

    def silent_member(self, seconds: float, **said: Any) -> Report:
        """Have a process on another machine have fallen silent so long ago."""
        told: dict[str, Any] = {
            "id": secrets.token_hex(16), "host": "web-2", "role": "web", "pid": 4711, "namespace": "elsewhere"
        }  # fmt: skip
        report = Report(**(told | said))
        past = SQLiteStore(self.folder / "shop.db", site=self.name, clock=Past(timedelta(seconds=seconds)))
        past.report(report.id, report.dump(), keep_seconds=3600)
        past.close()
        return report

    def reported(self, *reports: Report) -> None:
        """Have processes on other machines have reported just now; an interval of minutes keeps them there."""
        registry = self.store.census().reading.registry
        for report in reports:
            told = replace(report, registry=registry)
            self.store.report(told.id, told.dump(), keep_seconds=3600)

    def look(self) -> Look:
        """Read the store."""
        return Site(Switch(self.store)).look()

    def standing(self) -> list[str]:
        """Return who has causes standing."""
        record = self.look().record
        return sorted(c.by for c in record.causes) if record is not None else []

    def reports(self, count: int = 1, *, epoch: int | None = None) -> None:
        """Wait until so many members report, and have taken in the record that stands."""

        def there() -> bool:
            look = self.look()
            wanted = epoch if epoch is not None else look.record.epoch if look.record is not None else 0
            seen = [json.loads(s.report) for s in look.census.reports]
            return len([r for r in seen if r["epoch"] >= wanted and not r["gone"]]) >= count

        eventually(there, what=f"{count} members report")


def made(path: Path, *, protected: bool = False, initialised: bool = True, name: str = "shop") -> Shop:
    """Make an SQLite store that has been there for an hour, so that its registry is trusted at once."""
    url = f"sqlite:///{path}?site={name}"
    store = SQLiteStore(path, site=name, initialise=False, clock=Past())
    if initialised:
        changes.initialise(store, ANNA, protected=protected)
    else:
        store.read()
    store.close()
    return Shop(url, path.parent)


@contextlib.contextmanager
def _nobody_in_a_transaction(url: str) -> Iterator[None]:
    """Hold the locks of a store in a file meanwhile; at other stores a process that stands still locks out nobody."""
    if not url.startswith("sqlite:"):
        yield
        return
    store = store_from_url(url, create=False, timeout=30.0)
    assert isinstance(store, SQLiteStore)
    try:
        with store._files.transaction("BEGIN EXCLUSIVE"):
            yield
    finally:
        store.close()


@contextlib.contextmanager
def members(shop: Shop, roles: Sequence[str] = ("web",), **settings: Any) -> Iterator[list[Member]]:
    """Have processes of the site run, and report. On Redis a short interval makes a young registry old enough soon."""
    with contextlib.ExitStack() as stack:
        started = [stack.enter_context(Member(shop.url, role, **settings)) for role in roles]
        for member in started:
            member.starts()
        shop.reports(len(roles))
        yield started


def json_lines(text: str) -> list[dict[str, Any]]:
    """Read JSON output; everything in it must be an object on one line, and as the schema says."""
    found = [json.loads(line) for line in text.splitlines()]
    for one in found:
        output_schema.check(one)
    return found
