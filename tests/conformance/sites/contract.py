"""What every application of the suite does, framework or not: its routes, its policy, and what each view answers.

A site module gives each route of `ROUTES` a view that hands a `Seen` to `act` and turns the `Answer` into a response of
its framework; routes, marks and sessions are the framework's own. Below `/-/readonly` it serves the library's own
routes. It exposes `application` and `switch`.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from itsdangerous import BadSignature, Signer, TimestampSigner

from readonly import Policy, SessionCookie, Switch, rule
from readonly.forms import form_without
from readonly.graphql import GraphQL
from readonly.rules import Facts

FOLDER: Final = Path(os.environ.get("CONFORMANCE_FOLDER", "."))
STORE: Final = os.environ.get("READONLY_STORE", "memory://")
SECRET: Final = "the key of the site that the suite asks"
# Short, so that silent members are found soon.
INTERVAL_SECONDS: Final = 0.2
PREFIX: Final = "/under"
OWN_PREFIX: Final = "/-/readonly"
# A write that a scenario wants to be slow gives up in the end: no test waits for it that long.
SLOW_SECONDS: Final = 30.0
LAST_MODIFIED: Final = "Sun, 01 Mar 2026 12:00:00 GMT"


def only_downloads(facts: Facts) -> bool:
    """Tell downloads from uploads, which one URL takes both."""
    return json.loads(facts.body or b"{}").get("operation") == "download"


# The names are those of `Policy`; adapters that are configured by settings spell them in capitals.
POLICY: Final[dict[str, Any]] = {
    "exempt": ["/healthz", "/hooks/*"],
    "login": ["/login", "GET /oauth/{provider}/callback", "POST /saml/acs", "GET /mail/{token}"],
    "logout": ["/logout", "GET /logout"],
    "reads": [
        "POST /search",
        "POST /shop/search",
        "POST /{repository}/git-upload-pack",
        "WEBSOCKET /live",
        rule("POST /lfs/batch", when=only_downloads),
        rule("POST /graphql", when=GraphQL().reads),
        rule("POST /filter", when=form_without("save")),
    ],
    "writes": ["GET /cart/add/{id}", "GET /verify", "/unsubscribe", "GET /ping/{id}"],
    "session_cookies": [SessionCookie("session", signed=True), "remember"],
    "secret": SECRET,
}


def policy(**other: Any) -> Policy:
    """Return the policy that every site has."""
    return Policy(**POLICY | other)


def make_switch() -> Switch:
    """Return the process's switch, for sites that make it themselves."""
    return Switch.from_url(STORE, interval=INTERVAL_SECONDS)


def hasten() -> None:
    """Have the switches that adapters make report as often; no site needs a setting for it, a suite in a hurry does."""
    defaults = Switch.__init__.__kwdefaults__
    assert defaults is not None
    defaults["interval"] = INTERVAL_SECONDS


# --- routes ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Route:
    """One address.

    Attributes:
        name: Of the view, which is what `act` goes by.
        path: With `{name}` for one segment, `{name:path}` for the rest.
        methods: That the view takes, HEAD left to the framework.
        mark: `reads` or `writes`, on the view or, by method, on the methods of a class.
        own_class: The view is a class with one method for each HTTP method.
    """

    name: str
    path: str
    methods: tuple[str, ...]
    mark: str = ""
    marks: tuple[tuple[str, str], ...] = ()

    @property
    def own_class(self) -> bool:
        """The view is a class, with marks on its methods."""
        return bool(self.marks)


def _route(name: str, path: str, methods: str = "GET", mark: str = "", **marks: str) -> Route:
    return Route(name, path, tuple(methods.split()), mark, tuple(marks.items()))


ROUTES: Final[tuple[Route, ...]] = (
    _route("home", "/"),
    _route("articles", "/articles", "GET POST OPTIONS"),
    _route("article", "/articles/{id}", "GET POST PUT PATCH DELETE OPTIONS TRACE QUERY"),
    _route("search", "/search", "GET POST PUT QUERY"),
    _route("graphql", "/graphql", "GET POST"),
    _route("filter", "/filter", "GET POST"),
    _route("batch", "/lfs/batch", "POST"),
    _route("upload-pack", "/{repository}/git-upload-pack", "POST"),
    _route("receive-pack", "/{repository}/git-receive-pack", "POST"),
    _route("preview", "/preview", "POST", "reads"),
    _route("visit", "/visit", "GET POST", "writes"),
    _route("notes", "/notes", "GET POST PUT DELETE", POST="reads"),
    _route("meter", "/meter", "GET POST", GET="writes"),
    _route("cart", "/cart/add/{id}"),
    _route("verify", "/verify"),
    _route("ping", "/ping/{id}", "GET POST"),
    _route("unsubscribe", "/unsubscribe", "GET POST"),
    _route("login", "/login", "GET POST"),
    _route("callback", "/oauth/{provider}/callback"),
    _route("mail", "/mail/{token}"),
    _route("acs", "/saml/acs", "POST"),
    _route("token", "/oauth/token", "POST"),
    _route("logout", "/logout", "GET POST"),
    _route("me", "/me"),
    _route("greet", "/greet"),
    _route("health", "/healthz"),
    _route("hook", "/hooks/{name}", "GET POST"),
    _route("stream", "/stream"),
    _route("events", "/events"),
    _route("report", "/report"),
    _route("sneaky", "/sneaky"),
    _route("other-kind", "/other-kind", "GET POST"),
    _route("boom", "/boom"),
    _route("picture", "/picture"),
    _route("upload", "/upload", "POST"),
    _route("slow", "/slow", "POST"),
    _route("files", "/files/{rest:path}", "GET POST"),
)
# An application of its own, mounted below /shop.
SHOP: Final[tuple[Route, ...]] = (
    _route("items", "/items", "GET POST"),
    _route("find", "/search", "POST"),
    _route("compare", "/compare", "POST", "reads"),
    _route("count", "/count", "GET", "writes"),
)
_READS: Final = frozenset({"home", "search", "graphql", "filter", "batch", "upload-pack", "preview", "health", "find"})
# Both views that sign somebody in without a form; each takes the name from somewhere else in life.
_SIGNS_IN: Final = frozenset({"callback", "mail", "acs"})


# --- views ----------------------------------------------------------------------------------------------------------


@dataclass
class Seen:
    """A request, as a view got it.

    Attributes:
        form: What was posted as a form, if the view wants one.
        received: How many bytes of a body the view has read.
    """

    method: str
    path: str
    user: str
    query: str = ""
    form: dict[str, str] = field(default_factory=dict)
    cookies: Sequence[str] = ()
    received: int = 0


@dataclass
class Answer:
    """What a view answers; its framework makes a response of it.

    Attributes:
        signs_in: Who is signed in by it, in the framework's session.
        remembers: A second cookie, not the session's, brings them back.
        signs_out: The framework's session is ended.
        touches: Something is kept in the session of whoever asks, signed in or not.
        parts: The body piece by piece, where it is made while it is sent.
    """

    status: int
    headers: list[tuple[str, str]]
    body: bytes
    signs_in: str = ""
    remembers: bool = False
    signs_out: bool = False
    touches: bool = False
    parts: Callable[[], Iterator[bytes]] | None = None


# The views that read the body as a form; the rest leave it alone, but `upload`, which takes it piece by piece.
FORMS: Final = frozenset({"login"})
BODIES: Final = frozenset({"upload", "slow"})
# Views of the kind that a site otherwise has none of: no coroutines over ASGI, coroutines over WSGI.
OTHER_KIND: Final = frozenset({"other-kind"})


def note_write() -> None:
    """Note that the application has written. The suite counts these."""
    descriptor = os.open(FOLDER / "writes", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(descriptor, b"w")
    finally:
        os.close(descriptor)


def begun(seen: Seen) -> None:
    """Say that a request that goes on for long has begun, by the name in its query."""
    if seen.query.startswith("id="):
        (FOLDER / f"begun-{seen.query[3:]}").touch()


def wait_for_go(seen: Seen) -> None:
    """Block until the suite says go."""
    deadline = time.monotonic() + SLOW_SECONDS
    while not (FOLDER / f"go-{seen.query[3:]}").exists() and time.monotonic() < deadline:
        time.sleep(0.01)  # a file is all that the suite shares with a server's worker


def act(name: str, seen: Seen, switch: Switch) -> Answer:
    """Do what a view does. Blocks in `slow` alone."""
    document: dict[str, Any] = {"method": seen.method, "path": seen.path, "user": seen.user}
    document |= {"received": seen.received, "cookies": sorted(seen.cookies)}
    answer = Answer(200, [("X-Handled", name), ("X-Worker", str(os.getpid()))], b"")
    if name == "boom":
        answer.status = 500
    elif name == "sneaky" or (name in OTHER_KIND and seen.method == "GET"):
        with switch.writing():
            note_write()
    elif name in ("articles", "article") and seen.method == "OPTIONS":
        answer.headers += [("Access-Control-Allow-Origin", "*"), ("Access-Control-Allow-Methods", "GET, POST")]
    elif name == "picture":
        answer.headers += [
            ("Last-Modified", LAST_MODIFIED),
            ("Cache-Control", "public, max-age=3600"),
            ("Set-Cookie", "lang=en; Path=/"),
        ]
    elif name == "login" and seen.method == "POST":
        _sign_in(answer, seen.form.get("name", ""), remember="remember" in seen.form)
    elif name in _SIGNS_IN:
        _sign_in(answer, "somebody", remember=False)
    elif name == "logout":
        answer.signs_out = True
    elif name == "greet":
        answer.touches = True
    elif name == "slow":
        wait_for_go(seen)
        _sign_in(answer, "late", remember=False)
    elif name in _STREAMS:
        answer.parts = _STREAMS[name](switch)
        if name == "events":
            answer.headers.append(("Content-Type", "text/event-stream"))
    elif name not in _READS and (seen.method not in _SAFE or name in _WRITE_BY_GET):
        note_write()
        answer.status = 201
    if answer.parts is None:
        answer.body = json.dumps(document).encode()
        answer.headers.append(("Content-Type", "application/json"))
    return answer


def _sign_in(answer: Answer, who: str, *, remember: bool) -> None:
    note_write()
    answer.status = 201
    answer.signs_in = who
    answer.remembers = remember


_SAFE = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "QUERY"})
_WRITE_BY_GET = frozenset({"cart", "verify", "ping", "unsubscribe", "visit", "meter", "count"})


def _stream(_switch: Switch) -> Callable[[], Iterator[bytes]]:
    return lambda: iter([b"one ", b"two ", b"three"])


def _events(_switch: Switch) -> Callable[[], Iterator[bytes]]:
    return lambda: iter([b"data: one\n\n", b"data: two\n\n"])


def _report(switch: Switch) -> Callable[[], Iterator[bytes]]:
    def parts() -> Iterator[bytes]:
        yield b"begun "
        with switch.writing():
            note_write()
        yield b"written"

    return parts


_STREAMS: Final = {"stream": _stream, "events": _events, "report": _report}


# --- other origins --------------------------------------------------------------------------------------------------

# Preflights for these are answered by a layer around the views, as CORS mostly is; `articles` answers its own.
_SHARED: Final = frozenset({"/visit", "/meter", "/unsubscribe", "/shop/count"})


def preflight(method: str, path: str, headers: Callable[[str], str | None]) -> list[tuple[str, str]] | None:
    """Return the headers of the answer to a preflight that no view is to see; None for anything else."""
    asks = method == "OPTIONS" and None not in (headers("origin"), headers("access-control-request-method"))
    if not asks or path not in _SHARED:
        return None
    return [
        ("Access-Control-Allow-Origin", "*"),
        ("Access-Control-Allow-Methods", "GET, POST"),
        ("Content-Length", "0"),
        ("X-Handled", "cors"),
        ("X-Worker", str(os.getpid())),
    ]


def cors_asgi(application: Any) -> Any:
    """Answer preflights for an ASGI application."""

    async def outer(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            sent = {name.decode(): value.decode("latin-1") for name, value in scope["headers"]}
            path = scope["path"].removeprefix(scope.get("root_path", ""))
            headers = preflight(scope["method"], path, sent.get)
            if headers is not None:
                raw = [(name.lower().encode(), value.encode()) for name, value in headers]
                await send({"type": "http.response.start", "status": 200, "headers": raw})
                await send({"type": "http.response.body", "body": b""})
                return
        await application(scope, receive, send)

    return outer


def cors_wsgi(application: Any) -> Any:
    """Answer preflights for a WSGI application."""

    def outer(environ: dict[str, Any], start_response: Any) -> Any:
        def sent(name: str) -> str | None:
            return environ.get("HTTP_" + name.upper().replace("-", "_"))

        headers = preflight(environ["REQUEST_METHOD"], environ.get("PATH_INFO", ""), sent)
        if headers is None:
            return application(environ, start_response)
        start_response("200 OK", headers)
        return [b""]

    return outer


# --- who asks -------------------------------------------------------------------------------------------------------


def remembered(value: str) -> str:
    """Return whose "remember me" cookie this is, else ""."""
    try:
        return Signer(SECRET, salt="remember").unsign(value).decode()
    except BadSignature:
        return ""


def remembering(who: str) -> str:
    """Return the Set-Cookie header that brings somebody back."""
    return f"remember={Signer(SECRET, salt='remember').sign(who).decode()}; Path=/; HttpOnly"


def bearer(authorization: str | None) -> str:
    """Return whose token this is, else ""."""
    kind, _, token = (authorization or "").partition(" ")
    return token if kind.lower() == "bearer" else ""


def own_session(who: str) -> str:
    """Return the Set-Cookie header of a session, for sites without a framework."""
    return f"session={TimestampSigner(SECRET).sign(who).decode()}; Path=/; HttpOnly; SameSite=Lax"


def whose_own_session(value: str) -> str:
    """Return who is signed in by such a session, else ""."""
    try:
        return TimestampSigner(SECRET).unsign(value).decode()
    except BadSignature:
        return ""


def cookies_in(header: str) -> dict[str, str]:
    """Read a Cookie header; of two cookies of one name the first counts."""
    found: dict[str, str] = {}
    for part in header.split(";"):
        name, _, value = part.strip().partition("=")
        if name:
            found.setdefault(name, value)
    return found


# --- below a prefix -------------------------------------------------------------------------------------------------


def prefixed_asgi(application: Any) -> Any:
    """Serve an ASGI application at the root, and a second time below `PREFIX`, as behind a proxy."""

    async def outer(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] in ("http", "websocket") and scope["path"].startswith(PREFIX + "/"):
            scope = {**scope, "root_path": PREFIX}
        await application(scope, receive, send)

    return outer


def prefixed_wsgi(application: Any) -> Any:
    """Serve a WSGI application at the root, and a second time below `PREFIX`."""

    def outer(environ: dict[str, Any], start_response: Any) -> Any:
        path = environ.get("PATH_INFO", "")
        if path.startswith(PREFIX + "/"):
            environ["SCRIPT_NAME"] = environ.get("SCRIPT_NAME", "") + PREFIX
            environ["PATH_INFO"] = path[len(PREFIX) :]
        return application(environ, start_response)

    return outer
