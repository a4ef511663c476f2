"""Draws an application (routes, mounts, marks, rules) and requests to it, by a seed; knows no framework."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import quote, unquote

from support.apps import Request

# Few, so that rules, routes and requests meet.
WORDS: Final = ("articles", "shop", "admin", "api", "search", "login", "cart", "add", "x.y", "caf\u00e9")
METHODS: Final = ("GET", "POST", "PUT", "PATCH", "DELETE")
ASKED: Final = (*METHODS, "GET", "POST", "HEAD", "OPTIONS", "QUERY", "TRACE", "PROPFIND", "FOO")
ROLES: Final = ("exempt", "login", "logout", "reads", "writes")
STATES: Final = ("writable", "settled", "first minute", "over")
ROOT: Final = "/under"
# What a browser asks before it sends a request to another origin.
PREFLIGHT: Final = (("Origin", "https://other.example"), ("Access-Control-Request-Method", "POST"))
# What a predicate lets through, and what of a form it does not.
PLAIN_FORM, SAVING_FORM = b"q=goal", b"q=goal&save=1"
OLD_SESSION, NEW_SESSION = "old", "new"


@dataclass(frozen=True)
class View:
    """One view.

    Attributes:
        name: Its name, unique in the application.
        path: Below its mount; `{name}` is one segment, `{rest:path}` the rest.
        methods: That it takes, besides HEAD for GET.
        is_class: It is a class with a method for each.
        mark: On the function or class: `reads`, `writes`, or none.
        marks: On methods of a class.
        inherited: On a class that it inherits from.
    """

    name: str
    path: str
    methods: tuple[str, ...]
    is_class: bool = False
    mark: str = ""
    marks: tuple[tuple[str, str], ...] = ()
    inherited: str = ""


@dataclass(frozen=True)
class Mount:
    """Views below a prefix, or at the root if it has none."""

    name: str
    prefix: str
    views: tuple[View, ...]


@dataclass(frozen=True)
class Rule:
    """A rule of the policy.

    Attributes:
        method: The method, or none.
        path: The pattern, or none where a view is named.
        view: The names of mount and view.
        predicate: It looks at the body.
    """

    method: str = ""
    path: str = ""
    view: tuple[str, ...] = ()
    predicate: bool = False


@dataclass(frozen=True)
class Application:
    """An application, for any framework."""

    seed: int
    mounts: tuple[Mount, ...]
    rules: dict[str, tuple[Rule, ...]]
    sessions: str
    bearer: str
    retry_after: float = 60.0

    def described(self) -> str:
        """Return it as lines, to be read when something is wrong with it."""
        lines = [f"sessions={self.sessions!r} bearer={self.bearer!r}"]
        for mount in self.mounts:
            lines += [f"{mount.prefix or '/'} {view}" for view in mount.views]
        lines += [f"{role}: {rule}" for role, rules in self.rules.items() for rule in rules]
        return "\n".join(lines)


@dataclass(frozen=True)
class Asked:
    """A request, and who sends it.

    Attributes:
        request: What is sent; its cookies are added when the session is made.
        session: `old` or `new` for a session from before or after the site was switched, or none.
    """

    request: Request
    session: str = ""
    headers: tuple[tuple[str, str], ...] = field(default=())


def application(seed: int) -> Application:
    """Draw an application. No path has two views: which of them runs is each framework's own affair."""
    draw = random.Random(f"application {seed}")
    prefixes = [f"/{word}" for word in draw.sample(WORDS, draw.randint(0, 2))]
    mounts = [Mount("", "", _views(draw, "v", draw.randint(3, 7), [f"{prefix}/*" for prefix in prefixes]))]
    for number, prefix in enumerate(prefixes):
        mounts.append(Mount(f"m{number}", prefix, _views(draw, f"m{number}v", draw.randint(1, 4), [])))
    rules = {role: tuple(_rule(draw, role, mounts) for _ in range(draw.choice((0, 0, 1, 1, 2)))) for role in ROLES}
    return Application(
        seed, tuple(mounts), rules, draw.choice(("end", "end", "suspend", "keep")), draw.choice(("keep", "keep", "end"))
    )


def _views(draw: random.Random, name: str, count: int, taken: Sequence[str]) -> tuple[View, ...]:
    views: list[View] = []
    # Not for ever: one view may have left nothing for others.
    for _ in range(10 * count):
        view = _view(draw, f"{name}{len(views)}")
        if len(views) < count and not any(_meet(view.path, path) for path in (*taken, *(v.path for v in views))):
            views.append(view)
    return tuple(views)


def _meet(one: str, other: str) -> bool:
    """Return whether some path fits both patterns."""
    firsts, seconds = (path.replace("{rest:path}", "*").split("/") for path in (one, other))
    for first, second in itertools.zip_longest(firsts, seconds):
        if "*" in (first, second):
            return True
        if None in (first, second) or (first != second and "{id}" not in (first, second)):
            return False
    return True


def _path(draw: random.Random, *, parameters: bool = True) -> str:
    segments = [draw.choice(WORDS) for _ in range(draw.randint(1, 3))]
    if parameters and draw.random() < 0.4:
        segments[draw.randrange(len(segments))] = "{id}"
    return "/" + "/".join(segments)


def _view(draw: random.Random, name: str) -> View:
    path = _path(draw)
    if draw.random() < 0.1:
        path += "/{rest:path}"
    methods = tuple(sorted(draw.sample(METHODS, draw.randint(1, 4))))
    marks = ("", "", "reads", "writes")
    if draw.random() < 0.4:
        own = tuple((method, mark) for method in methods if (mark := draw.choice(marks)))
        return View(name, path, methods, True, draw.choice(marks), own, draw.choice(marks))
    return View(name, path, methods, False, draw.choice(marks))


def _rule(draw: random.Random, role: str, mounts: Sequence[Mount]) -> Rule:
    method = draw.choice(("", "", *METHODS))
    mount = draw.choice(mounts)
    view = draw.choice(mount.views)
    predicate = role in ("reads", "writes") and draw.random() < 0.3
    if draw.random() < 0.2:
        return Rule(method or "POST", view=tuple(name for name in (mount.name, view.name) if name), predicate=predicate)
    path = mount.prefix + view.path if draw.random() < 0.7 else _path(draw)
    segments = path.replace("{rest:path}", "*").strip("/").split("/")
    if draw.random() < 0.2:
        segments = [*segments[: draw.randint(1, len(segments))], "*"]
    segments = [s for n, s in enumerate(segments) if s != "*" or n == len(segments) - 1]
    # What would let everything through is no rule; what decides that are its literal segments.
    if all(segment in ("*", "{id}") for segment in segments):
        segments[0] = draw.choice(WORDS)
    return Rule(method, "/" + "/".join(segments), predicate=predicate)


# --- requests ---------------------------------------------------------------------------------------------------------


def requests(app: Application, count: int) -> list[Asked]:
    """Draw requests to an application, most of them to where something is."""
    draw = random.Random(f"requests {app.seed}")
    return [_asked(draw, app) for _ in range(count)]


def _asked(draw: random.Random, app: Application) -> Asked:
    raw = quote(_filled(draw, _some_path(draw, app)))
    if draw.random() < 0.3:
        raw = _mutated(draw, raw)
    method = draw.choice(ASKED)
    headers: list[tuple[str, str]] = []
    query, body = "", b""
    if method in METHODS[1:] or method in ("QUERY", "FOO"):
        body = draw.choice((b"", PLAIN_FORM, SAVING_FORM))
        if body:
            headers.append(("Content-Type", "application/x-www-form-urlencoded"))
    if method == "OPTIONS" and draw.random() < 0.7:
        headers += PREFLIGHT
    if draw.random() < 0.08:
        headers.append((draw.choice(("X-HTTP-Method-Override", "X-Method-Override")), draw.choice(METHODS).lower()))
    if draw.random() < 0.08:
        query = draw.choice(("_method=PUT", "_method=get", "_metho%64=DELETE"))
    if draw.random() < 0.15:
        headers.append(("Authorization", "Bearer robot"))
    if draw.random() < 0.2:
        headers.append(("Accept", "text/html"))
    request = Request(
        method,
        unquote(raw),
        headers=headers,
        body=body,
        query=query,
        root=draw.choice(("", "", "", ROOT)),
        raw_path=raw,
    )
    return Asked(request, draw.choice(("", "", OLD_SESSION, NEW_SESSION)))


def _some_path(draw: random.Random, app: Application) -> str:
    if draw.random() < 0.85:
        mount = draw.choice(app.mounts)
        return mount.prefix + draw.choice(mount.views).path
    rules = [rule.path for found in app.rules.values() for rule in found if rule.path]
    return draw.choice(rules) if rules and draw.random() < 0.7 else _path(draw)


def _filled(draw: random.Random, path: str) -> str:
    segments = []
    for segment in path.split("/"):
        if segment == "{id}":
            segment = draw.choice((*WORDS, "7"))
        elif segment in ("{rest:path}", "*"):
            segment = draw.choice(("a", "a/b", "a/b/c"))
        segments.append(segment)
    return "/".join(segments)


def _mutated(draw: random.Random, raw: str) -> str:
    at = draw.randrange(len(raw))
    return draw.choice(
        (
            raw + "/",
            raw + "//",
            "/" + raw,
            "/." + raw,
            "/x/.." + raw,
            raw.upper(),
            raw + ";v=1",
            raw + "%2f",
            raw + "%00",
            raw.replace("/", "%2F", 2).replace("%2F", "/", 1),
            raw[:at] + (f"%{ord(raw[at]):02x}" if raw[at].isalpha() else "%2e") + raw[at + 1 :],
        )
    )
