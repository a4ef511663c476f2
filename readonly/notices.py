"""What a site says to its visitors while it can still be used: a window that comes, read-only time, a bypass.

One sentence or two, for a banner that a page carries and for the status route; which of them it is depends on the state
and on who asks. Pages are told nothing that visitors may not know.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final
from urllib.parse import quote

from .bypass import Bypasses
from .pages import ENGLISH, Catalog, direction, moment
from .rejection import HeaderList, rfc3339
from .rules import Facts
from .script import SCRIPT_PATH
from .state import sendable
from .switch import Switch

# On responses of a writable site that will not stay so: when it begins. When it is to be over says X-Read-Only-Until.
FROM_HEADER: Final = "X-Read-Only-From"


class Kind(StrEnum):
    """Which of the things that there are to say."""

    ANNOUNCED = "announced"
    READ_ONLY = "read_only"
    BYPASS = "bypass"


@dataclass(frozen=True, slots=True)
class Notice:
    """What there is to say to one visitor.

    Attributes:
        kind: A window that comes; read-only; or read-only, but not for the one who asks.
        message: What the operator wrote for visitors, else "". Plain text: escape it.
        begins: When the window begins, UTC; None once it is read-only.
        ends: When it is expected to be over, UTC; of a bypass, when that runs out; None if nobody said.
    """

    kind: Kind
    message: str
    begins: datetime | None
    ends: datetime | None

    @property
    def read_only(self) -> bool:
        """Whether writes of this visitor are refused now."""
        return self.kind is Kind.READ_ONLY


class Notices:
    """Finds what there is to say. Any thread may use it; no I/O, but for the switch's first use."""

    def __init__(self, switch: Switch) -> None:
        self._switch = switch
        self._bypasses = Bypasses(switch.latest)

    def of(self, facts: Facts | None = None, cookies: Sequence[str] = ()) -> Notice | None:
        """Return what there is to say, or None.

        Args:
            facts: The request, by whose headers a bypass is known; None: nobody's.
            cookies: Each value of its Cookie header.
        """
        state = self._switch.view.state
        if not state.read_only:
            window = self._switch.view.announced
            if window is None:
                return None
            message = sendable(window.message)
            return Notice(Kind.ANNOUNCED, message, window.start, window.end or window.expected_end)
        if facts is not None:
            held = self._bypasses.held(facts, cookies, state)
            if held:
                return Notice(Kind.BYPASS, "", None, held[0].bypass.until)
        return Notice(Kind.READ_ONLY, state.message, None, state.expected_end)


def script_tag(mount: str = "") -> str:
    """Return the element that loads the script, as HTML.

    Args:
        mount: Path of the application that the library's routes are mounted in, such as SCRIPT_NAME.
    """
    # A path that began with two slashes would name another host, and part of it may be the visitor's ("/<tenant>/").
    below = quote(mount.strip("/"), errors="replace")
    path = f"/{below}{SCRIPT_PATH}" if below else SCRIPT_PATH
    return f'<script src="{html.escape(path)}" defer></script>'


def announcement_headers(switch: Switch) -> HeaderList:
    """Return what every response carries while a window is announced; nothing else."""
    window = switch.view.announced
    if window is None:
        return []
    ends = window.end or window.expected_end
    return [(FROM_HEADER, rfc3339(window.start)), *([("X-Read-Only-Until", rfc3339(ends))] if ends is not None else [])]


def sentences(notice: Notice, catalog: Catalog = ENGLISH, *, now: datetime | None = None) -> list[str]:
    """Return what is said, in plain text; `{begins}` and `{ends}` stand where the times belong.

    Args:
        notice: What there is to say.
        catalog: In which language.
        now: The time, timezone-aware; None: now.
    """
    _ = catalog.gettext
    now = now or datetime.now(UTC)
    said: list[str] = []
    if notice.kind is Kind.BYPASS:
        return [_("You may write until {ends}; for everybody else the site is read-only.")]
    if notice.kind is Kind.ANNOUNCED:
        if notice.ends is not None:
            said.append(_("From {begins} to {ends} you can read everything here and change nothing."))
        else:
            said.append(_("From {begins} on you can read everything here and change nothing for a while."))
        said.append(notice.message.replace("{", "{{").replace("}", "}}") or _("Save what you are working on before."))
        return said
    said.append(
        notice.message.replace("{", "{{").replace("}", "}}")
        or _("The site is read-only while we work on it. You can go on reading everything.")
    )
    if notice.ends is not None:
        overdue = notice.ends <= now
        said.append(_("This takes longer than planned.") if overdue else _("We expect to be done at {ends}."))
    return said


def banner(
    notice: Notice | None, catalog: Catalog = ENGLISH, language: str = "en", *, now: datetime | None = None
) -> str:
    """Return the banner as HTML, everything in it escaped; "" where there is nothing to say.

    Its times are in UTC; the script shows them by the visitor's clock.
    """
    if notice is None:
        return ""
    now = now or datetime.now(UTC)
    times = {
        name: f'<time datetime="{rfc3339(at)}">{html.escape(moment(at, now, catalog))}</time>'
        for name, at in (("begins", notice.begins), ("ends", notice.ends))
        if at is not None
    }
    lines = "\n".join(
        f'<p dir="auto">{html.escape(sendable(line)).format(**times)}</p>'
        for line in sentences(notice, catalog, now=now)
    )
    return (
        f'<div class="readonly-banner" role="status" data-readonly-banner="{notice.kind}" '
        f'lang="{html.escape(language)}" dir="{direction(language)}">\n{lines}\n</div>'
    )
