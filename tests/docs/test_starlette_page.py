"""docs/starlette.md, typed from its first line to its last: the application of FastAPI's first steps, switched."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.starlette_settings import with_table
from support.typed_page import Page

PAGE = Path(__file__).resolve().parents[2] / "docs" / "starlette.md"
VARIABLE = [
    (r"\b(\d{4}-\d\d-\d\d )?\d\d:\d\d(:\d\d)? UTC", "HH:MM UTC"),
    (r"\b\d{4}-\d\d-\d\d(T\d\d:\d\d:\d\dZ)?\b", "INSTANT"),
    (r"\bc[0-9a-f]{8}\b", "CAUSE"),
    (r"after \d+(\.\d+)? s\b", "after SECONDS"),
    (r"^date: .*$", "date: INSTANT"),
    (r"(retry-after: |\"retry_after\": ?)\d+", "RETRY"),
    (r"\bin (2\d|30) min\b", "in 30 min"),
    (r"(readonly-mode )[\d.]+", r"\1VERSION"),
    (r"READ-ONLY for \d+ (s|min)\b", "READ-ONLY for SECONDS"),
    (r"content-length: \d+", "content-length: N"),
    # Who was there when it was asked, until everybody was.
    (r"(^  \d of 1 member there.*\n)+", "  ... members there\n"),
]
SHOWN = [(r"\b[\w.-]+@[\w.-]+(?=   since)", "ada@web-1")]


def test_the_settings_are_those_of_the_code() -> None:
    """Every argument with its default, and what its docstring says of it."""
    text = PAGE.read_text(encoding="utf-8")
    assert text == with_table(text), "write it anew: python -m tests.support.starlette_settings"


# On a machine that does much else it takes minutes.
@pytest.mark.timeout(900)
def test_the_page_as_it_is_typed(tmp_path: Path) -> None:
    """Install, init, on, a refused POST, a served GET, a refused login with its form, status, off, an ended session."""
    with Page(PAGE, tmp_path, shown=SHOWN, variable=VARIABLE) as page:
        page.check()
