"""Two operators at the same moment: what merges merges, what contradicts has one winner, and the other is told."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from click.testing import CliRunner

from readonly import changes
from readonly.cli import command_group
from readonly.site import Site
from readonly.stores import Reading, Store
from readonly.switch import Switch
from support.operating import ANNA, BEN, Shop


class Overtaken:
    """A store on which somebody else is faster, once."""

    def __init__(self, store: Store, first: Callable[[], object]) -> None:
        self._store = store
        self._first: Callable[[], object] | None = first

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def replace(self, record: bytes, *, was: bytes | None, causes: Sequence[str] = ()) -> Reading:
        """Let the other one go first."""
        if self._first is not None:
            first, self._first = self._first, None
            first()
        return self._store.replace(record, was=was, causes=causes)


def _typed(shop: Shop, first: Callable[[], object], *words: str) -> tuple[int, str]:
    """Type a command on a store where somebody else goes first; return exit code and output."""
    store: Any = Overtaken(shop.store, first)
    group = command_group(site=lambda: Site(Switch(store)))
    done = CliRunner().invoke(group, ["--as", "anna", *words])
    return done.exit_code, done.output


def test_on_against_off(shop: Shop) -> None:
    """The `off` was first: exit 5 names the winner, and nothing of the loser's was changed."""
    shop.on(BEN)
    code, said = _typed(shop, lambda: changes.turn_off(shop.store, BEN), "on", "--no-wait")
    assert code == 5
    assert "ben was faster and lifted c" in said
    assert "What stands now: WRITABLE, epoch 3" in said
    assert shop.standing() == []


@pytest.mark.parametrize("words", [("off",), ("off", "--all"), ("off", "--undo")])
def test_off_against_on(shop: Shop, words: tuple[str, ...]) -> None:
    """The `on` was first: its cause stands, and so does the one that was to be lifted."""
    shop.on(ANNA)
    code, said = _typed(shop, lambda: shop.on(BEN, reason="mine"), *words)
    assert code == 5
    assert "ben was faster and set c" in said
    assert "What stands now: READ-ONLY" in said
    assert '"mine"' in said
    assert shop.standing() == ["anna", "ben"]


def test_on_against_on(shop: Shop) -> None:
    """Two causes; nobody lost."""
    code, _ = _typed(shop, lambda: shop.on(BEN), "on", "--no-wait")
    assert code == 0
    assert shop.standing() == ["anna", "ben"]


def test_off_against_off(shop: Shop) -> None:
    """Each lifts their own."""
    shop.on(ANNA)
    shop.on(BEN)
    code, _ = _typed(shop, lambda: changes.turn_off(shop.store, BEN), "off", "--timeout", "100ms")
    assert code == 0
    assert shop.standing() == []


def test_init_against_init(shop: Shop) -> None:
    """The second one is refused."""
    empty = Shop(shop.url.replace("shop.db", "other.db"), shop.folder)
    assert shop.here("--store", empty.url, "init", "shop").returncode == 0
    assert shop.here("--store", empty.url, "--as", "ben", "init", "shop").returncode == 6


def test_exit_codes_tell_what_stands_after_a_real_race(shop: Shop) -> None:
    """Two processes at the same moment, some rounds: whoever was told 0 or 3 has had their way, who got 5 has not."""
    for _ in range(2):
        shop.on(BEN)
        with (
            shop.start("on", "--timeout", "100ms") as on,
            shop.start("--as", "ben", "off", "--timeout", "100ms") as off,
        ):
            codes = (on.ends(), off.ends())
        assert codes[0] in (3, 5), on.err
        assert codes[1] in (0, 3, 5), off.err
        assert codes != (5, 5)
        standing = shop.standing()
        assert ("anna" in standing) == (codes[0] == 3)
        assert ("ben" in standing) == (codes[1] == 5)
        shop.open()
