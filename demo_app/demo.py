"""`make demo`: the site is turned read-only under load, migrated, and opened again; then the promises are checked."""

from __future__ import annotations

import argparse
import http.client
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TextIO
from urllib.parse import urlsplit

from rich.console import Console

from demo_app import migration, serve, snapshot, telling, verdict
from demo_app.data import prepare, refresh_replica
from demo_app.dresses import DRESSES, PROJECT
from demo_app.seen import Seen, from_lines
from demo_app.settings import Settings
from demo_app.telling import milliseconds
from demo_app.verdict import Evidence, Moments, Verdict

WORKERS: Final = 2
START_SECONDS: Final = 60.0
COMMAND_SECONDS: Final = 60.0
STOP_SECONDS: Final = 15.0
LOOK_EVERY_SECONDS: Final = 0.05
OPEN_IN_A_ROW: Final = 12

# Shares of the load's time. A phase lasts longer if too little has happened in it, and ends all the same when patience
# does: the verdict then says that the load was too small.
BEFORE, DURING, AFTER = 0.34, 0.38, 0.28
PATIENCE_SECONDS: Final = 12.0
SPARE: Final = 1.1
"""So much more than the minimum is waited for: a request at the edge counts for neither phase."""


class Failed(Exception):
    """The demonstration could not be given at all; the message says why."""


@dataclass(slots=True)
class Watched:
    """The load's record, read while it grows."""

    file: TextIO
    seen: list[Seen] = field(default_factory=list)
    _rest: str = ""

    def look(self) -> None:
        """Read what was added."""
        lines = (self._rest + self.file.read()).splitlines(keepends=True)
        self._rest = lines.pop() if lines and not lines[-1].endswith("\n") else ""
        self.seen.extend(from_lines(lines))


class Stage:
    """The site, the load and the commands of one run."""

    def __init__(
        self,
        folder: Path,
        *,
        framework: str,
        app: str | None,
        seconds: float,
        patience: float,
        share: float = 1.0,
        on_options: Sequence[str],
        console: Console,
        workers: int = WORKERS,
        settings: Settings | None = None,
        load_options: Sequence[str] = (),
    ) -> None:
        self.settings = serve.settings_in(folder) if settings is None else settings
        self.workers = workers
        self.load_options = load_options
        self.folder = folder
        self.framework = framework
        self.served = ["--framework", framework, *(["--app", app] if app is not None else [])]
        self.seconds = seconds
        self.patience = patience
        self.share = share
        self.on_options = on_options
        self.console = console
        # The visitor's own settings of the library are not this site's.
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("READONLY_")}
        self.environment = {**inherited, **self.settings.as_env(), "READONLY_ROLE": "web"}
        self.environment["DEMO_STORE"] = self.settings.store

    def say(self, text: str) -> None:
        """Say what is being done."""
        self.console.print(text, markup=False, highlight=False)

    def play(self) -> Evidence:
        """Give the whole demonstration, and return what there is to judge.

        Raises:
            Failed: If it could not be given.
        """
        prepare(self.settings)
        with self.site() as url:
            self.say(
                f"The site is at {url}, on {self.framework} with {self.workers} worker processes."
                f" {self.seconds:g} s of load begin."
            )
            with self.load(url) as (load, watched):
                return self.acts(load, watched)

    def acts(self, load: subprocess.Popen[bytes], watched: Watched) -> Evidence:
        """Turn the switch both ways while the load goes on."""
        self.let_happen(watched, load, BEFORE, lambda: enough_before(watched.seen, self.share))
        on_typed = time.monotonic_ns()
        self.readonlyctl(
            *("on", "--reason", "comments learn to count", "--for", "10m", "--expect", f"web={self.workers}"),
            *self.on_options,
        )
        on_returned = time.monotonic_ns()
        closed = snapshot.take(self.settings.database)

        epoch = int(self.readonlyctl("status", "--json", quietly=True)["epoch"])
        refresh_replica(self.settings, epoch=epoch)
        self.say(f"  Copied the database to its replica, at epoch {epoch}.")
        rows = migration.migrate(self.settings.database)
        self.say(f"  Migrated the primary: one column more, filled in for {rows} rows.")
        self.let_happen(watched, load, DURING, lambda: enough_during(watched.seen, on_returned, self.share))
        if missed := migration.unfilled(self.settings.database):
            # Not yet a verdict, but it will be one: somebody wrote rows that the backfill could not know of.
            self.say(f"  {missed} rows appeared behind the migration's back.")
        opening = snapshot.take(self.settings.database, like=closed)

        off_typed = time.monotonic_ns()
        self.readonlyctl("off")
        off_returned = time.monotonic_ns()
        self.let_happen(watched, load, AFTER, lambda: True)
        load.terminate()
        try:
            code = load.wait(COMMAND_SECONDS)
        except subprocess.TimeoutExpired:
            raise Failed("The load does not come to an end.") from None
        if code != 0:
            raise Failed(f"The load failed with exit code {code}.")
        watched.look()
        return Evidence(
            seen=watched.seen,
            moments=Moments(on_typed, on_returned, off_typed, off_returned),
            closed=closed,
            opening=opening,
            final=snapshot.take(self.settings.database, like=closed),
        )

    def let_happen(
        self, watched: Watched, load: subprocess.Popen[bytes], share: float, enough: Callable[[], bool]
    ) -> None:
        """Let a share of the load's time pass, and then as much as it takes for enough to happen."""
        began = time.monotonic()
        while True:
            watched.look()
            lasted = time.monotonic() - began
            if lasted >= share * self.seconds and (enough() or lasted >= share * self.seconds + self.patience):
                return
            if load.poll() is not None:
                raise Failed(f"The load ended too early, with exit code {load.returncode}.")
            time.sleep(LOOK_EVERY_SECONDS)

    def readonlyctl(self, *arguments: str, quietly: bool = False) -> dict[str, Any]:
        """Run the real command and return the last line of its JSON, if it was asked for.

        Raises:
            Failed: If it exits with anything but 0.
        """
        command = [*control(), *arguments]
        if not quietly:
            self.say(f"$ readonlyctl {subprocess.list2cmdline(arguments)}")
        try:
            done = subprocess.run(
                command,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                # What it says of its progress is shown where it was said; a program reads nothing but the result.
                stderr=subprocess.PIPE if quietly else subprocess.STDOUT,
                text=True,
                timeout=COMMAND_SECONDS + 30,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise Failed(f"readonlyctl {arguments[0]} does not come back.") from None
        if not quietly:
            for line in done.stdout.splitlines():
                self.say(f"  {line}")
        if done.returncode != 0:
            said = f": {done.stdout}{done.stderr}" if quietly else "."
            raise Failed(f"readonlyctl {arguments[0]} failed with exit code {done.returncode}{said}")
        return json.loads(done.stdout.splitlines()[-1]) if "--json" in arguments else {}

    @contextmanager
    def site(self) -> Iterator[str]:
        """Run the site; it is there when both workers are members."""
        log = self.folder / "site.log"
        with log.open("wb") as errors:
            process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "demo_app.serve", "--quiet", "--port", "0"),
                    *("--data", str(self.folder), "--workers", str(self.workers), *self.served),
                ],
                env=self.environment,
                cwd=PROJECT,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
        try:
            assert process.stdout is not None  # noqa: S101 - asked for just above
            first = process.stdout.readline()
            if "http://" not in first:
                raise Failed(f"The site did not start:\n{log.read_text()[-2000:]}")
            url = first.split()[-1]
            # It listens before it serves: this comes back when the first worker does, which asking for members, one
            # command after the other, would only delay.
            mode_of(url)
            self.wait_for_members(process, log)
            self.wait_until_open(url)
            yield url
        finally:
            stop(process)

    def wait_for_members(self, process: subprocess.Popen[str], log: Path) -> None:
        """Wait until as many processes report as were started."""
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                self.readonlyctl("members", "--expect", f"web={self.workers}", "--json", quietly=True)
                return
            except Failed as failed:
                if process.poll() is not None:
                    raise Failed(f"The site has ended:\n{log.read_text()[-2000:]}") from None
                if time.monotonic() > deadline:
                    raise Failed(f"The workers do not report: {failed}\n{log.read_text()[-2000:]}") from None

    def wait_until_open(self, url: str) -> None:
        """Wait until every worker takes writes: one that has just started first asks whether the site was closed."""
        deadline = time.monotonic() + START_SECONDS
        in_a_row = 0
        while in_a_row < OPEN_IN_A_ROW:
            # A new connection each time, so that the kernel hands them to both workers.
            mode = mode_of(url)
            in_a_row = in_a_row + 1 if mode == "writable" else 0
            if time.monotonic() > deadline:
                raise Failed(f"The site is {mode}, though nobody has closed it.")
            if not in_a_row:
                time.sleep(LOOK_EVERY_SECONDS)

    @contextmanager
    def load(self, url: str) -> Iterator[tuple[subprocess.Popen[bytes], Watched]]:
        """Run the load, in a process of its own."""
        out = self.folder / "seen.jsonl"
        out.touch()
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "demo_app.load", "--base-url", url, *self.load_options),
                # It is told when to end; the limit is for a load that nobody ends any more.
                *("--seconds", str(self.seconds + 2 * self.patience + 3 * COMMAND_SECONDS), "--out", str(out)),
            ],
            cwd=PROJECT,
            stdin=subprocess.DEVNULL,
        )
        try:
            with out.open(encoding="utf-8") as file:
                yield process, Watched(file)
        finally:
            stop(process)


def mode_of(url: str) -> str:
    """Ask the site for its mode, over a new connection.

    Raises:
        Failed: If it does not answer.
    """
    # Without httpx: each of its calls would get ready for TLS, which takes the time of a dozen requests.
    address = urlsplit(url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=START_SECONDS)
    try:
        connection.request("GET", "/-/readonly/status")
        return str(json.loads(connection.getresponse().read())["mode"])
    except (OSError, http.client.HTTPException) as error:
        raise Failed(f"The site does not answer: {error}") from None
    finally:
        connection.close()


def control() -> list[str]:
    """Return how the command is called: the installed one, beside this interpreter."""
    installed = Path(sys.executable).with_name("readonlyctl")
    return [str(installed)] if installed.exists() else [sys.executable, "-m", "readonly"]


def stop(process: subprocess.Popen[Any]) -> None:
    """End a process that we started, kindly first."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    if process.stdout is not None:
        process.stdout.close()


def enough_before(seen: Sequence[Seen], share: float) -> bool:
    """Return whether the site was busy enough to be turned read-only, if a share of the smallest load is."""
    wanted = SPARE * share
    accepted = sum(found.accepted and found.action == "write" for found in seen)
    greeted = {found.client for found in seen if found.signed_in and found.session is not None}
    return accepted >= wanted * verdict.WRITES_ACCEPTED_BEFORE and len(greeted) >= wanted * verdict.SESSIONS_ENDED


def enough_during(seen: Sequence[Seen], since: int, share: float) -> bool:
    """Return whether the read-only site was tried hard enough, likewise; `since` is when `on` returned."""
    wanted = SPARE * share
    during = [found for found in seen if found.start >= since]
    refused = sum(found.refused and found.action == "write" for found in during)
    reads = sum(found.action == "read" and not found.error for found in during)
    signed_out = {found.client for found in during if found.signed_in == "" and found.session is not None}
    return (
        refused >= wanted * verdict.WRITES_REFUSED_DURING
        and reads >= wanted * verdict.READS_DURING
        and len(signed_out) >= wanted * verdict.SESSIONS_ENDED
    )


def show(result: Verdict, console: Console) -> None:
    """Print what was measured and what it means."""
    table = telling.table("What the clients saw", [figures.phase.value for figures in result.figures])

    def row(name: str, value: Callable[[verdict.Figures], object]) -> None:
        table.add_row(name, *(str(value(figures)) for figures in result.figures))

    row("reads served", lambda figures: figures.reads_served)
    row("reads failed", lambda figures: figures.reads_failed)
    row("reads p50, ms", lambda figures: milliseconds(figures.read_p50_ms))
    row("reads p99, ms", lambda figures: milliseconds(figures.read_p99_ms))
    row("writes accepted", lambda figures: figures.writes_accepted)
    row("writes refused", lambda figures: figures.writes_refused)
    row("logins accepted", lambda figures: figures.logins_accepted)
    row("logins refused", lambda figures: figures.logins_refused)
    console.print(table)

    console.print("From `on` to the last commit that a client heard of:", end=" ", markup=False)
    console.print(f"{result.seconds_to_last_commit:.2f} s")
    console.print()
    telling.say(result, console)


def main(arguments: Sequence[str] | None = None) -> int:
    """Give the demonstration; exit with 0 if every promise was kept, 1 if not, 3 if the load was too small to tell."""
    parser = argparse.ArgumentParser(prog="python -m demo_app.demo", description=__doc__)
    parser.add_argument("--seconds", type=float, default=20.0, help="how long the load lasts")
    parser.add_argument("--patience", type=float, default=PATIENCE_SECONDS, help="how much longer on a slow machine")
    parser.add_argument("--share", type=float, default=1.0, help="of the smallest load that proves something: enough")
    parser.add_argument("--framework", choices=list(DRESSES), default=os.environ.get("FRAMEWORK") or "starlette")
    parser.add_argument("--app", metavar="MODULE:FACTORY", help="another factory than the framework's own")
    parser.add_argument("--on-option", action="append", default=[], metavar="OPTION", help="one more for `on`")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="leave everything there to be looked at")
    options = parser.parse_args(arguments)

    # Whoever ends this ends the site and the load with it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))

    def play(folder: Path, console: Console) -> int:
        stage = Stage(
            folder,
            framework=options.framework,
            app=options.app,
            seconds=options.seconds,
            patience=options.patience,
            share=options.share,
            on_options=options.on_option,
            console=console,
        )
        result = verdict.judge(stage.play(), share=options.share)
        show(result, console)
        return result.exit_code

    return telling.give(play, Failed, keep=options.keep)


if __name__ == "__main__":
    sys.exit(main())
