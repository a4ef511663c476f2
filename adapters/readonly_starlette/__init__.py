"""Read-only mode for Starlette and FastAPI: the core's ASGI middleware, told what Starlette's router knows.

It speaks the framework and has no rule of its own. `Middleware(ReadOnlyMiddleware, switch=switch, policy=policy)` puts
it first in the list; around the whole application, `ReadOnlyMiddleware(app, switch, policy=policy)`, it works as well.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from starlette.requests import HTTPConnection
from starlette.types import ASGIApp

from readonly import Policy, Switch
from readonly import asgi as core
from readonly.asgi import status_app
from readonly.notices import Notices, banner, script_tag
from readonly.pages import Page
from readonly.words import Languages, languages_of

from .openapi import document_refusals
from .routing import Router, endpoint_of
from .sessions import session_cookies

__all__ = [
    "ReadOnlyMiddleware",
    "document_refusals",
    "endpoint_of",
    "status_app",
    "template_context",
    "writing",
]


def ReadOnlyMiddleware(  # noqa: N802 - typed like the class that Starlette expects
    app: ASGIApp,
    switch: Switch,
    *,
    policy: Policy | None = None,
    page: Page | None = None,
    words: str | Path | Languages | None = None,
) -> ASGIApp:
    """Wrap an application, a whole Starlette or FastAPI or what its middleware list hands over.

    Args:
        app: The application.
        switch: The process's switch.
        policy: What counts as a write; rules may name routes (`POST name:add_comment`), and `@reads` and `@writes`
            on endpoints are honoured. Where it names no session cookies, that of `SessionMiddleware` is found.
        page: Renders the page that visitors see instead of the built-in one.
        words: A folder of the site's own catalogues, by which it adds a language or replaces a sentence.
    """
    policy = policy if policy is not None else Policy()
    if not policy.session_cookies:
        policy = replace(policy, session_cookies=session_cookies(app))
    router = Router(app)
    wrapped: ASGIApp = core.ReadOnlyMiddleware(app, switch, policy=policy, page=page, words=words, endpoint=router)
    router.behind(wrapped)
    # Middleware tells by this name what is inside; so do we, to those who look for routes.
    vars(wrapped)["app"] = app
    return wrapped


def template_context(
    switch: Switch, *, words: str | Path | Languages | None = None
) -> Callable[[HTTPConnection], dict[str, Any]]:
    """Return a context processor for `Jinja2Templates(context_processors=[...])`.

    Templates see `readonly`: with `read_only`, `message`, `since`, `expected_end` (instants in UTC, or None), `notice`
    (what there is to say to this visitor, a `readonly.notices.Notice` or None) `banner`, the same as HTML, and
    `script`, the element that loads what keeps it true. It holds nothing that visitors may not see.

    Args:
        switch: The process's switch.
        words: As the middleware's, for the banner.
    """
    notices, languages = Notices(switch), languages_of(words)

    def context(request: HTTPConnection) -> dict[str, Any]:
        state = switch.state
        notice = notices.of(core.facts_of(request.scope), request.headers.getlist("cookie"))
        language, catalog = languages(core.facts_of(request.scope))
        return {
            "readonly": {
                "read_only": state.read_only,
                "message": state.message,
                "since": state.since,
                "expected_end": state.expected_end,
                "notice": notice,
                "banner": _Html(banner(notice, catalog, language)),
                "script": _Html(script_tag(request.scope.get("root_path", ""))),
            }
        }

    return context


class _Html(str):
    """Text that templates show as it is; Starlette itself needs no template engine."""

    __slots__ = ()

    def __html__(self) -> str:
        return str(self)


def writing(switch: Switch, wait: float = 0.0) -> Callable[[], AsyncIterator[None]]:
    """Return a FastAPI dependency that counts what depends on it as a write: `Depends(writing(switch))`.

    While read-only it raises `ReadOnlyError`, which the middleware turns into the 503.

    Args:
        switch: The process's switch.
        wait: Seconds to wait for the site to be writable before the 503.
    """
    # Made once: from now on requests carry what a refusal in them is marked on, the first one, too.
    work = switch.writing(wait=wait)

    async def dependency() -> AsyncIterator[None]:
        async with work:
            yield

    return dependency
