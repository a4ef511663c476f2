"""What members report of their replicas, taken together: who reads from them, and which are behind the fence."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from readonly.members import Guarded, Report
from readonly.record import FENCE, Cause, FenceMark, Record
from readonly.replicating import Reported, missing, reported

NOW = datetime(2026, 11, 21, 1, 2, tzinfo=UTC)
MARK = FenceMark("main", position="0/3A00F10", level="hard")
FENCED = Record(
    site="shop",
    epoch=3,
    id="r",
    lineage="l",
    changed_at=NOW,
    changed_by="ada",
    causes=(Cause("f", FENCE, "ada", NOW, fence=MARK),),
)


def member(*replicas: dict[str, Any], causes: tuple[str, ...] = ("f",), pid: int = 1) -> Report:
    """Return a process that reads from these."""
    guards = (Guarded("main", "", {"replicas": list(replicas)}),)
    return Report(id=str(pid), host="web-1", pid=pid, role="web", causes=causes, guards=guards)


def test_one_replica_as_several_members_see_it() -> None:
    """The most that it is behind for any of them, and each reason once."""
    fine = {"name": "db2", "at": "0/3A00F10", "lag": 0.5, "unfit": "", "schema": "0041"}
    slow = {"name": "db2", "at": "0/3A00F00", "lag": 2.5, "unfit": "is behind", "behind": "is at 0/3A00F00"}
    (found,) = reported([member(fine), member(slow), member(slow), member()])
    assert found == Reported("main", "db2", 2.5, "0/3A00F00", False, "", "is at 0/3A00F00", (("is behind", 2),), 3)
    assert found.fit == 1
    (frozen,) = reported([member({**fine, "paused": True, "lag": None})])
    assert (frozen.paused, frozen.lag, frozen.schema, frozen.fit) == (True, None, "0041", 1)
    assert reported([member(), Report(id="x", host="h", pid=1, role="web")]) == ()


def test_which_have_not_passed_the_fence() -> None:
    """One that is not there is read by nobody; who has not heard of the fence can't tell."""
    behind = {"name": "db2", "unfit": "is behind", "behind": "is at 0/1 and has not reached 0/3A00F10"}
    there, away = {"name": "db3", "unfit": ""}, {"name": "db4", "unfit": "can't be looked at: refused"}
    assert missing(FENCED, [member(there, away)]) == ()
    assert missing(FENCED, [member(behind, there)]) == ("db2 is at 0/1 and has not reached 0/3A00F10",)
    assert missing(FENCED, [member(there, causes=()), member(there, causes=(), pid=2)]) == (
        "web web-1/1 has not said yet where its replicas are, and 1 more",
    )
    assert missing(FENCED, [member(causes=())]) == ()
    unfenced = Record(site="shop", epoch=3, id="r", lineage="l", changed_at=NOW, changed_by="ada")
    assert missing(unfenced, [member(behind, causes=())]) == ()
