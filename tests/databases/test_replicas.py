"""What a replica says of itself, judged: who does for a reader, who is left out, and which one is chosen."""

from __future__ import annotations

from typing import Any

import pytest

from readonly.databases.replicas import (
    LEFT_OUT_CAP_SECONDS,
    LEFT_OUT_SECONDS,
    PROBE_SECONDS,
    STALE_SECONDS,
    Need,
    Position,
    Replica,
    Replicas,
    Schema,
    Standing,
    alembic,
    query,
    schema_of,
    why_unfit,
)
from readonly.databases.replicas.positions import behind_header, reached
from readonly.errors import ConfigurationError, Error

FENCED = Position("7301", "0/3A00F10")


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def watched(name: str = "a", clock: Clock | None = None, **standing: Any) -> Replica[str]:
    """Return a replica that somebody looked at."""
    replica = Replica(name, name=name, watched=True, monotonic=clock or Clock())
    replica.found(Standing(**standing))
    return replica


@pytest.mark.parametrize(
    ("epoch", "why"),
    [(None, "epoch"), (2, "before 3"), (3, ""), (5, ""), (6, "still to come")],
)
def test_a_copy_is_of_this_time(epoch: int | None, why: str) -> None:
    """Not what is behind, not what carries no epoch, and not what claims to be from the future."""
    found = Standing(problem="carries no epoch") if epoch is None else Standing(epoch=epoch)
    said = why_unfit(found, Need(epochs=(3, 5)))
    assert why in said
    assert bool(said) is bool(why)


@pytest.mark.parametrize(
    ("standing", "why"),
    [
        ({"at": "0/3A00F10"}, ""),
        ({"at": "1/0"}, ""),
        ({"at": "0/3A00F0F"}, "has not reached 0/3A00F10"),
        ({"at": "0/3A00F0F", "paused": True}, "replay is paused"),
        ({"at": ""}, "does not tell its position"),
        ({"at": "1/0", "system": "7388"}, "positions of one system mean nothing on another"),
        ({"at": "1/0", "replica": False}, "was it promoted?"),
        ({"at": "1/0", "problem": "can't be reached: refused"}, "can't be reached"),
    ],
)
def test_a_replica_is_behind_the_fence(standing: dict[str, Any], why: str) -> None:
    """By the position alone, of the same system, and never where a position can't be had."""
    given: dict[str, Any] = {"system": "7301", "lag": 9999.0} | standing
    found = Standing(**given)
    said = why_unfit(found, Need(positions=(FENCED,)))
    assert why in said
    assert bool(said) is bool(why)


@pytest.mark.parametrize(("lag", "why"), [(0.0, ""), (10.0, ""), (10.1, "may be 10"), (None, "does not tell")])
def test_without_a_position_it_goes_by_lag(lag: float | None, why: str) -> None:
    """And one that can't tell its lag is not read."""
    said = why_unfit(Standing(lag=lag), Need(lag=10.0))
    assert why in said
    assert bool(said) is bool(why)


@pytest.mark.parametrize(
    ("has", "wants", "why"),
    [
        (("0041",), ("0041",), ""),
        (("0042",), ("0041",), "has schema version 0042, and this code was written for 0041"),
        (("0041",), None, ""),
        (None, ("0041",), "does not tell its schema version: a lock"),
        ((), ("0041",), "(none)"),
    ],
)
def test_it_has_the_schema_that_this_code_was_written_for(
    has: tuple[str, ...] | None, wants: tuple[str, ...] | None, why: str
) -> None:
    """Ahead is as wrong as behind; nobody who can't tell is read."""
    said = why_unfit(Standing(schema=has, no_schema="a lock"), Need(schema=wants))
    assert why in said
    assert bool(said) is bool(why)


def test_what_nobody_has_looked_at() -> None:
    """It is not read; neither is one whose last look is too long ago."""
    clock = Clock()
    replica = Replica("a", watched=True, monotonic=clock)
    assert replica.why_unfit(Need()) == "was not looked at yet"
    replica.found(Standing())
    assert replica.why_unfit(Need()) == ""
    clock.now += STALE_SECONDS + 1
    assert "was not heard" in replica.why_unfit(Need())
    replica.found(Standing())
    assert replica.why_unfit(Need()) == ""


def test_what_is_declared_stands_for_a_position() -> None:
    """A person's word for an epoch; it never goes back, and says nothing about health."""
    replica = watched(at="0/1", system="7301")
    need = Need(epochs=(3, 5), positions=(FENCED,))
    assert "has not reached" in replica.why_unfit(need)
    replica.reached(4)
    replica.reached(2)
    assert replica.why_unfit(need) == ""
    replica.found(Standing(replica=False))
    assert "primary" in replica.why_unfit(need)


def test_a_reader_stays_where_it_read_and_others_share() -> None:
    """One request reads from one replica as long as that does; requests are spread."""
    replicas = [watched(name) for name in "abc"]
    chosen = Replicas(replicas)
    assert {r.target for _ in range(9) if (r := chosen.choose(Need()))} == {"a", "b", "c"}
    assert {r.target for _ in range(9) if (r := chosen.choose(Need(), before=replicas[1]))} == {"b"}
    replicas[1].failed()
    assert {r.target for _ in range(9) if (r := chosen.choose(Need(), before=replicas[1]))} == {"a", "c"}
    assert {r.target for _ in range(9) if (r := chosen.choose(Need(), besides=[replicas[0]]))} == {"c"}
    assert chosen.choose(Need(), besides=replicas) is None


def test_a_look_is_bounded() -> None:
    """However many transactions begin, a file is looked at so often and no more."""
    clock, looks = Clock(), []

    def probe() -> Standing:
        looks.append(clock.now)
        return Standing(epoch=len(looks))

    replica = Replica("a", probe=probe, monotonic=clock)
    assert {replica.standing for _ in range(100)} == {Standing(epoch=1)}
    clock.now += PROBE_SECONDS
    assert {replica.standing for _ in range(100)} == {Standing(epoch=2)}


def test_one_that_failed_is_left_out_and_comes_back() -> None:
    """Longer each time, never for ever, and tried before it is used again."""
    clock = Clock()
    replica = watched(clock=clock)
    replicas = Replicas([replica])
    for failures in range(10):
        replica.failed()
        replica.failed()  # a second user of the same failure
        assert replicas.choose(Need()) is None
        clock.now += min(LEFT_OUT_SECONDS * 2**failures, LEFT_OUT_CAP_SECONDS)
        replica.found(Standing())
        assert replicas.choose(Need()) is replica
        assert replica.suspect
    replica.works()
    replica.failed()
    clock.now += LEFT_OUT_SECONDS
    assert not replica.left_out


# --- positions --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("at", "wanted", "there"),
    [
        ("0/10", "0/9", True),  # numbers, not texts
        ("1/0", "0/FFFFFFFF", True),
        ("0/FFFFFFFF", "1/0", False),
        ("0-1-270", "0-1-99", True),
        ("0-1-99", "0-1-270", False),
        ("0-1-270", "0-1-270,1-2-5", False),  # a domain that it has nothing of
        ("0-3-270,1-2-5", "0-1-270", True),  # another server has written since, in the same order
    ],
)
def test_positions_order(at: str, wanted: str, there: bool) -> None:
    """By the numbers in them, domain by domain."""
    assert reached(at, wanted) is there


@pytest.mark.parametrize(("at", "wanted"), [("0/10", "0-1-5"), ("0-1-5", "0/10"), ("x", "0/1"), ("0-1", "0-1-5")])
def test_what_is_no_position(at: str, wanted: str) -> None:
    """Two kinds, or none at all, are an error and never reached."""
    with pytest.raises(Error, match="it looks like"):
        reached(at, wanted)


@pytest.mark.parametrize(
    ("just_behind", "expected"),
    [("0/3000028", "0/3000000"), ("0/3002018", "0/3002000"), ("0/3002020", "0/3002020"), ("0/3000000", "0/3000000")],
)
def test_a_position_behind_the_header_of_an_empty_page(just_behind: str, expected: str) -> None:
    """A primary at rest would never be reached there."""
    assert behind_header(just_behind) == expected


# --- schema versions --------------------------------------------------------------------------------------------------


def test_what_names_a_schema_version() -> None:
    """Two known ones, a query, or what the functions make."""
    assert schema_of(None) is None
    assert schema_of("alembic") == Schema("SELECT version_num FROM alembic_version")
    assert schema_of("SELECT 1") == Schema("SELECT 1")
    given = query("select v from version", expected="42")
    assert schema_of(given) is given
    assert given.wanted == ("42",)
    assert given.seen([(42,)]) == ("42",)
    assert alembic(heads=["b", "a"]).wanted == ("a", "b")
    for wrong in ("alembick", "UPDATE version SET v = 1", 42):
        with pytest.raises(ConfigurationError, match="is no schema version"):
            schema_of(wrong)
    with pytest.raises(ConfigurationError, match="is no query"):
        query("alembic")
    with pytest.raises(ConfigurationError, match="is one string"):
        alembic(heads="a")
    with pytest.raises(ConfigurationError, match="no name of a table"):
        alembic(heads=["a"], table="a; DROP TABLE b")


def test_the_heads_of_alembic(tmp_path: Any) -> None:
    """Of the scripts that this process has, two branches included."""
    (tmp_path / "alembic.ini").write_text("[alembic]\nscript_location = %(here)s/scripts\npath_separator = os\n")
    versions = tmp_path / "scripts" / "versions"
    versions.mkdir(parents=True)
    for name, down in (("0041", None), ("0042", "0041"), ("0042b", "0041")):
        (versions / f"{name}.py").write_text(f"revision = {name!r}\ndown_revision = {down!r}\n")
    assert alembic(tmp_path / "alembic.ini").wanted == ("0042", "0042b")
    with pytest.raises(ConfigurationError, match="is no file"):
        alembic(tmp_path / "nothing.ini")
    (tmp_path / "scripts").rename(tmp_path / "elsewhere")
    with pytest.raises(ConfigurationError, match="scripts can't be read"):
        alembic(tmp_path / "alembic.ini")
