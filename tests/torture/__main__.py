"""The long torture: `python -m tests.torture --rounds 50`, from the checkout. Ends with 1 if anything got past.

READONLY_TEST_PG_BIN names the programs of another PostgreSQL.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from torture.rounds import summary
from torture.strategies import RIGHT, WRONG, laid_out, prepared, start


def main() -> int:
    """Run every strategy, then the wrong ones until each is caught; print a line for each."""
    words = argparse.ArgumentParser(prog="python -m tests.torture", description=__doc__)
    words.add_argument("--rounds", type=int, default=50, help="of each strategy")
    words.add_argument("--only", default="", help="these strategies, separated by commas")
    given = words.parse_args()
    only = [name for name in given.only.split(",") if name]
    server = start()
    failed = False
    try:
        print(f"PostgreSQL {server.sql('SHOW server_version')}", flush=True)
        for strategy in [*RIGHT, *WRONG]:
            if only and strategy not in only:
                continue
            wrong = strategy in WRONG
            arena = laid_out(server, strategy)
            with prepared(arena, strategy) as tortured:
                results = arena.torture(
                    tortured.raise_, tortured.lift, tortured.styles, rounds=given.rounds, until_caught=wrong
                )
            arena.close()
            held = all(result.held for result in results)
            failed = failed or held == wrong
            said = ", ".join(f"{name} {value}" for name, value in summary(results).items())
            print(f"{strategy}: {'held' if held else 'CAUGHT' if wrong else 'VIOLATED'}; {said}", flush=True)
            for result in results:
                for row in result.past_position if not wrong else ():
                    print(f"  past the position: {row}")
    finally:
        server.close()
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
