"""What the extensions of an application do about sessions and logins, found by looking at the application.

Nothing is imported to look: an extension that is there has left its marks on the application (`app.extensions`, an
attribute, endpoints). Rules name endpoints, so that the URL map itself says which requests they cover.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final

from flask import Flask
from flask.sessions import SecureCookieSessionInterface

from readonly.policy import SessionCookie
from readonly.rules import SAFE_METHODS

# Flask compares ages in whole seconds.
_ROUNDING: Final = timedelta(seconds=2)
_METHODS_OF_SIGNED_SESSIONS: Final = ("get_signing_serializer", "open_session", "save_session")

# Views of Flask-Security's blueprint. A GET is named where it signs somebody in, or writes: all the others show a form.
_SECURITY_LOGINS: Final = (
    "forgot_password",
    "login",
    "mf_recovery",
    "oauthstart",
    "recover_username",
    "refresh_token",
    "register",
    "reset_password",
    "send_confirmation",
    "two_factor_rescue",
    "two_factor_token_validation",
    "us_signin",
    "us_signin_send_code",
    "wan_signin",
    "wan_signin_response",
)
_SECURITY_LOGINS_BY_GET: Final = ("oauthresponse", "token_login", "us_verify_link")
_SECURITY_WRITES_BY_GET: Final = ("change_email_confirm", "confirm_email")

# Flask-AppBuilder's AUTH_TYPE for which GET /login/ itself signs in, by what the proxy says.
_REMOTE_USER: Final = 3


@dataclass
class Found:
    """Rules and cookies, to be added to what the site says itself.

    Attributes:
        login: Rules for what signs somebody in.
        logout: Rules for what signs somebody out.
        writes: Rules for GETs that write.
        cookies: Session cookies.
    """

    login: list[str] = field(default_factory=list)
    logout: list[str] = field(default_factory=list)
    writes: list[str] = field(default_factory=list)
    cookies: list[SessionCookie] = field(default_factory=list)


def find(app: Flask, *, extensions: bool = True, known: Collection[str] = ()) -> Found:
    """Look at an application that is set up.

    Args:
        app: The application.
        extensions: Look at its extensions, too, and not at Flask's own session alone.
        known: Names of cookies that the site describes itself.
    """
    found = Found()
    views = _Views(app)
    if extensions:
        _flask_login(app, views, found)
        _flask_security(app, views, found)
        _appbuilder(app, views, found)
    _session(app, found, known)
    found.cookies = [cookie for cookie in found.cookies if cookie.name not in known]
    return found


class _Views:
    """The endpoints of an application, and the methods that each takes."""

    def __init__(self, app: Flask) -> None:
        self._methods: dict[str, set[str]] = {}
        for rule in app.url_map.iter_rules():
            self._methods.setdefault(rule.endpoint, set()).update(rule.methods or ())

    def unsafe(self, endpoint: str) -> Iterator[str]:
        """Yield the rule for an endpoint's unsafe methods, if it takes any."""
        if self._methods.get(endpoint, set()) - SAFE_METHODS:
            yield f"name:{endpoint}"

    def get(self, endpoint: str) -> Iterator[str]:
        """Yield the rule for an endpoint's GET, if it takes that."""
        if "GET" in self._methods.get(endpoint, ()):
            yield f"GET name:{endpoint}"


# --- Flask itself -----------------------------------------------------------------------------------------------------


def _session(app: Flask, found: Found, known: Collection[str]) -> None:
    interface = app.session_interface
    ours = isinstance(interface, SecureCookieSessionInterface)
    if ours and not app.secret_key:
        return  # there are no sessions
    name = interface.get_cookie_name(app)
    if name in known:
        return
    partitioned = getattr(interface, "get_cookie_partitioned", None)  # from Flask 3.1 on
    # What somebody else's interface puts into the cookie is read if it is signed, and stamped if it is not.
    signed = ours and all(
        getattr(type(interface), method) is getattr(SecureCookieSessionInterface, method)
        for method in _METHODS_OF_SIGNED_SESSIONS
    )
    age = (app.permanent_session_lifetime + _ROUNDING).total_seconds()
    found.cookies.append(
        SessionCookie(
            name,
            path=interface.get_cookie_path(app),
            domain=interface.get_cookie_domain(app),
            partitioned=bool(partitioned is not None and partitioned(app)),
            signed=signed,
            # Flask itself takes no cookie that is older. Of an id that a server keeps nobody knows how long.
            max_age_seconds=age if signed and age > 0 else None,
        )
    )


# --- Flask-Login ------------------------------------------------------------------------------------------------------


def _flask_login(app: Flask, views: _Views, found: Found) -> None:
    manager: Any = getattr(app, "login_manager", None)
    if not (hasattr(manager, "login_view") and hasattr(manager, "blueprint_login_views")):
        return
    # No age: neither says the value when it was issued, nor is it ever too old for Flask-Login.
    found.cookies.append(_cookie(app.config, "REMEMBER_COOKIE", "remember_token"))
    named = [("", manager.login_view), ("", getattr(manager, "refresh_view", None))]
    named += manager.blueprint_login_views.items()
    for blueprint, view in named:
        if not isinstance(view, str) or not view:
            continue
        if view.startswith("/"):
            # A path of this site; with a mount or a query in it, it is not what a rule could name.
            found.login += [] if set(view) & set("?#%;\\ ") else [view]
        elif "://" not in view:
            found.login += views.unsafe(f"{blueprint or ''}{view}" if view.startswith(".") else view)


def _cookie(config: Mapping[str, Any], prefix: str, default: str) -> SessionCookie:
    return SessionCookie(
        config.get(f"{prefix}_NAME") or default,
        path=config.get(f"{prefix}_PATH") or "/",
        domain=config.get(f"{prefix}_DOMAIN"),
    )


# --- Flask-Security ---------------------------------------------------------------------------------------------------


def _flask_security(app: Flask, views: _Views, found: Found) -> None:
    if not hasattr(app.extensions.get("security"), "datastore"):
        return
    blueprint = app.config.get("SECURITY_BLUEPRINT_NAME") or "security"

    def rules(ask: Any, names: Iterable[str]) -> list[str]:
        return [rule for name in names for rule in ask(f"{blueprint}.{name}")]

    found.login += rules(views.unsafe, _SECURITY_LOGINS) + rules(views.get, _SECURITY_LOGINS_BY_GET)
    found.logout += rules(views.unsafe, ["logout"]) + rules(views.get, ["logout"])
    found.writes += rules(views.get, _SECURITY_WRITES_BY_GET)
    if app.config.get("SECURITY_REFRESH_TOKEN") and app.config.get("SECURITY_REFRESH_TOKEN_COOKIE_NAME"):
        # It is exchanged for a token that signs in: whoever holds it is signed in.
        attributes: Mapping[str, Any] = app.config.get("SECURITY_REFRESH_TOKEN_COOKIE") or {}
        found.cookies.append(
            SessionCookie(
                app.config["SECURITY_REFRESH_TOKEN_COOKIE_NAME"],
                path=attributes.get("path") or "/",
                domain=attributes.get("domain"),
            )
        )


# --- Flask-AppBuilder -------------------------------------------------------------------------------------------------


def _appbuilder(app: Flask, views: _Views, found: Found) -> None:
    builder: Any = app.extensions.get("appbuilder") or getattr(app, "appbuilder", None)
    security: Any = getattr(builder, "sm", None)
    if security is None:
        return
    auth = getattr(getattr(security, "auth_view", None), "endpoint", None)
    if auth:
        found.login += [*views.unsafe(f"{auth}.login"), *views.unsafe(f"{auth}.acs")]
        found.login += views.get(f"{auth}.oauth_authorized")
        if app.config.get("AUTH_TYPE") == _REMOTE_USER:
            found.login += views.get(f"{auth}.login")
        found.logout += [*views.get(f"{auth}.logout"), *views.get(f"{auth}.slo"), *views.unsafe(f"{auth}.slo")]
    register = getattr(getattr(security, "registeruser_view", None), "endpoint", None)
    if register:
        found.login += views.unsafe(f"{register}.this_form_post")
        found.writes += views.get(f"{register}.activation")
    found.login += views.unsafe("SecurityApi.login")
    if not app.extensions.get("csrf"):
        # Without CSRF protection its views change data on GET.
        for view in getattr(builder, "baseviews", ()):
            endpoint = getattr(view, "endpoint", None)
            if endpoint:
                found.writes += [*views.get(f"{endpoint}.delete"), *views.get(f"{endpoint}.action")]
