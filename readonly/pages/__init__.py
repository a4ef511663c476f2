"""The page that a visitor sees instead of a saved change.

It needs no template engine, no database, no session and no other file: it is shown on the night when those
are not there. Read once at import; rendered for each state and minute, never for each request.
"""

from __future__ import annotations

import base64
import hashlib
import html
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from gettext import NullTranslations
from importlib.resources import files
from string import Template
from typing import Final, Protocol

from ..drafts import Draft, is_token


class Catalog(Protocol):
    """Says in another language what visitors read, as GNU gettext does it; English is the language of the source."""

    def gettext(self, message: str, /) -> str:
        """Return the translation."""

    def ngettext(self, msgid1: str, msgid2: str, n: int, /) -> str:
        """Return the translation for so many of something."""


ENGLISH: Final[Catalog] = NullTranslations()
# Scripts that run from right to left, by the primary subtag of the languages that are written in them (RFC 5646).
RIGHT_TO_LEFT: Final = frozenset({"ar", "arc", "ckb", "dv", "fa", "he", "ks", "ps", "sd", "syr", "ug", "ur", "yi"})


@dataclass(frozen=True, slots=True)
class Refused:
    """What a page may say about a refused request. The same for all who read its language, so that it can be kept.

    Attributes:
        status: 503, or 403 for a session that ended.
        code: `READ_ONLY` or `SESSION_ENDED`.
        login: Somebody tried to sign in.
        read_only: The site is still read-only.
        message: What the operator wrote for visitors, else "". Plain text: escape it.
        expected_end: When it is expected to be over, timezone-aware, or None.
        now: The current minute, timezone-aware.
        operator: What to tell whoever runs the site, else "". Plain text: escape it.
        language: Which language the visitor reads, as HTML spells it.
        form: What becomes of the form that was sent: `kept` (it is in `draft`), `large` or `files` (it was not read,
            and the browser has it), or "".
        draft: What was typed, as HTML that is escaped: put it into the page as it is. With it, the page is one
            visitor's own, and is not kept.
    """

    status: int
    code: str
    login: bool
    read_only: bool
    message: str
    expected_end: datetime | None
    now: datetime
    operator: str = ""
    language: str = "en"
    form: str = ""
    draft: str = ""


def direction(language: str) -> str:
    """Return `rtl` or `ltr`, as HTML's `dir` wants it."""
    return "rtl" if language.partition("-")[0].lower() in RIGHT_TO_LEFT else "ltr"


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
# Of a page that gives back a form: it can be sent again, and the script of the library's own routes may do that.
DRAFT_SECURITY_POLICY = (
    f"default-src 'none'; style-src 'sha256-{_hash(_STYLE)}'; script-src 'self' 'sha256-{_hash(_SCRIPT)}';"
    " connect-src 'self'; base-uri 'none'; form-action 'self'"
)


def render(refused: Refused, catalog: Catalog = ENGLISH) -> bytes:
    """Return the built-in page, UTF-8."""
    title, lead, lost, hint = (html.escape(text, quote=False) for text in _words(refused, catalog))
    message = f'<blockquote dir="auto">{html.escape(refused.message)}</blockquote>\n' if refused.message else ""
    return _TEMPLATE.substitute(
        language=html.escape(refused.language),
        direction=direction(refused.language),
        title=title,
        lead=lead,
        message=message,
        lost=lost,
        hint=hint,
        when=_when(refused, catalog),
        operator=_operator(refused.operator),
        draft=refused.draft,
        plain=' class="plain"' if refused.draft else "",
        back=html.escape(catalog.gettext("Back to where you were")),
        style=_STYLE,
        script=_SCRIPT,
    ).encode("utf-8", "replace")  # a message from JSON may hold half a surrogate pair


def _words(refused: Refused, catalog: Catalog) -> tuple[str, str, str, str]:
    _ = catalog.gettext
    if refused.status == 403:
        return (
            _("You have been signed out"),
            _("The site was made read-only for some work on it, and everybody’s session ended with that."),  # noqa: RUF001
            _("What you just sent was not saved."),
            _("Go back and keep a copy of what you typed; sign in when it can be changed again, and send it once more.")
            if refused.read_only and not refused.draft
            else _("Go back and keep a copy of what you typed; sign in now, and send it once more.")
            if not refused.draft
            else _("Here is what you typed; it can be sent again when you have signed in."),
        )
    if refused.login:
        return (
            _("Signing in is paused"),
            _("The site is read-only while we work on it. You can read everything without signing in."),
            _("You were not signed in, and nothing was saved."),
            _("Please try again later."),
        )
    return (
        _("No changes right now"),
        _("The site is read-only while we work on it. You can go on reading everything."),
        _("What you just did was not saved."),
        _HINTS[refused.form](_),
    )


_HINTS: Final[Mapping[str, Callable[[Callable[[str], str]], str]]] = {
    "": lambda _: _("If you filled in a form, go back and keep a copy of what you typed; then send it again later."),
    "kept": lambda _: _("Here is what you typed; it can be sent again later."),
    "large": lambda _: _("It is too long to be shown here. Your browser still has it: go back, and send it later."),
    "files": lambda _: _("Forms with files are not read now. Your browser still has it: go back, and send it later."),
}


def draft_html(draft: Draft, catalog: Catalog = ENGLISH, *, script: str = "") -> str:
    """Return a form that holds what was typed, to be read, copied and sent again, as HTML.

    Args:
        draft: What was typed.
        catalog: In which language the rest of it is.
        script: The element that loads the script, or "".
    """
    _ = catalog.gettext
    hidden, shown = [], []
    for number, (name, value) in enumerate(draft.fields):
        token = is_token(name)
        mark = " data-readonly-token" if token else ""
        hidden.append(f'<input type="hidden" name="{_attribute(name)}" value="{_attribute(value)}"{mark}>')
        if value.strip() and not token:
            rows = min(12, max(1, value.count("\n") + 1, len(value) // 50))
            # A line end right after the tag is not part of the value.
            shown.append(
                f'<p><label for="f{number}">{html.escape(name)}</label>'
                f'<textarea id="f{number}" rows="{rows}" readonly dir="auto">\n{html.escape(value)}</textarea></p>'
            )
    left_out = ""
    if draft.left_out:
        said = _("Not kept: {names}.").format(names=", ".join(draft.left_out))
        left_out = f'<p class="out">{html.escape(said)}</p>'
    # What answers whoever is not signed in may be another page than the one with this text: it is opened beside it.
    ended = ' data-readonly-ended target="_blank"' if draft.ended else ""
    # (Not inside of what follows: there no tool finds them.)
    title, again, discard = (html.escape(text) for text in (_("What you typed"), _("Try again"), _("Discard")))
    return (
        f'<form class="draft" method="post" accept-charset="utf-8" data-readonly-draft="{draft.id}" '
        f'data-readonly-key="{draft.key}"{ended}>\n{"".join(hidden)}\n<h2>{title}</h2>\n'
        f"{''.join(shown)}\n{left_out}\n"
        '<p data-readonly-told role="status" aria-live="polite"></p>\n'
        f"<p><button>{again}</button>\n"
        f'<button type="button" class="plain" data-readonly-discard hidden>{discard}</button></p>\n'
        f"</form>\n{script}\n"
    )


def _attribute(text: str) -> str:
    # As a character a line end of one kind would become one of another.
    return html.escape(text).replace("\r", "&#13;").replace("\n", "&#10;")


def _when(refused: Refused, catalog: Catalog) -> str:
    _ = catalog.gettext
    if not refused.read_only:
        return html.escape(_("The site takes changes again."))
    end = refused.expected_end
    if end is None:
        return html.escape(_("We can’t say yet how long it takes. Please try again in a few minutes."))  # noqa: RUF001
    end = end.astimezone(UTC)
    shown = f'<time datetime="{end:%Y-%m-%dT%H:%M:%SZ}">{html.escape(moment(end, refused.now, catalog))}</time>'
    left = (end - refused.now).total_seconds()
    if left <= 0:
        return html.escape(_("This takes longer than planned. We had expected to be done by {end}.")).format(end=shown)
    soon = html.escape(_("any moment now"))
    about_left = f'<span id="left" data-soon="{soon}">{html.escape(about(left, catalog))}</span>'
    return html.escape(_("We expect to be done at {end}, {left}.")).format(end=shown, left=about_left)


def moment(end: datetime, now: datetime, catalog: Catalog = ENGLISH) -> str:
    """Return a moment as people say it, in UTC; with its day, if that is another one than today."""
    end = end.astimezone(UTC)
    _ = catalog.gettext
    if end.date() == now.astimezone(UTC).date():
        return _("{time} UTC").format(time=f"{end:%H:%M}")
    # The names of days and months are in every framework's own catalog, and in none of ours.
    return _("{weekday}, {day} {month}, {time} UTC").format(
        weekday=catalog.gettext(f"{end:%A}"), day=end.day, month=catalog.gettext(f"{end:%B}"), time=f"{end:%H:%M}"
    )


def about(seconds: float, catalog: Catalog = ENGLISH) -> str:
    """Return a time to come as people say it: `in about 40 minutes`."""
    ngettext = catalog.ngettext
    minutes = round(seconds / 60)
    if minutes <= 1:
        return catalog.gettext("in about a minute")
    if minutes < 90:
        return ngettext("in about {n} minute", "in about {n} minutes", minutes).format(n=minutes)
    hours = round(seconds / 3600)
    if hours < 36:
        return ngettext("in about {n} hour", "in about {n} hours", hours).format(n=hours)
    days = round(seconds / 86400)
    return ngettext("in about {n} day", "in about {n} days", days).format(n=days)


def _operator(text: str) -> str:
    if not text:
        return ""
    return (
        '<section class="operator"><p><strong>For whoever runs this site:</strong> '
        f"{html.escape(text)}</p>"
        "<p>A new site needs its first record: <code>readonlyctl init</code>. "
        "<code>readonlyctl status</code> says more.</p></section>\n"
    )
