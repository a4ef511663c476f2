"""`{{ readonly }}` in templates: add `readonly_django.context_processors.readonly` to the context processors."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest

from .visible import shown


def readonly(request: HttpRequest) -> dict[str, Any]:
    """Return `readonly`: `read_only`, `message`, `since` and `expected_end`; nothing that visitors may not see."""
    return {"readonly": shown()}
