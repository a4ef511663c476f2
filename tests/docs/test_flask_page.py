"""docs/flask.md, typed from its first line to its last, at the application of Flask's tutorial."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from support import flask_source, missing
from support.missing import ServerMissing
from support.typed_page import Page

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "flask.md"
# In its shape, for where Flask's own can't be had.
STAND_IN = ROOT / "tests" / "support" / "flask_tutorial" / "flaskr"
VARIABLE = [
    (r"\b(\d{4}-\d\d-\d\d )?\d\d:\d\d(:\d\d)? UTC", "HH:MM UTC"),
    (r"\b\d{4}-\d\d-\d\d(T\d\d:\d\d:\d\dZ)?\b", "INSTANT"),
    (r"\bc[0-9a-f]{8}\b", "CAUSE"),
    (r"\b\d+\.\d+ s\b", "SECONDS"),
    (r"^Date: .*$", "Date: INSTANT"),
    (r"^Server: .*$", "Server: NAME"),
    (r"(Retry-After: |\"retry_after\": ?)\d+", "RETRY"),
    (r"\bin (2\d|30) min\b", "in 30 min"),
    (r"READ-ONLY for \d+ (s|min)\b", "READ-ONLY for SECONDS"),
    (r"Content-Length: \d+", "Content-Length: N"),
    (r" by \S+@\S+", " by SOMEBODY"),
    # Who was there when it was asked, until everybody was.
    (r"(^  \d of 1 member there.*\n)+", "  ... members there\n"),
    (r"\S+/\d+: ", "HOST: "),
]


# On a machine that does much else it takes minutes.
@pytest.mark.timeout(900)
def test_the_page_as_it_is_typed(tmp_path: Path) -> None:
    """Install, init, on, a refused POST, a served GET, a refused login with its form, status, off, an ended session."""
    folder = tmp_path / "typed"
    tutorial = flask_source.tutorial(tmp_path) or STAND_IN
    shutil.copytree(tutorial, folder / "flaskr", ignore=shutil.ignore_patterns("__pycache__"))
    factory = folder / "flaskr" / "__init__.py"
    factory.write_text(patched(factory.read_text(encoding="utf-8"), PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    with Page(PAGE, folder, port=5000, variable=VARIABLE) as page:
        page.check()


def test_it_is_typed_at_flasks_own_tutorial(tmp_path: Path) -> None:
    """Its source package is there; and what stands in for it elsewhere takes the page's lines in the same places."""
    page = PAGE.read_text(encoding="utf-8")
    tutorial = flask_source.tutorial(tmp_path)
    if tutorial is None:
        raise missing.outcome(ServerMissing("flask-source", f"a source package in {flask_source.SOURCES}"))
    for package in (tutorial, STAND_IN):
        code = (package / "__init__.py").read_text(encoding="utf-8")
        added = set(patched(code, page).splitlines()) - set(code.splitlines())
        assert {line.strip().partition("=")[0] for line in added} >= {"readonly ", "READONLY_STORE", "READONLY_LOGIN"}


def patched(code: str, page: str) -> str:
    """Put the lines in that the page says, between those lines where it says so."""
    lines = code.splitlines()
    hunks = re.findall(r"```diff\n(.*?)```", page, re.DOTALL)
    assert len(hunks) == 3
    for hunk in hunks:
        shown = [line or " " for line in hunk.splitlines()]
        around = [line[1:] for line in shown if line[0] == " "]
        found = [
            start
            for start in range(len(lines))
            if [line.partition("  #")[0].rstrip() for line in lines[start : start + len(around)]] == around
        ]
        assert len(found) == 1, hunk
        position = found[0]
        for line in shown:
            if line[0] == "+":
                lines.insert(position, line[1:])
            position += 1
    return "\n".join(lines) + "\n"
