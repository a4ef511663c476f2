"""A process of a site, for tests: it follows the store, and writes when it is told to on its standard input.

Usage: python member_process.py URL ROLE [SETTINGS], where SETTINGS are a switch's own, as JSON, and `database`, the URL
of one that it guards. Commands, one a line: begin, end. Each is answered by one line.
"""

from __future__ import annotations

import json
import os
import sys
from contextlib import ExitStack

from readonly import ReadOnlyError, Switch

# It reports at once what others wait for. The time between is only how long it may stand still until it counts as
# silent, three times that and a second: what a busy machine makes it do is not to be what a test is about.
INTERVAL = 5.0


def main(arguments: list[str]) -> None:
    """Be such a process, until the input ends."""
    url, role, *more = arguments
    settings = {"interval": INTERVAL, "role": role} | json.loads("".join(more) or "{}")
    guarded = settings.pop("database", None)
    switch = Switch.from_url(url, **settings)
    if guarded:
        from sqlalchemy import create_engine

        from readonly.databases.sqlalchemy import Database

        Database(create_engine(guarded), switch)
    switch.start()
    print(f"started {os.getpid()} {switch.state.mode}", flush=True)
    writes = ExitStack()
    for line in sys.stdin:
        if line.strip() == "begin":
            try:
                writes.enter_context(switch.writing())
            except ReadOnlyError:
                print("refused", flush=True)
            else:
                print("begun", flush=True)
        else:
            writes.close()
            print("ended", flush=True)
    writes.close()
    switch.close()


if __name__ == "__main__":
    main(sys.argv[1:])
