"""The command group as frameworks use it: their own way to the site, and nothing of the environment."""

from __future__ import annotations

import threading

import pytest
from click.testing import CliRunner, Result

from readonly.cli import command_group
from readonly.site import Site
from readonly.stores import store_from_url
from readonly.stores.memory import MemoryStore
from readonly.switch import Switch
from support.operating import Shop


@pytest.fixture
def runner(monkeypatch: pytest.MonkeyPatch) -> CliRunner:
    """Types commands; the environment names a store that does not exist."""
    monkeypatch.setenv("READONLY_STORE", "redis://127.0.0.1:1/0?site=wrong")
    monkeypatch.setenv("READONLY_OPERATOR", "anna")
    return CliRunner()


def _typed(runner: CliRunner, shop: Shop, *words: str) -> Result:
    group = command_group(site=lambda: Site(Switch(store_from_url(shop.url, create=False))))
    return runner.invoke(group, words, prog_name="flask readonly")


def test_the_site_comes_from_the_framework(runner: CliRunner, shop: Shop) -> None:
    """Settings, and nothing else; what may be typed next is typed the framework's way."""
    done = _typed(runner, shop, "on", "--timeout", "100ms")
    assert done.exit_code == 3
    assert done.output.startswith(f"shop · {shop.url} · 0 members\n")
    assert "flask readonly wait --timeout 10m" in done.output
    assert _typed(runner, shop, "off").exit_code == 0
    assert "Usage: flask readonly " in _typed(runner, shop, "--help").output


def test_status_says_how_it_goes_without_the_framework(runner: CliRunner, shop: Shop) -> None:
    """For the night on which the application does not start."""
    assert f"readonlyctl --store '{shop.url}' status" in _typed(runner, shop, "status").output
    assert "Without this framework" not in shop.here("status").stdout


def test_a_store_that_is_named_wins(runner: CliRunner, shop: Shop) -> None:
    """--store is for the night on which the settings are wrong."""
    group = command_group(site=lambda: pytest.fail("the framework was asked"))
    done = runner.invoke(group, ["--store", shop.url, "status"])
    assert done.exit_code == 0
    assert shop.url in done.output


def test_init_by_a_framework(runner: CliRunner, shop: Shop) -> None:
    """The URL comes from its settings, too."""
    assert _typed(runner, shop, "init", "shop").exit_code == 6
    assert _typed(runner, shop, "init", "blog").exit_code == 2


def test_a_site_in_memory_is_refused(runner: CliRunner) -> None:
    """Another process would see nothing of it."""
    done = runner.invoke(command_group(site=lambda: Site(Switch(MemoryStore()))), ["on"])
    assert done.exit_code == 2
    assert "memory://" in done.output


def test_it_runs_in_a_thread(runner: CliRunner, shop: Shop) -> None:
    """Signals can only be caught in the main thread; elsewhere the command does without."""
    codes: list[int] = []
    thread = threading.Thread(target=lambda: codes.append(_typed(runner, shop, "status").exit_code))
    thread.start()
    thread.join(60)
    assert codes == [0]
