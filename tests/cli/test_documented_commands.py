"""docs/commands.md shows what the commands print."""

from __future__ import annotations

import re
from pathlib import Path

from support import shown_page
from support.operating import Member, made

PAGE = Path(__file__).parents[2] / "docs" / "commands.md"
# What differs from run to run, and what the page has in its place.
_VARIABLE = (
    # The date stands before an instant that is not today's, as an hour before midnight the expected end is.
    (re.compile(r"\b(\d{4}-\d\d-\d\d )?\d\d:\d\d:\d\d UTC"), "HH:MM:SS UTC"),
    (re.compile(r"\b\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"), "INSTANT"),
    (re.compile(r"\bc[0-9a-f]{8}\b"), "CAUSE"),
    (re.compile(r"\b[0-9a-f]{32}\b"), "MEMBER"),
    (re.compile(r"web-1/\d+"), "web-1/PID"),
    (re.compile(r'"pid": \d+'), '"pid": PID'),
    (re.compile(r"\b\d+\.\d+ s\b"), "SECONDS"),
    (re.compile(r'"silent_seconds": [\d.]+'), '"silent_seconds": SECONDS'),
    (re.compile(r"(READ-ONLY for|NOT CONFIRMED after) \d+ s"), r"\1 SECONDS"),
    (re.compile(r"in 4[45] min"), "in 45 min"),
    (re.compile(r'(readonly-mode |"library": ")[\d.]+'), r"\1VERSION"),
)


def _same(text: str) -> str:
    for found, instead in _VARIABLE:
        text = found.sub(instead, text)
    # Progress comes once or twice, as the machine is fast or slow.
    return "\n".join(line for line in text.splitlines() if '"event": "progress"' not in line)


def test_the_page_shows_what_the_commands_print(tmp_path: Path) -> None:
    """Real output, up to instants, ids and ages."""
    shop = made(tmp_path / "shop.db", initialised=False)
    with Member(shop.url, "web") as first, Member(shop.url, "web") as second:
        first.starts()
        second.starts()

        def writes(line: str) -> None:
            if line.startswith("<!-- web: "):
                first.begins() if "begin" in line else first.tell("end")

        shown_page.check(PAGE, shop, _same, between=writes, after=lambda: shop.reports(2))
    shop.store.close()
