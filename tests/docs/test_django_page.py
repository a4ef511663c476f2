"""docs/django.md, typed from its first line to its last, at a project as `startproject` makes it, under gunicorn."""

from __future__ import annotations

from pathlib import Path

import gunicorn.config
import pytest

from readonly.members import Report
from readonly.stores import store_from_url
from readonly_django import conf
from support.typed_page import Page

PAGE = Path(__file__).resolve().parents[2] / "docs" / "django.md"
VARIABLE = [
    (r"\b(\d{4}-\d\d-\d\d )?\d\d:\d\d(:\d\d)? UTC", "HH:MM UTC"),
    (r"\b\d{4}-\d\d-\d\d(T\d\d:\d\d:\d\dZ)?\b", "INSTANT"),
    (r"\bc[0-9a-f]{8}\b", "CAUSE"),
    (r"\b\d+\.\d+ s\b", "SECONDS"),
    (r"^Date: .*$", "Date: INSTANT"),
    (r"(Retry-After: |\"retry_after\": ?)\d+", "RETRY"),
    (r"\bin (2\d|30) min\b", "in 30 min"),
    (r"READ-ONLY for \d+ (s|min)\b", "READ-ONLY for SECONDS"),
    (r"(readonly-mode )[\d.]+", r"\1VERSION"),
    (r"Content-Length: \d+", "Content-Length: N"),
    # A command that has just ended may still be counted among those that were there.
    (r"last seen \d+ (s|min) ago(, \d+ then)?", "last seen SECONDS ago"),
    # Who was there when it was asked, until everybody was.
    (r"(^  \d of 2 members there.*\n)+", "  ... members there\n"),
]
SHOWN = [(r"\b[\w.-]+@[\w.-]+(?=   since)", "ada@web-1")]


# On a machine that does much else it takes minutes.
@pytest.mark.timeout(900)
def test_the_page_as_it_is_typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Install, init, on, a refused POST, a served GET, a refused login with its form, status, off, an ended session."""
    if hasattr(gunicorn.config, "ControlSocketDisable"):
        # Two servers of one user would share one.
        monkeypatch.setenv("GUNICORN_CMD_ARGS", "--no-control-socket")
    store = f"sqlite:///{tmp_path}/readonly.sqlite3?site=shop"

    def there(_port: int) -> bool:
        """Tell whether both workers have said that they are there: each by itself, with nobody asking."""
        reports = store_from_url(store, create=False).census().reports
        return [Report.load(seen.member, seen.report).role for seen in reports].count("web") == 2

    with Page(PAGE, tmp_path, shown=SHOWN, variable=VARIABLE, ready=there) as page:
        page.check()


def test_the_settings_are_those_of_the_code() -> None:
    """Names, defaults and texts come from the table that the settings are read by."""
    assert f"<!-- settings -->\n{conf.table()}<!-- /settings -->" in PAGE.read_text(encoding="utf-8")
