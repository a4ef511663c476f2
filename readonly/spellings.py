"""The spellings of one path: what routers, proxies and applications may each take it for."""

from __future__ import annotations

import re
from urllib.parse import unquote

# Routers differ over each of these: empty and dot segments, parameters, backslashes, a second decoding, and
# control characters (the `$` of a regular expression, by which Starlette routes, also matches before a line
# feed).
_ODD = re.compile(r"//|/\.\.?(?:/|\Z)|[;\\\x00-\x1f\x7f-\x9f\u2028\u2029]|%[0-9A-Fa-f]{2}")
# A slash that was sent encoded is one segment to some routers and two to others.
_ODD_RAW = re.compile(r"%(?:2f|5c|25)", re.IGNORECASE)
_PARAMETERS = re.compile(r";[^/]*")
_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")
_SLASHES = re.compile(r"/{2,}")
# One by the server, one by a proxy, one by an application that has heard of neither. Without an end, a path of
# nothing but `%25` would be the visitor's way to keep a process busy.
_DECODINGS = 3
# Python's re.IGNORECASE takes both for an i; casefold() does not.
_DOTLESS = str.maketrans({"\u0130": "i", "\u0131": "i"})


def normal(path: str, raw_path: str) -> str | None:
    """Return a path if it is in normal form after one decoding, else None.

    Args:
        path: Decoded once.
        raw_path: As sent; "" if unknown.
    """
    if not path:
        return "/"
    if path[0] != "/" or _ODD.search(path) or ("%" in raw_path and _ODD_RAW.search(raw_path)):
        return None
    return path


def fold(path: str) -> str:
    """Return a path as one that ignores case compares it."""
    return path.translate(_DOTLESS).casefold()


def spellings(path: str, raw_path: str) -> tuple[str, ...]:
    """Return every path that some router may take one for, case folded.

    Args:
        path: Decoded once.
        raw_path: As sent; "" if unknown.
    """
    if path[:1] == "/" and not _ODD.search(path) and (raw_path in ("", path)):
        return (fold(path),)  # nearly every request
    decoded = [raw_path, path]
    for _ in range(_DECODINGS):
        decoded += [unquote(one) for one in decoded[-2:]]
    # Each step keeps what it was given beside what it made, since a router may do one thing and not the other.
    cleaned = dict.fromkeys(form for one in decoded for form in (one, _CONTROLS.sub("", one).strip()))
    plain = dict.fromkeys(form for one in cleaned for form in (one, _PARAMETERS.sub("", one)))
    found: dict[str, None] = {}
    for one in plain:
        slashes = one.replace("\\", "/")
        merged = "/" + _SLASHES.sub("/", slashes).lstrip("/")
        for form in (one, merged, _without_dots(slashes), _without_dots(merged)):
            found[fold(form)] = None
    return tuple(found)


def _without_dots(path: str) -> str:
    """Return the path with dot segments removed (RFC 3986 section 5.2.4), slashes merged afterwards."""
    kept: list[str] = []
    for segment in path.split("/")[1:] if path.startswith("/") else path.split("/"):
        if segment == "..":
            if kept:
                kept.pop()
        elif segment != ".":
            kept.append(segment)
    return "/" + _SLASHES.sub("/", "/".join(kept)).lstrip("/")
