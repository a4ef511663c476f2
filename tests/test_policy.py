"""A policy is checked when it is built, and an error names the setting."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, replace
from datetime import datetime
from typing import Any

import pytest

from readonly.errors import ConfigurationError
from readonly.policy import Policy, SessionCookie
from readonly.rules import Facts, rule


class AnyRule:
    """A rule of the site's own."""

    needs_body = False

    def matches(self, facts: Facts) -> bool:
        return True

    def __str__(self) -> str:
        return "any"


def test_the_policy_that_the_documentation_shows() -> None:
    """The example of the documentation is a policy."""
    policy = Policy(
        exempt=["/healthz"],
        login=["/login", "GET /oauth/{provider}/callback"],
        logout=["/logout"],
        reads=["POST /search"],
        writes=["GET /cart/add/{id}"],
        session_cookies=["session"],
        sessions="end",
        secret="key",
    )
    assert policy.rules("login") == (rule("/login"), rule("GET /oauth/{provider}/callback"))
    assert policy.cookies == (SessionCookie("session"),)
    assert policy.secrets == ("key",)
    assert replace(policy, secret=["new", "key"]).secrets == ("new", "key")
    assert replace(policy).rules("reads") == policy.rules("reads")


def test_the_secret_is_not_shown() -> None:
    """A policy in a log or a traceback does not give its key away."""
    assert "hush" not in repr(Policy(secret="hush"))
    for wrong in (["hush", 7], b"hush", {"hush": 1}):
        with pytest.raises(ConfigurationError) as caught:
            Policy(secret=wrong)  # type: ignore[arg-type]
        assert "hush" not in str(caught.value)


def test_a_policy_is_frozen() -> None:
    """What was checked stays as it was."""
    with pytest.raises(FrozenInstanceError):
        Policy().sessions = "keep"  # type: ignore[misc]


@pytest.mark.parametrize("role", ["exempt", "login", "logout", "reads", "writes"])
@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        ("/healthz", "bare string where a list belongs"),
        (b"/healthz", "bare string where a list belongs"),
        (None, "is not a list"),
        ({"/healthz": 1}, "is not a list"),
        (["healthz"], "must start with '/'"),
        ([""], "is empty"),
        ([" "], "is empty"),
        ([".*"], "must start with '/'"),
        ([7], "is not a rule"),
        ([b"/healthz"], "is not a rule"),
    ],
)
def test_lists_of_rules(role: str, value: Any, complaint: str) -> None:
    """A bare string, an empty one, and what is no rule stop the start, by the setting's name."""
    with pytest.raises(ConfigurationError, match=complaint) as caught:
        Policy(**{role: value})
    assert str(caught.value).startswith(role)


@pytest.mark.parametrize("role", ["exempt", "logout", "reads"])
@pytest.mark.parametrize("text", ["/", "/*", "GET /*", "POST /*", "/{page}", "/{a}/*", "/{a}/{b}"])
def test_nothing_lets_everything_through(role: str, text: str) -> None:
    """A rule without a segment of its own would be the end of the gate."""
    for item in (text, rule(text)):
        with pytest.raises(ConfigurationError, match="would let everything through") as caught:
            Policy(**{role: [item]})  # type: ignore[arg-type]
        assert str(caught.value).startswith(role)


def test_what_looks_like_everything_and_is_not() -> None:
    """The home page alone, what a predicate narrows, every socket as a reader, a rule of one's own."""
    Policy(exempt=["GET /"])
    Policy(reads=[rule("POST /*", when=lambda facts: facts.body == b"")])
    Policy(reads=["WEBSOCKET /*"])
    Policy(exempt=[AnyRule()])
    Policy(writes=["/*"], login=["POST /*"])


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"sessions": "drop"}, "sessions='drop' is not a choice"),
        ({"bearer": "suspend"}, "bearer='suspend' is not a choice"),
        ({"session_cookies": "session"}, "session_cookies='session' is a bare string"),
        ({"session_cookies": [7]}, "session_cookies: 7 is not a cookie"),
        ({"session_cookies": ["a b"]}, "session_cookies: 'a b' is not a cookie's name"),
        ({"session_cookies": [""]}, "session_cookies: '' is not a cookie's name"),
        ({"session_cookies": ["a", "a"], "secret": "k"}, "session_cookies: 'a' is named twice"),
        ({"session_cookies": ["session"]}, "session_cookies: 'session': sessions='end' needs a key"),
        ({"secret": ""}, "secret is an empty string"),
        ({"secret": ["a", ""]}, "secret is an empty string"),
        ({"secret": None}, "secret is NoneType: it must be a string"),
        ({"secret": b"hush"}, "secret is bytes: it must be a string"),
        ({"retry_after_seconds": 0}, "retry_after_seconds=0 must be"),
        ({"retry_after_seconds": True}, "retry_after_seconds=True must be"),
        ({"retry_after_seconds": "60"}, "retry_after_seconds='60' must be"),
        ({"retry_after_seconds": float("nan")}, "retry_after_seconds=nan must be"),
        ({"retry_after_seconds": float("inf")}, "retry_after_seconds=inf must be"),
    ],
)
def test_other_settings(settings: dict[str, Any], complaint: str) -> None:
    """Each setting that can't be right stops the start, by its name."""
    with pytest.raises(ConfigurationError) as caught:
        Policy(**settings)
    assert str(caught.value).startswith(complaint)


def test_an_unknown_setting_is_an_error() -> None:
    """A misspelled setting is never ignored."""
    with pytest.raises(TypeError, match="exempts"):
        Policy(exempts=["/healthz"])  # type: ignore[call-arg]


def issued_at(value: str) -> datetime | None:
    """Read no time."""
    return None


def test_a_key_is_needed_for_opaque_sessions_alone() -> None:
    """Whoever ends sessions needs a key, unless the cookies tell their own time."""
    Policy(session_cookies=["session"], secret="key")
    Policy(session_cookies=["session"], sessions="suspend")
    Policy(session_cookies=["session"], sessions="keep")
    Policy(session_cookies=[SessionCookie("session", signed=True)])
    Policy(session_cookies=[SessionCookie("session", issued_at=issued_at)])
    with pytest.raises(ConfigurationError, match="'remember'"):
        Policy(session_cookies=[SessionCookie("session", signed=True), "remember"])


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"path": "accounts"}, "path='accounts' must start with '/'"),
        ({"name": "__Host-session", "path": "/accounts"}, "a __Host- cookie has path '/'"),
        ({"name": "__Host-session", "domain": "site.example"}, "a __Host- cookie has path '/'"),
        ({"max_age_seconds": 0}, "max_age_seconds=0 must be above 0"),
    ],
)
def test_cookies_that_no_browser_would_expire(settings: dict[str, Any], complaint: str) -> None:
    """A cookie that can't be as described stops the start, by its name."""
    with pytest.raises(ConfigurationError) as caught:
        SessionCookie(**{"name": "session", **settings})
    assert complaint in str(caught.value)
