"""Incidental writes of Django's own that a request which only reads must not make: its session, and the last login.

Django saves a session at the end of any request that touched it, a GET included, and a signing-in by header or
certificate does the same and more. While the site is read-only none of it happens, and nothing fails for it. While it
is writable, what such a request saves is counted at that moment, since nobody knew that it would write.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any, cast

from django.contrib.auth.signals import user_logged_in
from django.http import HttpRequest

from readonly.context import Work, working
from readonly.exchange import Exchange
from readonly.switch import Switch

if TYPE_CHECKING:
    from django.contrib.sessions.backends.base import SessionBase

# Everything is in the cookie: saving one is no write, and the cookie is taken off the response where it must not be.
_SIGNED_COOKIES = "django.contrib.sessions.backends.signed_cookies"


class Incidentals:
    """Decides about what one request saves that only reads.

    Attributes:
        never: The request was judged while the site was read-only: nothing is saved, whatever the state becomes.
        leave_cache: The session rules look away from it: it may keep a session wherever no guard would refuse that.
        counted_with: The request, which may turn out to be counted as a write after all.
        skipped: Something was not saved.
    """

    __slots__ = ("_switch", "counted_with", "leave_cache", "never", "skipped")

    def __init__(self, switch: Switch, *, never: bool, leave_cache: bool = False) -> None:
        self._switch = switch
        self.never = never
        self.leave_cache = leave_cache
        self.counted_with: Exchange | None = None
        self.skipped = False

    @property
    def _is_counted(self) -> bool:
        return self.counted_with is not None and self.counted_with.key is not None

    @contextmanager
    def saving(self) -> Iterator[bool]:
        """Count what is saved inside the block; yields whether it may be."""
        if self.never or self._is_counted:
            self.skipped = self.skipped or self.never
            yield not self.never
            return
        switch = self._switch
        key = switch.inflight.begin()
        try:
            # Counted before it is asked, like any write: `on` waits for it, or it is not made.
            if switch.admit() is not None:
                self.never = self.skipped = True
                yield False
            else:
                with working(Work(switch, key=key, name="session")):
                    yield True
        finally:
            switch.inflight.end(key)

    @asynccontextmanager
    async def asaving(self) -> AsyncIterator[bool]:
        """Do what `saving` does without blocking the event loop."""
        if self.never or self._is_counted:
            self.skipped = self.skipped or self.never
            yield not self.never
            return
        switch = self._switch
        key = switch.inflight.begin()
        try:
            if await switch.aadmit() is not None:
                self.never = self.skipped = True
                yield False
            else:
                with working(Work(switch, key=key, name="session")):
                    yield True
        finally:
            switch.inflight.end(key)


# --- sessions -------------------------------------------------------------------------------------------------------


def watch(request: HttpRequest, incidentals: Incidentals) -> None:
    """Have the session that a request is about to get ask before it saves."""
    request._readonly_incidentals = incidentals  # type: ignore[attr-defined]
    if "session" in request.__dict__:
        request.session = quiet(request.session, incidentals)
    else:
        # The middleware that sets it comes later, and may be a site's own; this class lasts until it has.
        request.__class__ = _watched(type(request))  # type: ignore[arg-type]  # a class can be hashed


@cache
def _watched(cls: type[HttpRequest]) -> type[HttpRequest]:
    def get(request: HttpRequest) -> Any:
        raise AttributeError(f"{cls.__name__!r} object has no attribute 'session'")

    def put(request: HttpRequest, session: Any) -> None:
        request.__class__ = cls
        request.session = quiet(session, request._readonly_incidentals)  # type: ignore[attr-defined]

    return type(cls.__name__, (cls,), {"__module__": cls.__module__, "session": property(get, put)})


def quiet(session: SessionBase, incidentals: Incidentals) -> SessionBase:
    """Return the session, made to ask before it saves; of whatever engine it is."""
    cls = type(session)
    if not issubclass(cls, _Quiet):
        if any(ancestor.__module__ == _SIGNED_COOKIES for ancestor in cls.__mro__):
            return session
        if incidentals.leave_cache and not hasattr(cls, "get_model_class"):
            return session
        session.__class__ = _quieted(cls)
    cast(Any, session)._readonly_incidentals = incidentals
    return session


@cache
def _quieted(cls: type[Any]) -> type[Any]:
    return type(cls.__name__, (_Quiet, cls), {"__module__": cls.__module__})


class _Quiet:
    """In front of an engine's class. What it does not let through leaves the session as it is, in memory."""

    _readonly_incidentals: Incidentals
    _readonly_within = False

    @contextmanager
    def _saving(self) -> Iterator[bool]:
        if self._readonly_within:
            yield True  # engines build their methods on each other
            return
        with self._readonly_incidentals.saving() as allowed:
            self._readonly_within = allowed
            try:
                yield allowed
            finally:
                self._readonly_within = False

    def save(self, must_create: bool = False) -> None:
        with self._saving() as allowed:
            if allowed:
                super().save(must_create=must_create)  # type: ignore[misc]

    def create(self) -> None:
        with self._saving() as allowed:
            if allowed:
                super().create()  # type: ignore[misc]
            else:
                self._never_stored()

    def delete(self, session_key: str | None = None) -> None:
        with self._saving() as allowed:
            if allowed:
                super().delete(session_key)  # type: ignore[misc]

    @asynccontextmanager
    async def _asaving(self) -> AsyncIterator[bool]:
        if self._readonly_within:
            yield True
            return
        async with self._readonly_incidentals.asaving() as allowed:
            self._readonly_within = allowed
            try:
                yield allowed
            finally:
                self._readonly_within = False

    async def asave(self, must_create: bool = False) -> None:
        async with self._asaving() as allowed:
            if allowed:
                await super().asave(must_create=must_create)  # type: ignore[misc]

    async def acreate(self) -> None:
        async with self._asaving() as allowed:
            if allowed:
                await super().acreate()  # type: ignore[misc]
            else:
                self._never_stored()

    async def adelete(self, session_key: str | None = None) -> None:
        async with self._asaving() as allowed:
            if allowed:
                await super().adelete(session_key)  # type: ignore[misc]

    def _never_stored(self) -> None:
        # No key: nobody may be handed one that stands nowhere.
        self._session_key = None
        self.modified = True


# --- the last login -------------------------------------------------------------------------------------------------


def keep_last_login_quiet() -> None:
    """Put a receiver that asks before it saves in the place of Django's, if that is connected; twice does no harm."""
    uid = "update_last_login"
    if user_logged_in.disconnect(dispatch_uid=uid):
        user_logged_in.connect(_update_last_login, dispatch_uid=uid)


def _update_last_login(sender: Any, user: Any, request: Any = None, **kwargs: Any) -> None:
    from django.contrib.auth.models import update_last_login

    incidentals = getattr(request, "_readonly_incidentals", None)
    if incidentals is None:
        update_last_login(sender, user, **kwargs)
        return
    with incidentals.saving() as allowed:
        if allowed:
            update_last_login(sender, user, **kwargs)
