"""`make demo-postgres`: two migrations hold the busiest table's lock, without and with a frozen standby.

A primary with a streaming standby, Redis, four workers under load, and a rogue program that writes to the database
directly. Both migrations go through `readonlyctl run`; then the promises are checked.
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

import psycopg
from rich.console import Console

from demo_app import data, serve, telling
from demo_app.demo import COMMAND_SECONDS, STOP_SECONDS, Failed, Stage, Watched, control, stop
from demo_app.dresses import PROJECT
from demo_app.postgres import verdict
from demo_app.postgres.migration import BUSIEST
from demo_app.postgres.servers import NoServer, Postgres, Redis, make_folder
from demo_app.postgres.verdict import Act, Attempt, Column, Evidence, Latency, Verdict
from demo_app.postgres.watching import measuring
from demo_app.settings import SITE, Settings
from demo_app.telling import milliseconds

WORKERS: Final = 4
# Nobody hashes passwords all the time, and all take theirs: what is measured is who waits for a lock, not for a core.
LOAD: Final = ("--kind", "reader", "--kind", "program", "--kind", "slow-phone", "--pace", "2")
DATABASE: Final = "touchline"
OWNER, APP, FENCER = "touchline_owner", "touchline_app", "touchline_fencer"

# What each migration adds, and how it is run.
ACTS: Final = {"without freeze": ("words", ()), "with freeze": ("letters", ("--freeze",))}

_ROLES: Final = (
    f"CREATE ROLE {OWNER} LOGIN",
    f"CREATE ROLE {APP} LOGIN",
    # Who owns the tables may take privileges on them away; and whoever the fence waits for it may name.
    f"CREATE ROLE {FENCER} LOGIN IN ROLE {OWNER}, pg_read_all_stats",
    f"CREATE DATABASE {DATABASE} OWNER {OWNER}",
)
_RIGHTS: Final = (
    f"GRANT CREATE ON DATABASE {DATABASE} TO {FENCER}",
    f"GRANT EXECUTE ON FUNCTION pg_wal_replay_pause(), pg_wal_replay_resume() TO {FENCER}",
    f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {APP}",
    f"GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO {APP}",
)
# An archive of comments, so that the table that is migrated is worth a migration.
_ARCHIVE: Final = f"""
INSERT INTO {BUSIEST} (article_id, account_id, body, created_at)
SELECT a.id, 1 + n % 3, 'from the archive, number ' || n || ' of ' || a.slug, now() - n * interval '1 minute'
  FROM article a, generate_series(1, 900) n
"""  # noqa: S608 - a table of ours
_TRANSACTIONS: Final = "SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()"


class Night:
    """The site, its servers and everybody who is at work on them.

    Args:
        stage: The site and the load.
        primary: The primary, filled.
        standby: Its standby.
        hold_seconds: How long each migration holds the lock.
        names: Which of `ACTS`.
        sabotage: What is left out: `fence`, `freeze`.
    """

    def __init__(
        self,
        stage: Stage,
        primary: Postgres,
        standby: Postgres,
        *,
        hold_seconds: float,
        names: Sequence[str] = tuple(ACTS),
        sabotage: Sequence[str] = (),
    ) -> None:
        self.stage = stage
        self.primary, self.standby = primary, standby
        self.hold_seconds = hold_seconds
        self.names = names
        self.sabotage = sabotage
        self.config = stage.folder / "readonly.toml"

    def play(self) -> Evidence:
        """Give the whole demonstration, and return what there is to judge.

        Raises:
            Failed: If it could not be given.
        """
        stage = self.stage
        self.write_config()
        stage.readonlyctl("init", SITE, quietly=True)
        rows = self.number(f"SELECT count(*) FROM {BUSIEST}")  # noqa: S608 - a table of ours
        rogue = stage.folder / "rogue.jsonl"
        with stage.site() as url:
            stage.say(
                f"The site is at {url}: {stage.workers} worker processes, a primary with a streaming standby, Redis. "
                f"A rogue writes to the primary. {BUSIEST} has {rows} rows."
            )
            with (
                measuring(self.primary.url(APP, DATABASE), self.standby.url(APP, DATABASE)) as measured,
                self.rogue(rogue),
                stage.load(url) as (load, watched),
            ):
                begun = self.number(_TRANSACTIONS)
                stage.let_happen(watched, load, 1.0, lambda: self.enough(watched, rogue, begun))
                transactions = self.number(_TRANSACTIONS) - begun
                acts = [self.act(name, *ACTS[name], watched) for name in self.names]
                stage.let_happen(watched, load, 0.3, lambda: True)
                load.terminate()
                if load.wait(COMMAND_SECONDS) != 0:
                    raise Failed(f"The load failed with exit code {load.returncode}.")
                watched.look()
        if measured.problems:
            raise Failed(f"What was measured beside the visitors failed: {'; '.join(measured.problems)}")
        return Evidence(
            seen=watched.seen,
            attempts=[Attempt(**json.loads(line)) for line in rogue.read_text().splitlines()],
            controls=measured.controls,
            waiting=measured.waiting,
            acts=acts,
            stored=frozenset(self.column(f"SELECT body FROM {BUSIEST}")),  # noqa: S608 - a table of ours
            rows=rows,
            transactions=transactions,
        )

    def act(self, name: str, column: str, options: Sequence[str], watched: Watched) -> Act:
        """Run one migration."""
        if "freeze" in self.sabotage or "fence" in self.sabotage:
            options = tuple(option for option in options if option != "--freeze")
        if "fence" in self.sabotage:
            options = (*options, "--no-fence")
        out = self.stage.folder / f"{column}.json"
        command = [sys.executable, "-m", "demo_app.postgres.migration", column, "--hold", f"{self.hold_seconds:g}"]
        typed = time.monotonic_ns()
        self.readonlyctl("run", "--reason", name, "--for", "5m", *options, "--", *command, "--out", str(out))
        returned = time.monotonic_ns()
        watched.look()
        found = json.loads(out.read_text())
        return Act(name, bool(ACTS[name][1]), typed, returned, found["locked"], found["released"], found["appeared"])

    def readonlyctl(self, *arguments: str) -> None:
        """Run the real command as an operator does, and show what it says.

        Raises:
            Failed: If it exits with anything but 0.
        """
        stage = self.stage
        stage.say(f"$ readonlyctl {subprocess.list2cmdline(arguments)}")
        environment = {
            **stage.environment,
            "READONLY_CONFIG": str(self.config),
            "DEMO_MIGRATION": self.primary.url(OWNER, DATABASE),
        }
        done = subprocess.run(
            [*control(), *arguments],
            env=environment, cwd=PROJECT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, timeout=2 * COMMAND_SECONDS + self.hold_seconds, check=False,
        )  # fmt: skip
        for line in done.stdout.splitlines():
            stage.say(f"  {line}")
        if done.returncode != 0:
            raise Failed(f"readonlyctl {arguments[0]} failed with exit code {done.returncode}.")

    def write_config(self) -> None:
        """Write the operator's file."""
        self.config.write_text(
            f'store = "{self.stage.settings.store}"\nexpect = "web={self.stage.workers}"\n\n[fence.main]\n'
            f'url = "{self.primary.url(FENCER, DATABASE)}"\nwriters = ["{APP}"]\nmigrators = ["{OWNER}"]\n'
            f'freeze = ["{self.standby.url(FENCER, DATABASE)}"]\n'
        )

    def enough(self, watched: Watched, rogue: Path, begun: int) -> bool:
        """Return whether the site was busy enough to be turned read-only."""
        pages = sum(seen.action == "read" and seen.route in verdict.ROUTES for seen in watched.seen)
        return (
            pages >= 1.1 * verdict.QUIET_READS
            and rogue.read_bytes().count(b"\n") >= 1.1 * verdict.ROGUE_COMMITS
            and self.number(_TRANSACTIONS) - begun >= 1.1 * verdict.QUIET_TRANSACTIONS
        )

    def number(self, query: str) -> int:
        """Ask the primary for a number."""
        return int(self.column(query)[0])

    def column(self, query: str) -> list[str]:
        """Ask the primary for the values of a column, as text."""
        with psycopg.connect(self.primary.url(database=DATABASE), autocommit=True) as connection:
            return [str(row[0]) for row in connection.execute(query)]

    @contextmanager
    def rogue(self, out: Path) -> Iterator[None]:
        """Run the rogue, in a process of its own."""
        with out.open("wb") as file:
            process = subprocess.Popen(
                [sys.executable, "-u", "-m", "demo_app.postgres.rogue", self.primary.url(APP, DATABASE)],
                cwd=PROJECT, stdin=subprocess.DEVNULL, stdout=file,
            )  # fmt: skip
        try:
            yield
            if process.poll() is not None:
                raise Failed(f"The rogue ended too early, with exit code {process.returncode}.")
            process.terminate()
            if process.wait(STOP_SECONDS) != 0:
                raise Failed(f"The rogue failed with exit code {process.returncode}.")
        finally:
            stop(process)


def filled(primary: Postgres) -> None:
    """Make roles, tables and the archive."""
    primary.sql(*_ROLES)
    data.fill(primary.url(OWNER, DATABASE).replace("postgresql://", "postgresql+psycopg://", 1))
    primary.sql(*_RIGHTS, _ARCHIVE, f"VACUUM ANALYZE {BUSIEST}", database=DATABASE)


def given(folder: Path, servers: Path, options: argparse.Namespace, console: Console) -> Verdict:
    """Start everything, play, and judge.

    Raises:
        Failed: It could not be given.
        NoServer: A server is missing, or does not start.
    """
    with ExitStack() as stack:
        store = stack.enter_context(Redis(servers, "redis").start())
        primary = stack.enter_context(Postgres(servers, "primary").start())
        filled(primary)
        standby = stack.enter_context(primary.standby(servers))
        settings = Settings.in_folder(
            folder,
            secret=serve.secret_in(folder),
            server=primary.url(APP, DATABASE),
            standby=standby.url(APP, DATABASE),
            store=f"redis://127.0.0.1:{store.port}/0?site={SITE}",
        )
        stage = Stage(
            folder, framework="starlette", app=None, seconds=options.seconds, patience=options.patience,
            on_options=(), console=console, workers=WORKERS, settings=settings, load_options=LOAD,
        )  # fmt: skip
        names = tuple(ACTS) if options.only is None else (options.only,)
        night = Night(stage, primary, standby, hold_seconds=options.hold, names=names, sabotage=options.without)
        return verdict.judge(night.play(), hold_seconds=options.hold)


def show(result: Verdict, console: Console) -> None:
    """Print what was measured and what it means."""
    table = telling.table(f"While {BUSIEST} was locked", [column.name for column in result.columns])

    def row(name: str, value: Callable[[Column], object]) -> None:
        table.add_row(name, *(str(value(column)) for column in result.columns))

    def latency(what: str, of: Callable[[Column], Latency]) -> None:
        row(f"{what}: number", lambda column: of(column).count)
        row(f"{what}: p50, ms", lambda column: milliseconds(of(column).p50))
        row(f"{what}: p99, ms", lambda column: milliseconds(of(column).p99))
        row(f"{what}: longest, ms", lambda column: milliseconds(of(column).longest))

    latency("pages", lambda column: column.pages)
    row("pages: failed", lambda column: column.pages.failed)
    latency("reads on the primary", lambda column: column.primary)
    row("the rogue's writes: committed", lambda column: column.rogue_committed)
    row("the rogue's writes: refused", lambda column: column.rogue_refused)
    console.print(table)
    telling.say(result, console)


def main(arguments: Sequence[str] | None = None) -> int:
    """Give the demonstration; exit with 0 if every promise was kept, 1 if not, 3 if the load was too small to tell."""
    parser = argparse.ArgumentParser(prog="python -m demo_app.postgres.demo", description=__doc__)
    parser.add_argument("--hold", type=float, default=10.0, help="seconds for which each migration holds the lock")
    parser.add_argument("--seconds", type=float, default=6.0, help="how long the load lasts before the first one")
    parser.add_argument("--patience", type=float, default=30.0, help="how much longer on a slow machine")
    parser.add_argument("--only", choices=list(ACTS), help="one of the two migrations")
    parser.add_argument("--without", action="append", default=[], choices=["fence", "freeze"], help="to see it fail")
    options = parser.parse_args(arguments)

    # Whoever ends this ends the servers, the site and the load with it.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda which, _frame: sys.exit(128 + which))

    def play(folder: Path, console: Console) -> int:
        servers = make_folder()
        try:
            result = given(folder, servers, options, console)
        finally:
            shutil.rmtree(servers, ignore_errors=True)
        show(result, console)
        return result.exit_code

    return telling.give(play, Failed, NoServer)


if __name__ == "__main__":
    sys.exit(main())
