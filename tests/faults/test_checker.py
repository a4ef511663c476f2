"""The checker, on histories written by hand: what each rule catches, and what it must let through."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from faults.checker import Verdict, Wanted, check
from faults.history import (
    Began,
    Commit,
    Event,
    Expired,
    Fault,
    Life,
    Note,
    On,
    Read,
    Recorder,
    Row,
    Rows,
    Span,
    Tail,
    Write,
    dumped,
    loaded,
    read,
)

# A confirmed time from 10 to 20; the wall clock is 1000 ahead; log positions are a hundred times the instants.
SPAN = Span("anna", "app only", 10.0, 20.0, 1010.0, 1020.0, Rows(1, (1,)), Rows(1, (1,)), 1000, 2000)
BEFORE = Write("w1", 0, 5.0, 5.1, 201, pid=7, row=1)
REFUSED = Write("w2", 0, 12.0, 12.1, 503)
GOOD: list[Event] = [
    Began(4, 0.0),
    Life(0, 7, 1.0, began=True),
    SPAN,
    On("anna", 9.0, 10.0, "safe", "app only"),
    BEFORE,
    REFUSED,
    Row(1, "w1", 501),
    Commit(501, 505, 1005.1),
    Read(0, 11.0, 11.1, 200),
]
WANTED = Wanted(spans=1, tries=1)


def judged(*more: Event, without: Event | None = None, wanted: Wanted = WANTED) -> Verdict:
    """Judge the good history with more events, and without one."""
    return check([*(event for event in GOOD if event is not without), *more], wanted)


def test_a_good_history_is_good() -> None:
    """Nothing is found in it, and it counts."""
    verdict = judged()
    assert verdict.good, verdict.lines()
    assert verdict.seed == 4
    assert verdict.counts["confirmed read-only times"] == 1
    assert verdict.counts["writes tried inside them"] == 1


def test_a_row_that_appears_between_safe_and_off_is_a_violation() -> None:
    """The set of rows is what counts, whoever wrote it and whether it was acknowledged."""
    grown = replace(SPAN, rows_off=Rows(2, (2, 1)))
    verdict = judged(grown, Row(2, "w9", 502), without=SPAN)
    assert verdict.violations == [
        "confirmed time of anna (app only) at 10.000: 1 rows more before off than after safe: w9"
    ]


@pytest.mark.parametrize(
    ("commit", "words"),
    [
        (Commit(502, 1500, 1009.0), "stands 500 bytes behind its marker"),
        (Commit(502, 900, 1012.0), "is stamped 2.000 s after it"),
    ],
)
def test_a_commit_record_inside_is_a_violation_by_position_and_by_time(commit: Commit, words: str) -> None:
    """Also where both looks at the rows missed it."""
    verdict = judged(Row(2, "w9", 502), commit)
    assert len(verdict.violations) == 1
    assert words in verdict.violations[0]


def test_commits_of_others_and_outside_are_none() -> None:
    """Before the marker, after the `off`, or not one of our rows."""
    verdict = judged(
        Row(2, "w9", 502),
        Row(3, "w10", 503),
        Commit(502, 1000, 1010.0),
        Commit(503, 2001, 1020.0),
        Commit(999, 1500, 1015.0),
    )
    assert verdict.good, verdict.lines()


def test_a_write_that_is_begun_inside_and_acknowledged_is_a_violation() -> None:
    """The client's own word; one that was begun before or was refused is none."""
    done = Write("w3", 1, 12.0, 12.5, 201, pid=8, row=2)
    found = judged(done, Row(2, "w3", 502)).violations
    assert found == [
        "confirmed time of anna (app only) at 10.000: w3 was begun after it, and process 8 in slot 1 said that it "
        "was done"
    ]
    assert judged(replace(done, start=9.9), Row(2, "w3", 502)).good
    assert judged(replace(done, end=20.1), Row(2, "w3", 502)).good


def test_an_acknowledged_write_that_is_missing_is_a_violation() -> None:
    """Also if another row stands where it said; one without an answer may be there or not."""
    lost = Write("w3", 1, 25.0, 25.5, 201, pid=8, row=2)
    assert judged(lost).violations == ["w3 was acknowledged as row 2 and is not there"]
    assert judged(lost, Row(3, "w3", 502)).violations == ["w3 was acknowledged as row 2 and is not there"]
    assert judged(replace(lost, status=0)).good


def test_a_write_that_is_answered_with_an_error_is_a_violation() -> None:
    """A refusal is 503 and nothing else."""
    assert judged(Write("w3", 1, 25.0, 25.5, 500)).violations == ["w3 was answered with 500 by slot 1"]


def test_a_process_whose_lease_was_said_to_be_over_admits_nothing() -> None:
    """From when it was said until `off`; other processes, and later, are another matter."""
    claim = Expired(8, 30.0, 40.0)
    done = Write("w3", 1, 32.0, 32.5, 201, pid=8, row=2)
    assert len(judged(claim, done, Row(2, "w3", 502)).violations) == 1
    assert judged(claim, replace(done, pid=9), Row(2, "w3", 502)).good
    assert judged(claim, replace(done, start=40.5, end=41.0), Row(2, "w3", 502)).good
    assert judged(claim, replace(done, end=40.5), Row(2, "w3", 502)).good  # it waited, and was admitted after `off`
    assert judged(claim, replace(done, start=29.0), Row(2, "w3", 502)).good


def test_a_read_is_never_answered_with_an_error() -> None:
    """Whatever happened to its worker."""
    verdict = judged(Read(0, 12.0, 12.1, 503), Fault("stop", "inside", 11.0, 13.0, slot=0))
    assert verdict.violations == ["a read of slot 0 was answered with 503 at 12.000"]


CUT = Read(0, 12.0, 12.5, 0, retried=200, retried_at=12.6)


@pytest.mark.parametrize(
    "trouble",
    [
        (Fault("stop", "inside", 11.0, 12.2, slot=0),),
        (Life(0, 7, 12.3, began=False), Life(0, 8, 13.0, began=True)),
        (Life(0, 7, 3.0, began=False),),
    ],
)
def test_a_read_that_was_cut_by_the_end_of_its_worker_is_counted_apart(trouble: tuple[Event, ...]) -> None:
    """If it succeeds when tried again."""
    verdict = judged(CUT, *trouble)
    assert verdict.good, verdict.lines()
    assert verdict.counts["reads cut or late"] == 1
    assert len(judged(replace(CUT, retried=0), *trouble).violations) == 1


@pytest.mark.parametrize(
    "elsewhere",
    [
        (),
        (Fault("stop", "inside", 11.0, 12.2, slot=1),),
        (Fault("stop", "inside", 2.0, 3.0, slot=0),),
        (Fault("flush", "inside", 11.0, 12.2),),
        (Life(0, 7, 3.0, began=False), Life(0, 8, 4.0, began=True)),
    ],
)
def test_a_read_without_an_answer_and_without_that_reason_is_a_violation(elsewhere: tuple[Event, ...]) -> None:
    """Not of another worker, not at another time, and not because of the store."""
    assert len(judged(CUT, *elsewhere).violations) == 1


def test_a_late_read_is_counted_apart_if_its_worker_was_stopped_and_told_otherwise() -> None:
    """The slowest of the others is shown."""
    late = Read(0, 12.0, 15.0, 200)
    assert judged(late, Fault("stop", "inside", 11.0, 14.0, slot=0)).counts["reads cut or late"] == 1
    verdict = judged(late)
    assert verdict.counts["reads cut or late"] == 0
    assert verdict.slowest_read == pytest.approx(3.0)


@pytest.mark.parametrize(
    ("wanted", "without", "why"),
    [
        (Wanted(spans=2), None, "1 confirmed read-only times, and 2 are needed to prove anything"),
        (Wanted(tries=2), None, "1 writes were tried inside them, and 2 are needed"),
        (Wanted(kinds=["flush"]), None, "no flush happened"),
        (Wanted(), GOOD[-1], "nobody read"),
        (Wanted(), GOOD[-2], "no commit was found in PostgreSQL's log"),
    ],
)
def test_a_history_that_proves_nothing_is_void(wanted: Wanted, without: Event | None, why: str) -> None:
    """And is not good."""
    verdict = judged(without=without, wanted=wanted)
    assert verdict.void == [why]
    assert not verdict.good


def test_what_never_happened_is_a_violation_and_a_helping_hand_is_counted() -> None:
    """A site that stays shut keeps every write out, too."""
    assert judged(Note("the site did not open again", 30.0, "slot 1", broken=True)).violations == [
        "the site did not open again (slot 1)"
    ]
    helped = judged(Note("forgot a member that had ended", 30.0))
    assert helped.good
    assert helped.counts["helped by hand"] == 1


def test_many_violations_are_cut_in_print_and_none_in_count() -> None:
    """Nobody reads a thousand lines."""
    verdict = judged(*(Read(0, 12.0, 12.1, 500) for _ in range(30)))
    lines = verdict.lines(most=3)
    assert sum(line.startswith("VIOLATION") for line in lines) == 3
    assert "... and 27 more" in lines
    assert lines[-1] == "30 violations"


def test_a_history_is_read_as_it_was_written(tmp_path: Path) -> None:
    """Each kind of event, and a last line that was cut."""
    events: list[Event] = [*GOOD, CUT, Expired(1, 2.0, 3.0), Note("n", 1.0), Fault("flush", "inside", 1.0, 2.0)]
    assert [loaded(dumped(event)) for event in events] == events
    path = tmp_path / "round.jsonl"
    recorder = Recorder(path)
    tail = Tail(path)
    for event in events:
        recorder.record(event)
    recorder.close()
    assert tail.look() == events
    with path.open("a") as file:
        file.write('{"is":"Wri')
    assert tail.look() == events
    tail.close()
    assert read(path) == events
