"""The contract in WSGI, without a framework."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from http import HTTPStatus
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
    cors_wsgi,
    make_switch,
    own_session,
    policy,
    prefixed_wsgi,
    remembered,
    remembering,
    whose_own_session,
)
from conformance.sites.plain_router import endpoint_for, find
from readonly.wsgi import ReadOnlyMiddleware, status_app

switch = make_switch()
own = status_app(switch)


def site(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    """Answer as the contract says."""
    method, path = environ["REQUEST_METHOD"], environ.get("PATH_INFO", "")
    if path.startswith(OWN_PREFIX):
        return own(environ, start_response)
    found = find(method, path)
    if isinstance(found, int):
        return _send(start_response, method, Answer(found, [("Content-Type", "text/plain")], b"no such thing"))
    cookies = cookies_in(environ.get("HTTP_COOKIE", ""))
    user = whose_own_session(cookies.get("session", "")) or remembered(cookies.get("remember", ""))
    seen = Seen(method, path, user or bearer(environ.get("HTTP_AUTHORIZATION")), environ.get("QUERY_STRING", ""))
    seen.cookies = list(cookies)
    if found in FORMS and method == "POST":
        seen.form = dict(parse_qsl(_body(environ).decode()))
    elif found in BODIES:
        begun(seen)
        seen.received = len(_body(environ))
    answer = _waited_for(_awaited(found, seen)) if found in OTHER_KIND else act(found, seen, switch)
    return _send(start_response, method, answer)


def _waited_for(answer: Coroutine[Any, Any, Answer]) -> Answer:
    # Not `asyncio.run`: it leaves Python's handler for SIGINT behind, by which uWSGI ends its workers.
    loop = asyncio.new_event_loop()
    try:
        return loop.run_until_complete(answer)
    finally:
        loop.close()


async def _awaited(name: str, seen: Seen) -> Answer:
    return act(name, seen, switch)


def _body(environ: dict[str, Any]) -> bytes:
    length = environ.get("CONTENT_LENGTH")
    if length:
        return environ["wsgi.input"].read(int(length))
    if environ.get("wsgi.input_terminated"):
        return environ["wsgi.input"].read()
    return b""


def _send(start_response: Any, method: str, answer: Answer) -> Iterable[bytes]:
    headers = answer.headers
    if answer.signs_in:
        headers.append(("Set-Cookie", own_session(answer.signs_in)))
    elif answer.signs_out:
        headers.append(("Set-Cookie", "session=; Path=/; Max-Age=0"))
    elif answer.touches:
        headers.append(("Set-Cookie", own_session("")))
    if answer.remembers:
        headers.append(("Set-Cookie", remembering(answer.signs_in)))
    if answer.parts is None:
        headers.append(("Content-Length", str(len(answer.body))))
    start_response(f"{answer.status} {HTTPStatus(answer.status).phrase}", headers)
    if method == "HEAD":
        return [b""]
    return answer.parts() if answer.parts is not None else [answer.body]


application = prefixed_wsgi(ReadOnlyMiddleware(cors_wsgi(site), switch, policy=policy(), endpoint=endpoint_for("wsgi")))
