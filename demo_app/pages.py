"""Templates and what they may call: one Jinja2 environment that every framework's version of the site renders with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import jinja2

from demo_app import story

HERE: Final = Path(__file__).parent
TEMPLATES: Final = HERE / "templates"
STATIC: Final = HERE / "static"

OPTIONS: Final[dict[str, Any]] = {
    "autoescape": True,
    "undefined": jinja2.StrictUndefined,
    "trim_blocks": True,
    "lstrip_blocks": True,
}
"""Escaping on, undefined names an error."""

SCORES_HEADERS: Final = {"cache-control": "max-age=2"}
NOT_SWITCHABLE: Final = {"read_only": False, "message": "", "since": None, "expected_end": None, "banner": ""}
"""What templates are told of `readonly` where there is no switch: what an adapter says of a site that is writable."""


def ago(instant: datetime, *, now: datetime | None = None) -> str:
    """Return how long ago that was, as one says it."""
    minutes = int(((now or datetime.now(UTC)) - instant).total_seconds() // 60)
    if minutes < 1:
        return "just now"
    if minutes < 60:
        return f"{minutes} min ago"
    if minutes < 24 * 60:
        return f"{minutes // 60} h ago"
    return f"{instant:%-d %B}"


def initials(name: str) -> str:
    """Return one or two letters that stand for a name."""
    letters = [word[0] for word in name.split() if word[0].isalnum()]
    return "".join((letters[0], letters[-1]) if len(letters) > 1 else letters).upper() or "?"


def environment(**options: Any) -> jinja2.Environment:
    """Return an environment with the site's templates, for a framework that has none of its own.

    Args:
        options: More of Jinja's own; a framework that makes the environment may have some.
    """
    options = {"loader": jinja2.FileSystemLoader(TEMPLATES), **options, **OPTIONS}
    return furnish(jinja2.Environment(**options))  # noqa: S701  OPTIONS turns escaping on


def furnish(env: jinja2.Environment) -> jinja2.Environment:
    """Put the site's own names at hand."""
    env.filters["ago"] = ago
    env.filters["initials"] = initials
    env.globals["site_name"] = story.SITE_NAME
    env.globals["sections"] = story.SECTIONS
    env.globals["section_names"] = {section.slug: section.name for section in story.SECTIONS}
    return env


def common(**values: Any) -> dict[str, Any]:
    """Return what every page needs, with defaults for a page that has nothing special to say."""
    return {"account": None, "here": "", "messages": (), "notice": "", "problem": "", **values}


def plain(shown: Any) -> dict[str, Any]:
    """Return what a template would be given, as JSON takes it."""
    return {key: value if isinstance(value, int | str | None) else _text(value) for key, value in asdict(shown).items()}


def scores_document(matches: list[Any]) -> Mapping[str, Any]:
    """Return the match day as JSON."""
    return {"matches": [asdict(match) for match in matches]}


def _text(value: Any) -> Any:
    return value.isoformat() if hasattr(value, "isoformat") else list(value)
