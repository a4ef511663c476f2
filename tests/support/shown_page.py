"""A page that shows what commands print: everything in it is typed again, in its order, in this process.

With READONLY_TEST_REWRITE=1 the page is written anew.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path

from readonly.processes import host_name
from support.operating import Shop

URL = "sqlite:////srv/shop/readonly.db?site=shop"


def check(
    path: Path,
    shop: Shop,
    same: Callable[[str], str],
    *,
    said_to: Callable[[str], str] = lambda line: line,
    between: Callable[[str], None] = lambda line: None,
    after: Callable[[], object] = lambda: None,
) -> None:
    """Type a page; it must show what is printed.

    Args:
        path: The page.
        shop: The site that it is typed at.
        same: Takes out of a text what differs from run to run.
        said_to: Turns a command as the page has it into what is typed here, and shown.
        between: Told each line outside of blocks.
        after: Called when a command has ended.
    """
    page = path.read_text(encoding="utf-8")
    told = "\n".join(_typed(shop, page, said_to, between, after)) + "\n"
    if os.environ.get("READONLY_TEST_REWRITE"):
        path.write_text(told, encoding="utf-8")
    assert same(told) == same(page)


def _typed(
    shop: Shop,
    page: str,
    said_to: Callable[[str], str],
    between: Callable[[str], None],
    after: Callable[[], object],
) -> Iterator[str]:
    inside = False
    code = 0
    for line in page.splitlines():
        if line.startswith("```"):
            inside = line == "```console"
            yield line
        elif not inside:
            between(line)
            yield line
        elif line == "$ echo $?":
            yield from (line, str(code))
        elif line.startswith("$ "):
            typed = said_to(line)
            done = shop.here(*shlex.split(typed)[2:])
            code = done.returncode
            after()
            yield typed
            said = (done.stdout or done.stderr).replace(shop.url, URL)
            yield from re.sub(rf"\b{re.escape(host_name())}\b", "web-1", said).splitlines()
