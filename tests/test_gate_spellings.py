"""No spelling of a path gets a write past the gate, whatever a real router makes of that spelling."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any
from urllib.parse import unquote, unquote_to_bytes

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from readonly.gate import Gate, Outcome
from readonly.policy import Policy
from readonly.rules import SAFE_METHODS, Facts
from readonly.state import UNKNOWN

# Endpoint -> path, `{}` for a parameter and `*` for the rest. Each is served for every method, and those that a rule
# lets through with and without a trailing slash, since rules make no difference between the two.
ROUTES = {
    "healthz": "/healthz",
    "public": "/public/*",
    "public_root": "/public",
    "search": "/search",
    "docs": "/docs/{}",
    "docs_delete": "/docs/{}/delete",
    "logout": "/logout",
    "logout_all": "/logout/all",
    "login": "/login",
    "callback": "/oauth/{}/callback",
    "cart": "/cart/add/{}",
    "admin": "/admin",
    "admin_delete": "/admin/delete",
    "healthz_admin": "/healthz/admin",
    "upload": "/upload/*",
    "rest": "/*",
}
EXEMPT = {"healthz", "public", "public_root"}
READS_ON_POST = {"search", "docs"}
LOGOUT = {"logout"}
SLASHED = EXEMPT | READS_ON_POST | LOGOUT
WRITES_ON_GET = {"cart", "callback"}
GATE = Gate(
    Policy(
        exempt=["/healthz", "/public/*"],
        reads=["POST /search", "POST /docs/{id}"],
        logout=["/logout"],
        login=["/login", "GET /oauth/{provider}/callback"],
        writes=["GET /cart/add/{id}"],
    )
)

METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "PROPFIND")

Reached = str | None
Drive = Callable[[str, str], tuple[Reached, Facts]]


# --- Spellings ----------------------------------------------------------------------------------------------

SPECIMENS = [path.replace("{}", "7").replace("*", "x/y") for path in ROUTES.values()]
JOINTS = ["/", "//", "/./", "/../", "/..;/", "/;/", ";a=1/", "%2F", "%2f..%2f", "/%2e%2e/", "/.%2E/", "\\", "%5C..%5c"]
JOINTS += ["/x/../", "/%252e%252e/", "/..%252f", "/..%00/", "%2F%2F"]
TAILS = [
    "",
    "",
    "",
    "/",
    "//",
    "/.",
    "/..",
    ";",
    ";x=1",
    "%3B",
    "%0A",
    "%0d%0a",
    "%20",
    "%09",
    "%00",
    "%C2%A0",
    "%E2%80%A8",
]
TAILS += ["%ff", "%C0%AF", ".", "?", "%3F", "%23", "%25", "%2500", "%250A", "/%0A", "%0A/", "*", "\\", "%E2%80%AE"]
LOOKALIKES = {"i": "ıİ", "s": "ſ", "k": "\u212a", "a": "\uff41а", "/": "\uff0f\u2215", ".": "\uff0e\u2024"}  # noqa: RUF001


@st.composite
def spellings(draw: st.DrawFn) -> str:
    """A request target, mostly near one of the routes."""
    path = draw(st.sampled_from(SPECIMENS))
    for _ in range(draw(st.integers(0, 2))):
        path = path + draw(st.sampled_from(JOINTS)) + draw(st.sampled_from(SPECIMENS)).lstrip("/")
    path += draw(st.sampled_from(TAILS))
    cuts = [i for i, character in enumerate(path) if character == "/"]
    for cut in sorted(draw(st.lists(st.sampled_from(cuts), max_size=2, unique=True)), reverse=True):
        path = path[:cut] + draw(st.sampled_from(JOINTS)) + path[cut + 1 :]
    characters = list(path)
    for position in draw(st.lists(st.integers(0, len(path) - 1), max_size=4, unique=True)):
        character = characters[position]
        form = draw(st.sampled_from(["case", "encoded", "twice", "lookalike"]))
        if form == "case":
            characters[position] = character.swapcase()
        elif form == "lookalike" and character in LOOKALIKES:
            lookalike = draw(st.sampled_from(LOOKALIKES[character]))
            characters[position] = "".join(f"%{byte:02X}" for byte in lookalike.encode())
        elif character != "%":
            characters[position] = f"%{ord(character):02x}" if form == "encoded" else f"%25{ord(character):02X}"
    spelled = "".join(characters)
    return draw(st.sampled_from(["", "", "", "", "/", "/.", "/x/..", "."])) + spelled


def routes() -> Iterator[tuple[str, str]]:
    """Name every route that an application needs."""
    for name, path in ROUTES.items():
        yield name, path
        if name in SLASHED and not path.endswith("*"):
            yield name, path + "/"


# --- The three routers --------------------------------------------------------------------------------------


def starlette_drive() -> Drive:
    """Drive a real Starlette application with the scope that uvicorn makes."""
    pytest.importorskip("starlette")
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import PlainTextResponse
    from starlette.routing import Mount, Route

    reached: list[str] = []

    def endpoint(name: str) -> Callable[[Request], Any]:
        async def view(request: Request) -> PlainTextResponse:
            reached.append(name)
            return PlainTextResponse(name)

        return view

    def route(name: str, path: str) -> Route | Mount:
        path = path.replace("{}", "{id}").replace("*", "{rest:path}")
        if name == "upload":
            return Mount("/upload", routes=[Route("/{rest:path}", endpoint(name), methods=METHODS)])
        return Route(path, endpoint(name), methods=METHODS)

    app = Starlette(routes=[route(name, path) for name, path in routes()])

    def drive(method: str, target: str) -> tuple[Reached, Facts]:
        raw = target.partition("?")[0]
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": unquote(raw),
            "raw_path": raw.encode(),
            "root_path": "",
            "query_string": b"",
            "headers": [],
        }

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: Any) -> None:
            pass

        reached.clear()
        run = app(scope, receive, send)
        with pytest.raises(StopIteration):
            run.send(None)  # nothing in it waits, so no loop is needed
        return (reached[0] if reached else None), Facts(method, unquote(raw), raw)

    return drive


def wsgi_drive(app: Any, reached: list[str]) -> Drive:
    """Drive a WSGI application with the environ that gunicorn makes."""

    def drive(method: str, target: str) -> tuple[Reached, Facts]:
        import io

        raw = target.partition("?")[0]
        environ = {
            "REQUEST_METHOD": method,
            "SCRIPT_NAME": "",
            "PATH_INFO": unquote_to_bytes(raw).decode("latin-1"),
            "QUERY_STRING": "",
            "SERVER_NAME": "site.example",
            "SERVER_PORT": "80",
            "SERVER_PROTOCOL": "HTTP/1.1",
            "wsgi.url_scheme": "http",
            "wsgi.input": io.BytesIO(),
            "wsgi.errors": io.StringIO(),
        }
        path = environ["PATH_INFO"].encode("latin-1").decode("utf-8", "replace")  # type: ignore[attr-defined]
        reached.clear()
        body = app(environ, lambda status, headers, exc_info=None: lambda data: None)
        getattr(body, "close", lambda: None)()
        return (reached[0] if reached else None), Facts(method, path, "")

    return drive


def flask_drive() -> Drive:
    """Drive a real Flask application."""
    flask = pytest.importorskip("flask")
    reached: list[str] = []
    app = flask.Flask("spellings", static_folder=None)

    def view(name: str) -> Callable[..., str]:
        def endpoint(**_: Any) -> str:
            reached.append(name)
            return name

        return endpoint

    for number, (name, path) in enumerate(routes()):
        rule = path.replace("{}", "<one>").replace("*", "<path:rest>")
        app.add_url_rule(rule, f"{name}{number}", view(name), methods=METHODS)
    return wsgi_drive(app, reached)


def django_drive() -> Drive:
    """Drive a real Django handler; half of the routes are expressions, one of them without regard to case."""
    pytest.importorskip("django")
    from django.conf import settings as django_settings
    from django.http import HttpRequest, HttpResponse
    from django.test.utils import override_settings
    from django.urls import URLPattern, path, re_path

    reached: list[str] = []

    def view(name: str) -> Callable[..., HttpResponse]:
        def endpoint(request: HttpRequest, *_: Any, **__: Any) -> HttpResponse:
            reached.append(name)
            return HttpResponse(name)

        return endpoint

    def route(position: int, name: str, pattern: str) -> URLPattern:
        pattern = pattern[1:]
        if position % 2 or name in {"cart", "callback"}:
            flags = "(?i)" if name in {"cart", "callback"} else ""
            expression = pattern.replace("{}", "([^/]+)").replace("*", "(.*)")
            return re_path(f"{flags}^{expression}$", view(name))
        return path(pattern.replace("{}", "<str:one>").replace("*", "<path:rest>"), view(name))

    def problem(request: HttpRequest, *_: Any, **__: Any) -> HttpResponse:
        return HttpResponse(status=404)

    urlconf = ModuleType("spellings_urls")
    urlconf.__dict__.update(
        urlpatterns=[route(i, name, pattern) for i, (name, pattern) in enumerate(routes())],
        handler400=problem,
        handler404=problem,
    )
    if not django_settings.configured:
        django_settings.configure()
    from django.core.handlers.wsgi import WSGIHandler

    def app(environ: Any, start_response: Any) -> Any:
        with override_settings(ROOT_URLCONF=urlconf, MIDDLEWARE=[], ALLOWED_HOSTS=["*"], DEBUG=False):
            return handler(environ, start_response)

    with override_settings(ROOT_URLCONF=urlconf, MIDDLEWARE=[], ALLOWED_HOSTS=["*"], DEBUG=False):
        handler = WSGIHandler()
    return wsgi_drive(app, reached)


DRIVES = {"starlette": starlette_drive, "flask": flask_drive, "django": django_drive}
_built: dict[str, Drive] = {}


def drive_of(framework: str) -> Drive:
    """Build each application once."""
    if framework not in _built:
        _built[framework] = DRIVES[framework]()
    return _built[framework]


def is_write(method: str, endpoint: str) -> bool:
    """Say what the site's author meant by the rules, by the endpoint that a real router chose."""
    if endpoint in EXEMPT:
        return False
    if method in SAFE_METHODS:
        return method in ("GET", "HEAD") and endpoint in WRITES_ON_GET
    return endpoint not in LOGOUT and not (method == "POST" and endpoint in READS_ON_POST)


@pytest.mark.parametrize("framework", DRIVES)
@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(method=st.sampled_from(METHODS), target=spellings())
@example(method="GET", target="/cart/add/7%0A")
@example(method="GET", target="//cart/add/7")
@example(method="GET", target="/cart/%61dd/7")
@example(method="GET", target="/CART/add/7")
@example(method="GET", target="/oauth/x/callback%0A")
@example(method="GET", target="/OAUTH/x/callback")
@example(method="POST", target="/public/../admin")
@example(method="POST", target="/x/../healthz")
@example(method="POST", target="/HEALTHZ")
@example(method="POST", target="/%2548ealthz")
@example(method="POST", target="/public/")
@example(method="POST", target="/healthz/")
@example(method="POST", target="/public%2f..%2fadmin")
@example(method="POST", target="/docs/7%2Fdelete")
@example(method="POST", target="/healthz%2Fadmin")
def test_no_spelling_of_a_write_passes(framework: str, method: str, target: str) -> None:
    """A request that a real router takes to a write is refused while read-only, however its path is spelled."""
    endpoint, facts = drive_of(framework)(method, target)
    verdict = GATE.decide(GATE.classify(facts), facts, UNKNOWN)
    if endpoint is not None and is_write(method, endpoint):
        assert verdict.outcome is Outcome.READ_ONLY, f"{method} {target} reached {endpoint}: {verdict}"


@pytest.mark.parametrize("framework", DRIVES)
@pytest.mark.parametrize(("name", "path"), ROUTES.items())
@pytest.mark.parametrize("method", METHODS)
def test_the_plain_spelling_means_what_was_meant(framework: str, name: str, path: str, method: str) -> None:
    """Spelled plainly, each route is reached, and refused exactly if it is a write."""
    target = path.replace("{}", "7").replace("*", "x/y")
    endpoint, facts = drive_of(framework)(method, target)
    assert endpoint == name
    verdict = GATE.decide(GATE.classify(facts), facts, UNKNOWN)
    assert verdict.passed is not is_write(method, name)
