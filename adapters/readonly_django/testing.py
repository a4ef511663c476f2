"""What `readonly.testing.walk` needs to know of a Django project: its routes, who asks them, and who sees writes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import Any, Final

from django.db import DEFAULT_DB_ALIAS, connections
from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver
from django.urls.converters import PathConverter
from django.utils.regex_helper import normalize

from readonly.databases import server_for
from readonly.databases.written import UNKNOWN, word_of
from readonly.errors import ReadOnlyError
from readonly.marks import marks_of
from readonly.testing import Answer, Request, Route, Visitor, Witness

# A function view does not say which methods it takes; an answer of 405 does.
_GUESSED: Final = ("GET", "POST")
_ANSWERED_BY_DJANGO: Final = frozenset({"OPTIONS", "TRACE"})


# --- routes -----------------------------------------------------------------------------------------------------------


def routes(urlconf: Any = None) -> Iterator[Route]:
    """Yield every route of a URLconf, namespaces and regular expressions included, in the order Django looks at them.

    Args:
        urlconf: Its module, or the name of that; None: ROOT_URLCONF.
    """
    yield from _routes(get_resolver(urlconf).url_patterns, "/", "")


def _routes(patterns: Any, prefix: str, names: str) -> Iterator[Route]:
    for pattern in patterns:
        if isinstance(pattern, URLResolver):
            below = f"{names}{pattern.namespace}:" if pattern.namespace else names
            for template in _templates(pattern.pattern):
                yield from _routes(pattern.url_patterns, prefix + template, below)
        elif isinstance(pattern, URLPattern):
            view = pattern.callback
            methods = _methods(view)
            for template in _templates(pattern.pattern):
                yield Route(
                    methods or _GUESSED,
                    prefix + template,
                    f"{names}{pattern.name}" if pattern.name else "",
                    marks_of(view),
                    guessed=not methods,
                )


def _templates(pattern: Any) -> list[str]:
    """Return the path of a pattern with `{name}` for what varies; optional groups make several."""
    found = []
    for template, names in normalize(pattern.regex.pattern):
        deep = {name for name in names if _takes_slashes(pattern, template, names, name)}
        shown = {name: f"{{{name}:path}}" if name in deep else f"{{{name}}}" for name in names}
        found.append(template % shown)
    return found


def _takes_slashes(pattern: Any, template: str, names: list[str], name: str) -> bool:
    converter = pattern.converters.get(name)
    if converter is not None:
        return isinstance(converter, PathConverter)
    # A group of a regular expression: whether it takes a slash is tried, with numbers and words for the others.
    fillings = ({**dict.fromkeys(names, other), name: "a/b"} for other in ("1", "a"))
    return any(pattern.regex.search(template % filling) is not None for filling in fillings)


def _methods(view: Any) -> tuple[str, ...]:
    """Return the methods of a class's view (Django's, or a viewset of REST framework), else nothing."""
    actions = getattr(view, "actions", None)
    if actions:
        methods = {method.upper() for method in actions}
    else:
        cls = getattr(view, "view_class", None) or getattr(view, "cls", None)
        if cls is None:
            return ()
        given = getattr(view, "view_initkwargs", None) or getattr(view, "initkwargs", None) or {}
        allowed = given.get("http_method_names", cls.http_method_names)
        methods = {name.upper() for name in allowed if hasattr(cls, name)}
    methods -= _ANSWERED_BY_DJANGO
    if "GET" in methods:
        methods.discard("HEAD")
    return tuple(sorted(methods))


# --- visitors ---------------------------------------------------------------------------------------------------------


def visitor(client: Client) -> Visitor:
    """Return the visitor that a test client is now, with the cookies that it has now.

    Args:
        client: It may have logged in (`force_login`).
    """
    cookies = deepcopy(client.cookies)

    def send(request: Request) -> Answer:
        client.cookies = deepcopy(cookies)
        headers = dict(request.headers)
        raises, client.raise_request_exception = client.raise_request_exception, False
        try:
            found = client.generic(
                request.method,
                request.path,
                request.body,
                content_type=headers.pop("content-type", "application/octet-stream"),
                headers=headers,
            )
        finally:
            client.raise_request_exception = raises
        _, raised, _ = getattr(found, "exc_info", None) or (None, None, None)
        status = found.status_code
        try:
            found.getvalue()
        except Exception as error:
            # It broke off while it was sent.
            status, raised = 500, error
        said = "" if raised is None else f"{type(raised).__name__}: {raised}"
        return Answer(status, {name.lower(): value for name, value in found.items()}, said)

    return send


# --- witnesses --------------------------------------------------------------------------------------------------------


@contextmanager
def recorded_writes(alias: str = DEFAULT_DB_ALIAS) -> Iterator[Witness]:
    """Witness every write that this thread sends to a database, inside a with block; or give it to `walk`.

    What a write is, the server says, as with `readonly.testing.recorded_writes`. Django's connections belong to a
    thread, and its test client answers in the thread that asks.

    Args:
        alias: Of DATABASES, on PostgreSQL or SQLite.

    Raises:
        ConfigurationError: There is no way to ask its server.
    """
    connection = connections[alias]
    word = word_of(connection.vendor)
    is_refusal = server_for(connection.vendor).is_refusal
    witness = Witness(alias)
    # The last statement that has not written yet, and what the connection said then.
    last: tuple[object, str] = (UNKNOWN, "")

    def settle() -> None:
        nonlocal last
        (before, statement), last = last, (UNKNOWN, "")
        after = UNKNOWN if before is UNKNOWN else word.late(connection.connection)
        if after is not UNKNOWN and after != before:
            witness.wrote(refused=False, statement=statement)

    def execute(execute: Callable[..., Any], sql: Any, params: Any, many: bool, context: dict[str, Any]) -> Any:
        nonlocal last
        witness.saw()
        settle()
        before = word.now(connection.connection)
        try:
            result = execute(sql, params, many, context)
        except Exception as error:
            if isinstance(error, ReadOnlyError) or is_refusal(error.__cause__ or error):
                witness.wrote(refused=True, table=getattr(error, "table", None), statement=str(sql))
            raise
        after = word.now(connection.connection)
        if word.wrote(before, after, context["cursor"]):
            witness.wrote(refused=False, statement=str(sql))
        else:
            last = (word.late(connection.connection), str(sql))
        return result

    witness.settling(settle)
    with connection.execute_wrapper(execute):
        yield witness
    settle()
