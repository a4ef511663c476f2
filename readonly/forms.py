"""Predicates for forms: what one URL does both ways, told apart by the fields that were sent.

A search form with a second button, `save`, posts to the same address. `form_without("save")` is a rule's `when` for
what only reads, `form_with("save")` for what writes. Each is the other's opposite, and what can't be read for certain
(no form, an encoding of its own, a body that was cut off) is taken to hold the field.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from urllib.parse import unquote_plus

from .errors import ConfigurationError
from .rules import Facts

Field = tuple[str, str]


def form_without(*fields: str) -> Callable[[Facts], bool]:
    """Return a predicate that is true for a form in which none of these fields was sent.

    Args:
        fields: `name`, or `name=value` for one button among several of that name.

    Raises:
        ConfigurationError: No field is named.
    """
    return _Without(fields)


def form_with(*fields: str) -> Callable[[Facts], bool]:
    """Return a predicate that is true for a form in which one of these fields was sent, and for what is no form.

    Args:
        fields: `name`, or `name=value` for one button among several of that name.

    Raises:
        ConfigurationError: No field is named.
    """
    return _With(fields)


class _Without:
    """`form_without`, once its fields are known."""

    _name = "form_without"

    def __init__(self, fields: tuple[str, ...]) -> None:
        if not fields or not all(field.partition("=")[0] for field in fields):
            raise ConfigurationError(f"{self._name}{fields!r}: name a field, such as {self._name}('save').")
        self._fields = fields
        self._wanted = frozenset(name for name in fields if "=" not in name)
        self._pairs = frozenset((name, value) for name, sep, value in (f.partition("=") for f in fields) if sep)

    def __call__(self, facts: Facts) -> bool:
        return not self._holds(facts)

    def __repr__(self) -> str:
        return f"{self._name}({', '.join(map(repr, self._fields))})"

    def _holds(self, facts: Facts) -> bool:
        sent = _sent(facts)
        # Frameworks have names for query and form together: a field in the query counts as well.
        asked = _pairs(facts.query.encode("latin-1", "replace"))
        return sent is None or asked is None or any(self._is_wanted(field) for field in (*sent, *asked))

    def _is_wanted(self, field: Field) -> bool:
        name, _ = field
        # An image that is a button sends where it was hit (HTML, section 4.10.5.1.19).
        button = name.removesuffix(".x").removesuffix(".y")
        return (
            name in self._wanted
            or button in self._wanted
            or field in self._pairs
            or (button != name and any(button == wanted for wanted, _ in self._pairs))
        )


class _With(_Without):
    """`form_with`, once its fields are known."""

    _name = "form_with"

    def __call__(self, facts: Facts) -> bool:
        return self._holds(facts)


def fields_of(facts: Facts) -> list[Field] | None:
    """Return the fields of a form as they were sent, in their order; None for what is no such form, or not whole.

    Args:
        facts: The request, with its body. Of a multipart form nothing is returned: it is for files.
    """
    if (facts.headers.get("content-type") or "").strip().lower().startswith("multipart/"):
        return None
    sent = _sent(facts)
    return None if sent is None else [field for field in sent if field[0]]


def _sent(facts: Facts) -> list[Field] | None:
    """Return the fields of a form, or None if that can't be told."""
    if facts.kind != "http" or facts.body is None or not facts.body_complete:
        return None
    media, _, parameters = (facts.headers.get("content-type") or "").partition(";")
    media = media.strip().lower()
    if media == "multipart/form-data":
        boundary = _BOUNDARY.match(parameters.strip())
        return None if boundary is None else _parts(facts.body, (boundary[1] or boundary[2]).encode())
    if media == "application/x-www-form-urlencoded" and parameters.strip().lower() in _UTF_8:
        return _pairs(facts.body)
    if not facts.body and not media:
        return []
    return None


_UTF_8 = frozenset({"", "charset=utf-8", 'charset="utf-8"'})


def _pairs(form: bytes) -> list[Field] | None:
    try:
        # Both separators, since older parsers take both.
        pairs = [pair.partition("=") for pair in re.split("[&;]", form.decode("utf-8"))]
        return [(unquote_plus(name, errors="strict"), unquote_plus(value, errors="strict")) for name, _, value in pairs]
    except UnicodeDecodeError:
        return None


# As browsers write it, and nothing else: parsers differ over quoting, folding, encodings and what belongs to a part,
# and a field that one of them finds and this one does not would be a write let through.
_BOUNDARY = re.compile(r'boundary=(?:"([0-9A-Za-z\'()+_,./:=?-]{1,70})"|([0-9A-Za-z\'()+_.-]{1,70}))\Z', re.IGNORECASE)
_DISPOSITION = re.compile(
    rb'content-disposition: form-data; name="([^"\\%\r\n\x00-\x1f]*)"(?:; filename="([^"\\\r\n\x00-\x1f]*)")?\Z',
    re.IGNORECASE,
)
_TYPE = re.compile(rb"content-type: [^\r\n\x00-\x1f]+\Z", re.IGNORECASE)


def _parts(body: bytes, boundary: bytes) -> list[Field] | None:
    delimiter = b"--" + boundary
    if not body.startswith(delimiter + b"\r\n") or body.count(delimiter) != body.count(b"\r\n" + delimiter) + 1:
        return None
    *parts, end = body.removeprefix(delimiter).split(b"\r\n" + delimiter)
    if end not in (b"--", b"--\r\n"):
        return None
    found: list[Field] = []
    for part in parts:
        head, blank, value = part.partition(b"\r\n\r\n")
        lines = head.split(b"\r\n")[1:]
        if not part.startswith(b"\r\n") or not blank or not lines:
            return None
        disposition = _DISPOSITION.match(lines[0])
        if disposition is None or len(lines) > 2 or (len(lines) == 2 and not _TYPE.match(lines[1])):
            return None
        found.append((disposition[1].decode("utf-8", "replace"), value.decode("utf-8", "replace")))
    return found
