"""`{{ readonly }}` in templates: add `readonly_django.context_processors.readonly` to the context processors."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest

from .visible import shown


def readonly(request: HttpRequest) -> dict[str, Any]:
    """Return `readonly`: `read_only`, `message`, `since`, `expected_end`, `notice`, `banner`; what visitors may see."""
    return {"readonly": shown(request)}
