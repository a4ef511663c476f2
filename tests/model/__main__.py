"""`python -m tests.model`: every configuration and every rule taken out, with what was seen, and what was not."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from .configurations import ABLATIONS, LARGE, OPEN, SMALL
from .protocol import Model
from .search import Result, World, narrated, search
from .values import Config
from .windows import OpensByItsClock, Windows

NOT_MODELLED = """
not modelled: more than two processes or operators, or more than one fault of a kind, unless said; the history, host
files, `init`, `members forget`; tombstones and members that are dropped with age; a call that timed out and takes
effect later; records of other versions and other sites; a report whose count is older than its state; guards; a fence
that falls by itself; operators who talk to an old primary. Time is coarse: a heartbeat may be as late as a tick.
""".strip()


def line(result: Result) -> str:
    """Return what a search has seen, in one line."""
    seen = f"{result.states:,} states"
    how = "exhausted" if result.exhausted else "BROKEN" if result.broken else "CUT OFF, so not a proof"
    stood = ", ".join(f"{count:,} with {name.upper()} standing" for name, count in sorted(result.promised.items()))
    return f"{seen}, {how}; {stood or 'NOBODY IS EVER TOLD SAFE'}; {result.depth} steps deep, {result.seconds:.1f} s"


def _run(world: Model | Windows, limit: int) -> Result:
    with world.running():
        return search(world, limit=limit)


def _configuration(config: Config, limit: int | None) -> bool:
    model = Model(config)
    result = _run(model, min(config.limit, limit or config.limit))
    print(f"{config.name}: {line(result)}", flush=True)
    return _told(model, result) and bool(result.promised)


def _told(world: World, result: Result) -> bool:
    if result.broken:
        print("\n".join(narrated(world, result)), flush=True)
    return not result.broken


def _without(name: str, world: Model | Windows, limit: int) -> bool:
    result = _run(world, limit)
    print(f"\nwithout {name}\n{line(result)}", flush=True)
    return not _told(world, result)


def main(arguments: Sequence[str] | None = None) -> int:
    """Search, print, and return 1 if anything was not as it should be."""
    parser = argparse.ArgumentParser(prog="python -m tests.model", description=__doc__)
    parser.add_argument("--small", action="store_true", help="only what `make test` searches")
    parser.add_argument("--limit", type=int, help="cut each search off after so many states")
    parser.add_argument("--only", default="", help="only configurations whose name has this in it; no ablations")
    asked = parser.parse_args(arguments)
    good = True
    for config in SMALL if asked.small else (*SMALL, *LARGE):
        if asked.only in config.name:
            good &= _configuration(config, asked.limit)
    if asked.only:
        return int(not good)
    rule_14 = Windows()
    result = _run(rule_14, 1_000_000)
    print(f"a window, clocks that differ, an end that is moved: {line(result)}", flush=True)
    good &= _told(rule_14, result) and bool(result.promised)
    for ablation in ABLATIONS:
        model = ablation.without(ablation.config)
        good &= _without(f"{ablation.said} [{ablation.config.name}]", model, ablation.config.limit)
    good &= _without(str(OpensByItsClock.__doc__), OpensByItsClock(), 1_000_000)
    for kind, config, why in OPEN:
        good &= _without(f"anything taken out, and known: {why} [{config.name}]", kind(config), config.limit)
    print(f"\n{NOT_MODELLED}")
    return int(not good)


if __name__ == "__main__":
    sys.exit(main())
