"""Django's requests and responses, as the gate's facts and headers; and how a response's end is heard of."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from http.cookies import Morsel
from typing import Any, cast

from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase

from readonly import asgi, wsgi
from readonly.exchange import Exchange
from readonly.rejection import Answer, HeaderList
from readonly.rules import BODY_LIMIT_BYTES, Facts

# --- the request ----------------------------------------------------------------------------------------------------


def facts_of(request: HttpRequest) -> Facts:
    """Return what the gate needs to know about a request; body and endpoint are left out."""
    scope = getattr(request, "scope", None)
    if scope is None:
        facts = wsgi.facts_of(request.META)
        # Django has decoded what the server handed over, where PEP 3333 has bytes in the disguise of latin-1.
        facts.path = request.path_info
        return facts
    script_name = request.META.get("SCRIPT_NAME", "")
    if script_name != scope.get("root_path", ""):  # FORCE_SCRIPT_NAME
        scope = {**scope, "root_path": script_name}
    if isinstance(scope.get("query_string"), str):  # Django's test client
        scope = {**scope, "query_string": scope["query_string"].encode("latin-1", "replace")}
    return asgi.facts_of(scope)


def show_body(facts: Facts, request: HttpRequest) -> None:
    """Show the beginning of a request's body to the facts; the application reads it from there all the same."""
    request_ = cast(Any, request)
    if hasattr(request_, "_body"):
        facts.body = request_._body[:BODY_LIMIT_BYTES]
        facts.body_complete = len(request_._body) <= BODY_LIMIT_BYTES
        return
    announced = request.META.get("CONTENT_LENGTH") or ""
    length = int(announced) if announced.isascii() and announced.isdigit() else None
    # There is no public way to look at the beginning of a body that is to be streamed later.
    stream = request_._stream
    replayed = wsgi.peeked(facts, stream, length=length)
    if getattr(stream, "seekable", bool)():
        stream.seek(0)
    else:
        request_._stream = replayed


def cookies_of(request: HttpRequest) -> tuple[str, ...]:
    """Return the values of a request's Cookie headers."""
    found = request.META.get("HTTP_COOKIE")
    return (found,) if found else ()


def strip(request: HttpRequest, exchange: Exchange) -> None:
    """Take off a request what the application may not see of it. Whoever wrapped Django still sees it."""
    cookies, bearer = exchange.cookies, exchange.bearer
    if cookies is None and bearer:
        return
    meta = dict(request.META)
    if cookies is not None:
        meta.pop("HTTP_COOKIE", None)
        if cookies:
            meta["HTTP_COOKIE"] = cookies[0]
    if not bearer and meta.get("HTTP_AUTHORIZATION", "")[:7].lower() == "bearer ":
        del meta["HTTP_AUTHORIZATION"]
    request.META = meta
    if hasattr(request, "environ"):
        request.environ = meta  # under WSGI the two are one
    # What was read from the old ones, if somebody has looked before us.
    for name in ("COOKIES", "headers"):
        request.__dict__.pop(name, None)


# --- the response ---------------------------------------------------------------------------------------------------


class _Written(Morsel[str]):
    """A cookie whose Set-Cookie header was written by the core; it knows attributes that Django's does not."""

    def __init__(self, text: str) -> None:
        super().__init__()
        name, _, rest = text.partition("=")
        value, *attributes = rest.split(";")
        self.set(name.strip(), value, value)
        for attribute in attributes:
            key, _, said = attribute.strip().partition("=")
            if self.isReservedKey(key):
                self[key] = said or True
        self._text = text

    def OutputString(self, attrs: Any = None) -> str:  # noqa: N802 - the standard library's name
        return self._text


def respond(answer: Answer) -> HttpResponse:
    """Return a response of the core's as Django's."""
    response = HttpResponse(answer.body, status=answer.status)
    del response.headers["Content-Type"]
    _add(response, answer.headers)
    # A refusal is counted and logged by the core; Django would log each as an error of the server.
    response._has_been_logged = True  # type: ignore[attr-defined]
    return response


def treat(response: HttpResponseBase, exchange: Exchange) -> None:
    """Edit a response's headers and cookies as they may leave."""
    given: HeaderList = list(response.items())
    names = [""] * len(given)
    for name, morsel in response.cookies.items():
        given.append(("Set-Cookie", morsel.OutputString()))
        names.append(name)
    treated = exchange.headers(given, response.status_code)
    # What stays are the very same pairs.
    stays = {id(pair) for pair in treated}
    for pair, cookie in zip(given, names, strict=True):
        if id(pair) not in stays:
            if cookie:
                del response.cookies[cookie]
            else:
                del response.headers[pair[0]]
    known = {id(pair) for pair in given}
    _add(response, [pair for pair in treated if id(pair) not in known])


def _add(response: HttpResponseBase, headers: HeaderList) -> None:
    for name, value in headers:
        if name.lower() == "set-cookie":
            cookie = _Written(value)
            response.cookies[cookie.key] = cookie
        else:
            response.headers[name] = value


# --- a response's steps and its end ---------------------------------------------------------------------------------


def work_in(response: StreamingHttpResponse, exchange: Exchange) -> None:
    """Have each step of a streaming response know which request it works for, as the view did."""
    if getattr(response, "file_to_stream", None) is not None:
        return  # a file: the server may send it by itself
    content = response.streaming_content
    if response.is_async:
        response.streaming_content = _asteps(cast(AsyncIterator[bytes], content), exchange)
    else:
        response.streaming_content = _steps(iter(cast(Iterator[bytes], content)), exchange)


def _steps(content: Iterator[bytes], exchange: Exchange) -> Iterator[bytes]:
    while True:
        with exchange.working():
            try:
                part = next(content)
            except StopIteration:
                return
        yield part


async def _asteps(content: AsyncIterator[bytes], exchange: Exchange) -> AsyncIterator[bytes]:
    steps = aiter(content)
    while True:
        with exchange.working():
            try:
                part = await anext(steps)
            except StopAsyncIteration:
                return
        yield part


class _End:
    """Ends an exchange with its response: when that is closed, or is no more."""

    __slots__ = ("_end",)

    def __init__(self, end: Callable[[], None]) -> None:
        self._end = end

    def __call__(self) -> None:
        self._end()

    # A middleware outside of us may answer with another response and never close this one.
    def __del__(self) -> None:
        self._end()


def at_end(response: HttpResponseBase, end: Callable[[], None]) -> None:
    """Have `end` called when a response was closed, receivers of `request_finished` included. Twice does no harm."""
    # In a cycle until it is closed, which servers do; the class's own method then stands there again.
    before = response.__dict__.get("close")
    response.close = partial(_close, response, before, _End(end))  # type: ignore[method-assign]


def _close(response: HttpResponseBase, before: Callable[[], None] | None, end: _End) -> None:
    if before is None:
        response.__dict__.pop("close", None)
    else:
        response.close = before  # type: ignore[method-assign]
    try:
        response.close()
    finally:
        end()
