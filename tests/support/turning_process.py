"""A process of a site that writes all the time and notes when it turned, beside a bare timer: for tests of windows.

Usage: turning_process URL SKEW, where SKEW is by how many seconds its own clock is wrong. The store's clock is this
machine's, so instants are noted by that. Commands, one a line: `timer INSTANT` (seconds since the epoch), `say`; the
second is answered by one line of JSON.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from datetime import datetime, timedelta

from readonly import ReadOnlyError, State, Switch
from readonly.clock import SystemClock
from readonly.stores import store_from_url

PAUSE_SECONDS = 0.001


class Wrong(SystemClock):
    """A clock that is set wrong."""

    def __init__(self, skew: float) -> None:
        self.skew = timedelta(seconds=skew)

    def now(self) -> datetime:
        """Return the wrong time."""
        return super().now() + self.skew


def main(arguments: list[str]) -> None:
    """Be such a process, until the input ends."""
    url, skew = arguments
    switch = Switch(store_from_url(url), interval=0.2, role="web", clock=Wrong(float(skew)))
    turns: list[tuple[float, bool]] = []
    announced: dict[str, list[float | None]] = {}
    # When a write was tried that had another answer than the one before.
    flips: list[tuple[float, bool]] = []
    slack = 0.0
    timers: list[float] = []
    stop = threading.Event()

    def turned(state: State) -> None:
        nonlocal slack
        at = time.time()
        if not turns or turns[-1][1] is not state.read_only:
            turns.append((at, state.read_only))
        following = state.next_window
        if following is not None:
            end = following.end.timestamp() if following.end is not None else None
            announced.setdefault(following.id, [at, following.start.timestamp(), end])
        slack = max(slack, switch._follower().time.slack)

    def write() -> None:
        last: float | None = None
        while not stop.is_set():
            before = time.time()
            try:
                with switch.writing():
                    admitted = True
            except ReadOnlyError:
                admitted = False
            after = time.time()
            if not flips or flips[-1][1] is not admitted:
                if flips and not admitted and last is not None:
                    flips[-1] = (last, True)  # of those that were admitted the last one is wanted
                # It was decided between the two: of what may stand still there, none makes it look early or late.
                flips.append((after if admitted else before, admitted))
            last = before
            stop.wait(PAUSE_SECONDS)

    switch.on_change(turned)
    switch.start()
    writer = threading.Thread(target=write)
    writer.start()
    print("started", flush=True)
    for line in sys.stdin:
        word, _, rest = line.strip().partition(" ")
        if word == "timer":
            threading.Timer(float(rest) - time.time(), lambda: timers.append(time.time())).start()
        else:
            said = {"turns": turns, "announced": announced, "flips": flips, "slack": slack, "timers": timers}
            print(json.dumps(said | {"read_only": switch.state.read_only}), flush=True)
    stop.set()
    writer.join()
    switch.close()
