"""Records for tests: ready-made ones, and hypothesis strategies for all that a store may hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import strategies as st

from readonly.record import Cause, Lift, Record, Rehearsal, Schedule, Window, ordered
from readonly.record_format import load
from readonly.schedules import over
from readonly.stores import Store

NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)
LINEAGE = "2026-01-01T00:00:00.000000+00:00-aaaa"
# Made after all that these records hold, and in the middle of it.
LATER_LINEAGE = "2026-06-01T00:00:00.000000+00:00-bbbb"
MIDDLE_LINEAGE = "2026-05-01T12:02:00.000000+00:00-cccc"


def minutes(number: float) -> timedelta:
    """Return so many minutes."""
    return timedelta(minutes=number)


def cause(key: str = "c1", **changed: Any) -> Cause:
    """Return an operator's cause that began at noon."""
    return replace(Cause(id=key, kind="operator", by="ann", since=NOON), **changed)


def lift(key: str = "c1", **changed: Any) -> Lift:
    """Return a tombstone of a cause that began at noon."""
    return replace(Lift(id=key, at=NOON + minutes(5), by="ann", since=NOON), **changed)


def window(key: str = "w1", **changed: Any) -> Window:
    """Return a window from 13:00 to 14:00."""
    return replace(Window(id=key, start=NOON + minutes(60), end=NOON + minutes(120), by="ann"), **changed)


def rehearsal(key: str = "r1", **changed: Any) -> Rehearsal:
    """Return a rehearsal from noon to 13:00."""
    return replace(Rehearsal(id=key, by="ann", since=NOON, until=NOON + minutes(60)), **changed)


def record(*causes: Cause, lifted: tuple[Lift, ...] = (), **changed: Any) -> Record:
    """Return a whole record of the site `shop`."""
    made = Record(
        site="shop",
        epoch=5,
        id="r5",
        lineage=LINEAGE,
        changed_at=NOON,
        causes=causes,
        lifted={one.id: one for one in lifted},
    )
    return ordered(replace(made, **changed))


# --- strategies ------------------------------------------------------------------------------------------------------

IDS = st.sampled_from(["c1", "c2", "c3"])
INSTANTS = st.integers(0, 600).map(lambda n: NOON + minutes(n))
WORDS = st.sampled_from(["", "ann", "bob", 'ä\u2028"', "\udcff"])
SESSIONS = st.sampled_from([None, "end", "suspend", "keep"])
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)


def extras() -> st.SearchStrategy[Mapping[str, Any]]:
    """Fields that this version does not know."""
    return st.sampled_from([{}, {"later": 1}, {"later": [None, {"ä": 0.5}], "more": "\ud800"}])


def causes() -> st.SearchStrategy[Cause]:
    """Causes; those of one id share their start, as they do in life."""
    return st.builds(
        lambda key, **rest: Cause(id=key, since=NOON + minutes(int(key[1:])), **rest),
        IDS,
        kind=st.sampled_from(["operator", "run", "block", "fence"]),
        by=WORDS,
        reason=WORDS,
        message=WORDS,
        expected_end=st.none() | INSTANTS,
        sessions=SESSIONS,
        host=WORDS,
        epoch=st.integers(0, 9),
        revision=st.integers(1, 3),
        extra=extras(),
    )


def lifts() -> st.SearchStrategy[Lift]:
    """Tombstones."""
    return st.builds(
        lambda key, **rest: Lift(id=key, since=NOON + minutes(int(key[1:])), **rest),
        IDS,
        at=INSTANTS,
        by=WORDS,
        sessions=SESSIONS,
        undone=st.booleans(),
        extra=extras(),
    )


def windows() -> st.SearchStrategy[Window]:
    """Windows."""
    return st.builds(
        lambda key, start, length, **rest: Window(
            id=key,
            # An occurrence of a schedule always begins at one time.
            start=NOON + minutes(30) if key == "w3" else start,
            end=start + minutes(630 + length) if length else None,
            schedule="s1" if key == "w3" else "",
            **rest,
        ),
        st.sampled_from(["w1", "w2", "w3"]),
        INSTANTS,
        st.integers(0, 90),
        by=WORDS,
        ended=st.booleans(),
        ended_at=st.none() | INSTANTS,
        revision=st.integers(1, 3),
        sessions=SESSIONS,
        extra=extras(),
    )


def schedules() -> st.SearchStrategy[Schedule]:
    """Recurring windows."""
    return st.builds(
        Schedule,
        id=st.sampled_from(["s1", "s2"]),
        rule=st.sampled_from(["0 2 * * SUN", "0 3 * * *"]),
        zone=st.just("UTC"),
        seconds=st.integers(60, 3600).map(float),
        by=WORDS,
        through=st.sampled_from(["", "2026-05-01T12:00:00", "2026-05-03T12:00:00"]),
        past=st.none() | INSTANTS,
        cancelled_at=st.none() | INSTANTS,
        revision=st.integers(1, 3),
        extra=extras(),
    )


def rehearsals() -> st.SearchStrategy[Rehearsal]:
    """Rehearsals; those of one id share their start."""
    return st.builds(
        lambda key, **rest: rehearsal(key, since=NOON + minutes(int(key[1:])), **rest),
        st.sampled_from(["r1", "r2"]),
        by=WORDS,
        host=WORDS,
        ended_at=st.none() | INSTANTS,
        revision=st.integers(1, 3),
        extra=extras(),
    )


def records(*, lineages: tuple[str, ...] = (LINEAGE,)) -> st.SearchStrategy[Record]:
    """Records of the site `shop`."""
    return st.builds(
        lambda found, gone, planned, recurring, **rest: ordered(
            Record(
                site="shop",
                causes=tuple({one.id: one for one in found}.values()),
                lifted={one.id: one for one in gone},
                windows=tuple(one for one in {one.id: one for one in planned}.values() if not over(one, recurring)),
                schedules=tuple(recurring),
                **rest,
            )
        ),
        st.lists(causes(), max_size=3),
        st.lists(lifts(), max_size=2),
        st.lists(windows(), max_size=3),
        st.lists(schedules(), max_size=1),
        epoch=st.integers(0, 9),
        id=st.sampled_from(["r1", "r2", "r3"]),
        lineage=st.sampled_from(lineages),
        changed_at=INSTANTS,
        changed_by=WORDS,
        protected=st.booleans(),
        rehearsal=st.none() | rehearsals(),
        sessions_floor=st.none() | INSTANTS,
        windows_floor=st.none() | INSTANTS,
        extra=extras(),
    )


def record_in(store: Store) -> Record:
    """Return what a store holds, which must be a record."""
    found = store.read().record
    assert found is not None
    return load(found)
