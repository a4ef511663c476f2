"""What members say, and what follows from it: who obeys, who drains, who is silent, and when that is "safe"."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from readonly import confirmation, processes
from readonly.cli.groups import role_lines
from readonly.confirmation import (
    LONGEST_TRANSACTION_SECONDS,
    Condition,
    Confirmation,
    Expected,
    accepting_leases,
    confirm,
    parse_expect,
)
from readonly.errors import ConfigurationError, NotConfirmed
from readonly.members import KNEW_AT_MOST, Guarded, Others, Report, ttl_seconds
from readonly.processes import is_gone, process_namespace, process_start
from readonly.record import Record
from readonly.stores import Seen
from support.records import NOON, PLAIN, cause, lift, record, window

CLOSED, OPEN = record(cause("c1")), record(lifted=(lift("c1"),))
# What a member says that has seen `on` and has nothing left to do.
OBEYING = Report(
    id="m1",
    host="web-1",
    pid=7,
    role="web",
    epoch=5,
    causes=("c1",),
    closed=True,
    synced=True,
    in_flight=0,
    interval=1.0,
)
FOLLOWING = replace(OBEYING, causes=(), closed=False)


def seen(report: Report, *, silent: float = 0.0) -> Seen:
    """Return a report as the registry holds it, `silent` seconds old."""
    return Seen(report.id, report.dump(), NOON - timedelta(seconds=silent))


def judged(
    *reports: Report | Seen,
    closing: bool = True,
    found: Record | None = None,
    causes: Sequence[str] = ("c1",),
    **rest: Any,
) -> Confirmation:
    """Judge reports against the cause c1, at noon."""
    if found is None:
        found = CLOSED if closing else OPEN
    registry = [one if isinstance(one, Seen) else seen(one) for one in reports]
    return confirm(found, registry, causes=causes, closing=closing, at=NOON, **rest)


def condition(*reports: Report | Seen, **rest: Any) -> tuple[Condition, bool]:
    """Return where the only member stands, and whether it blocks."""
    (member,) = judged(*reports, **rest).members
    return member.condition, member.blocks


# --- closing ---------------------------------------------------------------------------------------------------------


def test_a_member_that_obeys_and_has_drained_is_safe() -> None:
    """The one good case; everything below is that case with one thing changed."""
    found = judged(OBEYING)
    assert found.safe
    assert found.missing == ()
    assert found.require_safe() is found
    assert (found.epoch, found.causes, found.closing, found.at) == (5, ("c1",), True, NOON)
    assert condition(OBEYING) == (Condition.OBEYS, False)


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"causes": ()}, Condition.LATE),
        ({"causes": ("c2",)}, Condition.LATE),
        ({"closed": False}, Condition.LATE),
        ({"causes": (), "epoch": 99}, Condition.LATE),  # by cause, not by epoch
        ({"in_flight": 1}, Condition.DRAINS),
        ({"inert": True}, Condition.INERT),
        ({"inert": True, "closed": False}, Condition.INERT),
        ({"guards": (Guarded("main", "pending"),)}, Condition.UNPROVEN),
        ({"guards": (Guarded("a"), Guarded("b", "a write was let through"))}, Condition.UNPROVEN),
    ],
)
def test_one_thing_wrong_with_a_member_is_not_safe(changed: dict[str, Any], expected: Condition) -> None:
    """Each blocks, and is named with the member."""
    wrong = replace(OBEYING, **changed)
    assert condition(wrong) == (expected, True)
    found = judged(wrong, replace(OBEYING, id="m2"))
    assert not found.safe
    assert any("web web-1/7" in sentence for sentence in found.missing)
    with pytest.raises(NotConfirmed) as error:
        found.require_safe()
    assert error.value.missing == found.missing


def test_guards_that_proved_themselves_do_not_block() -> None:
    """A proof is the empty string."""
    assert judged(replace(OBEYING, guards=(Guarded("main"), Guarded("other")))).safe


def test_more_causes_than_asked_for_do_no_harm() -> None:
    """All that were asked for must be in the view; others may be."""
    both = replace(OBEYING, causes=("c0", "c1", "c2"))
    assert judged(both).safe
    assert judged(both, causes=("c1", "c2"), found=record(cause("c1"), cause("c2"))).safe
    assert not judged(OBEYING, causes=("c1", "c2"), found=record(cause("c1"), cause("c2"))).safe


def test_nobody_there_is_never_safe() -> None:
    """Neither an empty registry, nor one of members that are gone."""
    assert not judged().safe
    assert not judged(replace(OBEYING, gone=True)).safe
    assert not judged(seen(OBEYING, silent=1e6)).safe


def test_a_record_without_the_cause_is_not_safe() -> None:
    """Lost, lifted, or never there: members that still hold it prove nothing."""
    for found in (OPEN, record(), record(cause("c9"))):
        assert not judged(OBEYING, found=found).safe
    assert not confirm(None, [seen(OBEYING)], causes=["c1"], closing=True, at=NOON).safe


def test_no_cause_at_all_is_not_safe() -> None:
    """Members of an emptied store are closed without a cause, and open as soon as one that knows writes back."""
    partial = record(lineage="")
    assert not judged(replace(OBEYING, causes=()), causes=(), found=partial).safe
    assert not judged(replace(OBEYING, causes=()), causes=(), found=record()).safe


def test_a_window_in_force_is_confirmed_like_a_cause() -> None:
    """By its id."""
    planned = record(windows=(window(start=NOON),))
    assert judged(replace(OBEYING, causes=("w1",)), causes=("w1",), found=planned).safe
    assert not judged(replace(OBEYING, causes=("w1",)), causes=("w1",), found=record(windows=(window(),))).safe


# --- how many must be there ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("there", "wanted", "safe"), [(2, 2, True), (1, 2, False), (3, 2, True), (2, 0, True)])
def test_fewer_of_a_role_than_expected_is_not_safe(there: int, wanted: int, safe: bool) -> None:
    """More never block; silent ones do not count."""
    reports: list[Report | Seen] = [replace(OBEYING, id=f"m{n}") for n in range(there)]
    assert judged(*reports, expect={"web": Expected(wanted)}).safe is safe
    other = replace(OBEYING, id="job", role="job")
    assert judged(*reports, other, expect={"web": Expected(wanted), "job": Expected(1)}).safe is safe
    assert not judged(*reports, expect={"celery": Expected(1)}).safe


def test_a_member_that_is_gone_or_expired_is_not_there() -> None:
    """Two were expected, one of them has ended: that is one."""
    ended = seen(replace(OBEYING, id="m2", lease=1.0), silent=100)
    expired = judged(OBEYING, ended, expect={"web": Expected(2)}, here_since={"c1": NOON - timedelta(seconds=100)})
    assert [m.condition for m in expired.members] == [Condition.OBEYS, Condition.EXPIRED]
    assert expired.missing == ("web: 1 report, expected 2 or more",)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", {}),
        ("web=4", {"web": Expected(4, at_least=False)}),
        (" web = 4 , celery>=2 ,", {"web": Expected(4, at_least=False), "celery": Expected(2)}),
        ("a-b.c=0", {"a-b.c": Expected(0, at_least=False)}),
    ],
)
def test_expectations_are_read(text: str, expected: dict[str, Expected]) -> None:
    """A role and a number each."""
    assert parse_expect(text) == expected


@pytest.mark.parametrize("text", ["web", "web=", "=4", "web=-1", "web<=3", "web=4;celery=2", "web=four", "web==4"])
def test_an_expectation_that_makes_no_sense_is_named(text: str) -> None:
    """Guessing would make a "safe" out of a typing error."""
    with pytest.raises(ConfigurationError, match="expect="):
        parse_expect(text)


# --- silence ---------------------------------------------------------------------------------------------------------


def test_a_late_report_is_not_silence() -> None:
    """Three intervals and a second; where intervals are long, ten seconds and a second more than one."""
    assert ttl_seconds(replace(OBEYING, interval=2.0)) == 7.0
    assert ttl_seconds(replace(OBEYING, interval=25.0)) == 36.0
    assert condition(seen(OBEYING, silent=3.9)) == (Condition.OBEYS, False)
    assert condition(seen(OBEYING, silent=4.1)) == (Condition.LOST, True)


@pytest.mark.parametrize("last", [OBEYING, replace(OBEYING, in_flight=2), FOLLOWING, replace(OBEYING, synced=False)])
def test_a_lost_member_blocks_whatever_it_said_last(last: Report) -> None:
    """Silence proves nothing (design rule 11)."""
    assert condition(seen(last, silent=60)) == (Condition.LOST, True)
    assert not judged(OBEYING, seen(replace(last, id="m2"), silent=60)).safe


def test_a_store_whose_clock_went_back_makes_nobody_silent() -> None:
    """A report from the future is a report."""
    assert condition(seen(OBEYING, silent=-60)) == (Condition.OBEYS, False)


HERE_LONG: dict[str, Any] = {"here_since": {"c1": NOON - timedelta(seconds=60)}}
LEASED = replace(OBEYING, lease=10.0)


@pytest.mark.parametrize(
    ("last", "rest", "expected"),
    [
        (LEASED, HERE_LONG, (Condition.EXPIRED, False)),
        (replace(LEASED, in_flight=1), HERE_LONG, (Condition.EXPIRED, True)),
        (replace(LEASED, closed=False), HERE_LONG, (Condition.EXPIRED, True)),
        (replace(LEASED, causes=()), HERE_LONG, (Condition.EXPIRED, True)),
        (replace(LEASED, synced=False), HERE_LONG, (Condition.EXPIRED, True)),
        (LEASED, {}, (Condition.LOST, True)),
        (LEASED, {"here_since": {"c1": NOON - timedelta(seconds=11)}}, (Condition.LOST, True)),
        (LEASED, {"here_since": {"c9": NOON - timedelta(seconds=99)}}, (Condition.LOST, True)),
        (OBEYING, HERE_LONG, (Condition.LOST, True)),
    ],
)
def test_a_lease_that_is_over_proves_what_the_last_words_said(
    last: Report, rest: dict[str, Any], expected: tuple[Condition, bool]
) -> None:
    """It admits nothing more; what it had begun may still commit. Counted from when the cause came into this store."""
    assert condition(seen(last, silent=60), **rest) == expected


@pytest.mark.parametrize(
    ("last", "waited", "accepted"),
    [
        (replace(LEASED, in_flight=1), 11.6, True),
        (replace(LEASED, in_flight=1), 11.4, False),  # ten, a twentieth for drift, and a second
        (replace(LEASED, in_flight=1), math.inf, True),
        (replace(OBEYING, in_flight=1), math.inf, False),  # lost
        (replace(OBEYING, in_flight=1, found_gone=True), 0.0, True),
        (LEASED, math.inf, None),  # its last words are proof enough
    ],
)
def test_what_has_ended_is_accepted_by_a_person(last: Report, waited: float, accepted: bool | None) -> None:
    """Only of those who admit nothing any more, and only once that is true by the clock of whoever waits."""
    found = accepting_leases(judged(seen(last, silent=60), FOLLOWING, **HERE_LONG), waited=waited)
    (one,) = (m for m in found.members if m.report != FOLLOWING)
    assert (bool(one.why), one.accepted) == (accepted is not None, bool(accepted))
    assert one.blocks == (accepted is False)
    assert len(found.accepted) == bool(accepted)
    assert not found.safe  # the other one has not taken the change in
    opening = judged(seen(last, silent=60), closing=False, found=OPEN)
    assert accepting_leases(opening) == opening


def test_every_cause_must_have_been_here_for_the_lease() -> None:
    """A cause that was lost and came back begins to wait anew (protocol C13)."""
    found = record(cause("c1"), cause("c2"))
    member = seen(replace(LEASED, causes=("c1", "c2")), silent=60)
    since = {"c1": NOON - timedelta(seconds=60), "c2": NOON - timedelta(seconds=1)}
    (one,) = judged(member, found=found, causes=("c1", "c2"), here_since=since).members
    assert one.condition is Condition.LOST


# --- goodbye and proven deaths --------------------------------------------------------------------------------------


def test_last_words_with_nothing_in_flight_settle_it() -> None:
    """Nothing of its own can commit any more; it is not there for `expect` either."""
    assert judged(replace(FOLLOWING, gone=True)).members == ()
    assert judged(OBEYING, replace(FOLLOWING, id="m2", gone=True)).safe


def test_last_words_with_writes_in_flight_block_for_as_long_as_a_transaction_may_last() -> None:
    """They may still commit; opening does not care."""
    ended = replace(OBEYING, id="m2", gone=True, in_flight=1)
    assert not judged(OBEYING, ended).safe
    assert not judged(OBEYING, seen(ended, silent=LONGEST_TRANSACTION_SECONDS - 1)).safe
    assert judged(OBEYING, seen(ended, silent=LONGEST_TRANSACTION_SECONDS + 1)).safe
    assert judged(replace(FOLLOWING, id="m1"), ended, closing=False).safe


def _dead_process() -> tuple[int, str]:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    start = process_start(process.pid)
    process.communicate()
    return process.pid, start


def test_a_process_of_this_host_is_proven_dead_by_its_pid_and_start() -> None:
    """The pid is free, or belongs to another process; elsewhere nobody can tell."""
    pid, start = _dead_process()
    dead = replace(OBEYING, pid=pid, start=start, namespace=process_namespace())
    assert is_gone(dead)
    assert is_gone(replace(dead, pid=os.getpid(), start="1"))
    assert not is_gone(replace(dead, pid=os.getpid(), start=process_start(os.getpid())))
    assert not is_gone(replace(dead, namespace="another machine"))
    assert not is_gone(replace(dead, namespace=""))
    assert not is_gone(replace(dead, start=""))


def test_a_process_that_cannot_be_seen_is_not_proven_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where /proc hides the processes of others (hidepid), the kernel still knows the pid."""
    monkeypatch.setattr(processes, "process_start", lambda pid: "")
    assert not is_gone(replace(OBEYING, pid=os.getpid(), start="1", namespace=process_namespace()))
    pid, start = _dead_process()
    assert is_gone(replace(OBEYING, pid=pid, start=start, namespace=process_namespace()))


@pytest.mark.parametrize(("in_flight", "blocks"), [(0, False), (1, True)])
def test_a_dead_member_counts_by_its_last_report(monkeypatch: pytest.MonkeyPatch, in_flight: int, blocks: bool) -> None:
    """What it had begun may still commit, for as long as a transaction may last."""
    monkeypatch.setattr(confirmation, "is_gone", lambda report: report.id == "dead")
    last = replace(OBEYING, id="dead", in_flight=in_flight)
    assert condition(seen(last, silent=60)) == (Condition.GONE, blocks)
    assert condition(seen(replace(FOLLOWING, id="dead"), silent=60)) == (Condition.GONE, True)
    assert judged(seen(last, silent=LONGEST_TRANSACTION_SECONDS + 1)).members == ()


def test_a_transaction_may_last_longer_than_the_dead_are_remembered() -> None:
    """Then a registry that was lost proves nothing until what ended before, and is remembered by nobody, is over."""
    for young, safe in ((1199.0, False), (1201.0, True)):
        assert judged(OBEYING, incarnation_seconds=young, longest_transaction=1800.0).safe is safe
    assert judged(OBEYING, incarnation_seconds=5.0, longest_transaction=LONGEST_TRANSACTION_SECONDS).safe
    assert judged(FOLLOWING, closing=False, incarnation_seconds=5.0, longest_transaction=1800.0).safe


# --- a store that forgot --------------------------------------------------------------------------------------------


def test_a_registry_that_is_too_young_proves_nothing() -> None:
    """Whoever was there before it was lost has as long to report again as a member may be silent (design rule 6)."""
    assert not judged(OBEYING, incarnation_seconds=3.9).safe
    assert judged(OBEYING, incarnation_seconds=4.1).safe
    slow = replace(OBEYING, id="m2", interval=5.0)
    assert not judged(OBEYING, slow, incarnation_seconds=15.9).safe


def test_a_store_that_is_too_young_opens_nobody_for_good() -> None:
    """Whoever knows of a cause that it has lost brings it back: until then "open" is not proven either."""
    young = judged(FOLLOWING, closing=False, incarnation_seconds=3.9)
    assert (young.safe, young.settled) == (False, False)
    assert "bring it back" in young.missing[0]
    assert judged(FOLLOWING, closing=False, incarnation_seconds=4.1).safe
    assert not judged(closing=False, incarnation_seconds=3.9).safe
    assert judged(closing=False, incarnation_seconds=4.1).safe
    slow = replace(FOLLOWING, interval=5.0)
    assert not judged(slow, closing=False, incarnation_seconds=15.9).safe


def test_who_was_known_before_the_registry_was_lost_is_missing() -> None:
    """Until it has reported again, or a person has vouched for it; opening does not wait for it."""
    asking = replace(OBEYING, knew=("m7",))
    found = judged(asking, incarnation_seconds=1e6)
    assert not found.safe
    assert "readonlyctl members forget m7" in found.missing[0]
    assert judged(asking, replace(OBEYING, id="m7")).safe
    assert judged(asking, forgotten=["m7"]).safe
    assert judged(replace(asking, causes=(), closed=False), closing=False).safe


@pytest.mark.parametrize("before", ["r1", ""])
def test_a_report_counts_only_if_it_was_built_with_the_present_registry(before: str) -> None:
    """Its sender did not know yet whom to ask after; an older version, which names no registry, never says it."""
    here = replace(OBEYING, registry="r2")
    assert judged(here, registry="r2").safe
    for stale in (replace(OBEYING, registry=before), replace(OBEYING, registry=before, id="m2")):
        found = judged(here, stale, registry="r2")
        assert [m.condition for m in found.members if m.blocks] == [Condition.LATE]
        assert "list of members" in found.missing[0]
    assert judged(replace(FOLLOWING, registry=before), closing=False, registry="r2").safe


def test_what_the_silent_said_of_themselves_outlives_the_registry() -> None:
    """A restart keeps their last words: nobody has to vouch for who ended properly days before it."""
    here, last = replace(OBEYING, registry="r2"), replace(OBEYING, id="m2", registry="r1")
    assert judged(here, replace(last, gone=True), registry="r2").safe
    assert judged(here, replace(last, found_gone=True), registry="r2").safe
    assert judged(
        here, seen(replace(last, lease=1.0), silent=60), registry="r2", here_since=HERE_LONG["here_since"]
    ).safe
    # Also whom they asked after.
    asking = replace(last, gone=True, knew=("m7",))
    assert "m7" in judged(here, asking, registry="r2").missing[0]


def test_what_one_process_has_in_mind() -> None:
    """Its neighbours; those of a registry that was lost until they are back; and no more than fits into a report."""
    first = Others().after("r1", ("a", "b"))
    assert (first.registry, first.neighbours, first.knew) == ("r1", ("a", "b"), ())
    assert first.after("r1", ("c",)).knew == ()
    lost = first.after("r2", ("c",))
    assert (lost.registry, lost.neighbours, lost.knew) == ("r2", ("c",), ("a", "b"))
    assert lost.after("r2", ("b",)).knew == ("a",)
    assert lost.after("r3", ("a",)).knew == ("b", "c")
    many = Others("r1", tuple(f"m{n}" for n in range(KNEW_AT_MOST + 1)))
    assert many.after("r2", ()).knew == many.neighbours[1:]


def test_a_record_that_nobody_made_whole_is_not_safe() -> None:
    """Nobody who reports knows of before, so nobody knows who had begun to write."""
    assert not judged(OBEYING, found=record(cause("c1"), lineage="")).safe


# --- opening ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changed", "silent", "safe"),
    [
        ({}, 0, True),
        ({"causes": ("c1",)}, 0, False),
        ({"causes": ("c2",), "closed": True}, 0, False),  # nobody knows of it but this member, who brings it back
        ({"in_flight": 9}, 0, True),
        ({"causes": ("c1",)}, 60, True),  # a silent member holds nobody up who wants to open
        ({"inert": True}, 0, True),
        ({"guards": (Guarded("main", "pending"),)}, 0, True),
    ],
)
def test_opening_waits_for_members_that_hold_the_cause(changed: dict[str, Any], silent: float, safe: bool) -> None:
    """And for nothing else."""
    assert judged(seen(replace(FOLLOWING, **changed), silent=silent), closing=False).safe is safe


def test_others_causes_are_not_what_was_asked_for() -> None:
    """One's own is lifted; who is closed for another one that stands has taken that in."""
    other = replace(FOLLOWING, causes=("c2",), closed=True)
    assert judged(other, closing=False, found=record(cause("c2"), lifted=(lift("c1"),))).safe
    found = judged(other, closing=False)
    assert "c2, which the store does not" in found.missing[0]


def test_a_cause_that_came_back_is_not_open() -> None:
    """The record decides."""
    assert not judged(FOLLOWING, closing=False, found=CLOSED).safe


def test_opening_needs_nobody() -> None:
    """A site without processes is open."""
    assert judged(closing=False).safe


# --- reports ---------------------------------------------------------------------------------------------------------


def test_a_report_survives_the_registry() -> None:
    """All of it."""
    report = replace(
        OBEYING,
        start="5",
        namespace="n",
        library="0.1",
        oldest_seconds=1.5,
        counter=9,
        lease=30.0,
        boot="open",
        runs="shop 1",
        guards=(Guarded("main", "pending", {"server": "db1", "port": 5432}),),
        local=("the primary is read-only",),
        registry="r1",
        knew=("m7",),
        tally={"refused": 3, "by_route": {"/cart": 3}},
    )
    assert Report.load("m1", report.dump()) == report


def test_fields_of_newer_versions_are_ignored() -> None:
    """Also inside a guard."""
    raw = json.loads(replace(OBEYING, guards=(Guarded("main"),)).dump())
    raw["later"] = 1
    raw["guards"][0]["later"] = 2
    assert Report.load("m1", json.dumps(raw).encode()) == replace(OBEYING, guards=(Guarded("main"),))


def test_text_that_is_no_utf_8_can_be_reported() -> None:
    """A name that came from the environment in another encoding must not silence a process."""
    report = replace(OBEYING, runs=b"shop \xe4".decode("utf-8", "surrogateescape"))
    assert Report.load("m1", report.dump()) == report


@pytest.mark.parametrize("raw", [b"", b"{}", b"null", b"[]", b"\xff", b'{"id":"m1"}', b"[" * 100_000])
def test_a_report_that_cannot_be_read_proves_nothing(raw: bytes) -> None:
    """Its sender is there, and blocks."""
    found = judged(OBEYING, Seen("m2", raw, NOON))
    assert not found.safe
    assert sum(m.blocks for m in found.members) == 1


@given(
    changed=st.dictionaries(
        st.sampled_from(sorted(json.loads(OBEYING.dump()))), PLAIN | st.floats(), min_size=1, max_size=3
    ),
    silent=st.sampled_from([0, 60, 1000]),
    closing=st.booleans(),
)
@example(changed={"lease": 1e15}, silent=60, closing=True)
@example(changed={"interval": 1e300}, silent=60, closing=True)
def test_a_report_with_anything_in_it_never_crashes_a_command(
    changed: dict[str, Any], silent: float, closing: bool
) -> None:
    """`on` must not fail for what one process wrote, and what makes no sense is no proof."""
    raw = json.dumps({**json.loads(OBEYING.dump()), **changed}).encode()
    found = judged(
        OBEYING, Seen("m2", raw, NOON - timedelta(seconds=silent)), closing=closing, here_since=HERE_LONG["here_since"]
    )
    assert isinstance(found.missing, tuple)
    if closing and found.safe and silent == 0:
        read = Report.load("m2", raw)
        assert read.gone or (read.closed is True and read.in_flight == 0 and "c1" in read.causes)


def test_members_are_ordered_by_role_and_name() -> None:
    """So that two looks show the same list."""
    reports = [replace(OBEYING, id=str(n), role=role, pid=n) for n, role in enumerate(["web", "job", "web"])]
    assert [m.report.name for m in judged(*reports).members] == ["job web-1/1", "web web-1/0", "web web-1/2"]
    assert len(judged(*reports).of(Condition.OBEYS)) == 3


def test_a_role_that_is_gone_was_there_with_so_many() -> None:
    """Those that ended together count; who had left before, in an earlier deploy, does not."""
    left = [
        (replace(OBEYING, id=f"c{n}", role="celery", gone=True), ago) for n, ago in enumerate([7200.0, 7210.0, 9000.0])
    ]
    there = [seen(OBEYING), *(seen(report, silent=ago) for report, ago in left)]
    found = confirm(CLOSED, there, causes=["c1"], closing=True, at=NOON)
    assert (found.roster["celery"], dict(found.crews)) == (7200.0, {"web": 1, "celery": 2})
    assert found.safe
    assert role_lines(found, versions=False)[-1] == "celery    0 now, last seen 2 h ago, 2 then"
