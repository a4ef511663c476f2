"""One string names a store: which store that is, what can't be one, and what of it may be shown."""

from __future__ import annotations

from importlib.metadata import EntryPoint
from typing import Any

import pytest

import readonly.stores
from readonly.errors import ConfigurationError
from readonly.stores import Store, redacted, store_from_url
from readonly.stores.memory import MemoryStore


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("", "is no store URL: use redis://"),
        ("localhost:6379", "is no store URL"),
        ("postgresql://db/shop?site=shop", "is no store URL"),
        ("redis://[::1/0?site=shop", "can't be read as a URL"),
        ("redis+ring://a/0?site=shop", "is no store URL"),
        ("memory://?site=", "does not name one site"),
        ("memory://?site=a/b", "is no site name"),
        ("memory://?site=" + "x" * 65, "is no site name"),
    ],
)
def test_what_names_no_store_is_refused(url: str, says: str) -> None:
    """One clear line, when the store is made."""
    with pytest.raises(ConfigurationError, match=says):
        store_from_url(url)


@pytest.mark.parametrize("url", ["redis://:s3cret@h:port/0?site=s", "redis://u:s3cret@h/shop?site=s", "x://u:s3cret@h"])
def test_a_refusal_shows_no_password(url: str) -> None:
    """Not even where the URL can't be right."""
    with pytest.raises(ConfigurationError) as caught:
        store_from_url(url)
    assert "s3cret" not in str(caught.value)


def test_what_is_shown_is_recognised() -> None:
    """All but the password stays."""
    shown = redacted("redis://user:s3cret@host:6379/1?site=shop&ssl_password=k3y")
    assert shown == "redis://user:***@host:6379/1?site=shop&ssl_password=***"
    assert redacted("sqlite:////srv/a@b/state.db?site=shop") == "sqlite:////srv/a@b/state.db?site=shop"
    assert redacted("no url") == "no url"


def test_a_memory_stores_site_may_be_named() -> None:
    """Without one it has a site of its own."""
    assert store_from_url("memory://").site == "memory"
    assert store_from_url("memory://?site=shop", timeout=0.5).site == "shop"


def test_other_packages_bring_stores(monkeypatch: pytest.MonkeyPatch) -> None:
    """An entry point's name is the scheme, and it is called as this function is."""
    point = EntryPoint("etcd", f"{__name__}:made_by_an_entry_point", "readonly.stores")
    monkeypatch.setattr(EntryPoint, "load", lambda _: made_by_an_entry_point)
    monkeypatch.setattr(readonly.stores, "entry_points", lambda *, group, name: [point] if name == "etcd" else [])
    store = store_from_url("etcd://host?site=shop", create=False, timeout=2)
    assert (store.url, store.timeout) == ("etcd://host?site=shop", 2)


def made_by_an_entry_point(url: str, *, create: bool, timeout: float) -> Store:
    """What a package would bring."""
    options: dict[str, Any] = {"site": "shop", "timeout": timeout}
    assert create is False
    return MemoryStore(url, **options)
