"""The middleware and the status routes for WSGI applications; any framework, or none.

Source: PEP 3333.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from ..bypass import HEADER
from ..doubts import TWICE, WEBSOCKET
from ..exchange import Exchange
from ..handling import OVERRIDES, Handling
from ..nested import holds_another, mark
from ..pages import Page
from ..policy import Policy
from ..rejection import HeaderList
from ..rules import SAFE_METHODS, Endpoint
from ..switch import Switch
from ..words import Languages, languages_of
from ._requests import Environ, facts_of, key_of, peeked, peeked_environ, place, stripped
from ._responses import (
    Guarded,
    Refusal,
    announcing_start,
    counted_body,
    editing_start,
    late_start,
    marking_start,
    respond,
    status_line,
)
from ._status import status_app

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication

UPGRADED: Final = "a WSGI server hands on websockets"

__all__ = ["Environ", "ReadOnlyMiddleware", "facts_of", "peeked", "status_app"]


def ReadOnlyMiddleware(
    app: WSGIApplication,
    switch: Switch,
    *,
    policy: Policy = Policy(),
    page: Page | None = None,
    words: str | Path | Languages | None = None,
    endpoint: Callable[[Environ], Endpoint | None] | None = None,
) -> WSGIApplication:
    """Return `app` behind the read-only mode. Make it the outermost middleware.

    While the site is writable, a read costs one look at an attribute and a write is counted until its response is
    closed; nothing is wrapped for a read. While it is read-only, writes and logins are refused without their body
    being read, sessions are taken off, and every response says so.

    Whether the connection is closed after a body that nobody has read is the server's decision: WSGI leaves hop by
    hop headers to it.

    Args:
        app: The application.
        switch: The process's switch. Start it in a server hook (gunicorn's `post_fork`), so that an idle worker is a
            member, too.
        policy: What counts as a write, a login, a session.
        page: The site's own page for refusals.
        words: A folder of the site's own catalogues, by which it adds a language or replaces a sentence, or a
            `readonly.words.Words` with another default; None: the library's languages, by Accept-Language.
        endpoint: Tells the router's name and marks for an environ. Reads of a writable site are not routed twice for it
            until some view is marked with `@writes`; an attribute `reads_matter` on it, True or False, says that they
            always or never are. Nor are its writes until one is marked with `@reads`, if an attribute
            `tells_of_decorators_alone` is True: what it tells of marks is what `marks_of` the view says.
    """
    handling: Handling[Refusal] = Handling(switch, policy, page, endpoint, languages_of(words))
    sessions = handling.sessions
    view = switch.view
    inflight = switch.inflight
    count, uncount, end = inflight.add, inflight.discard, inflight.end
    clock = switch.monotonic  # what `view.admit_until` is measured by
    # Nothing below is looked up twice: a name of the closure costs less than an attribute.
    plain, counted, known = handling.plain, handling.counted, handling.ready
    cookies_matter, stamping = handling.cookies_matter, sessions.stamping
    any_read, any_closed_read = handling.any_read, handling.any_closed_read
    any_write = handling.any_write
    # Headers that make a request one of its own.
    notable = {
        "HTTP_" + name.upper().replace("-", "_")
        for name in (
            *OVERRIDES,
            HEADER,
            "cookie",  # a session's, or a bypass's
            *(("authorization",) if policy.bearer == "end" else ()),
        )
    }

    def middleware(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        method = environ["REQUEST_METHOD"]
        if view.open and view.announced is None:
            if method in SAFE_METHODS:
                if (any_read or place(environ) in plain) and (
                    not (cookies_matter and view.sessions_cut) or not (stamping or "HTTP_COOKIE" in environ)
                ):
                    return app(environ, start_response)  # type: ignore[arg-type]  # a dict, as PEP 3333 has it
            elif (
                (any_write or place(environ) in counted)
                and not (cookies_matter and view.sessions_cut)
                and not switch.guarded
            ):
                key = object()
                count(key)
                # Count, then look: a change that came before the look is seen by it, one after it sees the count.
                if clock() < view.admit_until:
                    if cookies_matter:
                        start_response = late_start(start_response, environ, handling)
                    try:
                        body = app(environ, start_response)  # type: ignore[arg-type]
                    except BaseException:
                        end(key)
                        raise
                    if type(body) is not list:
                        return counted_body(body, end, key)
                    # It has no code that could still write, and nothing to be closed.
                    uncount(key)
                    if inflight.draining:
                        end(key)
                    return body
                end(key)
        elif view.announced is not None:
            start_response = announcing_start(start_response, handling)
        else:
            query = environ.get("QUERY_STRING")
            if not environ.keys().isdisjoint(notable) or (query and ("%" in query or "_method" in query.lower())):
                return handled(environ, start_response)
            if method not in SAFE_METHODS:
                kept = known.get(key_of(environ))
                if kept is not None and kept.state is view.state and monotonic() < kept.until:
                    kept.count()
                    status, headers, answer = next(kept.ready)
                    # Copied, since whoever is outside may edit what is sent.
                    start_response(status, headers.copy())
                    return [answer]
            elif (
                monotonic() < handling.next_look
                and view.state.read_only
                and not switch.guarded
                and (any_closed_read or place(environ) in plain)
            ):
                return app(environ, marking_start(start_response, environ, handling))  # type: ignore[arg-type]
        return handled(environ, start_response)

    def handled(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        cookie: str = environ.get("HTTP_COOKIE", "")
        cookies = (cookie,) if cookie else ()
        safe = environ["REQUEST_METHOD"] in SAFE_METHODS
        if view.open and any_read and safe and not (stamping or sessions.carried(cookies)):
            # A cut-off is known, so that sessions matter: but this visitor has none.
            return app(environ, start_response)  # type: ignore[arg-type]
        facts = facts_of(environ, endpoint)
        if handling.wants_body(facts):
            environ = peeked_environ(facts, environ)
        exchange = Exchange(
            handling,
            facts,
            cookies=cookies,
            secure=environ.get("wsgi.url_scheme") == "https",
            client=environ.get("REMOTE_ADDR"),
            mount=environ.get("SCRIPT_NAME", ""),
        )
        answer = exchange.begin()
        try:
            if exchange.judged.noted is not None:
                handling.stands_behind(environ)
                # Anybody may ask for one: what tells is that it was given. Some servers have opened it by now.
                if "wsgi.websocket" in environ:
                    switch.doubts.add(WEBSOCKET, UPGRADED)
                elif "HTTP_UPGRADE" in environ:
                    start_response = upgrading_start(start_response, switch)
            handling.remember(exchange.act, place(environ))
            if answer is not None:
                if exchange.wants_form:
                    if facts.body is None:
                        peeked_environ(facts, environ)
                    answer = exchange.given_back()
                if environ.keys().isdisjoint(notable):
                    refusal = (status_line(answer.status), answer.headers, answer.body)
                    handling.keep(key_of(environ), exchange.judged, facts, refusal)
                return respond(start_response, answer)
            environ = stripped(environ, exchange.judged)
            if exchange.work is not None:
                return Guarded(app, environ, start_response, exchange)
            if exchange.treats_response:
                start_response = editing_start(start_response, exchange)
            body = app(environ, start_response)  # type: ignore[arg-type]
            return body if exchange.counted is None else counted_body(body, end, exchange.counted)
        except BaseException:
            exchange.end()
            raise

    if holds_another(app):
        switch.doubts.add(TWICE, "around an application that has it")
    mark(middleware)
    return middleware


def upgrading_start(start_response: StartResponse, switch: Switch) -> StartResponse:
    """Doubt, if a response says that from here on a websocket is spoken."""

    def upgrading(status: str, headers: HeaderList, exc_info: Any = None, /) -> Callable[[bytes], object]:
        if status.startswith("101"):
            switch.doubts.add(WEBSOCKET, UPGRADED)
        if exc_info is None:
            return start_response(status, headers)
        return start_response(status, headers, exc_info)

    return upgrading
