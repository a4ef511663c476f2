"""What hostile visitors and careless operators write, and what may not come of it.

`HOSTILE` is a plain list of texts, for whoever shows a text anywhere: a page, a header, a terminal, a log, a label.
"""

from __future__ import annotations

import html.parser
import unicodedata
from collections.abc import Collection
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Final

from readonly import Switch
from readonly.record import Cause, Window
from readonly.record_format import dump, load

from .waiting import eventually

# Each tries to become something else than text where it is shown.
HOSTILE: Final = (
    "<script>alert(1)</script>",
    "</title><script>alert(1)</script>",
    "</textarea><img src=x onerror=alert(1)>",
    "</script><script>alert(1)</script>",
    "<!--<script>-->alert(1)",
    "]]><x/><![CDATA[",
    '" onmouseover="alert(1)',
    "' autofocus onfocus='alert(1)",
    "` onclick=alert(1) `",
    "javascript:alert(1)",
    "&lt;script&gt;&#60;script&#62;&amp;",
    "<svg/onload=alert(1)>",
    '<a href="javascript:alert(1)">x</a>',
    "<base href=//evil.example>",
    "<meta http-equiv=refresh content=0;url=//evil.example>",
    "<style>*{display:none}</style>",
    "{{7*7}} {% debug %} ${7*7} #{7*7} %(x)s {0} {0.__class__} %s %n",
    "a\r\nX-Injected: 1\r\n\r\n<script>alert(1)</script>",
    "a\nSet-Cookie: session=stolen",
    "line one\nline two\rline three\x0bfour\x0cfive\x85six\u2028seven\u2029eight",
    "\x1b[31mred\x1b[0m \x1b]0;title\x07 \x1b[2J\x1b[H \x1b]8;;http://evil.example\x07link\x1b]8;;\x07",
    "\x9b31m \x90q\x9c \x9d0;title\x9c",
    "\x00\x01\x02\x07\x08\x7f",
    "over\b\b\b\bwritten",
    "\u202egnp.exe \u2066inside\u2069 \u200f\u200e\u061c",
    "zero\u200bwidth\u2060joined\ufeff",
    "\ud800\udfff \udcff lone",
    "\U0001d56c \U000e0041 \U0010ffff",
    "%0d%0aX-Injected:%201 %00 %3Cscript%3E",
    "+ADw-script+AD4-alert(1)+ADw-/script+AD4-",
    "[red]markup[/red] [link=http://evil.example]x[/link] [bold",
    'name="x",le="+Inf"} 1\nup{job="x"} 0',
    "=cmd|'/c calc'!A0",
    "$(reboot) `reboot` ; reboot # && reboot | reboot",
    "../../../etc/passwd",
    "x" * 10_000,
    "🏴‍☠️ é é ﷽ 𓀀",
    "",
    " ",
)

_OBEYED = ("Cc", "Cf", "Cs", "Co", "Zl", "Zp")


class _Elements(html.parser.HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, list[tuple[str, str | None]]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, attrs))


_FOREIGN: Final = frozenset({"script", "img", "svg", "base", "iframe", "object", "embed", "x", "debug"})


def elements(page: str) -> list[tuple[str, list[tuple[str, str | None]]]]:
    """Return the elements of a page, as a parser of HTML finds them."""
    parser = _Elements()
    parser.feed(page)
    parser.close()
    return parser.found


def assert_harmless_html(page: str, *, own: Collection[str] = ()) -> None:
    """Fail if a page has become more than it was meant to be.

    Args:
        page: The page.
        own: Elements that it has of its own, of those that it should not get from anybody else.
    """
    found = elements(page)
    for tag, attributes in found:
        assert tag in own or tag not in _FOREIGN, tag
        for name, value in attributes:
            assert not name.startswith("on"), (tag, name)
            # What a field holds is no address.
            assert name == "value" or not (value or "").strip().lower().startswith("javascript:"), (tag, name, value)
    assert not any(tag == "meta" and ("http-equiv", "refresh") in attributes for tag, attributes in found)
    # Written to a file or a socket, it is text.
    page.encode("utf-8", "strict")


def assert_harmless_line(line: str) -> None:
    """Fail unless a text is one line, of which a terminal or a log obeys nothing."""
    bad = [f"U+{ord(c):04X}" for c in line if unicodedata.category(c) in _OBEYED]
    assert not bad, bad


def assert_harmless_header(value: str) -> None:
    """Fail unless a header's value may be sent: by RFC 9110, section 5.5."""
    value.encode("latin-1")
    bad = [f"U+{ord(c):04X}" for c in value if (ord(c) < 0x20 and c != "\t") or ord(c) == 0x7F]
    assert not bad, bad


def plant(switch: Switch, *texts: str, announced: bool = False) -> None:
    """Put texts into the record of a new site, past all that checks them, and wait until the switch obeys it.

    Args:
        switch: Its switch.
        texts: What operators wrote; each is a cause's reason and message, and its operator's name.
        announced: As a window in a few minutes instead, which is announced.
    """
    now = datetime.now(UTC)
    soon, later = now + timedelta(minutes=9), now + timedelta(hours=1)
    reading = switch.store.read()
    assert reading.record is not None
    was = load(reading.record)
    causes = tuple(
        Cause(f"c{n}", "operator", text or "x", now, text, text, later, sessions="keep") for n, text in enumerate(texts)
    )
    windows = tuple(Window(f"w{n}", soon, later, text or "x", text, text) for n, text in enumerate(texts))
    record = replace(
        was, epoch=was.epoch + 1, id=f"planted-{was.epoch}",
        causes=() if announced else causes, windows=windows if announced else (),
    )  # fmt: skip
    assert switch.store.replace(dump(record), was=reading.record).record == dump(record)
    eventually(lambda: switch.look().epoch == record.epoch)
