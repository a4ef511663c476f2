"""The contract in ASGI, without a framework."""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import parse_qsl

from conformance.sites.contract import (
    BODIES,
    FORMS,
    OTHER_KIND,
    OWN_PREFIX,
    Answer,
    Seen,
    act,
    bearer,
    begun,
    cookies_in,
    cors_asgi,
    make_switch,
    own_session,
    policy,
    prefixed_asgi,
    remembered,
    remembering,
    whose_own_session,
)
from conformance.sites.plain_router import endpoint_for, find
from readonly.asgi import ReadOnlyMiddleware, status_app

switch = make_switch()
own = status_app(switch)


async def site(scope: Any, receive: Any, send: Any) -> None:
    """Answer as the contract says."""
    if scope["type"] == "lifespan":
        await _lifespan(receive, send)
    elif scope["type"] == "websocket":
        await talk(scope, receive, send)
    else:
        await _http(scope, receive, send)


async def _lifespan(receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await send({"type": "lifespan.shutdown.complete"})


async def talk(scope: Any, receive: Any, send: Any) -> None:
    """Say everything that is heard once more, in capitals."""
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": message["text"].upper()})


async def _http(scope: Any, receive: Any, send: Any) -> None:
    method, path = scope["method"], scope["path"].removeprefix(scope.get("root_path", ""))
    headers = {name.decode(): value.decode("latin-1") for name, value in scope["headers"]}
    if path.startswith(OWN_PREFIX):
        await own(scope, receive, send)
        return
    found = find(method, path)
    if isinstance(found, int):
        await _send(send, method, Answer(found, [("Content-Type", "text/plain")], b"no such thing"))
        return
    cookies = cookies_in("; ".join(v.decode("latin-1") for n, v in scope["headers"] if n == b"cookie"))
    user = whose_own_session(cookies.get("session", "")) or remembered(cookies.get("remember", ""))
    seen = Seen(method, path, user or bearer(headers.get("authorization")), scope["query_string"].decode())
    seen.cookies = list(cookies)
    if found in FORMS and method == "POST":
        seen.form = dict(parse_qsl((await _body(receive)).decode()))
    elif found in BODIES:
        begun(seen)
        seen.received = len(await _body(receive))
    if found == "slow" or found in OTHER_KIND:
        answer = await asyncio.to_thread(act, found, seen, switch)
    else:
        answer = act(found, seen, switch)
    await _send(send, method, answer)


async def _body(receive: Any) -> bytes:
    parts = []
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            break
        parts.append(message.get("body", b""))
        more = message.get("more_body", False)
    return b"".join(parts)


async def _send(send: Any, method: str, answer: Answer) -> None:
    headers = answer.headers
    if answer.signs_in:
        headers.append(("Set-Cookie", own_session(answer.signs_in)))
    elif answer.signs_out:
        headers.append(("Set-Cookie", "session=; Path=/; Max-Age=0"))
    elif answer.touches:
        headers.append(("Set-Cookie", own_session("")))
    if answer.remembers:
        headers.append(("Set-Cookie", remembering(answer.signs_in)))
    raw = [(name.lower().encode(), value.encode("latin-1")) for name, value in headers]
    if answer.parts is None:
        raw.append((b"content-length", str(len(answer.body)).encode()))
    await send({"type": "http.response.start", "status": answer.status, "headers": raw})
    if answer.parts is not None and method != "HEAD":
        for part in answer.parts():
            await send({"type": "http.response.body", "body": part, "more_body": True})
    await send({"type": "http.response.body", "body": b"" if method == "HEAD" else answer.body})


application = prefixed_asgi(ReadOnlyMiddleware(cors_asgi(site), switch, policy=policy(), endpoint=endpoint_for("asgi")))
