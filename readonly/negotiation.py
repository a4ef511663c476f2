"""What a client can make use of: a page, problem details, or what gRPC understands."""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from functools import lru_cache

from .rules import Facts


class Format(StrEnum):
    """What a client can make use of."""

    PAGE = "page"
    PROBLEM = "problem"
    GRPC = "grpc"


def negotiate(facts: Facts) -> Format:
    """Return the form in which a client can use a refusal.

    A page is for a browser that is about to show it. Everything that code will read gets problem details:
    whoever sent or asks for JSON, and whatever calls from a script (XMLHttpRequest, fetch, htmx), even if it
    takes HTML. Turbo is the exception among those: it shows the page that it gets as a page.
    """
    get = facts.headers.get
    content_type = get("content-type")
    if content_type is not None:
        media = content_type.partition(";")[0].strip().lower()
        if media.startswith("application/grpc"):
            return Format.GRPC
        if media == "application/json" or media.endswith("+json"):
            return Format.PROBLEM
    if facts.kind == "websocket":
        return Format.PROBLEM
    accept = get("accept")
    if accept is None or not _prefers_page(accept):
        return Format.PROBLEM
    if get("hx-request") is not None or get("x-requested-with") is not None:
        return Format.PROBLEM
    if get("sec-fetch-dest") == "empty" and "text/vnd.turbo-stream.html" not in accept:
        return Format.PROBLEM
    return Format.PAGE


@lru_cache(maxsize=512)
def _prefers_page(accept: str) -> bool:
    """Return whether HTML is asked for by name, and JSON not before it."""
    page = problem = 0.0
    for media, weight in weighed(accept):
        if media in ("text/html", "application/xhtml+xml"):
            page = max(page, weight)
        elif media == "application/json" or media.endswith("+json"):
            problem = max(problem, weight)
    return page > problem


def weighed(accept: str) -> Iterator[tuple[str, float]]:
    """Yield the media types of an Accept header that are welcome at all, each with its weight.

    Of two that are as welcome the first one weighs a little more.

    Source: RFC 9110, section 12.5.1.
    """
    for position, item in enumerate(accept.lower().split(",")):
        media, *parameters = (part.strip() for part in item.split(";"))
        weight = 1.0
        for parameter in parameters:
            if parameter.startswith("q="):
                try:
                    weight = float(parameter[2:])
                except ValueError:
                    weight = 0.0
        if 0 < weight <= 1:
            yield media, weight - position * 1e-6
