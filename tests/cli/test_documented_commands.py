"""docs/commands.md shows what the commands print: everything in it is typed again, in its order.

With READONLY_TEST_REWRITE=1 the page is written anew.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

from readonly.members import host_name
from support.operating import Member, Shop, made

PAGE = Path(__file__).parents[2] / "docs" / "commands.md"
URL = "sqlite:////srv/shop/readonly.db?site=shop"
# What differs from run to run, and what the page has in its place.
_VARIABLE = (
    (re.compile(r"\b\d\d:\d\d:\d\d UTC"), "HH:MM:SS UTC"),
    (re.compile(r"\b\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"), "INSTANT"),
    (re.compile(r"\bc[0-9a-f]{8}\b"), "CAUSE"),
    (re.compile(r"\b[0-9a-f]{32}\b"), "MEMBER"),
    (re.compile(r"web-1/\d+"), "web-1/PID"),
    (re.compile(r'"pid": \d+'), '"pid": PID'),
    (re.compile(r"\b\d+\.\d+ s\b"), "SECONDS"),
    (re.compile(r'"silent_seconds": [\d.]+'), '"silent_seconds": SECONDS'),
    (re.compile(r"READ-ONLY for \d+ s"), "READ-ONLY for SECONDS"),
    (re.compile(r"in 4[45] min"), "in 45 min"),
    (re.compile(r'(readonly-mode |"library": ")[\d.]+'), r"\1VERSION"),
)


def _same(text: str) -> str:
    for found, instead in _VARIABLE:
        text = found.sub(instead, text)
    # Progress comes once or twice, as the machine is fast or slow.
    return "\n".join(line for line in text.splitlines() if '"event": "progress"' not in line)


def _typed(shop: Shop, web: list[Member], page: str) -> Iterator[str]:
    """Yield the page's lines with what the commands print now."""
    inside = False
    code = 0
    for line in page.splitlines():
        if line.startswith("```"):
            inside = line == "```console"
            yield line
        elif line.startswith("<!-- web: "):
            web[0].begins() if "begin" in line else web[0].tell("end")
            yield line
        elif inside and line == "$ echo $?":
            yield from (line, str(code))
        elif inside and line.startswith("$ "):
            done = shop.here(*shlex.split(line)[2:])
            code = done.returncode
            shop.reports(len(web))
            yield line
            said = (done.stdout or done.stderr).replace(shop.url, URL)
            yield from re.sub(rf"\b{re.escape(host_name())}\b", "web-1", said).splitlines()
        elif not inside:
            yield line


def test_the_page_shows_what_the_commands_print(tmp_path: Path) -> None:
    """Real output, up to instants, ids and ages."""
    old = made(tmp_path / "shop.db", initialised=False)
    page = PAGE.read_text()
    with Member(old.url, "web") as first, Member(old.url, "web") as second:
        first.starts()
        second.starts()
        told = "\n".join(_typed(old, [first, second], page)) + "\n"
    old.store.close()
    if os.environ.get("READONLY_TEST_REWRITE"):
        PAGE.write_text(told)
    assert _same(told) == _same(page)
