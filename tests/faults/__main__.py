"""The long round: `python -m tests.faults --seconds 600 --seed 1`, from the checkout. Ends with 1 if anything broke."""

from __future__ import annotations

import argparse
import secrets
import shutil
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from faults import faketime, versions
from faults.checker import Wanted
from faults.nemesis import FAKED_NAMES, NAMES, SENTINEL_NAMES
from faults.rounds import Plan, Round
from support.postgres_server import PostgresServer
from support.redis_server import RedisServer
from support.redis_topology import Topology

# At worst (both of a cycle's faults last long) a cycle takes ten seconds.
SECONDS_A_SPAN = 12.0
TRIES_A_SPAN = 20


def main() -> int:
    """Run it; print the seed first and what was found last."""
    words = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    words.add_argument("--seconds", type=float, default=600.0, help="no cycle is begun after so many")
    words.add_argument("--seed", type=int, default=None, help="replays the schedule that was printed with it")
    words.add_argument("--cycles", type=int, default=1_000_000, help="no more cycles than these")
    words.add_argument("--kinds", default="", help="only these, by parts of their names, separated by commas")
    words.add_argument("--sabotage", default="", help="break the library on purpose, to see it found out")
    words.add_argument(
        "--sentinel", action="store_true", help="a primary, a replica and three Sentinels, and failovers"
    )
    words.add_argument(
        "--faketime", action="store_true", help="set the clocks of workers and Redis for real, with libfaketime"
    )
    words.add_argument("--keep", type=Path, default=None, help="keep history and logs in this folder")
    given = words.parse_args()
    library = faketime.find() if given.faketime else None
    if given.faketime and library is None:
        print(faketime.MISSING)
        return 0
    seed = secrets.randbelow(1_000_000) if given.seed is None else given.seed
    parts = [part.strip() for part in given.kinds.split(",") if part.strip()]
    kinds = [
        name
        for name in (SENTINEL_NAMES if given.sentinel else FAKED_NAMES if given.faketime else NAMES)
        if not parts or any(part in name for part in parts)
    ]
    folder = given.keep or Path(tempfile.mkdtemp(prefix="readonly-faults-"))
    folder.mkdir(parents=True, exist_ok=True)
    print(f"seed {seed}, {given.seconds:g} s, history in {folder}", flush=True)
    began = time.monotonic()
    plan = Plan(
        seed,
        seconds=given.seconds,
        cycles=given.cycles,
        kinds=kinds,
        sabotaged=given.sabotage,
        newer=versions.newer(folder),
        faketime=library,
    )
    # The log is read at the end, so that nothing of it may be thrown away before.
    postgres = PostgresServer("wal_keep_size=4GB", "max_wal_size=4GB").start()
    try:
        redis = Topology(down_after_ms=1000) if given.sentinel else _redis(library, folder).start()
        try:
            one = Round(
                plan,
                folder=folder,
                postgres=postgres,
                database=postgres.new_database(),
                redis=redis,
                say=lambda line: print(f"{time.monotonic() - began:7.1f} s  {line}", flush=True),
            )
            one.run()
        finally:
            redis.close()
    finally:
        postgres.close()
    spans = max(1, int(min(given.seconds, SECONDS_A_SPAN * given.cycles) / SECONDS_A_SPAN))
    verdict = one.verdict(Wanted(spans=spans, tries=spans * TRIES_A_SPAN, kinds=kinds))
    print("\n".join(verdict.lines()))
    if verdict.good and given.keep is None:
        shutil.rmtree(folder)
    else:
        again = f"--seed {seed} --seconds {given.seconds:g}" + (" --sentinel" if given.sentinel else "")
        again += " --faketime" if given.faketime else ""
        again += f" --kinds '{given.kinds}'" if given.kinds else ""
        print(f"history and logs: {folder}; again: python -m tests.faults {again}")
    return 0 if verdict.good else 1


def _redis(library: Path | None, folder: Path) -> RedisServer:
    if library is None:
        return RedisServer()
    clock = folder / "clock-redis.faked"
    faketime.step(clock, 0.0)
    return RedisServer(environment=faketime.environment(library, clock))


if __name__ == "__main__":
    sys.exit(main())
