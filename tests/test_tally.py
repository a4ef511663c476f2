"""Counters stay bounded, and a log says much with few lines."""

from __future__ import annotations

import logging
import threading
from datetime import UTC, datetime

import pytest

from readonly.errors import ReadOnlyError
from readonly.tally import MAX_LABELS, OTHER, SECONDS_PER_LINE, USES_AT_ONCE, Tally, route_group


class HandClock:
    """A clock that moves when told."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def now(self) -> datetime:
        return datetime.fromtimestamp(self.seconds, UTC)

    def boottime(self) -> float:
        return self.seconds


def test_counts_what_happened() -> None:
    """Totals say how many, by kind, by route and by bypass."""
    tally = Tally(HandClock())
    tally.refused("/comments/new", "write")
    tally.refused("/comments/new", "write")
    tally.refused("/login", "login")
    tally.escaped("/articles", ReadOnlyError(database="main", table="views"))
    tally.bypassed("ann", "/admin")
    tally.ended()
    tally.ended(2)
    assert tally.totals() == {
        "refused": 3,
        "refused_by_kind": {"write": 2, "login": 1},
        "refused_by_route": {"/comments/new": 2, "/login": 1},
        "escaped": 1,
        "escaped_by_route": {"/articles": 1},
        "bypassed": 1,
        "bypassed_by_name": {"ann": 1},
        "ended": 3,
    }


def test_one_line_for_a_route_and_minute(caplog: pytest.LogCaptureFixture) -> None:
    """The first refusal is logged at once, the rest of that minute as a number in the next line; never as errors."""
    clock = HandClock()
    tally = Tally(clock)
    with caplog.at_level(logging.INFO, "readonly"):
        for _ in range(10):
            tally.refused("/heartbeat", "write")
            tally.refused("/other", "write")
            clock.seconds += 6.1
        assert [(r.levelname, getattr(r, "route", ""), getattr(r, "count", 0)) for r in caplog.records] == [
            ("INFO", "/heartbeat", 1),
            ("INFO", "/other", 1),
        ]
        tally.refused("/heartbeat", "write")
    assert caplog.records[-1].__dict__["count"] == 10
    assert caplog.records[-1].__dict__["event"] == "refused"


def test_more_of_the_same_is_told_by_the_next_line(caplog: pytest.LogCaptureFixture) -> None:
    """Whoever refuses the same again and again counts without a look at the clock."""
    clock = HandClock()
    tally = Tally(clock)
    with caplog.at_level(logging.INFO, "readonly"):
        tally.refused("/a", "write")
        more = tally.more_refused("/a", "write")
        for _ in range(5):
            more()
        clock.seconds += 61
        tally.refused("/a", "write")
    assert [record.__dict__["count"] for record in caplog.records] == [1, 6]
    assert tally.totals()["refused"] == 7


def test_an_escape_is_an_error_and_says_what_to_do(caplog: pytest.LogCaptureFixture) -> None:
    """A rule is missing: the line is an error with the route, the database and the table."""
    tally = Tally(HandClock())
    for _ in range(3):
        tally.escaped("GET /articles/{id}", ReadOnlyError(database="main", table="views"))
    (line,) = caplog.records
    assert line.levelno == logging.ERROR
    assert "GET /articles/{id}" in line.getMessage()
    assert "main, table views" in line.getMessage()
    assert "Policy(writes=[...])" in line.getMessage()


def test_labels_are_bounded() -> None:
    """Somebody who asks for a million addresses gets counted, under one label."""
    tally = Tally(HandClock())
    for number in range(3 * MAX_LABELS):
        tally.refused(f"/{number}", "write")
        tally.escaped(f"/{number}", ReadOnlyError())
        tally.bypassed("ann", f"/{number}")
    totals = tally.totals()
    assert totals["refused"] == totals["escaped"] == totals["bypassed"] == 3 * MAX_LABELS
    assert totals["refused_by_route"][OTHER] == 2 * MAX_LABELS
    assert len(totals["refused_by_route"]) <= MAX_LABELS + 1
    assert len(totals["escaped_by_route"]) <= MAX_LABELS + 1


def test_names_are_bounded() -> None:
    """A bypass of a new name for each deployment adds no label for ever."""
    tally = Tally(HandClock())
    for number in range(4 * MAX_LABELS):
        tally.bypassed(f"deploy-{number}", f"/{number}")
    counts = tally.counts()["bypassed"]
    assert sum(counts.values()) == 4 * MAX_LABELS
    assert (len(counts), counts[OTHER, OTHER]) == (2 * MAX_LABELS + 1, 2 * MAX_LABELS)
    assert len(tally.uses(last=True)) == len(counts)


def test_the_history_is_told_of_every_use() -> None:
    """At once, and then once a minute: a few lines with each heartbeat, the rest with the next; all at the end."""
    clock = HandClock()
    tally = Tally(clock)
    assert not tally.used
    for _ in range(3):
        tally.bypassed("ann", "POST /a")
    assert (tally.used, tally.uses(), tally.used) == (True, [("ann", "POST /a", 3)], False)
    tally.bypassed("ann", "POST /a")
    tally.bypassed("ben", "POST /a")
    clock.seconds += SECONDS_PER_LINE - 1
    assert tally.uses() == [("ben", "POST /a", 1)]
    clock.seconds += 1
    tally.bypassed("ann", "POST /a")
    assert tally.uses() == [("ann", "POST /a", 2)]
    tally.bypassed("ann", "POST /a")
    assert tally.uses() == []
    assert tally.uses(last=True) == [("ann", "POST /a", 1)]
    for number in range(USES_AT_ONCE + 1):
        tally.bypassed("ann", f"POST /{number}")
    assert [len(tally.uses()) for _ in range(3)] == [USES_AT_ONCE, 1, 0]


def test_no_count_is_lost_between_threads() -> None:
    """Eight threads count at once and nothing is missing."""
    tally = Tally(HandClock())

    def work() -> None:
        for _ in range(2_000):
            tally.refused("/a", "write")
            tally.ended()

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert tally.totals()["refused"] == tally.totals()["ended"] == 16_000


@pytest.mark.parametrize(
    ("path", "group"),
    [
        ("/", "/"),
        ("", "/"),
        ("/login", "/login"),
        ("/articles/7/comments", "/articles/7"),
        ("/a\nERROR forged/x/y", "/a\\x0aERROR forged/x"),
        ("/über/x", "/\\xfcber/x"),
        ("/" + 500 * "x", "/" + 79 * "x"),
    ],
)
def test_route_group(path: str, group: str) -> None:
    """A path is grouped by its first two segments, and can't forge a log line."""
    assert route_group(path) == group
