"""The choice of a replica: what it has reached, who failed, and for how long it is left out."""

from __future__ import annotations

import pytest

from readonly.databases.replicas import (
    LEFT_OUT_CAP_SECONDS,
    LEFT_OUT_SECONDS,
    PROBE_SECONDS,
    Replica,
    Replicas,
)


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(
    ("position", "required", "newest", "fit"),
    [(None, 3, 5, False), (2, 3, 5, False), (3, 3, 5, True), (5, 3, 5, True), (6, 3, 5, False)],
)
def test_only_what_has_reached_the_position(position: int | None, required: int, newest: int, fit: bool) -> None:
    """Not what is behind, not what nobody knows, and not what claims to be from the future."""
    replica = Replica("a")
    if position is not None:
        replica.reached(position)
    assert (Replicas([replica]).choose(required, newest) is replica) is fit


def test_a_declaration_never_goes_back() -> None:
    """Two processes may declare in any order."""
    replica = Replica("a")
    replica.reached(4)
    replica.reached(3)
    assert replica.position() == 4


def test_equal_turns_get_the_same_one_and_others_share() -> None:
    """One request reads from one replica; requests are spread."""
    replicas = [Replica(name) for name in "abc"]
    for replica in replicas:
        replica.reached(1)
    chosen = Replicas(replicas)
    assert {r.target for _ in range(9) if (r := chosen.choose(1, 1))} == {"a", "b", "c"}
    assert {r.target for _ in range(9) if (r := chosen.choose(1, 1, turn=4))} == {"b"}


def test_a_probe_is_bounded() -> None:
    """However many transactions begin, it is looked at so often and no more."""
    clock, looks = Clock(), []

    def probe() -> int:
        looks.append(clock.now)
        return len(looks)

    replica = Replica("a", probe=probe, monotonic=clock)
    assert [replica.position() for _ in range(100)] == [1] * 100
    clock.now += PROBE_SECONDS
    assert [replica.position() for _ in range(100)] == [2] * 100


def test_one_that_failed_is_left_out_and_comes_back() -> None:
    """Longer each time, never for ever, and tried before it is used again."""
    clock = Clock()
    replica = Replica("a", monotonic=clock)
    replica.reached(1)
    replicas = Replicas([replica])
    for failures in range(10):
        replica.failed()
        replica.failed()  # a second user of the same failure
        assert replicas.choose(1, 1) is None
        clock.now += min(LEFT_OUT_SECONDS * 2**failures, LEFT_OUT_CAP_SECONDS)
        assert replicas.choose(1, 1) is replica
        assert replica.suspect
    replica.works()
    replica.failed()
    clock.now += LEFT_OUT_SECONDS
    assert not replica.left_out
