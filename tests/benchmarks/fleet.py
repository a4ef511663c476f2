"""Members of a site, many in one process: `python fleet.py URL COUNT START_SECONDS`, until its input is closed.

Each is a whole switch with its thread and its two connections, as a web worker has one; only the worker is missing.
Every line on standard input is answered by one on standard output, JSON: how many members are synced and how many
refuse writes, when the last of them took in its latest change (CLOCK_MONOTONIC), the CPU time of this process, and how
often an operator would have been alarmed: a store that does not answer in time is logged as an error.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
import time

from readonly import Switch
from readonly.state import State


class _Alarms(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.count = 0
        self.last = ""

    def emit(self, record: logging.LogRecord) -> None:
        self.count += 1
        self.last = record.getMessage()


def main(url: str, count: int, start_seconds: float) -> None:
    """Start that many members, evenly spread over a while, and answer for them."""
    # In life the server does not share its cores with a thousand members: here it comes first.
    os.nice(10)
    threading.stack_size(256 * 1024)
    alarms = _Alarms()
    logging.getLogger("readonly").addHandler(alarms)
    logging.getLogger("readonly").propagate = False
    changed = [0.0]

    def on_change(state: State) -> None:
        changed.append(time.monotonic())

    switches = [Switch.from_url(url, role="web", runs="news-site 2026.5") for _ in range(count)]
    begun, pause = time.monotonic(), threading.Event()
    for number, switch in enumerate(switches):
        switch.on_change(on_change)
        pause.wait(max(0.0, begun + start_seconds * number / count - time.monotonic()))
        _ = switch.state  # the first use starts its thread
    for _line in sys.stdin:
        states = [switch.view.state for switch in switches]
        answer = {
            "synced": sum(state.synced for state in states),
            "closed": sum(state.read_only for state in states),
            "changed": changed[-1],
            "cpu": time.process_time(),
            "alarms": alarms.count,
            "alarm": alarms.last,
        }
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]))
    # Without a thousand goodbyes, for which nobody waits.
    os._exit(0)
