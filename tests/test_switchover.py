"""Which server members write to, beside the one that was fenced: when `off` may open the site, and when it may not."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from readonly.members import Guarded, Report
from readonly.record import FENCE, Cause, FenceMark, Record
from readonly.switchover import Identity, elsewhere, gone, left_behind, splits

NOW = datetime(2026, 11, 21, 1, 2, tzinfo=UTC)
OLD, NEW, OTHER = Identity("7301", "1"), Identity("7301", "2"), Identity("7388", "1")


def cause(name: str = "main", at: Identity = OLD, *, database: str = "shop") -> Cause:
    """Return the cause of a fence."""
    mark = FenceMark(name, server=f"old-db:5432/{database}", system=at.system, timeline=at.timeline, level="hard")
    return Cause(f"fence:{name}", FENCE, "ada", NOW, fence=mark)


def record(*causes: Cause) -> Record:
    """Return a record in which they stand."""
    return Record(site="shop", epoch=3, id="r", lineage="l", changed_at=NOW, changed_by="ada", causes=causes)


def member(
    *at: Identity | None, name: str = "main", role: str = "web", database: str = "shop", host: str = "a"
) -> Report:
    """Return a process that writes to these servers, under one name each."""
    guards = tuple(
        Guarded(
            name if not index else f"{name}{index}",
            "",
            {"server": "postgresql", "host": "db", "database": database}
            | ({} if one is None else {"system": one.system, "timeline": one.timeline}),
        )
        for index, one in enumerate(at)
    )
    return Report(id=f"{role}{host}{at}", host=host, pid=1, role=role, guards=guards)


@pytest.mark.parametrize(
    ("there", "here", "why"),
    [
        ([OLD, OLD], OLD, ""),
        ([None, OLD], OLD, ""),  # one that does not know says nothing
        ([], OLD, ""),
        ([], None, ""),
        ([NEW, NEW], NEW, ""),  # promoted: the fence came along, and everybody is there
        ([NEW, NEW], None, ""),
        ([NEW, OLD], NEW, "a standby of main was promoted, and not all members have moved"),
        ([NEW, NEW], OLD, "leads to another server than members write to"),
        ([OLD], OTHER, "leads to another server than members write to"),
        ([OTHER, OTHER], OTHER, "main is not the server that was fenced"),
        ([OTHER, OLD], OLD, "main is not the server that was fenced, and not all members have moved"),
        ([], OTHER, "main is not the server that was fenced"),
    ],
)
def test_one_server_and_the_fenced_one(there: list[Identity | None], here: Identity | None, why: str) -> None:
    """Or what was promoted in its place; and what members write to is what this machine lifts the fence of."""
    found = splits(record(cause()), [member(one) for one in there], {} if here is None else {"main": here})
    assert bool(found) is bool(why)
    assert all(split.why.endswith(why) for split in found)


def test_two_primaries_that_follow_each_other() -> None:
    """One of them was fenced: the other one took writes all the time, and that is named."""
    both = [member(OLD), member(OTHER)]
    (found,) = splits(record(cause()), both, {"main": OLD})
    assert "a pair of primaries" not in found.why
    for report in both:
        for guard in report.guards:
            guard.server["follows"] = True  # type: ignore[index]
    (found,) = splits(record(cause()), both, {"main": OLD})
    assert found.why == (
        "members write to 2 servers of main, one of which was fenced, and what they write to replicates from another "
        "server: a pair of primaries, where each needs a fence of its own"
    )
    assert [seen.identity for seen in found.seen] == [OLD, OTHER]
    assert splits(record(cause()), both[:1], {"main": OLD}) == ()


def test_an_older_history_than_the_fenced_one() -> None:
    """Raised again at what was promoted: who still writes to the old one is elsewhere."""
    (found,) = splits(record(cause(at=NEW)), [member(OLD)], {})
    assert found.why == "main is not the server that was fenced"
    assert splits(record(cause(at=Identity("7301"))), [member(NEW)], {}) == ()


def test_without_a_fence_members_agree() -> None:
    """By role and name: two applications may call two databases by one name. A file is one machine's."""
    assert splits(record(), [member(OLD), member(OTHER, role="stats")], {}) == ()
    (found,) = splits(record(), [member(OLD), member(OLD), member(NEW)], {})
    assert (found.name, found.fence, found.why) == ("main", None, "members write to 2 servers as main")
    assert [(seen.identity, len(seen.members), seen.where) for seen in found.seen] == [
        (OLD, 2, "db/shop"),
        (NEW, 1, "db/shop"),
    ]
    files = [Guarded("main", "", {"server": "sqlite", "system": f"1:{n}", "database": "/srv/shop.db"}) for n in (1, 2)]
    here, there = (Report(id="x", host=h, pid=1, role="web", guards=(f,)) for h, f in zip("ab", files, strict=True))
    assert splits(record(), [here, there], {}) == ()
    same = Report(id="x", host="a", pid=1, role="web", guards=(files[1],))
    (found,) = splits(record(), [here, same], {})
    assert found.seen[0].where == "/srv/shop.db"


def test_which_database_a_fence_is_about() -> None:
    """By the fenced server or the name, with the database's; what another fence is about is none of its own."""
    both = record(cause("main", OLD, database="shop"), cause("stats", OTHER, database="shop"))
    assert splits(both, [member(OLD, name="default"), member(OTHER, name="numbers")], {}) == ()
    # An application that shares nothing but a name with the fenced database.
    assert splits(record(cause()), [member(OLD), member(OTHER, role="stats", database="numbers")], {}) == ()
    # All of one role are looked at, also where some have moved to a database of another name.
    moved = [member(OLD, name="default"), member(OTHER, name="default", database="shop18")]
    (found,) = splits(record(cause()), moved, {})
    assert "not all members have moved" in found.why
    # Everybody has moved: the names are left to go by.
    (found,) = splits(record(cause()), [member(OTHER, name="default")], {})
    assert found.why == "main is not the server that was fenced"


@pytest.mark.parametrize(
    ("where", "moved", "stay", "why"),
    [
        (OLD, None, False, ""),
        (NEW, None, False, ""),
        (None, None, False, ""),  # whoever lifts it says why it can't be reached
        (OTHER, None, False, "readonlyctl off --moved main"),
        (OTHER, None, True, "write the old server's address"),
        (NEW, None, True, "write the old server's address"),
        (OLD, None, True, ""),
        (OTHER, [OTHER], False, ""),
        (OLD, [OTHER], False, ""),
        (OLD, [NEW], False, "stands at the promoted server as well"),
    ],
)
def test_where_a_fence_can_be_let_go_of(
    where: Identity | None, moved: list[Identity] | None, stay: bool, why: str
) -> None:
    """Never at a server that was not fenced, but where somebody says that the site is there now."""
    left = moved is not None and bool(left_behind(cause(), where))
    said = elsewhere("main", cause(), where, now=moved, left=left, stay=stay)
    assert why in said
    assert bool(said) is bool(why)


def test_what_is_said_of_a_fence_that_is_not_there() -> None:
    """It stays where the site has left, or it did not survive, or somebody was faster."""
    assert "its fence stays at old-db:5432/shop" in left_behind(cause(), OLD)
    assert left_behind(cause(), OTHER) == ""
    mark = cause().fence
    assert mark is not None
    assert "did not survive the failover" in gone("main", mark, NEW)
    assert "was lifted before" in gone("main", mark, OLD)
