"""Each setting is checked by its name when the application is wrapped."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from readonly import Policy, SessionCookie, Switch, rule
from readonly.errors import ConfigurationError
from readonly_flask import Installed, ReadOnly
from readonly_flask.settings import SETTINGS, read_settings, table

PAGE = Path(__file__).parents[3] / "docs" / "flask.md"

# What can't be right, and what the message must say besides the setting's name.
WRONG: dict[str, tuple[Any, str]] = {
    "READONLY_STORE": (7, "no text"),
    "READONLY_LEASE": ("soon", "no number of seconds"),
    "READONLY_BOOT": ("ajar", "'closed' or 'open'"),
    "READONLY_ROLE": (" ", "no text"),
    "READONLY_RUNS": (3, "no text"),
    "READONLY_DISABLED": ("perhaps", "True or False"),
    "READONLY_ANNOUNCE_SECONDS": (-1, "0 to announce nothing"),
    "READONLY_EXEMPT": (["/"], "everything"),
    "READONLY_LOGIN": ("/login", "['/login']"),
    "READONLY_LOGOUT": (["logout"], "must start with '/'"),
    "READONLY_READS": ({"POST /search": True}, "list"),
    "READONLY_WRITES": (["GET /a/*/b"], "last segment"),
    "READONLY_SESSION_COOKIES": (["a b"], "not a cookie's name"),
    "READONLY_SESSIONS": ("drop", "'suspend'"),
    "READONLY_BEARER": ("drop", "'keep'"),
    "READONLY_SECRET": ("", "empty string"),
    "READONLY_RETRY_AFTER_SECONDS": (0, "at least 1"),
    "READONLY_FIND_LOGINS": (2, "True or False"),
    "READONLY_PAGE": (3, "template"),
    "READONLY_UNDRAFTED": ("/vote", "['/vote']"),
    "READONLY_WORDS": ("/nowhere", "holds no catalogue"),
    "READONLY_GUARD": ("maybe", "True or False"),
    "READONLY_UNGUARDED": ([3], "SQLALCHEMY_BINDS"),
    "READONLY_POOLERS": ({None: "statement"}, "'transaction' or 'session'"),
    "READONLY_REPLICAS": ("copy", "['copy']"),
    "READONLY_REPLICAS_ALWAYS": (None.__class__, "True or False"),
    "READONLY_REPLICAS_SCHEMA": ("alembick", "alembic"),
    "READONLY_REPLICAS_MAX_LAG": (0, "number"),
    "READONLY_REPLICAS_NONE_FIT": ("nobody", "'refuse'"),
    "READONLY_DISCARD": ([""], "no text"),
}


def app_with(**config: Any) -> Flask:
    """Return an application that is configured and not wrapped."""
    app = Flask("site")
    app.config.update(SECRET_KEY="key", READONLY_STORE="memory://")
    app.config.update(config)
    return app


@pytest.fixture
def switch() -> Iterator[Switch]:
    """A switch of the site's own."""
    switch = Switch.from_url("memory://")
    yield switch
    switch.close()


def test_every_setting_is_tried() -> None:
    """A setting that is added must be in the list above."""
    assert set(WRONG) == {setting.name for setting in SETTINGS}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_value_is_named(name: str) -> None:
    """Start-up stops, and the message says which setting it is, and what would be right."""
    value, hint = WRONG[name]
    with pytest.raises(ConfigurationError) as caught:
        ReadOnly(app_with(**{name: value}))
    assert str(caught.value).startswith(name)
    assert hint in str(caught.value)


@pytest.mark.parametrize(
    "wrong",
    [{"READONLY_STORE": b"redis://:hush@flag/0?site=shop"}, {"READONLY_SECRET": b"hush"}],
    ids=lambda w: next(iter(w)),
)
def test_no_key_and_no_password_is_shown(wrong: dict[str, Any]) -> None:
    """Flask takes bytes as keys; a setting that does not says so without them."""
    with pytest.raises(ConfigurationError) as caught:
        ReadOnly(app_with(**wrong))
    assert next(iter(wrong)) in str(caught.value)
    assert "hush" not in str(caught.value)


def test_a_lease_that_is_too_short_is_named() -> None:
    """What only the switch can judge carries the setting's name as well."""
    with pytest.raises(ConfigurationError, match=r"READONLY_LEASE.*outlast"):
        ReadOnly(app_with(READONLY_LEASE=0.5))


def test_a_store_that_cannot_be_read_is_named() -> None:
    """The URL's own error, under the setting's name."""
    with pytest.raises(ConfigurationError, match=r"READONLY_STORE: .*gopher"):
        ReadOnly(app_with(READONLY_STORE="gopher://host/?site=x"))


def test_without_a_store_nothing_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither config nor environment names one; an empty variable is none."""
    monkeypatch.setenv("READONLY_STORE", "")
    with pytest.raises(ConfigurationError, match="READONLY_STORE is set neither"):
        ReadOnly(app_with(READONLY_STORE=None))


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("READONLY_STROE", "did you mean READONLY_STORE?"),
        ("READONLY_TEMPERATURE", "the settings are READONLY_STORE"),
        ("READONLY_OPERATOR", "environment of whoever types"),
    ],
)
def test_an_unknown_setting_is_an_error(name: str, hint: str) -> None:
    """A setting that nobody reads is a slip; the message names it."""
    with pytest.raises(ConfigurationError) as caught:
        ReadOnly(app_with(**{name: "x"}))
    assert str(caught.value).startswith(name)
    assert hint in str(caught.value)


def test_settings_reach_what_they_are_for() -> None:
    """The switch and the policy are as the config says."""
    app = app_with(
        READONLY_STORE="memory://?site=shop",
        READONLY_LEASE="30",
        READONLY_BOOT="open",
        READONLY_ROLE="api",
        READONLY_RUNS="shop 1.2",
        READONLY_DISABLED="yes",
        READONLY_EXEMPT=["/healthz"],
        READONLY_LOGIN=("/login",),
        READONLY_READS=[rule("POST /search", when=lambda facts: True)],
        READONLY_SESSION_COOKIES=[SessionCookie("visitor", signed=True)],
        READONLY_SESSIONS="suspend",
        READONLY_SECRET=["new", "old"],
        READONLY_RETRY_AFTER_SECONDS=90,
    )
    ReadOnly(app)
    found: Installed = app.extensions["readonly"]
    try:
        found.start()
        (report,) = found.switch.members()
        assert (found.switch.site, report.role, report.runs, report.inert) == ("shop", "api", "shop 1.2", True)
        assert report.lease == 30.0
        policy = found.policy
        assert [str(r) for r in policy.exempt] == ["/healthz"]
        assert [str(r) for r in policy.login] == ["/login"]
        assert [str(r) for r in policy.reads] == ["POST /search"]
        assert {cookie.name for cookie in policy.cookies} == {"visitor", "session"}
        assert (policy.sessions, policy.secrets, policy.retry_after_seconds) == ("suspend", ("new", "old"), 90)
    finally:
        found.close()


def test_the_environment_serves_where_the_config_is_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings of the switch may stand in either; the config wins, and rules are the application's alone."""
    monkeypatch.setenv("READONLY_STORE", "memory://?site=environment")
    monkeypatch.setenv("READONLY_ROLE", "api")
    monkeypatch.setenv("READONLY_RUNS", "1")
    monkeypatch.setenv("READONLY_LOGIN", "/login")
    app = app_with(READONLY_STORE=None, READONLY_RUNS="2")
    ReadOnly(app)
    found: Installed = app.extensions["readonly"]
    try:
        found.start()
        (report,) = found.switch.members()
        assert (found.switch.site, report.role, report.runs) == ("environment", "api", "2")
        assert found.policy.login == ()
    finally:
        found.close()


def test_what_is_given_as_an_object_is_not_said_again(switch: Switch, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two answers to one question are an error; the environment's is overruled, since it may be another's."""
    with pytest.raises(ConfigurationError, match=r"READONLY_STORE and ReadOnly\(switch=\.\.\.\) are both given"):
        ReadOnly(app_with(), switch=switch)
    with pytest.raises(ConfigurationError, match=r"READONLY_LOGIN and ReadOnly\(policy=\.\.\.\) are both given"):
        ReadOnly(app_with(READONLY_LOGIN=["/login"]), policy=Policy())
    monkeypatch.setenv("READONLY_STORE", "redis://127.0.0.1:1/0?site=other")
    app = app_with(READONLY_STORE=None)
    ReadOnly(app, switch=switch)
    assert app.extensions["readonly"].switch is switch


def test_opaque_cookies_need_a_key() -> None:
    """Without SECRET_KEY and READONLY_SECRET nothing can tell old ids from new ones, and start-up says so."""
    with pytest.raises(ConfigurationError, match=r"READONLY_SESSION_COOKIES: .*'sid'.*SECRET_KEY"):
        ReadOnly(app_with(SECRET_KEY=None, READONLY_SESSION_COOKIES=["sid"]))
    settings = read_settings({"READONLY_SESSION_COOKIES": ["sid"], "READONLY_STORE": "memory://"}, {})
    assert [cookie.name for cookie in settings.policy["session_cookies"]] == ["sid"]


def test_nothing_is_left_behind_by_a_wrong_setting() -> None:
    """An application that was not wrapped can be wrapped once its settings are right."""
    app = app_with(READONLY_LOGIN="/login")
    before = app.wsgi_app
    with pytest.raises(ConfigurationError):
        ReadOnly(app)
    assert (app.wsgi_app, "readonly" in app.extensions, "readonly" in app.cli.commands) == (before, False, False)
    app.config["READONLY_LOGIN"] = ["/login"]
    ReadOnly(app)
    app.extensions["readonly"].close()


def test_the_documented_table_is_the_one_in_the_code() -> None:
    """docs/flask.md shows every setting with its default, as `readonly_flask.settings.table()` writes it."""
    shown = re.search(r"<!-- settings -->\n(.*?)<!-- /settings -->", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert shown is not None
    expected = table()
    assert shown[1] == expected, (
        "write it anew: python -c 'from readonly_flask.settings import table; print(table(), end=\"\")'"
    )


def test_the_defaults_in_the_table_are_true() -> None:
    """What the table calls a default is what an application without that setting gets."""
    settings = read_settings({}, {})
    policy = Policy()
    for setting in SETTINGS:
        if setting.name in ("READONLY_STORE", "READONLY_ROLE", "READONLY_SECRET"):
            continue  # needed, or taken from elsewhere
        default = getattr(policy if setting.of == "policy" else settings, setting.field)
        shown = setting.default.strip("`")
        given = sorted(default) if isinstance(default, (tuple, frozenset)) else default
        if setting.name == "READONLY_RETRY_AFTER_SECONDS":
            given = int(default)
        if setting.name == "READONLY_REPLICAS":
            given = default or []
        assert repr(given) == shown, setting.name
