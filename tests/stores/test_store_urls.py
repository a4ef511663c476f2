"""One string names a store: which store that is, what can't be one, and what of it may be shown."""

from __future__ import annotations

import traceback
from importlib.metadata import EntryPoint
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import readonly.stores
from readonly import Switch
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
    assert redacted("localhost:6379") == "localhost:6379"
    assert redacted("redis://[::1]:6379/0?site=shop") == "redis://[::1]:6379/0?site=shop"
    assert redacted("redis://a:1,b:2/0?site=shop&db=3&ssl_ca_certs=/x") == (
        "redis://a:1,b:2/0?site=shop&db=3&ssl_ca_certs=/x"
    )


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis//:pw@host", "redis//:***@host"),
        ("redis:/ada:pw@host/0?site=shop", "redis:/ada:***@host/0?site=shop"),
        ("redis:pw@host", "redis:***@host"),
        ("redis:///:pw@host", "redis:///:***@host"),
        ("rediss://pw@host", "rediss://***@host"),  # a user without a password, or a colon that was forgotten
        (":pw@host", ":***@host"),
        ("ada:pw@host", "ada:***@host"),
        ("redis://ada:p@ss/w?rd@host:1/0", "redis://ada:***@host:1/0"),
        ("redis+sentinel://u:pw@a:1,u:pw@b:2/flags", "redis+sentinel://u:***@b:2/flags"),
        ("redis://host/0?site=shop&pasword=pw", "redis://host/0?site=shop&pasword=***"),
        ("redis://host/0?site=shop&secret=pw:x@y", "redis://***@***"),
        ("redis://host:1/0?site=shop&secret=x@pw&db=1", "redis://host:***@***&db=1"),
        ("redis://:pw/0?site=shop", "redis://:***/0?site=shop"),  # the "@" was forgotten
        ("sqlite:///ada:pw@host", "sqlite:///ada:***@host"),
    ],
)
def test_a_misspelt_url_is_shown_without_its_password(url: str, shown: str) -> None:
    """A colon or a slash that was forgotten, a password that is not encoded, an option's name that is none."""
    assert redacted(url) == shown


# Of a password that whoever typed it had no idea that it has to be encoded; the word in it is looked for.
SECRET = "s3CRET"
AROUND = st.text(st.sampled_from("/?#@:=&%[]. +aé\u2100\n\\'\""), max_size=4)
BEGINS = ("redis://", "rediss://", "redis+sentinel://", "redis+cluster://", "REDIS://", "postgresql://", "x://")
MISSPELT = ("redis//", "redis:/", "redis:", "redis/", "redis:///", "rediss+sentinel:/", "//", "/", "")


@given(
    begins=st.sampled_from(BEGINS + MISSPELT),
    user=st.sampled_from(("ada:", ":", "a.b:", "default:")),
    before=AROUND,
    after=AROUND,
    host=st.sampled_from(("host", "host:6379", "a:1,b:2", "[::1]:6379", "", "host:port")),
    path=st.sampled_from(("", "/0", "/flags", "/x/y")),
    query=st.sampled_from(("", "?site=shop", "?site=shop&db=1", "?stie=shop", "?site=a&site=b")),
)
@settings(max_examples=150, deadline=None)
def test_no_password_before_an_at_is_shown(
    begins: str, user: str, before: str, after: str, host: str, path: str, query: str
) -> None:
    """Whatever it holds and however the rest is spelled: not in what is shown, nor in what is wrong with it."""
    url = f"{begins}{user}{before}{SECRET}{after}@{host}{path}{query}"
    assert SECRET not in redacted(url)
    assert SECRET not in _said_of(url)


def _said_of(url: str) -> str:
    try:
        switch = Switch.from_url(url)
    except ConfigurationError as error:
        return "".join(traceback.format_exception(error))
    shown = repr(switch)
    switch.close()
    return shown


@given(begins=st.sampled_from(BEGINS + MISSPELT), before=AROUND, after=AROUND, query=st.booleans())
@settings(max_examples=100, deadline=None)
def test_no_password_without_a_colon_is_shown(begins: str, before: str, after: str, query: bool) -> None:
    """It stands where a user would, or in an option that nobody knows."""
    secret = f"{before}{SECRET}{after}".replace(":", "")
    assert SECRET not in redacted(f"{begins}{secret}@host:6379/0?site=shop")
    if query:
        secret = secret.replace("&", "").replace("?", "")
        assert SECRET not in redacted(f"{begins}host:6379/0?site=shop&pw={secret}")


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
