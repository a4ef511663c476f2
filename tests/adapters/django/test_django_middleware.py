"""Django's middleware: what the URLconf knows decides, writes are counted until their response is closed."""

from __future__ import annotations

import asyncio
import gc
import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any, cast

import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth.models import User
from django.core.handlers.asgi import ASGIHandler
from django.core.handlers.wsgi import WSGIHandler
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.test import override_settings
from django.test.client import FakePayload, RequestFactory

from readonly import Switch, rule
from readonly_django.middleware import ReadOnlyMiddleware
from readonly_django.test import override_readonly
from support.collecting import nothing_in_flight
from support.django_site import views
from support.django_site.models import Article
from support.waiting import eventually

from .conftest import FIRST, OURS, Visitor

TABLE = [
    ("GET", "/", 200),
    ("HEAD", "/", 200),
    ("OPTIONS", "/", 200),
    ("POST", "/", 503),
    ("PUT", "/", 503),
    ("DELETE", "/a", 503),
    ("GET", "/a", 200),
    ("POST", "/search", 200),
    ("PUT", "/search", 200),
    ("GET", "/ping", 503),
    ("HEAD", "/ping", 503),
    ("GET", "/aping", 503),
    ("GET", "/comments", 200),
    ("POST", "/comments", 200),
    ("PUT", "/comments", 503),
    ("GET", "/votes", 503),
    ("POST", "/preview", 200),
    ("POST", "/compare", 200),  # by a rule that names the route
    ("POST", "/local/search", 503),
    ("POST", "/en/local/search", 200),
    ("POST", "/de/local/search", 200),
    ("GET", "/api/articles/", 200),
    ("POST", "/api/articles/", 503),
    ("POST", "/api/articles/compare/", 200),
    ("GET", "/api/articles/touch/", 503),
    ("POST", "/lookup", 200),
    ("POST", "/api/token", 503),
    ("GET", "/nowhere", 404),
    ("POST", "/nowhere", 503),
    ("GET", "/probes/-/readonly/ready", 200),
    ("GET", "/accounts/login/", 200),
    ("POST", "/accounts/login/", 503),
    ("GET", "/admin/login/", 200),
    ("POST", "/admin/login/", 503),
    ("POST", "/admin/logout/", 302),
    ("POST", "/accounts/logout/", 302),
]


@pytest.mark.parametrize(("method", "path", "status"), TABLE, ids=lambda value: str(value))
@override_settings(
    READONLY={"STORE": "memory://?site=django-tests", "GUARD": False, "READS": ["POST name:compare"]},
    LOGOUT_REDIRECT_URL="/",
)
def test_the_urlconf_decides(visitor: Visitor, method: str, path: str, status: int) -> None:
    """Marks on functions, classes, methods and actions, names of routes, logins that nobody listed."""
    with override_readonly():
        answer = visitor(method, path)
    assert answer.status_code == status
    assert answer.headers["x-read-only"] == "true"
    if status == 503:
        assert answer.headers["cache-control"] == "no-store"
        assert int(answer.headers["retry-after"]) >= 60
        assert method == "HEAD" or json.loads(answer.content)["code"] == "READ_ONLY"
    assert not Article.objects.exists()


def test_a_writable_site_is_left_alone(visitor: Visitor) -> None:
    """Nothing is refused and nothing is said; what is not a plain read is counted while it runs."""
    for method, path in (("GET", "/"), ("POST", "/"), ("GET", "/ping"), ("GET", "/aping"), ("PUT", "/comments")):
        answer = visitor(method, path)
        assert answer.status_code == 200
        assert "x-read-only" not in answer.headers
    assert views.SEEN == [("GET", 0), ("POST", 1), ("GET", 1), ("GET", 1), ("PUT", 1)]


@override_settings(READONLY={"STORE": "memory://?site=django-tests", "GUARD": False, "WRITES": ["GET name:home"]})
def test_a_get_that_a_rule_declares_is_counted(visitor: Visitor) -> None:
    """By the name of its route, which is known later than the request."""
    visitor.get("/")
    visitor.get("/a")
    assert views.SEEN == [("GET", 1), ("GET", 0)]


def test_a_refusal_comes_before_everything_else(switch: Switch) -> None:
    """No other middleware sees the request, and Django logs no error of the server."""
    seen: list[str] = []

    def inner(request: HttpRequest) -> HttpResponse:
        seen.append(request.path)
        return HttpResponse()

    middleware = ReadOnlyMiddleware(inner)
    with override_readonly():
        refused = middleware(RequestFactory().post("/"))
        passed = middleware(RequestFactory().get("/"))
    assert (refused.status_code, passed.status_code, seen) == (503, 200, ["/"])
    assert refused._has_been_logged


def test_a_response_that_starts_after_the_switch(switch: Switch) -> None:
    """What was admitted before obeys when it answers: it hands out no session, and says how the site is."""

    def inner(request: HttpRequest) -> HttpResponse:
        switch.on(by="a test")
        response = HttpResponse()
        response.set_cookie("sessionid", "new")
        return response

    try:
        response = ReadOnlyMiddleware(inner)(RequestFactory().post("/"))
    finally:
        switch.off(by="a test")
    assert (response.status_code, response.headers["X-Read-Only"]) == (200, "true")
    assert not response.cookies
    response.close()


def test_no_refusal_is_logged_as_an_error(visitor: Visitor, caplog: pytest.LogCaptureFixture) -> None:
    """It is counted, and named once a minute, by the library itself."""
    with override_readonly():
        visitor.post("/")
    assert [record.name for record in caplog.records if record.levelname == "ERROR"] == []
    assert not any(record.name.startswith("django.request") for record in caplog.records)


# --- a second look ---------------------------------------------------------------------------------------------------


class ChangesTheURLconf:
    """A middleware that sends a path to another view than the URLconf does."""

    sync_capable = async_capable = True

    def __new__(cls, get_response: Callable[[HttpRequest], Any]) -> Any:
        from asgiref.sync import iscoroutinefunction

        def change(request: HttpRequest) -> None:
            request.urlconf = f"{__name__}_urls"  # type: ignore[attr-defined]

        if iscoroutinefunction(get_response):

            async def serve(request: HttpRequest) -> Any:
                change(request)
                return await get_response(request)

            return serve

        def serve_sync(request: HttpRequest) -> Any:
            change(request)
            return get_response(request)

        return serve_sync


@pytest.fixture
def other_urlconf(monkeypatch: pytest.MonkeyPatch) -> None:
    """The URLconf that the middleware changes to."""
    import sys
    from types import ModuleType

    from django.urls import path

    module = ModuleType(f"{__name__}_urls")
    module.urlpatterns = [  # type: ignore[attr-defined]
        path("", views.ping),
        path("ping", views.page),
        path("search", views.page),
        path("compare", views.search),
    ]
    monkeypatch.setitem(sys.modules, module.__name__, module)


@pytest.mark.parametrize(
    ("method", "path", "status", "counted"),
    [
        ("GET", "/", 503, 1),  # let through at first, and refused when its view is known
        ("GET", "/ping", 503, 0),  # refused at once: the other way round never
        ("POST", "/search", 503, 1),
        ("POST", "/compare", 503, 1),
    ],
)
def test_a_second_look_can_only_refuse(
    visitor: Visitor, other_urlconf: None, method: str, path: str, status: int, counted: int
) -> None:
    """A middleware may send a request to another view than the one that was found before."""
    with override_settings(MIDDLEWARE=[*FIRST, f"{__name__}.ChangesTheURLconf"]):
        with override_readonly():
            answer = visitor(method, path)
            assert (answer.status_code, answer.headers["x-read-only"]) == (status, "true")
            assert not Article.objects.exists()
            assert views.SEEN == []
        visitor(method, path)
    assert [count for _, count in views.SEEN] == [counted]


# --- what is in flight -----------------------------------------------------------------------------------------------


def alone(handler: Callable[[], Any]) -> Any:
    """Return a handler with no middleware but ours: Django's test client, which knows no CSRF, is not there."""
    with override_settings(MIDDLEWARE=[OURS]):
        return handler()


def environ(method: str, path: str, **more: Any) -> dict[str, Any]:
    """Return what a WSGI server hands over."""
    return {
        "REQUEST_METHOD": method,
        "PATH_INFO": path,
        "SCRIPT_NAME": "",
        "SERVER_NAME": "testserver",
        "SERVER_PORT": "80",
        "wsgi.url_scheme": "http",
        "wsgi.input": FakePayload(b""),
        **more,
    }


def cors(get_response: Callable[[HttpRequest], Any]) -> Callable[[HttpRequest], Any]:
    """Answer preflights before any view is looked for, as django-cors-headers does."""

    def middleware(request: HttpRequest) -> Any:
        asks = request.method == "OPTIONS" and "Access-Control-Request-Method" in request.headers
        return HttpResponse(headers={"Access-Control-Allow-Origin": "*"}) if asks else get_response(request)

    return middleware


PREFLIGHT = {"Origin": "https://other.example", "Access-Control-Request-Method": "POST"}


@override_settings(
    MIDDLEWARE=[OURS, f"{__name__}.cors"],
    READONLY={"STORE": "memory://?site=django-tests", "GUARD": False, "WRITES": ["/a"]},
)
@pytest.mark.parametrize("path", ["/ping", "/votes", "/a"])
def test_a_preflight_is_for_what_answers_other_origins(visitor: Visitor, path: str) -> None:
    """Whatever is marked or declared: the request that it asks about is refused when it comes, and can be read."""
    with override_readonly():
        asked = visitor("OPTIONS", path, **PREFLIGHT)
        refused = visitor("GET", path, Origin=PREFLIGHT["Origin"])
    assert (asked.status_code, asked.headers["Access-Control-Allow-Origin"]) == (200, "*")
    assert asked.headers["X-Read-Only"] == "true"
    assert refused.status_code == 503
    assert refused.headers["Access-Control-Allow-Origin"] == PREFLIGHT["Origin"]


@override_settings(READONLY={"STORE": "memory://?site=django-tests", "GUARD": False, "WRITES": ["/a"]})
@pytest.mark.parametrize(
    ("path", "status"), [("/ping", 503), ("/aping", 503), ("/a", 503), ("/votes", 200), ("/", 200)]
)
def test_a_preflight_does_not_run_a_function_that_writes(visitor: Visitor, path: str, status: int) -> None:
    """No middleware has answered, and Django would run it as for any method; a class answers OPTIONS by itself."""
    with override_readonly():
        answer = visitor("OPTIONS", path, **PREFLIGHT)
    assert answer.status_code == status
    assert answer.headers["X-Read-Only"] == "true"
    assert not Article.objects.exists()
    assert [method for method, _ in views.SEEN] == (["OPTIONS"] if path == "/" else [])
    # While writable it is counted, since it is run.
    assert visitor("OPTIONS", path, **PREFLIGHT).status_code == 200
    assert views.SEEN[-1:] == ([] if path == "/votes" else [("OPTIONS", int(path != "/"))])


@pytest.mark.parametrize(("path", "parts"), [("/streamed", [b"one ", b"two"]), ("/", [b"POST /"])])
def test_a_write_is_in_flight_until_its_response_is_closed(switch: Switch, path: str, parts: list[bytes]) -> None:
    """Receivers of `request_finished` included; under a server that closes, as all do."""
    response: Any = alone(WSGIHandler)(environ("POST", path), lambda *_: None)
    assert switch.inflight.count() == 1
    assert list(response) == parts
    assert switch.inflight.count() == 1
    response.close()
    assert switch.inflight.count() == 0
    response.close()


class Wrapper:
    """What a server sends a file by (PEP 3333)."""

    def __init__(self, file: Any, size: int) -> None:
        self.file = file


def test_a_file_is_closed_by_the_servers_own_wrapper(switch: Switch) -> None:
    """The server may keep the file alone, and closes response and count by it."""
    kept: Any = alone(WSGIHandler)(environ("POST", "/file", **{"wsgi.file_wrapper": Wrapper}), lambda *_: None)
    gc.collect()
    assert switch.inflight.count() == 1
    kept.file.close()
    assert switch.inflight.count() == 0


def test_a_server_that_forgets_to_close_drains(switch: Switch) -> None:
    """A response that is no more holds nothing up."""
    response = alone(WSGIHandler)(environ("POST", "/"), lambda *_: None)
    assert switch.inflight.count() == 1
    del response
    eventually(lambda: nothing_in_flight(switch), what="the response is collected")


@pytest.mark.anyio
async def test_a_streamed_write_is_in_flight_until_it_was_sent(switch: Switch) -> None:
    """Under ASGI, in parts that are made as coroutines."""
    sent: list[Any] = []
    await call(alone(ASGIHandler), "POST", "/astreamed", sent.append)
    assert b"".join(m.get("body", b"") for m in sent) == b"one two"
    assert views.SEEN == [1, 1]
    assert switch.inflight.count() == 0


@pytest.mark.anyio
async def test_a_view_that_outlives_its_client_is_still_in_flight(switch: Switch) -> None:
    """Django goes on with a view in a thread when the client has left; what it commits may come after."""
    gone = asyncio.Event()
    request = asyncio.create_task(call(alone(ASGIHandler), "POST", "/slow", lambda _: None, until=gone))
    assert await sync_to_async(views.WAITS.wait, thread_sensitive=False)(60)
    assert switch.inflight.count() == 1
    gone.set()
    # The handler has cancelled the request by then, and is still there for its thread.
    done, _ = await asyncio.wait([request], timeout=0.3)
    assert not done
    assert switch.inflight.count() == 1
    views.GO_ON.set()
    await asyncio.wait_for(request, 60)
    assert switch.inflight.count() == 0
    assert views.SEEN == [("POST", 1)]


async def call(
    application: Any, method: str, path: str, sent: Callable[[Any], object], *, until: asyncio.Event | None = None
) -> None:
    """Send one request to an ASGI application; the client leaves when `until` is set."""
    received = False

    async def receive() -> dict[str, Any]:
        nonlocal received
        if not received:
            received = True
            return {"type": "http.request", "body": b"", "more_body": False}
        await (until or asyncio.Event()).wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent(message)

    scope: dict[str, Any] = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "path": path,
    }
    scope |= {"raw_path": path.encode(), "query_string": b"", "headers": [(b"host", b"testserver")], "root_path": ""}
    await application(scope, receive, send)


# --- writes that were refused inside ---------------------------------------------------------------------------------


@pytest.mark.parametrize("debug", [False, True])
@pytest.mark.parametrize("path", ["/refused", "/arefused", "/wrapped", "/api/articles/counted/"])
def test_a_refusal_inside_becomes_the_503(
    visitor: Visitor, switch: Switch, path: str, debug: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """In the place of Django's 500, and of its page for developers."""
    visitor.client.raise_request_exception = False
    with override_settings(DEBUG=debug), override_readonly():
        before = switch.tally.totals()["escaped"]
        answer = visitor.get(path)
        assert answer.status_code == 503
        assert answer.json()["code"] == "READ_ONLY"
        assert switch.tally.totals()["escaped"] == before + 1
    assert visitor.get(path).content in (b"written", b'"counted"')


def test_what_the_application_makes_of_it_stands(visitor: Visitor) -> None:
    """A refusal that was swallowed, or became a 404, is no 503; another error stays what it is."""
    visitor.client.raise_request_exception = False
    with override_readonly():
        assert visitor.get("/swallowed").content == b"gone on"
        assert visitor.get("/missing").status_code == 404
        assert visitor.get("/broken").status_code == 500


def test_django_reports_no_error_for_a_refusal(visitor: Visitor) -> None:
    """The test client would raise what Django reports, and so would error trackers."""
    with override_readonly():
        assert visitor.get("/refused").status_code == 503


def test_a_refusal_in_mid_stream_ends_the_stream(switch: Switch) -> None:
    """It is too late for another answer; it is counted all the same."""
    handler = WSGIHandler()
    with override_readonly():
        response: Any = handler(environ("GET", "/streamed-write"), cast(Any, lambda *_: None))
        parts = iter(response)
        assert next(parts) == b"one "
        with pytest.raises(Exception, match="read-only"):
            next(parts)
        response.close()
        assert switch.tally.totals()["escaped"] >= 1


# --- what else a request brings --------------------------------------------------------------------------------------


BY_BODY = {
    "STORE": "memory://?site=django-tests",
    "GUARD": False,
    "READS": [rule("POST /body", when=lambda facts: b"preview" in (facts.body or b""))],
}


@override_settings(READONLY=BY_BODY)
def test_a_rule_may_see_the_body(visitor: Visitor) -> None:
    """And the application reads all of it afterwards."""
    text = "preview" + "x" * 100_000
    with override_readonly():
        assert visitor.post("/body", {"save": "1"}).status_code == 503
        found = visitor.post("/body", {"button": "preview"})
        assert found.status_code == 200, "a body that was shown whole"
        assert found.json()["form"] == {"button": "preview"}
        assert visitor.post("/body", {"text": text}).status_code == 503, "one that goes on may say anything"
    assert visitor.post("/body", {"text": text}).json()["form"] == {"text": text}


def test_a_body_that_was_read_before_is_seen_as_well(project: None) -> None:
    """By a middleware outside of ours, or a server that has it all."""

    def reads_it(get_response: Any) -> Any:
        def serve(request: HttpRequest) -> HttpResponse:
            assert request.body
            return get_response(request)

        return serve

    globals()["reads_it"] = reads_it
    with override_settings(READONLY=BY_BODY, MIDDLEWARE=[f"{__name__}.reads_it", *FIRST]), override_readonly():
        assert Visitor().post("/body", {"save": "1"}).status_code == 503
        assert Visitor().post("/body", {"button": "preview"}).json()["form"] == {"button": "preview"}
        assert Visitor().post("/body", {"text": "preview" + "x" * 100_000}).status_code == 503


def test_a_search_in_the_moment_of_the_switch_is_served(
    visitor: Visitor, switch: Switch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was counted as a write, since nobody had asked for its view yet; then it is asked for."""
    ask, aask = switch.admit, switch.aadmit

    def turned() -> Any:
        monkeypatch.undo()
        switch.on(by="a test")
        return ask()

    async def aturned() -> Any:
        monkeypatch.undo()
        await switch.aon(by="a test")
        return await aask()

    visitor.get("/")
    try:
        for path, status in (("/search", 200), ("/", 503)):
            monkeypatch.setattr(switch, "admit", turned)
            monkeypatch.setattr(switch, "aadmit", aturned)
            # The fast way to be admitted does not ask.
            assert visitor.post(path).status_code == status
            switch.off(by="a test")
    finally:
        switch.off(by="a test")


def test_prefixes_and_spellings(visitor: Visitor) -> None:
    """Rules and marks are relative to the mount, and an encoded spelling is no way around them."""
    with override_readonly():
        assert visitor.get("/%70ing").status_code == 503
        assert visitor.post("/%73earch").status_code == 200
    with override_settings(FORCE_SCRIPT_NAME="/shop"), override_readonly():
        assert visitor.post("/search" if visitor.kind == "sync" else "/shop/search").status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("POST", "/größe", 404), ("POST", "/日本", 404), ("POST", "/suche/ä", 404), ("GET", "/zähler", 503)],
)
@override_settings(
    READONLY={
        "STORE": "memory://?site=django-tests",
        "GUARD": False,
        "EXEMPT": ["/größe", "/日本"],
        "READS": ["POST /suche/ä"],
        "WRITES": ["GET /zähler"],
    }
)
def test_rules_in_any_alphabet(project: None, method: str, path: str, status: int) -> None:
    """A path is compared as Django routes it, whichever server has decoded it."""
    sent: list[Any] = []
    with override_readonly():
        assert Visitor("sync")(method, path).status_code == status
        asyncio.run(call(ASGIHandler(), method, path, sent.append))
    assert sent[0]["status"] == status


def test_everybody_reads_their_own_language(visitor: Visitor) -> None:
    """By the header, by the cookie, by the path; JSON as well as the page."""
    html = "text/html"
    with override_readonly(expected=timedelta(hours=5)):
        english = visitor.post("/", accept=html)
        assert "No changes right now" in english.content.decode()
        german = visitor.post("/", accept=html, accept_language="de-AT,de;q=0.9")
        assert "Gerade keine Änderungen" in german.content.decode()
        assert german.headers["content-language"] == "de"
        assert "in etwa 5 Stunden" in german.content.decode()
        assert "Anmelden" in visitor.post("/accounts/login/", accept=html, accept_language="de").content.decode()
        assert "gesperrt" in visitor.post("/", accept_language="de").json()["detail"]
        assert visitor.post("/de/nowhere", accept=html).headers["content-language"] == "de"
        visitor.cookies["django_language"] = "de"
        assert visitor.post("/", accept=html).headers["content-language"] == "de"


@pytest.mark.parametrize("page", ["support.django_site.views.own_page", views.own_page])
def test_the_sites_own_page(project: None, page: Any) -> None:
    """A function or its path; in the visitor's language."""
    said = {"STORE": "memory://?site=django-tests", "GUARD": False, "PAGE": page}
    with override_settings(READONLY=said), override_readonly():
        answer = Visitor().post("/", accept="text/html", accept_language="de")
        assert answer.content == b"own page in de: READ_ONLY"


def test_the_sites_own_page_from_a_template(project: None) -> None:
    """Given what a page may say; if it fails, ours is shown."""
    said = {"STORE": "memory://?site=django-tests", "GUARD": False, "PAGE": "refused.html"}
    with override_settings(READONLY=said), override_readonly(message="<moving>"):
        answer = Visitor().post("/", accept="text/html", accept_language="de")
        assert answer.content == b"a template in de: &lt;moving&gt; \n"
    with override_settings(READONLY={**said, "PAGE": "no/such.html"}), override_readonly():
        assert b"No changes right now" in Visitor().post("/", accept="text/html").content


def test_outer_middleware_may_replace_a_response(project: None, switch: Switch) -> None:
    """A count does not outlive a response that nobody closes."""

    def outer(get_response: Any) -> Any:
        def serve(request: HttpRequest) -> HttpResponse:
            get_response(request)
            return HttpResponseRedirect("/")

        return serve

    globals()["outer"] = outer
    with override_settings(MIDDLEWARE=[f"{__name__}.outer", *FIRST]):
        assert Visitor().post("/").status_code == 302
    eventually(lambda: nothing_in_flight(switch), what="the response is collected")


def test_the_middleware_alone(switch: Switch) -> None:
    """Without sessions, authentication or anything else."""
    with override_settings(MIDDLEWARE=[OURS]):
        visitor = Visitor()
        assert visitor.get("/").status_code == 200
        with override_readonly():
            assert visitor.get("/").status_code == 200
            assert visitor.post("/").status_code == 503


def test_who_waits_for_the_switch_sees_the_count(visitor: Visitor, switch: Switch, ada: User) -> None:
    """The role of a process behind the middleware is `web`."""
    visitor.get("/")
    assert {member.role for member in switch.members()} == {"web"}
