"""The report of a rehearsal as somebody reads it who was sent the file: whole, readable, and asking for nothing."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from readonly.gate import ActKind
from readonly.record import Rehearsal
from readonly.rehearsal import Found
from readonly.rehearsal_advice import advice, lines
from readonly.rehearsal_counts import Numbers
from readonly.rehearsal_page import page as report

from .conftest import DESKTOP, PHONE
from .test_looks import faults

Shot = Callable[[Page, str], None]
BEGAN = datetime(2026, 5, 1, 12, tzinfo=UTC)


def found() -> Found:
    """Return what a rehearsal may find: a route to declare, a page that writes, work of a job, and who took no part."""
    numbers = Numbers(requests=4_812, signed_in=702)
    comment = numbers.route("POST /articles/{slug}/comments")
    comment.act, comment.refused, comment.families = ActKind.UNDECLARED, 31, {"browser": 29, "script": 2}
    article = numbers.route("GET /articles/{slug}")
    article.act, article.passed, article.wrote, article.asked = ActKind.READ, 4_700, 4_700, 4_700
    article.tables = {"main.page_view": "shop/queries/of_a_long_name/that_has_no_place_to_break.py:118 in count_view"}
    article.droppable, article.families = {"main.page_view": 4_700}, {"browser": 4_700}
    numbers.jobs["shop.tasks.send_newsletter"] = 12
    rehearsal = Rehearsal("r1", "ann", BEGAN, BEGAN + timedelta(hours=1), host="desk-1")
    return Found(rehearsal, BEGAN + timedelta(hours=1), numbers, 4, ("web-3 (pid 8) is silent.",), going_on=False)


@pytest.mark.parametrize(
    "options",
    [{"viewport": DESKTOP, "color_scheme": "light"}, {"viewport": PHONE, "color_scheme": "dark"}],
    ids=["desktop", "phone"],
)
def test_it_is_read_as_a_file(browser: Browser, shot: Shot, tmp_path: Path, options: dict[str, Any]) -> None:
    """With the lines to add, without a script or another file, and nothing wider than the screen."""
    file = tmp_path / "report.html"
    what = found()
    file.write_text(report("shop", what), encoding="utf-8")
    context = browser.new_context(**options, bypass_csp=True)  # axe-core is a script
    page = context.new_page()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(file.as_uri())
    shot(page, f"report-{options['color_scheme']}")
    assert lines(advice(what.numbers))
    for line in lines(advice(what.numbers)):
        expect(page.locator("pre")).to_contain_text(line.strip())
    expect(page.get_by_role("heading", name="Rehearsal of shop")).to_be_visible()
    expect(page.get_by_role("row", name="POST /articles/{slug}/comments").last).to_contain_text("31")
    expect(page.get_by_text("web-3 (pid 8) is silent.")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert page.locator("script").count() == 0
    assert asked == [file.as_uri()]
    assert faults(page) == []
    context.close()
