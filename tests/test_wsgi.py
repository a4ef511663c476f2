"""The WSGI middleware: iterables and their closing, bodies, raw paths, and a real switch."""

from __future__ import annotations

import gc
import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any, cast

import pytest

from readonly import Policy, Switch, rule
from readonly.errors import ReadOnlyError
from readonly.rules import Facts
from readonly.wsgi import ReadOnlyMiddleware, status_app
from support.apps import HandSwitch, Request, WsgiSite, innermost, wsgi_environ


def wrapped(app: Callable[..., Iterable[bytes]], switch: HandSwitch, **options: Any) -> Callable[..., Iterable[bytes]]:
    """Return an application behind the middleware, for those who call it by hand."""
    return cast(Callable[..., Iterable[bytes]], ReadOnlyMiddleware(cast(Any, app), switch.as_switch(), **options))


class Response:
    """Collects what an application says; callable as start_response."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: list[tuple[str, str]] = []
        self.written: list[bytes] = []
        self.exc_info: Any = None

    def __call__(self, status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Callable[[bytes], object]:
        self.status, self.headers, self.exc_info = int(status[:3]), headers, exc_info
        return self.written.append

    def get(self, name: str) -> str | None:
        """Return a header's value."""
        return dict(self.headers).get(name)


# --- in flight -----------------------------------------------------------------------------------------------------


class Parts:
    """An iterable with a close of its own."""

    def __init__(self, *parts: bytes, fails: bool = False) -> None:
        self.parts = parts
        self.closed = 0
        self.fails = fails

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.parts)

    def close(self) -> None:
        """Count it."""
        self.closed += 1
        if self.fails:
            raise LookupError("broken")


def answering(body: Iterable[bytes], status: str = "200 OK") -> Callable[..., Iterable[bytes]]:
    """Return an application that answers with this body."""

    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        start_response(status, [("Content-Type", "text/plain")])
        return body

    return app


@pytest.mark.parametrize("guarded", [False, True])
@pytest.mark.parametrize("fails", [False, True])
def test_in_flight_until_the_iterable_is_closed(guarded: bool, fails: bool) -> None:
    """A stream may write while it is sent, and in its close; then it is over, even if that fails."""
    switch = HandSwitch()
    switch.guarded = guarded
    body = Parts(b"a", b"b", fails=fails)
    result: Any = wrapped(answering(body), switch)(wsgi_environ(Request("POST", "/")), Response())
    assert switch.inflight.count() == 1
    assert list(result) == [b"a", b"b"]
    assert switch.inflight.count() == 1
    if fails:
        with pytest.raises(LookupError):
            result.close()
    else:
        result.close()
    assert body.closed == 1
    assert switch.inflight.count() == 0


@pytest.mark.parametrize("body", [[b"a"], (b"a",)])
def test_a_list_is_over_when_it_is_returned(body: Iterable[bytes]) -> None:
    """It has no code that could still write."""
    switch = HandSwitch()
    result = wrapped(answering(body), switch)(wsgi_environ(Request("POST", "/")), Response())
    assert switch.inflight.count() == 0
    assert result is body


def test_a_list_is_over_for_whoever_drains() -> None:
    """The site was switched while the application made it."""
    switch = HandSwitch()
    counts: list[int] = []

    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        switch.inflight.close()
        counts.append(switch.inflight.count())
        return answering([b"a"])(environ, start_response)

    wrapped(app, switch)(wsgi_environ(Request("POST", "/")), Response())
    counts.append(switch.inflight.count())
    assert counts == [1, 0]


@pytest.mark.parametrize("status", ["201 Created", "500 Internal Server Error"])
def test_the_response_is_known_by_the_time_that_the_application_returns(status: str) -> None:
    """Some servers do not wait for the first part of its body, though they should."""
    for body in ([b"x"], Parts(b"x", b"y"), iter([b"x"]), []):

        def app(
            environ: dict[str, Any], start_response: Any, body: Iterable[bytes] = cast(Any, body)
        ) -> Iterable[bytes]:
            start_response(status, [("Location", "/there")])
            return body

        switch = HandSwitch()
        switch.guarded = True
        response = Response()
        parts = wrapped(app, switch)(wsgi_environ(Request("POST", "/")), response)
        assert (response.status, response.get("Location")) == (int(status[:3]), "/there")
        assert b"".join(parts)[:1] in (b"x", b"")
        cast(Any, parts).close()
        assert switch.inflight.count() == 0


def test_what_fails_at_once_is_over_and_closed() -> None:
    """The first part of its body is asked for before the server has anything to close."""
    closed: list[bool] = []

    class Failing:
        def __iter__(self) -> Iterator[bytes]:
            raise LookupError("broken")
            yield b""

        def close(self) -> None:
            closed.append(True)

    switch = HandSwitch()
    switch.guarded = True
    with pytest.raises(LookupError):
        wrapped(lambda environ, start_response: cast(Any, Failing()), switch)(
            wsgi_environ(Request("POST", "/")), Response()
        )
    assert closed == [True]
    assert switch.inflight.count() == 0


@pytest.mark.parametrize("guarded", [False, True])
def test_a_server_that_forgets_to_close_keeps_no_site_from_being_drained(guarded: bool) -> None:
    """PEP 3333 forbids it; when the response is collected the write is over."""
    switch = HandSwitch()
    switch.guarded = guarded
    result = wrapped(answering(Parts(b"a")), switch)(wsgi_environ(Request("POST", "/")), Response())
    assert switch.inflight.count() == 1
    del result
    gc.collect()
    assert switch.inflight.count() == 0


@pytest.mark.parametrize("guarded", [False, True])
def test_a_stream_that_fails_is_over_when_it_is_closed(guarded: bool) -> None:
    """The server closes what has failed."""

    def parts() -> Iterator[bytes]:
        yield b"a"
        raise LookupError("broken")

    switch = HandSwitch()
    switch.guarded = guarded
    result: Any = wrapped(answering(parts()), switch)(wsgi_environ(Request("POST", "/")), Response())
    with pytest.raises(LookupError):
        list(result)
    result.close()
    assert switch.inflight.count() == 0


def test_what_a_stream_may_write_is_known_in_each_of_its_steps() -> None:
    """The context is there in every part and in close, and gone in between and after."""
    seen: list[bool | None] = []

    def look() -> None:
        work = innermost()
        seen.append(None if work is None else work.may_write)

    class Body:
        def __iter__(self) -> Iterator[bytes]:
            look()
            yield b"a"
            look()

        def close(self) -> None:
            look()

    switch = HandSwitch()
    switch.guarded = True
    result: Any = wrapped(answering(cast(Any, Body())), switch)(wsgi_environ(Request("POST", "/")), Response())
    for _ in result:
        assert innermost() is None
    result.close()
    assert seen == [True, True, True]
    assert innermost() is None


# --- a guard's refusal ---------------------------------------------------------------------------------------------


def _refuse() -> None:
    work = innermost()
    assert work is not None
    work.mark(ReadOnlyError(database="main"))


def _in_call(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    _refuse()
    start_response("500 Internal Server Error", [])
    return [b"broken"]


def _in_generator(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    _refuse()
    start_response("500 Internal Server Error", [])
    yield b"broken"
    yield b"more"


def _with_write(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    _refuse()
    write = start_response("500 Internal Server Error", [])
    write(b"broken")
    write(b"more")
    return []


def _second_thoughts(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    start_response("200 OK", [])
    try:
        _refuse()
        raise LookupError
    except LookupError:
        import sys

        start_response("500 Internal Server Error", [], sys.exc_info())
    return [b"broken"]


def _empty(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    _refuse()
    start_response("500 Internal Server Error", [])
    return []


def _raises(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    _refuse()
    raise LookupError


def _raises_in_generator(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    yield from ()
    _refuse()
    raise LookupError


@pytest.mark.parametrize(
    "app", [_in_call, _in_generator, _with_write, _second_thoughts, _empty, _raises, _raises_in_generator]
)
def test_a_guard_s_refusal_becomes_the_503(app: Callable[..., Iterable[bytes]]) -> None:
    """In each of the ways in which a WSGI application can answer."""
    switch = HandSwitch()
    switch.guarded = True
    switch.read_only()
    response = Response()
    result: Any = wrapped(app, switch)(wsgi_environ(Request("GET", "/")), response)
    body = b"".join(result)
    result.close()
    assert response.status == 503
    assert json.loads(body)["code"] == "READ_ONLY"
    assert response.written == []
    assert switch.tally.totals()["escaped"] == 1


def test_writes_of_the_old_kind_pass() -> None:
    """write() sends at once, with the headers that belong to the state."""

    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        write = start_response("200 OK", [("Content-Type", "text/plain")])
        write(b"a")
        write(b"b")
        return [b"c"]

    switch = HandSwitch()
    switch.guarded = True
    switch.read_only()
    response = Response()
    assert list(wrapped(app, switch)(wsgi_environ(Request("GET", "/")), response)) == [b"c"]
    assert response.written == [b"a", b"b"]
    assert response.get("X-Read-Only") == "true"


@pytest.mark.parametrize("guarded", [False, True])
@pytest.mark.parametrize("policy", [Policy(), Policy(session_cookies=["session"], secret="k")])
def test_exc_info_is_handed_on(guarded: bool, policy: Policy) -> None:
    """A server raises it when the headers have left."""

    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        try:
            raise LookupError("late")
        except LookupError:
            import sys

            start_response("500 Internal Server Error", [], sys.exc_info())
        return [b""]

    switch = HandSwitch()
    switch.guarded = guarded
    switch.read_only()
    response = Response()
    list(wrapped(app, switch, policy=policy)(wsgi_environ(Request("GET", "/")), response))
    assert response.exc_info[0] is LookupError


def test_a_second_start_is_the_application_s_error() -> None:
    """Unless it brings exc_info; after the headers have left the server decides."""

    def twice(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", [])
        start_response("200 OK", [])
        return []

    def late(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", [])(b"a")
        start_response("500 Late", [], (LookupError, LookupError(), None))
        return []

    switch = HandSwitch()
    switch.guarded = True
    switch.read_only()
    with pytest.raises(AssertionError, match="second time"):
        wrapped(twice, switch)(wsgi_environ(Request("GET", "/")), Response())
    response = Response()
    list(wrapped(late, switch)(wsgi_environ(Request("GET", "/")), response))
    assert response.status == 500


# --- bodies and paths ----------------------------------------------------------------------------------------------


def test_a_predicate_reads_no_further_than_the_body() -> None:
    """Past Content-Length a socket would wait for ever; without one there is no body."""
    shown: list[bytes | None] = []

    def when(facts: Facts) -> bool:
        shown.append(facts.body)
        return True

    site = WsgiSite(HandSwitch(), Policy(reads=[rule("POST /q", when=when)]))
    environ = wsgi_environ(Request("POST", "/q", body=b"query and the next request"))
    environ["CONTENT_LENGTH"] = "5"
    list(site.unchecked(environ, cast(Any, Response())))
    assert shown == [b"query"]
    assert site.seen[0].body == b"query"
    del environ["CONTENT_LENGTH"]
    list(site.unchecked(environ, cast(Any, Response())))
    assert shown[1:] == [b""]


def test_a_body_that_was_cut_off_is_not_vouched_for() -> None:
    """The client has left in the middle of it, or the server hands out none of it."""
    site = WsgiSite(HandSwitch(), Policy(reads=[rule("POST /q", when=lambda facts: True)]))
    site.switch.read_only()
    for length, status in (("5", 200), ("500", 503)):
        environ = wsgi_environ(Request("POST", "/q", body=b"query"))
        environ["CONTENT_LENGTH"] = length
        response = Response()
        list(site.unchecked(environ, cast(Any, response)))
        assert response.status == status
    for body, status in ((b"query", 200), (b"", 503)):
        environ = wsgi_environ(Request("POST", "/q", body=body, chunked=True))
        del environ["wsgi.input_terminated"]
        response = Response()
        list(site.unchecked(environ, cast(Any, response)))
        assert response.status == status


def test_lines_of_a_body_that_was_shown_to_a_predicate() -> None:
    """The stream that the application gets is a whole one."""
    lines: list[bytes] = []

    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        lines.extend([environ["wsgi.input"].readline(), *environ["wsgi.input"]])
        start_response("200 OK", [])
        return []

    switch = HandSwitch()
    policy = Policy(reads=[rule("POST /q", when=lambda facts: True)])
    body = b"one\n" + 100_000 * b"x" + b"\nthree"
    list(wrapped(app, switch, policy=policy)(wsgi_environ(Request("POST", "/q", body=body)), Response()))
    assert lines == [b"one\n", 100_000 * b"x" + b"\n", b"three"]


@pytest.mark.parametrize(
    ("variable", "raw", "status"),
    [
        ("RAW_URI", "/admin/x", 200),
        ("RAW_URI", "/admin/x?q=1", 200),
        ("REQUEST_URI", "/admin/x", 200),
        ("REQUEST_URI", "http://example.org/admin/x", 200),
        ("REQUEST_URI", "", 200),
        ("REQUEST_URI", "*", 200),
        ("RAW_URI", "/admin%2fx", 503),
        ("REQUEST_URI", "http://example.org/admin%2Fx", 503),
    ],
)
def test_the_path_as_it_was_sent(variable: str, raw: str, status: int) -> None:
    """Where the server tells: a slash that was sent encoded is not what a rule that lets through means."""
    switch = HandSwitch()
    switch.read_only()
    environ = wsgi_environ(Request("POST", "/admin/x"))
    del environ["RAW_URI"]
    environ[variable] = raw
    response = Response()
    list(wrapped(answering([b"x"]), switch, policy=Policy(exempt=["/admin/*"]))(environ, response))
    assert response.status == status


def test_paths_that_are_not_ascii() -> None:
    """PEP 3333 hands them on as bytes in disguise."""
    switch = HandSwitch()
    switch.read_only()
    policy = Policy(reads=["POST /suche/größe"])
    response = Response()
    environ = wsgi_environ(Request("POST", "/suche/größe"))
    list(wrapped(answering([b"x"]), switch, policy=policy)(environ, response))
    assert response.status == 200


# --- readiness, status, a real switch ------------------------------------------------------------------------------


def _ask(switch: HandSwitch, path: str, method: str = "GET") -> tuple[Response, Any]:
    response = Response()
    app: Any = status_app(switch.as_switch())
    body = b"".join(app(wsgi_environ(Request(method, path)), response))
    return response, json.loads(body) if body else None


def test_readiness_and_status() -> None:
    """The same routes and answers as in ASGI."""
    switch = HandSwitch()
    switch.read_only(message="Back soon.")
    response, document = _ask(switch, "/-/readonly/status")
    assert (response.status, response.get("Cache-Control")) == (200, "no-store")
    assert document == {"mode": "read-only", "read_only": True, "expected_end": None, "message": "Back soon."}
    assert _ask(switch, "/-/readonly/ready")[1]["ready"] is True
    assert _ask(switch, "/-/readonly/ready", "HEAD")[1] is None
    assert _ask(switch, "/-/readonly/ready", "POST")[0].get("Allow") == "GET, HEAD"
    assert _ask(switch, "/elsewhere")[0].status == 404
    switch.unknown()
    assert _ask(switch, "/ready")[0].status == 503
    # To start it again would help nobody.
    answer, document = _ask(switch, "/live")
    assert (answer.status, document) == (200, {"live": True})


def test_with_a_real_switch() -> None:
    """Writable, read-only, writable: seen from the first request on, in one process."""
    switch = Switch.from_url("memory://")
    app: Any = ReadOnlyMiddleware(cast(Any, answering([b"x"])), switch)

    def ask(method: str) -> int:
        response = Response()
        result = app(wsgi_environ(Request(method, "/")), response)
        b"".join(result)
        if hasattr(result, "close"):
            result.close()
        return response.status

    try:
        assert ask("POST") == 200
        switch.on(reason="a migration")
        assert [ask("POST"), ask("GET")] == [503, 200]
        assert switch.confirm(timeout=10).safe
        switch.off()
        assert [ask("POST"), ask("GET")] == [200, 200]
    finally:
        switch.close()
