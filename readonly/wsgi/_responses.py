"""Answering: refusals, and responses of the application on their way out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from ..exchange import Exchange
from ..handling import Handling, Judged
from ..rejection import Answer, HeaderList
from ._requests import Environ

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication

Refusal = tuple[str, HeaderList, bytes]


def status_line(code: int) -> str:
    return f"{code} {HTTPStatus(code).phrase}"


def status_of(line: str) -> int:
    """Return the number in a status line; 0 in one that is none."""
    number = line[:3]
    return int(number) if number.isascii() and number.isdigit() else 0


def respond(start_response: StartResponse, answer: Answer) -> list[bytes]:
    start_response(status_line(answer.status), answer.headers)
    return [answer.body]


def marking_start(start_response: StartResponse, environ: Environ, handling: Handling[Refusal]) -> StartResponse:
    judged = handling.anonymous(handling.view.state)
    edits = judged.taken.drop or judged.taken.stamp

    def marking(status: str, headers: HeaderList, exc_info: Any = None, /) -> Callable[[bytes], object]:
        if edits and "set-cookie" in [name.lower() for name, _ in headers]:
            headers = edited(headers, environ, handling, judged)
        else:
            headers = headers + judged.marks
        if exc_info is None:
            return start_response(status, headers)
        return start_response(status, headers, exc_info)

    return marking


def announcing_start(start_response: StartResponse, handling: Handling[Refusal]) -> StartResponse:
    """Return what says on each response that a window is about to begin, for as long as that is true."""

    def announcing(status: str, headers: HeaderList, exc_info: Any = None, /) -> Callable[[bytes], object]:
        headers = headers + handling.announcement
        if exc_info is None:
            return start_response(status, headers)
        return start_response(status, headers, exc_info)

    return announcing


def late_start(start_response: StartResponse, environ: Environ, handling: Handling[Refusal]) -> StartResponse:
    view = handling.view

    def late(status: str, headers: HeaderList, exc_info: Any = None, /) -> Callable[[bytes], object]:
        judged = None if view.open else handling.late()
        if judged is not None:
            headers = edited(headers, environ, handling, judged)
        if exc_info is None:
            return start_response(status, headers)
        return start_response(status, headers, exc_info)

    return late


def editing_start(start_response: StartResponse, exchange: Exchange) -> StartResponse:
    def editing(status: str, headers: HeaderList, exc_info: Any = None, /) -> Callable[[bytes], object]:
        if exchange.treats_what_starts_now:
            headers = exchange.headers(headers, status_of(status))
        if exc_info is None:
            return start_response(status, headers)
        return start_response(status, headers, exc_info)

    return editing


def edited(headers: HeaderList, environ: Environ, handling: Handling[Refusal], judged: Judged) -> HeaderList:
    return handling.response(headers, judged, secure=environ.get("wsgi.url_scheme") == "https")


def counted_body(body: Iterable[bytes], end: Callable[[object], None], key: object) -> Iterable[bytes]:
    """Return the response to a counted write: in flight until it is closed."""
    if type(body) is list or type(body) is tuple:
        # It has no code that could still write, and nothing to be closed: it was over when it was returned.
        end(key)
        return body
    return _Counted(body, end, key)


class _Counted:
    __slots__ = ("_body", "_end", "_key")

    def __init__(self, body: Iterable[bytes], end: Callable[[object], None], key: object) -> None:
        self._body = body
        self._end = end
        self._key = key

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._body)

    def close(self) -> None:
        """End it; called by the server, whatever has happened."""
        try:
            close = getattr(self._body, "close", None)
            if close is not None:
                close()
        finally:
            key, self._key = self._key, None
            self._end(key)

    # A server that forgets to close (PEP 3333 forbids it) must not keep a site from ever being drained.
    def __del__(self) -> None:
        if self._key is not None:
            self._end(self._key)


class Guarded:
    """A response behind a database guard: each step of it runs inside its `Work`, and a refusal replaces it.

    The work is entered for each step alone, since nothing says that a server takes all of them in one context. The
    first step is taken at once: then it is known what is sent, and some servers (granian) send what start_response was
    told by the time that the application has returned, though PEP 3333 lets it be told later.
    """

    def __init__(
        self,
        app: WSGIApplication,
        environ: Environ,
        start_response: StartResponse,
        exchange: Exchange,
    ) -> None:
        self._start_response = start_response
        self._exchange = exchange
        self._held: tuple[str, HeaderList, Any] | None = None
        self._writer: Callable[[bytes], object] | None = None
        self._started = self._replaced = self._closed = False
        self._iterator: Iterator[bytes] = iter(())
        self._body: Iterable[bytes] = ()
        self._first: bytes | None = None
        try:
            with exchange.working():
                try:
                    self._body = app(environ, self._start)  # type: ignore[arg-type]
                    if not self._replaced:
                        self._iterator = iter(self._body)
                except Exception:
                    if not self._replace():
                        raise
            self._first = next(self, None)
        except BaseException:
            # The server has nothing yet that it could close.
            self.close()
            raise

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        first, self._first = self._first, None
        if first is not None:
            return first
        with self._exchange.working():
            try:
                part = next(self._iterator)
            except StopIteration:
                if self._flush():
                    return next(self._iterator)
                raise
            except Exception:
                if self._replace():
                    return next(self._iterator)
                raise
        if self._flush():
            return next(self._iterator)
        return part

    def close(self) -> None:
        """End it; called by the server, whatever has happened."""
        try:
            with self._exchange.working():
                close = getattr(self._body, "close", None)
                if close is not None:
                    close()
        finally:
            self._exchange.end()

    # A server that forgets to close (PEP 3333 forbids it) must not keep a site from ever being drained.
    def __del__(self) -> None:
        self._exchange.end()

    def _start(self, status: str, headers: HeaderList, exc_info: Any = None, /) -> Callable[[bytes], object]:
        if self._replaced:
            return self._write
        if self._started:
            # Too late to replace anything: the server decides what becomes of it.
            return self._start_response(status, headers, exc_info)
        if self._held is not None and exc_info is None:
            raise AssertionError("start_response was called a second time without exc_info (PEP 3333)")
        self._held = (status, headers, exc_info)
        return self._write

    def _write(self, data: bytes) -> None:
        # The old way of sending, which can't wait for what follows.
        self._flush()
        if self._writer is not None and not self._replaced:
            self._writer(data)

    def _flush(self) -> bool:
        """Send what was held back, or the 503 in its place; return whether it was replaced just now."""
        if self._held is None or self._started:
            return False
        status, headers, exc_info = self._held
        if status[:1] == "5" and self._replace():
            return True
        self._started = True
        headers = self._exchange.headers(headers, status_of(status))
        if exc_info is None:
            self._writer = self._start_response(status, headers)
        else:
            self._writer = self._start_response(status, headers, exc_info)
        return False

    def _replace(self) -> bool:
        """Answer for the application if a guard has refused it a write and nothing was sent; return whether so."""
        answer = None if self._started or self._replaced else self._exchange.replacement()
        if answer is None:
            return False
        self._replaced = self._started = True
        self._iterator = iter(respond(self._start_response, answer))
        return True
