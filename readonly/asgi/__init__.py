"""The middleware and the status routes for ASGI 3 applications; any framework, or none.

Source: asgi.readthedocs.io, specs "www" 2.5 and "lifespan" 2.0, extension "websocket.http.response".
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from time import monotonic

from ..bypass import HEADER
from ..context import Work, enter, leave
from ..doubts import TWICE
from ..exchange import Exchange
from ..gate import Act, ActKind
from ..handling import OVERRIDES, Handling
from ..nested import holds_another, mark
from ..pages import Page
from ..policy import Policy
from ..rules import SAFE_METHODS, Endpoint, Facts
from ..state import State
from ..switch import Switch
from ..words import Languages, languages_of
from ._conversations import Conversation
from ._outside import take, watched
from ._requests import NEGOTIATED_NAMES, Headers, facts_of, key_of, peeked, place, shown, stripped
from ._responses import (
    CLOSE,
    Refusal,
    Response,
    Seen,
    announcing_send,
    closes,
    dropping_send,
    late_send,
    marking_send,
    raw,
    refuse,
)
from ._sockets import Sockets, is_ours
from ._status import status_app
from ._types import ASGIApp, Message, RawHeaders, Receive, Scope, Send

__all__ = [
    "ASGIApp",
    "Message",
    "RawHeaders",
    "ReadOnlyMiddleware",
    "Receive",
    "Scope",
    "Send",
    "facts_of",
    "status_app",
    "watched",
]


def ReadOnlyMiddleware(
    app: ASGIApp,
    switch: Switch,
    *,
    policy: Policy = Policy(),
    page: Page | None = None,
    words: str | Path | Languages | None = None,
    endpoint: Callable[[Scope], Endpoint | None] | None = None,
) -> ASGIApp:
    """Return `app` behind the read-only mode. Make it the outermost middleware.

    While the site is writable, a read costs one look at an attribute and a write is counted; nothing is wrapped for
    a read. While it is read-only, writes and logins are refused without their body being read, sessions are taken
    off, and every response says so.

    Args:
        app: The application, ASGI 3.
        switch: The process's switch. It is started and closed with the server's lifespan, where there is one.
        policy: What counts as a write, a login, a session.
        page: The site's own page for refusals.
        words: A folder of the site's own catalogues, by which it adds a language or replaces a sentence, or a
            `readonly.words.Words` with another default; None: the library's languages, by Accept-Language.
        endpoint: Tells the router's name and marks for a scope. Reads of a writable site are not routed twice for it
            until some view is marked with `@writes`; an attribute `reads_matter` on it, True or False, says that they
            always or never are. Nor are its writes until one is marked with `@reads`, if an attribute
            `tells_of_decorators_alone` is True: what it tells of marks is what `marks_of` the view says.

    Returns:
        An `async def` closure: every server takes that for ASGI 3.
    """
    handling: Handling[Refusal] = Handling(switch, policy, page, endpoint, languages_of(words))
    gate, sessions = handling.gate, handling.sessions
    view = switch.view
    inflight = switch.inflight
    count, uncount, end = inflight.add, inflight.discard, inflight.end
    clock = switch.monotonic  # what `view.admit_until` is measured by
    sockets = Sockets(switch)
    seen = Seen()
    # Nothing below is looked up twice: a name of the closure costs less than an attribute.
    plain, known = handling.plain, handling.ready
    cookies_matter, stamping = handling.cookies_matter, sessions.stamping
    any_read, any_closed_read = handling.any_read, handling.any_closed_read
    any_write, counted = handling.any_write, handling.counted
    notable = frozenset(
        name.encode()
        for name in (
            *OVERRIDES,
            HEADER.lower(),
            "cookie",  # a session's, or a bypass's
            *(["authorization"] if policy.bearer == "end" else []),
        )
    )
    # A request with a notable header is one of its own: its refusal is never kept, and so never found.
    deciding = NEGOTIATED_NAMES | notable

    async def middleware(scope: Scope, receive: Receive, send: Send) -> None:
        method = scope.get("method")
        if view.open and view.announced is None:
            if method in SAFE_METHODS:
                if (any_read or place(scope) in plain) and (
                    not (cookies_matter and view.sessions_cut)
                    or not (stamping or b"cookie" in [name for name, _ in scope["headers"]])
                ):
                    await app(scope, receive, send)
                    return
            elif (
                method is not None
                and (any_write or place(scope) in counted)
                and not (cookies_matter and view.sessions_cut)
            ):
                key = object()
                count(key)
                # Count, then look: a change that came before the look is seen by it, one after it sees the count.
                if clock() < view.admit_until:
                    try:
                        if switch.guarded:
                            await guarded(scope, receive, send, view.state, key)
                        else:
                            await app(scope, receive, late_send(scope, send, handling) if cookies_matter else send)
                    finally:
                        uncount(key)
                        if inflight.draining:
                            end(key)
                    return
                end(key)
        elif view.announced is not None:
            if method is not None:
                send = announcing_send(send, handling)
        elif method in SAFE_METHODS:
            if seen.state is view.state and monotonic() < handling.next_look and not switch.guarded and not seen.edits:
                query = scope.get("query_string")
                if (
                    (any_closed_read or place(scope) in plain)
                    and not (query and (b"%" in query or b"_method" in query.lower()))
                    and dict(scope["headers"]).keys().isdisjoint(notable)
                ):
                    await app(scope, receive, marking_send(send, seen.marks))
                    return
            if await quick(scope, receive, send):
                return
        elif method is not None:
            refusal = given_just_now(scope, receive)
            if refusal is not None:
                await send({"type": "http.response.start", "status": refusal[0], "headers": refusal[1]})
                await send({"type": "http.response.body", "body": refusal[2]})
                return
        kind = scope["type"]
        if kind == "http":
            await http(scope, receive, send)
        elif kind == "websocket":
            await websocket(scope, receive, send)
        elif kind == "lifespan":
            await _lifespan(app, switch, scope, receive, send)
        else:
            await app(scope, receive, send)

    # A function of its own, though a call costs: what `middleware` names of the closure costs each request a little.
    def given_just_now(scope: Scope, receive: Receive) -> Refusal | None:
        """Return a refusal that a request just like this one was given, if nothing about it needs a closer look."""
        query = scope.get("query_string")
        if query and (b"%" in query or b"_method" in query.lower()):
            return None
        key, has_body = key_of(scope, deciding)
        kept = known.get(key)
        if kept is None or kept.state is not view.state or monotonic() >= kept.until:
            return None
        kept.count()
        status, headers, body = next(kept.ready)
        # Copied, since whoever is outside may edit what is sent.
        headers = headers.copy()
        if has_body and closes(scope, dict(scope["headers"]), receive):
            headers.append(CLOSE)
        return status, headers, body

    async def quick(scope: Scope, receive: Receive, send: Send) -> bool:
        """Serve a read, of which a read-only site has much, if nothing about it needs a closer look."""
        pairs = scope["headers"]
        found = dict(pairs)
        query = scope.get("query_string")
        if (
            not found.keys().isdisjoint(notable)
            or len(found) != len(pairs)
            or (query and (b"%" in query or b"_method" in query.lower()))
        ):
            return False
        state = view.state
        if monotonic() >= handling.next_look or not state.read_only:
            return False
        if not any_closed_read and place(scope) not in plain:
            return False
        if seen.state is not state:
            seen.take_in(state, handling)
        if switch.guarded:
            await guarded(scope, receive, send, state, None)
        elif seen.edits:
            await app(scope, receive, dropping_send(scope, send, seen.marks, handling, handling.anonymous(state)))
        else:
            await app(scope, receive, marking_send(send, seen.marks))
        return True

    async def guarded(scope: Scope, receive: Receive, send: Send, state: State, key: object) -> None:
        work = Work(switch, key=key)
        response = Response(scope, send, handling, handling.anonymous(state), work, endpoint)
        token = enter(work)
        try:
            await app(scope, receive, response.send)
        except Exception:
            if not await response.replace():
                raise
        finally:
            leave(token)
            if work.escape is not None:
                facts = response.facts()
                work.name = handling.route(gate.classify(facts), facts)
                handling.count_escape(work, work.escape)
            work.end()

    async def looked_at() -> State:
        if view.open or not handling.due():
            return view.state
        handling.looked()
        return await switch.alook()

    async def http(scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope["headers"])
        cookies = headers.all(b"cookie")
        if view.open and any_read and scope["method"] in SAFE_METHODS and not (stamping or sessions.carried(cookies)):
            # A cut-off is known, so that sessions matter: but this visitor has none.
            await app(scope, receive, send)
            return
        facts = facts_of(scope, endpoint, headers)
        if handling.wants_body(facts):
            receive = await peeked(facts, receive)
        client = scope.get("client")
        exchange = Exchange(
            handling,
            facts,
            cookies=cookies,
            secure=scope.get("scheme") in ("https", "wss"),
            client=client[0] if client else None,
            mount=scope.get("root_path", ""),
        )
        try:
            answer = await exchange.abegin()
            if exchange.judged.noted is not None:
                handling.stands_behind(scope)
            handling.remember(exchange.act, place(scope))
            if answer is not None:
                if exchange.wants_form and await shown(facts, receive):
                    answer = exchange.given_back()
                refusal = (answer.status, raw(answer.headers), answer.body)
                found = dict(scope["headers"])
                if len(found) == len(scope["headers"]) and found.keys().isdisjoint(notable):
                    handling.keep(key_of(scope, deciding)[0], exchange.judged, facts, refusal)
                await refuse(scope, send, refusal, found, receive)
                return
            scope = stripped(scope, exchange.judged)
            if not exchange.treats_response:
                await app(scope, receive, send)
                return
            response = Response(scope, send, handling, exchange.judged, exchange.work, endpoint)
            with exchange.working():
                try:
                    await app(scope, receive, response.send)
                except Exception:
                    if not await response.replace():
                        raise
        finally:
            exchange.end()

    async def websocket(scope: Scope, receive: Receive, send: Send) -> None:
        take(scope)
        headers = Headers(scope["headers"])
        facts = facts_of(scope, endpoint, headers)
        act = gate.classify(facts)
        if act.may_write:
            await undeclared_socket(scope, receive, send, facts, act)
            return
        state = await looked_at()
        judged = handling.judge(act, facts, headers.all(b"cookie"), state)
        if judged.noted is not None:
            judged.noted.end()
        if state.read_only or judged.taken.edits:
            send = Response(scope, send, handling, judged, None, endpoint).send
        dialogue = gate.dialogue(facts) if act.kind is ActKind.DECLARED_READ else None
        if dialogue is None:
            await app(stripped(scope, judged), receive, send)
            return
        work = Work(switch, name=handling.route(act, facts)) if switch.guarded else None
        conversation = Conversation(switch, handling, facts, act, dialogue, work, receive, send)
        token = None if work is None else enter(work)
        try:
            await app(stripped(scope, judged), conversation.receive, conversation.send)
        except Exception as error:
            if not is_ours(error):
                raise
        finally:
            if work is not None and token is not None:
                leave(token)
                if work.escape is not None:
                    handling.count_escape(work, work.escape)
                work.end()
            conversation.end()

    async def undeclared_socket(scope: Scope, receive: Receive, send: Send, facts: Facts, act: Act) -> None:
        # A socket that may write is a write in flight for as long as it is open.
        key = inflight.begin()
        work = Work(switch, key=key, name=handling.route(act, facts))
        socket = sockets.add(scope, receive, send, handling, facts, act)
        token = noted = None
        try:
            state = await switch.aadmit()
            if state is not None or socket.closing.is_set():
                end(key)
                await socket.deny(state or view.state)
                return
            judged = handling.judge(act, facts, Headers(scope["headers"]).all(b"cookie"), view.state)
            if not judged.verdict.passed:
                end(key)
                await socket.deny(judged.state, judged)
                return
            noted = work.noted = judged.noted
            if switch.guarded:
                token = enter(work)
            socket.judged = judged
            await app(stripped(scope, judged), socket.receive, socket.send)
            if socket.closing.is_set() and not socket.answered:
                await socket.deny(view.state)  # it was told that the client has gone, and so has not answered
        except Exception as error:
            # The application went on sending to a socket that we had closed; frameworks wrap what that raises.
            if not is_ours(error):
                raise
        finally:
            if token is not None:
                leave(token)
            if work.escape is not None:
                handling.count_escape(work, work.escape)
            work.end()
            sockets.remove(socket)
            end(key)
            if noted is not None:
                noted.end()
            await socket.closed()

    if holds_another(app):
        switch.doubts.add(TWICE, "around an application that has it")
    mark(middleware)
    return middleware


# --- lifespan --------------------------------------------------------------------------------------------------------


async def _lifespan(app: ASGIApp, switch: Switch, scope: Scope, receive: Receive, send: Send) -> None:
    """Start the switch with the server, so that an idle worker is a member, and say goodbye with it."""
    loop = asyncio.get_running_loop()
    await loop.run_in_executor(None, switch.start)
    waited: list[bool] = []
    loop.call_soon(waited.append, True)
    await app(scope, receive, send)
    # Whoever returns without having waited once knows nothing of lifespans, and the server goes on serving.
    if waited:
        # Not awaited: uvicorn ends by the signal it got as soon as its loop comes round, and the goodbye with it. No
        # request is left to be kept waiting.
        switch.close()
