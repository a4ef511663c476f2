"""An application's policy: what its config says (or was given as an object), and what is found in the application."""

from __future__ import annotations

from dataclasses import replace

from flask import Flask

from readonly.errors import ConfigurationError
from readonly.policy import Policy

from . import logins
from .settings import Settings


def said(app: Flask, settings: Settings, given: Policy | None) -> Policy:
    """Return what the site says itself; Flask's own key signs where no other was given.

    Raises:
        ConfigurationError: The settings can't be right together.
    """
    secret = _secrets(app)
    if given is not None:
        return given if given.secret else replace(given, secret=secret)
    try:
        return Policy(**{"secret": secret, **settings.policy})
    except ConfigurationError as error:  # each setting alone is right: a key is missing
        raise ConfigurationError(f"READONLY_SESSION_COOKIES: {error} A SECRET_KEY of Flask serves, too.") from error


def complete(app: Flask, settings: Settings, given: Policy | None) -> Policy:
    """Return all of it, for an application that is set up.

    Raises:
        ConfigurationError: A server keeps the sessions, and there is no key to stamp their ids with.
    """
    policy = said(app, settings, given)
    known = {cookie.name for cookie in policy.cookies}
    found = logins.find(app, extensions=settings.find_logins, known=known)
    return replace(
        policy,
        login=[*policy.login, *found.login],
        logout=[*policy.logout, *found.logout],
        writes=[*policy.writes, *found.writes],
        session_cookies=[*policy.session_cookies, *found.cookies],
    )


def _secrets(app: Flask) -> tuple[str, ...]:
    """Return the keys that sign sessions, the current one first; Flask takes bytes as well."""
    keys = [app.secret_key, *(app.config.get("SECRET_KEY_FALLBACKS") or ())]
    return tuple(key.decode("latin-1") if isinstance(key, bytes) else str(key) for key in keys if key)
