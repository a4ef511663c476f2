"""What operators and visitors write stays text in templates that were given the adapter's context."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from jinja2 import Environment
from starlette.requests import Request

from readonly import Switch
from readonly_starlette import template_context
from support.hostile import HOSTILE, assert_harmless_html, elements, plant

PAGE = "{{ readonly.banner }}<p title='x{{ readonly.message }}'>{{ readonly.message }}</p>{{ readonly.script }}"


# Of the banner, of the template, of the script.
ANNOUNCED = ["div", "p", "time", "time", "p", "p", "script"]
READ_ONLY = ["div", "p", "p", "time", "p", "script"]


@pytest.fixture
def switch() -> Iterator[Switch]:
    """A switch of its own."""
    switch = Switch.from_url("memory://")
    yield switch
    switch.close()


def rendered(switch: Switch, hostile: str) -> str:
    """Render the page for a visitor who sends, and sits below a mount that is, the same text."""
    sent = hostile.encode("utf-8", "replace")
    headers = [(b"accept-language", sent), (b"cookie", sent), (b"x-read-only-bypass", sent)]
    scope: dict[str, Any] = {
        "type": "http", "method": "GET", "path": "/" + hostile, "root_path": "/" + hostile, "query_string": sent,
        "headers": headers,
    }  # fmt: skip
    given = template_context(switch)(Request(scope))
    return Environment(autoescape=True).from_string(PAGE).render(given)


@pytest.mark.parametrize("announced", [False, True], ids=["read-only", "announced"])
@pytest.mark.parametrize("hostile", HOSTILE, ids=range(len(HOSTILE)))
def test_templates(switch: Switch, hostile: str, announced: bool) -> None:
    """The page consists of what the template and the banner consist of, whatever was written."""
    plant(switch, hostile, announced=announced)
    page = rendered(switch, hostile)
    assert_harmless_html(page, own=("script",))
    tags = [tag for tag, _ in elements(page)]
    assert tags == (ANNOUNCED if announced else READ_ONLY)
    assert f'data-readonly-banner="{"announced" if announced else "read_only"}"' in page
