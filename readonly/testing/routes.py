"""Routes as a framework tells of them, and the requests that they become with a site's examples."""

from __future__ import annotations

import json as json_module
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import quote, urlencode

from ..errors import ConfigurationError
from ..rules import SAFE_METHODS

# `{name}` is one segment; `{name:path}` may hold slashes.
_PARAMETER: Final = re.compile(r"\{(\w+)(:path)?\}")
# What RFC 3986 section 3.3 lets stand in a path as it is.
_PATH_SAFE: Final = "/:@!$&'()*+,;=-._~"


@dataclass(frozen=True, slots=True)
class Route:
    """One route, as an adapter's `routes` tells of it.

    Attributes:
        methods: In capitals; without those that the framework answers by itself (OPTIONS, and HEAD beside GET).
        path: With `{name}` for what varies, `{name:path}` where that may hold slashes.
        name: Its name, as `name:...` rules spell it; may be empty.
        marks: What `readonly.marks.marks_of` says of its endpoint.
        guessed: The framework does not tell which methods the endpoint takes; a 405 says that it takes this one not.
    """

    methods: tuple[str, ...]
    path: str
    name: str = ""
    marks: frozenset[str] = frozenset()
    guessed: bool = False

    @property
    def parameters(self) -> tuple[str, ...]:
        """Names of what varies, in order."""
        return tuple(found[1] for found in _PARAMETER.finditer(self.path))

    def rule(self, method: str) -> str:
        """Return the rule that covers this route and method, as a `Policy` takes it."""
        segments = self.path.split("/")
        for place, segment in enumerate(segments):
            found = _PARAMETER.search(segment)
            if found is None:
                continue
            if found[2] and (place + 1 < len(segments) or segment != found[0]):
                return f"{method} name:{self.name}"  # no pattern of ours goes on after several segments
            segments[place] = "*" if found[2] else f"{{{found[1]}}}"
        return f"{method} {'/'.join(segments)}"

    def __str__(self) -> str:
        return f"{self.path} ({self.name})" if self.name else self.path


@dataclass(frozen=True, slots=True)
class Example:
    """What one request to a route is filled with.

    Attributes:
        params: Values for what varies in the path; the others come from the examples by name.
        query: Sent as the query string.
        form: Sent as a form.
        json: Sent as JSON.
        headers: Sent as well.
    """

    params: Mapping[str, object] = field(default_factory=dict)
    query: Mapping[str, object] = field(default_factory=dict)
    form: Mapping[str, object] | None = None
    json: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.form is not None and self.json is not None:
            raise ConfigurationError("form=... and json=... are both there: a request has one body; give one of them")

    @property
    def has_body(self) -> bool:
        """Whether it brings a body."""
        return self.form is not None or self.json is not None


@dataclass(frozen=True, slots=True)
class Request:
    """One request, ready to be sent by a visitor.

    Attributes:
        method: In capitals.
        path: Encoded, with the query string.
        headers: Names in lower case.
        body: The whole body.
    """

    method: str
    path: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back.

    Attributes:
        status: The status; 500 where the application let an exception out.
        headers: Names in lower case.
        error: What the exception said, else "".
    """

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    error: str = ""


Visitor = Callable[[Request], Answer]
"""Sends a request as somebody: anonymous, or with the cookies of a session that began before the walk. What an answer
does to cookies is forgotten again, so that every request is sent by the same somebody. Adapters make them:
`visitor(client)`."""

Given = Example | Mapping[str, object] | Sequence[Example | Mapping[str, object]]


class Missing(Exception):
    """A route has no example for some of what varies in its path.

    Attributes:
        names: Of what.
    """

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__(", ".join(names))
        self.names = tuple(names)


class Examples:
    """What a site gives to fill its routes with.

    Keys are names of parameters (`"slug": "mara-voss-800"`, for every route that has it), and routes (`"/search"`, or
    `"POST /search"` for one method alone) with an `Example`, a mapping of parameters, or a list of those.

    Raises:
        ConfigurationError: A key is neither.
    """

    def __init__(self, given: Mapping[str, Any]) -> None:
        self._by_name = {key: value for key, value in given.items() if key.isidentifier()}
        self._by_route: dict[str, list[Example]] = {}
        for key, value in given.items():
            if key not in self._by_name:
                if "/" not in key:
                    raise ConfigurationError(
                        f"examples: {key!r} is neither the name of a parameter nor a route: write 'slug', '/articles/"
                        "{slug}', or 'POST /search'"
                    )
                self._by_route[" ".join(key.split())] = [_example(key, one) for one in _listed(value)]
        self._used: set[str] = set()

    def requests(self, route: Route, method: str) -> Iterator[tuple[Example, Request]]:
        """Yield every request that the examples make of a route and method.

        Raises:
            Missing: Something that varies in the path has no example.
        """
        yield from [(example, self._request(route, method, example)) for example in self._examples(route, method)]

    def unused(self) -> list[str]:
        """Return the keys that no route has asked for: a misspelt one would be missed by nobody."""
        return sorted({*self._by_name, *self._by_route} - self._used)

    def _examples(self, route: Route, method: str) -> list[Example]:
        for key in (f"{method} {route.path}", route.path):
            if key in self._by_route:
                # The broader key is used as well: some methods have an example of their own.
                self._used |= {key, route.path}
                return self._by_route[key]
        return [Example()]

    def _request(self, route: Route, method: str, example: Example) -> Request:
        values: dict[str, str] = {}
        missing = []
        for name in route.parameters:
            if name in example.params:
                values[name] = str(example.params[name])
            elif name in self._by_name:
                self._used.add(name)
                values[name] = str(self._by_name[name])
            else:
                missing.append(name)
        if missing:
            raise Missing(missing)
        path = _PARAMETER.sub(lambda found: quote(values[found[1]], safe=_PATH_SAFE), route.path)
        if example.query:
            path += f"?{urlencode(example.query, doseq=True)}"
        headers = {"accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
        body = b""
        if example.form is not None:
            headers["content-type"] = "application/x-www-form-urlencoded"
            body = urlencode(example.form, doseq=True).encode()
        elif example.json is not None:
            headers |= {"content-type": "application/json", "accept": "application/json"}
            body = json_module.dumps(example.json).encode()
        headers |= {name.lower(): value for name, value in example.headers.items()}
        return Request(method, path, headers, body)


def _listed(value: Given) -> Sequence[Example | Mapping[str, object]]:
    return [value] if isinstance(value, (Example, Mapping)) else value


def _example(key: str, value: object) -> Example:
    if isinstance(value, Example):
        return value
    if isinstance(value, Mapping):
        return Example(params=value)
    raise ConfigurationError(
        f"examples: {key!r}: {value!r} is no example: give Example(...), a mapping of the path's parameters, or a list"
    )


def is_safe(method: str) -> bool:
    """Return whether a method reads, by its definition."""
    return method in SAFE_METHODS
