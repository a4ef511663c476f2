"""docs/windows.md shows what the commands print, and what is planned from code."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import Any

import pytest

from support import shown_page
from support.operating import Shop, made, members

PAGE = Path(__file__).parents[2] / "docs" / "windows.md"
# What differs with the day on which it is typed, and what is compared instead.
_VARIABLE = (
    (re.compile(r"\bs[0-9a-f]{4}(-\d{8}T\d{4})?\b"), "SCHEDULE"),
    (re.compile(r"\bw[0-9a-f]{6}\b"), "WINDOW"),
    # The date stands before an instant that is not today's.
    (re.compile(r"\b(\d{4}-\d\d-\d\d )?\d\d:\d\d:\d\d UTC"), "HH:MM:SS UTC"),
    (re.compile(r"\b20[^3]\d-\d\d-\d\d \d\d:\d\d( to \d\d:\d\d)?"), "THEN"),
    (re.compile(r"\bCES?T\b"), "CET"),
    (re.compile(r"in \d+ (d|h|min|s)( \d+ (h|min))?"), "in A WHILE"),
)


def _same(text: str) -> str:
    # Marked ones are among the next ones in some months only.
    lines = [line for line in text.splitlines() if not re.search(r"   (gap|fold): the clocks", line)]
    text = "\n".join(lines)
    for found, instead in _VARIABLE:
        text = found.sub(instead, text)
    # How many are left unmarked differs, too; they look the same by now.
    return "\n".join(line for line, _ in itertools.groupby(text.splitlines()))


def _weekly(shop: Shop) -> str:
    record = shop.look().record
    return record.schedules[0].id if record is not None and record.schedules else "?"


def test_the_page_shows_what_the_commands_print(tmp_path: Path) -> None:
    """Real output, up to ids and days."""
    shop = made(tmp_path / "shop.db")

    def of_now(line: str) -> str:
        return re.sub(r"\b(skip|cancel) \S+", lambda found: f"{found[1]} {_weekly(shop)}", line)

    with members(shop, ("web", "web")):
        shown_page.check(PAGE, shop, _same, said_to=of_now)
    shop.store.close()


def test_the_sample_runs(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """As it stands there."""
    (sample,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    monkeypatch.setenv("READONLY_STORE", shop.url)
    made_here: dict[str, Any] = {}
    exec(compile(sample, str(PAGE), "exec"), made_here)
    made_here["switch"].close()
    record = shop.look().record
    assert record is not None
    assert [f"{w.start}" for w in record.windows] == re.findall(r"# (20.*)", sample)
