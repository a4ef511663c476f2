"""The middleware and the status routes for WSGI applications; any framework, or none.

Source: PEP 3333.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, MutableMapping
from http import HTTPStatus
from time import monotonic
from typing import TYPE_CHECKING, Any

from .context import Work, enter, leave
from .gate import Act
from .handling import NEGOTIATED, OVERRIDES, Handling, Judged, Status
from .pages import Page
from .policy import Policy
from .rejection import Answer, HeaderList
from .rules import BODY_LIMIT_BYTES, SAFE_METHODS, Endpoint, Facts
from .switch import Switch

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication

Environ = MutableMapping[str, Any]


def ReadOnlyMiddleware(
    app: WSGIApplication,
    switch: Switch,
    *,
    policy: Policy = Policy(),
    page: Page | None = None,
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
        endpoint: Tells the router's name and marks for an environ. Reads of a writable site are not routed twice for it
            until some view is marked with `@writes`; an attribute `reads_matter` on it, True or False, says that they
            always or never are.
    """
    handling: Handling[_Refusal] = Handling(switch, policy, page, endpoint)
    gate, sessions = handling.gate, handling.sessions
    view = switch.view
    begin, end = switch.inflight.begin, switch.inflight.end
    clock = switch.monotonic  # what `view.admit_until` is measured by
    # Nothing below is looked up twice: a name of the closure costs less than an attribute.
    plain, counted, known = handling.plain, handling.counted, handling.kept
    cookies_matter, stamping = handling.cookies_matter, sessions.stamping
    any_read, any_closed_read = handling.any_read, handling.any_closed_read
    any_write = handling.trivial_unsafe
    notable = {
        "HTTP_" + name.upper().replace("-", "_")
        for name in (
            *OVERRIDES,
            *(("cookie",) if cookies_matter else ()),
            *(("authorization",) if policy.bearer == "end" else ()),
        )
    }
    telling = notable | _NEGOTIATED

    def middleware(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        method = environ["REQUEST_METHOD"]
        if view.open:
            if method in SAFE_METHODS:
                if (any_read or _place(environ) in plain) and (
                    not (cookies_matter and view.sessions_cut) or not (stamping or "HTTP_COOKIE" in environ)
                ):
                    return app(environ, start_response)  # type: ignore[arg-type]  # a dict, as PEP 3333 has it
            elif (
                (any_write or _place(environ) in counted)
                and not (cookies_matter and view.sessions_cut)
                and not switch.guarded
            ):
                key = begin()
                # Count, then look: a change that came before the look is seen by it, one after it sees the count.
                if clock() < view.admit_until:
                    if cookies_matter:
                        start_response = _late(start_response, environ, handling)
                    try:
                        body = app(environ, start_response)  # type: ignore[arg-type]
                    except BaseException:
                        end(key)
                        raise
                    return _counted(body, end, key)
                end(key)
        else:
            names = environ.keys()
            query = environ.get("QUERY_STRING")
            bare = names.isdisjoint(telling)
            if (not bare and not names.isdisjoint(notable)) or (query and ("%" in query or "_method" in query.lower())):
                return handled(environ, start_response)
            if method not in SAFE_METHODS:
                kept = known.get(_place(environ) if bare else _key(environ))
                if kept is not None and kept.ready and kept.state is view.state and monotonic() < kept.until:
                    kept.count()
                    status, headers, answer = next(kept.ready)
                    # Copied, since whoever is outside may edit what is sent.
                    start_response(status, headers.copy())
                    return [answer]
            elif (
                monotonic() < handling.next_look
                and view.state.read_only
                and not switch.guarded
                and (any_closed_read or _place(environ) in plain)
            ):
                return app(environ, _marking(start_response, environ, handling))  # type: ignore[arg-type]
        return handled(environ, start_response)

    def handled(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        headers = _Headers(environ)
        cookie: str = environ.get("HTTP_COOKIE", "")
        cookies = (cookie,) if cookie else ()
        safe = environ["REQUEST_METHOD"] in SAFE_METHODS
        if view.open and any_read and safe and not (stamping or sessions.carried(cookies)):
            # A cut-off is known, so that sessions matter: but this visitor has none.
            return app(environ, start_response)  # type: ignore[arg-type]
        facts = _facts(environ, headers, endpoint)
        if gate.needs_body and gate.wants_body(facts):
            environ = _peek(facts, environ)
        act = gate.classify(facts)
        handling.remember(act, _place(environ))
        key: object = None
        try:
            if act.may_write:
                key = begin()
                closed = switch.admit()
                if closed is not None:
                    end(key)
                    key = None
                    handling.looked()
                state = closed or view.state
            elif view.open or not handling.due():
                state = view.state
            else:
                handling.looked()
                state = switch.look()
            judged = handling.judge(act, facts, cookies, state)
            if not judged.verdict.passed:
                end(key)
                secure = environ.get("wsgi.url_scheme") == "https"
                answer = handling.refusal(judged, facts, secure=secure, client=environ.get("REMOTE_ADDR"))
                if environ.keys().isdisjoint(notable):
                    refusal = (_status_line(answer.status), answer.headers, answer.body)
                    handling.keep(_key(environ), judged, facts, refusal)
                return _respond(start_response, answer)
            return passed(environ, start_response, facts, act, judged, key)
        except BaseException:
            end(key)
            raise

    def passed(
        environ: Environ, start_response: StartResponse, facts: Facts, act: Act, judged: Judged, key: object
    ) -> Iterable[bytes]:
        read_only = judged.state.read_only
        admitted = key is not None
        environ = _stripped(environ, judged)
        bypass = judged.verdict.bypass
        work: Work | None = None
        if switch.guarded and (read_only or admitted or bypass):
            work = Work(switch, key=key, bypass=bypass, name=handling.route(act, facts))
        edited = read_only or judged.taken.edits or (admitted and cookies_matter)
        if work is None:
            if edited:
                start_response = _editing(start_response, environ, handling, judged)
            body = app(environ, start_response)  # type: ignore[arg-type]
            return _counted(body, end, key) if admitted else body
        return _Guarded(app, environ, start_response, handling, facts, judged, work, key)

    return middleware


# --- reading an environ ----------------------------------------------------------------------------------------------


_Refusal = tuple[str, HeaderList, bytes]


_NEGOTIATED = {
    "CONTENT_TYPE" if name == "content-type" else "HTTP_" + name.upper().replace("-", "_") for name in NEGOTIATED
}


def _place(environ: Environ) -> Hashable:
    get = environ.get
    raw = get("RAW_URI") or get("REQUEST_URI") or ""
    if "?" in raw:
        raw = raw.partition("?")[0]
    return environ["REQUEST_METHOD"], get("PATH_INFO"), get("SCRIPT_NAME"), raw


def _key(environ: Environ) -> Hashable:
    if environ.keys().isdisjoint(_NEGOTIATED):
        return _place(environ)
    get = environ.get
    return (
        _place(environ),
        get("HTTP_ACCEPT"),
        get("CONTENT_TYPE"),
        get("HTTP_ORIGIN"),
        get("HTTP_HX_REQUEST"),
        get("HTTP_X_REQUESTED_WITH"),
        get("HTTP_SEC_FETCH_DEST"),
    )


class _Headers:
    """Looks request headers up in an environ."""

    __slots__ = ("_environ",)

    def __init__(self, environ: Mapping[str, Any]) -> None:
        self._environ = environ

    def get(self, name: str, /) -> str | None:
        key = name.upper().replace("-", "_")
        if key not in ("CONTENT_TYPE", "CONTENT_LENGTH"):
            key = "HTTP_" + key
        found: str | None = self._environ.get(key)
        # Servers say that a header is not there by leaving it out, or by an empty CONTENT_TYPE.
        return found if found or key.startswith("HTTP_") else None


def _facts(environ: Environ, headers: _Headers, endpoint: Callable[[Environ], Endpoint | None] | None) -> Facts:
    return Facts(
        environ["REQUEST_METHOD"],
        _text(environ.get("PATH_INFO", "")),
        _raw_path(environ),
        environ.get("QUERY_STRING", ""),
        headers,
        "http",
        endpoint(environ) if endpoint is not None else None,
    )


def _text(path: str) -> str:
    # PEP 3333: bytes in the disguise of latin-1.
    return path if path.isascii() else path.encode("latin-1", "replace").decode("utf-8", "replace")


def _raw_path(environ: Environ) -> str:
    """Return the path as it was sent, relative to the mount, where the server tells; "" where it does not."""
    raw: str = environ.get("RAW_URI") or environ.get("REQUEST_URI") or ""
    raw = raw.partition("?")[0]
    if not raw.startswith("/"):
        # The absolute form, as a proxy is asked (RFC 9112, section 3.2.2).
        _, scheme, rest = raw.partition("://")
        raw = "/" + rest.partition("/")[2] if scheme else ""
    script: str = environ.get("SCRIPT_NAME", "")
    if script and raw.startswith(script) and raw[len(script) : len(script) + 1] in ("", "/"):
        raw = raw[len(script) :]
    return raw


class _Replayed(io.RawIOBase):
    """A request's body of which the beginning was read already. Buffered, so that it has lines."""

    def __init__(self, beginning: bytes, rest: Any) -> None:
        self._beginning = io.BytesIO(beginning)
        self._rest = rest

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data: bytes = self._beginning.read(len(buffer)) or self._rest.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


class _Limited:
    """At most so many bytes of a stream: reading on would wait for what the client never sends."""

    def __init__(self, stream: Any, length: int) -> None:
        self._stream = stream
        self._left = length

    def read(self, size: int) -> bytes:
        data: bytes = self._stream.read(min(size, self._left)) if self._left else b""
        self._left -= len(data)
        return data


def _peek(facts: Facts, environ: Environ) -> Environ:
    """Read as much of a body as a predicate may see; return an environ that plays it back."""
    stream = environ["wsgi.input"]
    length = environ.get("CONTENT_LENGTH") or ""
    if length.isascii() and length.isdigit():
        stream = _Limited(stream, int(length))
    elif not (environ.get("wsgi.input_terminated") or environ.get("HTTP_TRANSFER_ENCODING")):
        facts.body = b""
        return environ
    parts: list[bytes] = []
    size = 0
    while size <= BODY_LIMIT_BYTES:
        part = stream.read(BODY_LIMIT_BYTES + 1 - size)
        if not part:
            break
        parts.append(part)
        size += len(part)
    body = b"".join(parts)
    facts.body = body[:BODY_LIMIT_BYTES]
    facts.body_complete = size <= BODY_LIMIT_BYTES
    return {**environ, "wsgi.input": io.BufferedReader(_Replayed(body, stream))}


def _stripped(environ: Environ, judged: Judged) -> Environ:
    """Return the environ without the cookies and tokens that were taken off; a copy, if there are any."""
    taken = judged.taken
    if taken.cookies is None and not taken.bearer:
        return environ
    environ = dict(environ)
    if taken.cookies is not None:
        environ.pop("HTTP_COOKIE", None)
        if taken.cookies:
            environ["HTTP_COOKIE"] = taken.cookies[0]
    if taken.bearer and environ.get("HTTP_AUTHORIZATION", "")[:7].lower() == "bearer ":
        del environ["HTTP_AUTHORIZATION"]
    return environ


# --- answering -------------------------------------------------------------------------------------------------------


def _status_line(code: int) -> str:
    return f"{code} {HTTPStatus(code).phrase}"


def _respond(start_response: StartResponse, answer: Answer) -> list[bytes]:
    start_response(_status_line(answer.status), answer.headers)
    return [answer.body]


def _marking(start_response: StartResponse, environ: Environ, handling: Handling[_Refusal]) -> StartResponse:
    judged = handling.anonymous(handling.view.state)
    edits = judged.taken.drop or judged.taken.stamp

    def marking(status: str, headers: HeaderList, exc_info: Any = None, /) -> Callable[[bytes], object]:
        if edits and "set-cookie" in [name.lower() for name, _ in headers]:
            headers = _edited(headers, environ, handling, judged)
        else:
            headers = headers + judged.marks
        if exc_info is None:
            return start_response(status, headers)
        return start_response(status, headers, exc_info)

    return marking


def _late(start_response: StartResponse, environ: Environ, handling: Handling[_Refusal]) -> StartResponse:
    view = handling.view

    def late(status: str, headers: HeaderList, exc_info: Any = None, /) -> Callable[[bytes], object]:
        judged = None if view.open else handling.late()
        if judged is not None:
            headers = _edited(headers, environ, handling, judged)
        if exc_info is None:
            return start_response(status, headers)
        return start_response(status, headers, exc_info)

    return late


def _editing(
    start_response: StartResponse, environ: Environ, handling: Handling[_Refusal], judged: Judged
) -> StartResponse:
    def editing(status: str, headers: HeaderList, exc_info: Any = None, /) -> Callable[[bytes], object]:
        headers = _edited(headers, environ, handling, judged)
        if exc_info is None:
            return start_response(status, headers)
        return start_response(status, headers, exc_info)

    return editing


def _edited(headers: HeaderList, environ: Environ, handling: Handling[_Refusal], judged: Judged) -> HeaderList:
    if not judged.state.read_only:
        judged = handling.late(judged) or judged
    return handling.response(headers, judged, secure=environ.get("wsgi.url_scheme") == "https")


def _counted(body: Iterable[bytes], end: Callable[[object], None], key: object) -> Iterable[bytes]:
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


class _Guarded:
    """A response behind a database guard: each step of it runs inside its `Work`, and a refusal replaces it.

    The work is entered for each step alone, since nothing says that a server takes all of them in one context.
    """

    def __init__(
        self,
        app: WSGIApplication,
        environ: Environ,
        start_response: StartResponse,
        handling: Handling[_Refusal],
        facts: Facts,
        judged: Judged,
        work: Work,
        key: object,
    ) -> None:
        self._environ = environ
        self._start_response = start_response
        self._handling = handling
        self._facts = facts
        self._judged = judged
        self._work = work
        self._key = key
        self._held: tuple[str, HeaderList, Any] | None = None
        self._writer: Callable[[bytes], object] | None = None
        self._started = self._replaced = self._closed = False
        self._iterator: Iterator[bytes] = iter(())
        self._body: Iterable[bytes] = ()
        token = enter(work)
        try:
            self._body = app(environ, self._start)  # type: ignore[arg-type]
            if not self._replaced:
                self._iterator = iter(self._body)
        except Exception:
            if not self._replace():
                self._end()
                raise
        except BaseException:
            self._end()
            raise
        finally:
            leave(token)

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        token = enter(self._work)
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
        finally:
            leave(token)
        if self._flush():
            return next(self._iterator)
        return part

    def close(self) -> None:
        """End it; called by the server, whatever has happened."""
        token = enter(self._work)
        try:
            close = getattr(self._body, "close", None)
            if close is not None:
                close()
        finally:
            leave(token)
            self._end()

    def __del__(self) -> None:
        self._end()

    def _end(self) -> None:
        if not self._closed:
            self._closed = True
            if self._work.escape is not None:
                self._handling.count_escape(self._work, self._work.escape)
            self._work.end()
            self._handling.switch.inflight.end(self._key)

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
        headers = _edited(headers, self._environ, self._handling, self._judged)
        if exc_info is None:
            self._writer = self._start_response(status, headers)
        else:
            self._writer = self._start_response(status, headers, exc_info)
        return False

    def _replace(self) -> bool:
        """Answer for the application if a guard has refused it a write and nothing was sent; return whether so."""
        if self._started or self._replaced or self._work.escape is None:
            return False
        self._replaced = self._started = True
        answer = self._handling.escape(self._judged, self._facts)
        self._iterator = iter(_respond(self._start_response, answer))
        return True


# --- readiness and status --------------------------------------------------------------------------------------------


def status_app(switch: Switch) -> WSGIApplication:
    """Return an application with the routes `/-/readonly/ready` and `/-/readonly/status`, to be mounted.

    A process that never reached the store is not ready for its first 30 s, then ready as a reader; read-only itself
    never fails a probe. Answers are small JSON objects that no cache keeps, and say nothing that is not public.
    """
    status = Status(switch)

    def application(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        method = environ["REQUEST_METHOD"]
        found = status.document(environ.get("PATH_INFO", ""), switch.look())
        code, document = found or (404, {"error": "not found"})
        headers = [("Content-Type", "application/json"), ("Cache-Control", "no-store")]
        if found is not None and method not in ("GET", "HEAD"):
            code, document = 405, {"error": "method not allowed"}
            headers.append(("Allow", "GET, HEAD"))
        body = json.dumps(document).encode()
        headers.append(("Content-Length", str(len(body))))
        start_response(_status_line(code), headers)
        return [b"" if method == "HEAD" else body]

    return application
