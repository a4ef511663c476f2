"""What a bypass lets write, and who waits for it: nobody while it is good, everybody once it is over."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta

import pytest

from readonly import Policy, Switch, bypassing
from readonly.bypass import HEADER
from readonly.changes import turn_off, turn_on
from readonly.confirmation import Condition, Confirmation, confirm
from readonly.databases.admission import Admission
from readonly.errors import ReadOnlyError
from readonly.exchange import Exchange
from readonly.handling import Handling
from readonly.inflight import InFlight
from readonly.members import Report
from readonly.record import Cause
from readonly.rules import Facts
from readonly.stores import Seen
from support.apps import RECORD
from support.let_through import ANN, NOW, bypass, closed_store
from support.waiting import eventually

# --- the count -----------------------------------------------------------------------------------------------------


def test_what_is_left_of_a_bypass_is_counted_apart() -> None:
    """By whose it is; and whoever waits for the last of it is told of its end, but of nobody else's."""
    told: list[str] = []
    inflight = InFlight(lambda: told.append("drained"))
    inflight.close()
    first, second = inflight.let("b1"), inflight.let("b2")
    assert (inflight.count(), inflight.lets(first), inflight.left({"b1", "b2"})) == (0, True, frozenset())
    inflight.end(inflight.let("b1"))
    assert told == []
    assert inflight.left({"b2"}) == {first}
    inflight.end(second)
    assert told == []
    inflight.end(first)
    inflight.end(first)
    assert (told, inflight.left(()), inflight.lets(first)) == (["drained"], frozenset(), False)
    inflight.let("b3")
    inflight.forget()
    assert inflight.left(()) == frozenset()


# --- what members say ----------------------------------------------------------------------------------------------

CAUSE = Cause(id="c1", kind="operator", by="ann", since=NOW)
OBEYING = Report(id="m1", host="web-1", pid=7, role="web", causes=("c1",), synced=True, registry="r", lets=("b1",))


@pytest.mark.parametrize(
    ("fields", "report", "condition"),
    [
        ({}, OBEYING, Condition.OBEYS),
        ({}, replace(OBEYING, lets=()), Condition.OBEYS),
        ({"revoked": True}, OBEYING, Condition.LATE),
        ({"until": NOW}, OBEYING, Condition.LATE),
        ({"causes": ("c0",)}, OBEYING, Condition.LATE),
        ({"id": "b2"}, OBEYING, Condition.LATE),
        ({"revoked": True}, replace(OBEYING, lets=()), Condition.OBEYS),
        ({"revoked": True}, replace(OBEYING, lets=(), in_flight=1), Condition.DRAINS),
    ],
)
def test_a_member_that_lets_through_what_is_over_is_late(
    fields: dict[str, object], report: Report, condition: Condition
) -> None:
    """By the bypass itself, as everything is confirmed, and not by an epoch."""
    record = replace(RECORD, causes=(CAUSE,), bypasses=(bypass(**fields),))
    reports = [Seen(report.id, report.dump(), NOW)]
    found = confirm(record, reports, causes=["c1"], closing=True, at=NOW, registry="r", incarnation_seconds=1e6)
    assert ([m.condition for m in found.members], found.safe) == ([condition], condition is Condition.OBEYS)
    opening = confirm(record, reports, causes=["c1"], closing=False, at=NOW, registry="r", incarnation_seconds=1e6)
    assert "bypass" not in str(opening.missing)


def test_a_process_that_ended_while_it_let_somebody_through_has_not_drained() -> None:
    """Of what a bypass let begin it told nobody."""
    record = replace(RECORD, causes=(CAUSE,))
    ended = replace(OBEYING, found_gone=True, closed=True)
    for report, said in ((ended, True), (replace(ended, lets=()), False)):
        seen = [Seen(report.id, report.dump(), NOW - timedelta(seconds=30)), Seen("m2", _other().dump(), NOW)]
        found = confirm(record, seen, causes=["c1"], closing=True, at=NOW, registry="r", incarnation_seconds=1e6)
        assert any("its process has ended" in problem for problem in found.missing) is said


def _other() -> Report:
    return replace(OBEYING, id="m2", lets=())


# --- a process -----------------------------------------------------------------------------------------------------


@pytest.fixture
def switch() -> Iterator[Switch]:
    """A process of a site that was made read-only."""
    made = Switch(closed_store(), interval=0.05)
    made.guarded = True
    made.start()
    eventually(lambda: made.state.read_only)
    yield made
    made.close()


class Holder:
    """Somebody with a bypass, and what they ask for."""

    def __init__(self, switch: Switch) -> None:
        _, self.bypass, _, self.token = bypassing.give(switch.store, ANN, "ann", lasting=timedelta(minutes=5))
        self.handling: Handling[object] = Handling(switch, Policy(), None, None)
        eventually(lambda: switch.lets_through(self.bypass.id))

    def begins(self, method: str) -> Exchange:
        """Begin a request, which is let through."""
        exchange = Exchange(self.handling, Facts(method, "/articles", headers={HEADER.lower(): self.token}))
        assert exchange.begin() is None
        return exchange


def confirmed(switch: Switch, timeout: float = 10.0) -> Confirmation:
    """Return what `wait` would say of the causes that stand."""
    return switch.confirm(switch.state.epoch, timeout=timeout)


def is_over(switch: Switch, holder: Holder, how: str) -> None:
    """End a bypass, in one of the ways in which it ends."""
    if how == "taken back":
        bypassing.revoke(switch.store, ANN, "ann")
    else:
        turn_off(switch.store, ANN)
        eventually(lambda: not switch.state.read_only)
        turn_on(switch.store, ANN)
        eventually(lambda: switch.state.read_only)
    eventually(lambda: not switch.lets_through(holder.bypass.id))


@pytest.mark.parametrize("how", ["taken back", "another read-only time"])
def test_what_it_let_write_is_waited_for_when_it_is_over(switch: Switch, how: str) -> None:
    """Nobody waits while it is good, for "safe" names it then. After that, "safe" is true of it, too."""
    holder = Holder(switch)
    exchange = holder.begins("POST")
    assert confirmed(switch).safe
    is_over(switch, holder, how)

    def drains() -> bool:
        found = confirmed(switch, timeout=0.2)
        assert not found.safe
        return [m.condition for m in found.members] == [Condition.DRAINS]

    eventually(drains, what="it has reported what it knows")
    assert exchange.work is not None
    assert exchange.work.may_write  # what has begun goes on to its end
    exchange.end()
    assert confirmed(switch).safe


@pytest.mark.parametrize("how", ["taken back", "another read-only time"])
def test_a_transaction_that_it_let_begin_is_waited_for(switch: Switch, how: str) -> None:
    """Also one inside a read, as a stream that lives on; that begins no other one."""
    holder = Holder(switch)
    exchange = holder.begins("GET")
    admission = Admission(switch, "main")
    with exchange.working():
        key = admission.begin()
        assert key is not None
        is_over(switch, holder, how)
        assert not confirmed(switch, timeout=0.2).safe
        assert admission.begin() is None
        with pytest.raises(ReadOnlyError), switch.writing():
            pytest.fail("begun")
        admission.end(key)
        assert confirmed(switch).safe
    exchange.end()


def test_other_work_inside_is_part_of_it(switch: Switch) -> None:
    """`switch.writing()` in a request that was let through, for as long as that goes on."""
    holder = Holder(switch)
    exchange = holder.begins("POST")
    with exchange.working(), switch.writing():
        is_over(switch, holder, "taken back")
        exchange.end()
        assert not confirmed(switch, timeout=0.2).safe
    assert confirmed(switch).safe


def test_taken_back_between_the_look_and_the_count(switch: Switch, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever was told that nothing is in flight was told the truth: it is refused after all."""
    holder = Holder(switch)
    let = switch.inflight.let

    def taken_back_first(by: str) -> object:
        is_over(switch, holder, "taken back")
        assert confirmed(switch).safe
        return let(by)

    monkeypatch.setattr(type(switch.inflight), "let", lambda _, by: taken_back_first(by))
    exchange = Exchange(holder.handling, Facts("POST", "/articles", headers={HEADER.lower(): holder.token}))
    answer = exchange.begin()
    assert answer is not None
    assert (answer.status, HEADER in dict(answer.headers)) == (503, False)
    assert confirmed(switch).safe
