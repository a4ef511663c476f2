"""The page that a visitor sees instead of a saved change.

It needs no template engine, no database, no session and no other file: it is shown on the night when those
are not there. Read once at import; rendered for each state and minute, never for each request.
"""

from __future__ import annotations

import base64
import hashlib
import html
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.resources import files
from string import Template
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Refused:
    """What a page may say about a refused request. The same for every visitor, so that a page can be kept.

    Attributes:
        status: 503, or 403 for a session that ended.
        code: `READ_ONLY` or `SESSION_ENDED`.
        login: Somebody tried to sign in.
        read_only: The site is still read-only.
        message: What the operator wrote for visitors, else "". Plain text: escape it.
        expected_end: When it is expected to be over, timezone-aware, or None.
        now: The current minute, timezone-aware.
        operator: What to tell whoever runs the site, else "". Plain text: escape it.
    """

    status: int
    code: str
    login: bool
    read_only: bool
    message: str
    expected_end: datetime | None
    now: datetime
    operator: str = ""


class Page(Protocol):
    """Renders a site's own page."""

    def __call__(self, refused: Refused, /) -> str | bytes:
        """Return HTML, encoded as UTF-8 if it is bytes. It is kept for a minute, so it must not depend on more."""


def _read(name: str) -> str:
    return files(__name__).joinpath(name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


_STYLE = _read("refused.css")
_SCRIPT = _read("refused.js")
_TEMPLATE = Template(_read("refused.html"))

CONTENT_SECURITY_POLICY = (
    f"default-src 'none'; style-src 'sha256-{_hash(_STYLE)}'; script-src 'sha256-{_hash(_SCRIPT)}';"
    " base-uri 'none'; form-action 'none'"
)


def render(refused: Refused) -> bytes:
    """Return the built-in page, UTF-8."""
    title, lead, lost, hint = _words(refused)
    message = f"<blockquote>{html.escape(refused.message)}</blockquote>\n" if refused.message else ""
    return _TEMPLATE.substitute(
        title=title,
        lead=lead,
        message=message,
        lost=lost,
        hint=hint,
        when=_when(refused),
        operator=_operator(refused.operator),
        style=_STYLE,
        script=_SCRIPT,
    ).encode("utf-8", "replace")  # a message from JSON may hold half a surrogate pair


def _words(refused: Refused) -> tuple[str, str, str, str]:
    if refused.status == 403:
        again = "when it can be changed again" if refused.read_only else "now"
        return (
            "You have been signed out",
            "The site was made read-only for some work on it, and everybody’s session ended with that.",  # noqa: RUF001
            "What you just sent was not saved.",
            f"Go back and keep a copy of what you typed; sign in {again}, and send it once more.",
        )
    if refused.login:
        return (
            "Signing in is paused",
            "The site is read-only while we work on it. You can read everything without signing in.",
            "You were not signed in, and nothing was saved.",
            "Please try again later.",
        )
    return (
        "No changes right now",
        "The site is read-only while we work on it. You can go on reading everything.",
        "What you just did was not saved.",
        "If you filled in a form, go back and keep a copy of what you typed; then send it again later.",
    )


def _when(refused: Refused) -> str:
    if not refused.read_only:
        return "The site takes changes again."
    end = refused.expected_end
    if end is None:
        return "We can’t say yet how long it takes. Please try again in a few minutes."  # noqa: RUF001
    end = end.astimezone(UTC)
    day = "" if end.date() == refused.now.astimezone(UTC).date() else f"{end:%A}, {end.day} {end:%B}, "
    shown = f'<time datetime="{end:%Y-%m-%dT%H:%M:%SZ}">{day}{end:%H:%M} UTC</time>'
    left = (end - refused.now).total_seconds()
    if left <= 0:
        return f"We expected to be done by {shown}. It takes a little longer."
    return f'We expect to be done at {shown}, <span id="left">{about(left)}</span>.'


def about(seconds: float) -> str:
    """Return a time to come as people say it: `in about 40 minutes`."""
    minutes = round(seconds / 60)
    if minutes <= 1:
        return "in about a minute"
    if minutes < 90:
        return f"in about {minutes} minutes"
    hours = round(seconds / 3600)
    if hours < 36:
        return f"in about {hours} hours"
    return f"in about {round(seconds / 86400)} days"


def _operator(text: str) -> str:
    if not text:
        return ""
    return (
        '<section class="operator"><p><strong>For whoever runs this site:</strong> '
        f"{html.escape(text)}</p>"
        "<p>A new site needs its first record: <code>readonlyctl init</code>. "
        "<code>readonlyctl status</code> says more.</p></section>\n"
    )
