"""Two switches of one process on one store: a warning with both places, and a doubt for as long as both live."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace

import pytest

from readonly import Switch, twins
from readonly.stores.memory import MemoryStore
from support.operating import made
from support.waiting import eventually


@pytest.fixture
def url(tmp_path: Path) -> str:
    """A store that is there."""
    made(tmp_path / "shop.db").store.close()
    return f"sqlite:///{tmp_path}/shop.db?site=shop"


Make = Callable[[str], Switch]


@pytest.fixture
def make() -> Iterator[Make]:
    """Make switches, all in one place; they are closed at the end."""
    with ExitStack() as stack:

        def made_here(url: str) -> Switch:
            switch = Switch.from_url(url, interval=0.1)
            stack.callback(switch.close)
            return switch

        yield made_here


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return the warnings about two switches."""
    return [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING and "two switches" in r.getMessage()]


def doubts(switch: Switch) -> set[str]:
    """Return what the members doubt by their reports."""
    return {doubt for report in switch.members() for doubt in report.doubts}


def test_both_places_are_named(make: Make, url: str, caplog: pytest.LogCaptureFixture) -> None:
    """Once, when the second one begins; both report it, until one of them is closed."""
    first = make(url)
    second = Switch.from_url(url, interval=0.1)
    first.start()
    assert not warnings(caplog), "one that is not used follows nothing"
    second.start()
    second.look()
    (warning,) = warnings(caplog)
    where = f"{Path(__file__).parent.name}/{Path(__file__).name}"
    named = [word for word in warning.replace(",", " ").split() if word.startswith(where)]
    assert len({*named}) == 2
    (doubt,) = eventually(lambda: doubts(first))
    assert doubt.startswith(f"twins {where}:")
    eventually(lambda: sum(1 for report in first.members() if report.doubts) == 2, what="both saying so")
    second.close()
    eventually(lambda: not doubts(first), what="the doubt being over")


def test_one_place_that_is_passed_twice(make: Make, url: str, caplog: pytest.LogCaptureFixture) -> None:
    """An application factory that is called twice."""
    make(url).start()
    make(url).start()
    assert " in made_here, twice: " in "".join(warnings(caplog))


def test_who_is_no_twin(make: Make, url: str, caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    """Another site's switch, one that was closed before, and stores that are private to a switch."""
    first = make(url)
    first.start()
    kept = first._follower()
    first.close()
    assert kept.pid == os.getpid()
    make(url).start()
    made(tmp_path / "blog.db", name="blog").store.close()
    make(f"sqlite:///{tmp_path}/blog.db?site=blog").start()
    for _ in range(2):
        switch = Switch(MemoryStore("memory://?site=shop", site="shop"))
        switch.start()
        switch.close()
    make("memory://").start()
    make("memory://").start()
    assert not warnings(caplog)


def test_a_switch_that_was_dropped_is_over() -> None:
    """Without a word; what is remembered of it keeps nothing alive."""

    class Follows:
        pass

    one, other = Follows(), Follows()
    twins.begins("one", one, url="redis://a/0", place="a.py:1")
    twins.begins("other", other, url="redis://a/0", place="")
    assert twins.places("one") == twins.places("other") == "a library and a.py:1"
    del other
    assert twins.places("one") == ""
    twins.ends("one")
    twins.ends("other")
    assert twins.places("one") == ""


def test_another_process_is_no_twin(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a child remembers of its parent, where no hook ran when it was forked."""
    parents, mine = pytest, os  # anything that lives
    # Only for it: other threads of this process go by their own number.
    monkeypatch.setattr(twins, "os", SimpleNamespace(getpid=lambda: 1))
    twins.begins("parents", parents, url="redis://a/0", place="a.py:1")
    monkeypatch.setattr(twins, "os", SimpleNamespace(getpid=lambda: 2))
    twins.begins("mine", mine, url="redis://a/0", place="a.py:1")
    assert twins.places("mine") == ""
    twins.ends("parents")
    twins.ends("mine")
