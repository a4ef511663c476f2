"""A form that is refused in front of Django is given back, with its CSRF token as it was."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from asgiref.sync import async_to_sync

from readonly_django.test import override_readonly

from .conftest import Visitor


def sent(visitor: Visitor, body: str, site: str) -> str:
    """Send a form as a browser does; return the page that comes back."""
    headers = {"Accept": "text/html", "Sec-Fetch-Site": site}

    async def later() -> Any:
        return await visitor.client.generic("POST", "/", body, "application/x-www-form-urlencoded", headers=headers)

    if visitor.kind == "async":
        return str(async_to_sync(later)().content.decode())
    media = "application/x-www-form-urlencoded"
    return str(visitor.client.generic("POST", "/", body, media, headers=headers).content.decode())


def test_what_was_typed_comes_back(visitor: Visitor) -> None:
    """Under WSGI and ASGI; to its own forms alone."""
    body = urlencode({"text": "Ein <Satz>", "csrfmiddlewaretoken": "t0ken", "password": "hushhush"})
    with override_readonly():
        own, other = sent(visitor, body, "same-origin"), sent(visitor, body, "cross-site")
    assert "Ein &lt;Satz&gt;" in own
    assert 'name="csrfmiddlewaretoken" value="t0ken" data-readonly-token' in own
    assert "hushhush" not in own
    assert "<form" not in other
