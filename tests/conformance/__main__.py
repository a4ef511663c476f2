"""The whole table: `python -m tests.conformance`, from the checkout. Writes it into docs/conformance.md if all was run.

Ends with 1 if anything was not as expected, and where CI is set also if a server is missing.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from conformance import table
from conformance.cell import Outcome, run_cell
from conformance.scenario import Suite, load
from conformance.servers import SERVERS, SITES, Server
from support.missing import ServerMissing, in_ci
from support.redis_server import RedisServer


def main() -> int:
    """Run the cells that were asked for, all by default; print each, and what went wrong last."""
    words = argparse.ArgumentParser(prog="python -m tests.conformance", description=__doc__)
    words.add_argument("--server", default="", help="only servers whose name has this in it")
    words.add_argument(
        "--site", default="", help=f"only this one of {', '.join(dict.fromkeys(sum(SITES.values(), ())))}"
    )
    words.add_argument("--scenario", default="", help="only scenarios whose name has this in it")
    words.add_argument("--keep", type=Path, default=None, help="keep the servers' logs in this folder")
    words.add_argument("--page", action="store_true", help="run nothing; write the page's tables that are data")
    given = words.parse_args()
    suite = load()
    if given.page:
        _write(suite)
        return 0
    whole = not (given.server or given.site or given.scenario)
    folder = given.keep or Path(tempfile.mkdtemp(prefix="readonly-conformance-"))
    outcomes: list[Outcome] = []
    lacking: dict[str, str] = {}
    redis = RedisServer().start()
    try:
        for server, site in _cells(given.server, given.site):
            if server.name not in lacking:
                _run(server, site, suite, given.scenario, redis, folder, outcomes, lacking)
    finally:
        redis.close()
        if given.keep is None:
            shutil.rmtree(folder, ignore_errors=True)
    for name, why in lacking.items():
        print(f"{name}: {why}")
    missing = [name for name in lacking if not SERVERS[name].never_here]
    stale = _never_met(suite, outcomes) if whole and not lacking else []
    print(*(f"never met: {name}" for name in stale), sep="\n", end="\n" if stale else "")
    failed = any(outcome.failures for outcome in outcomes) or bool(stale)
    if whole and not failed and not missing:
        _write(suite, table.results(outcomes, suite, lacking))
    elif whole:
        print(f"{table.PAGE.name} is left as it is: it shows whole tables in which all is as expected.")
    runs = sum(outcome.ran for outcome in outcomes)
    print(f"{len(outcomes)} cells, {runs} runs: {'FAILED' if failed else 'all as expected'}")
    return int(failed or (in_ci() and bool(missing)))


def _write(suite: Suite, results: str | None = None) -> None:
    page = table.PAGE.read_text(encoding="utf-8")
    page = table.replaced("cases", table.cases(suite), page)
    page = table.replaced("deviations", table.deviations(suite), page)
    if results is not None:
        page = table.replaced("table", results, page)
    table.PAGE.write_text(page, encoding="utf-8")


def _cells(server: str, site: str) -> Iterator[tuple[Server, str]]:
    for found in SERVERS.values():
        if server in found.name:
            for one in SITES[found.interface]:
                if site in ("", one):
                    yield found, one


def _run(
    server: Server,
    site: str,
    suite: Suite,
    scenario: str,
    redis: RedisServer,
    folder: Path,
    outcomes: list[Outcome],
    lacking: dict[str, str],
) -> None:
    own = folder / f"{server.name} {site}".replace(" ", "-")
    own.mkdir(parents=True, exist_ok=True)
    try:
        if server.never_here:
            raise ServerMissing(server.name, server.never_here)
        outcome = run_cell(server, site, suite, url=redis.url(), folder=own, wanted=lambda one: scenario in one.name)
    except ServerMissing as error:
        lacking[server.name] = server.never_here or str(error)
        return
    outcomes.append(outcome)
    how = f"{len(outcome.failures)} not as expected" if outcome.failures else "as expected"
    print(f"{server.name}, {site}: {outcome.ran} runs {how}, {outcome.seconds:.1f} s", flush=True)
    for failure in outcome.failures:
        print(f"  {failure}", flush=True)


def _never_met(suite: Suite, outcomes: list[Outcome]) -> list[str]:
    met = set().union(*(outcome.met for outcome in outcomes))
    return [f"{d.scenario} ({d.why})" for number, d in enumerate(suite.deviations) if number not in met]


if __name__ == "__main__":
    sys.exit(main())
