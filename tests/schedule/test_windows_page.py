"""docs/windows.md shows what the commands print: everything in it is typed again, in its order.

With READONLY_TEST_REWRITE=1 the page is written anew.
"""

from __future__ import annotations

import itertools
import os
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from readonly.members import host_name
from support.operating import Shop, made, members

PAGE = Path(__file__).parents[2] / "docs" / "windows.md"
URL = "sqlite:////srv/shop/readonly.db?site=shop"
# What differs with the day on which it is typed, and what is compared instead.
_VARIABLE = (
    (re.compile(r"\bs[0-9a-f]{4}(-\d{8}T\d{4})?\b"), "SCHEDULE"),
    (re.compile(r"\bw[0-9a-f]{6}\b"), "WINDOW"),
    (re.compile(r"\b20[^3]\d-\d\d-\d\d \d\d:\d\d( to \d\d:\d\d)?"), "THEN"),
    (re.compile(r"\bCES?T\b"), "CET"),
    (re.compile(r"\b\d\d:\d\d:\d\d UTC"), "HH:MM:SS UTC"),
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


def _typed(shop: Shop, page: str) -> Iterator[str]:
    """Yield the page's lines with what the commands print now."""
    inside = False
    code = 0
    for line in page.splitlines():
        if line.startswith("```"):
            inside = line == "```console"
            yield line
        elif inside and line == "$ echo $?":
            yield from (line, str(code))
        elif inside and line.startswith("$ "):
            typed = re.sub(r"\b(skip|cancel) \S+", lambda found: f"{found[1]} {_weekly(shop)}", line)
            done = shop.here(*shlex.split(typed)[2:])
            code = done.returncode
            yield typed
            said = (done.stdout or done.stderr).replace(shop.url, URL)
            yield from re.sub(rf"\b{re.escape(host_name())}\b", "web-1", said).splitlines()
        elif not inside:
            yield line


def test_the_page_shows_what_the_commands_print(tmp_path: Path) -> None:
    """Real output, up to ids and days."""
    shop = made(tmp_path / "shop.db")
    page = PAGE.read_text(encoding="utf-8")
    with members(shop, ("web", "web")):
        told = "\n".join(_typed(shop, page)) + "\n"
    shop.store.close()
    if os.environ.get("READONLY_TEST_REWRITE"):
        PAGE.write_text(told, encoding="utf-8")
    assert _same(told) == _same(page)


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
