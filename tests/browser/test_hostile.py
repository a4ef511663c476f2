"""The whole corpus in a real browser: whoever wrote it, a visitor or an operator, no script of it runs.

Without any Content-Security-Policy, so that it is the escaping that holds, and not a second lock behind it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

from playwright.sync_api import Dialog, Page, Request, expect

from readonly.record import Rehearsal
from readonly.rehearsal import Found
from readonly.rehearsal_counts import Numbers
from readonly.rehearsal_page import page as report
from support.hostile import HOSTILE, plant

from .site import Shop
from .test_drafts_kept import told, until, write

# In one text: what one opens, another one closes.
CORPUS = "\n".join(text for text in HOSTILE if len(text) < 1000)
SEEN = "</title><script>alert(1)</script>"


@contextmanager
def nothing_runs(page: Page, url: str) -> Iterator[None]:
    """Fail if a page opens a dialog, leads elsewhere, or asks another server for anything."""
    ran: list[str] = []

    def opened(dialog: Dialog) -> None:
        ran.append(dialog.message)
        dialog.dismiss()

    def asked(request: Request) -> None:
        if not request.url.startswith(url):
            ran.append(request.url)

    page.on("dialog", opened)
    page.on("request", asked)
    yield
    assert ran == []


def test_what_operators_wrote(serve: Callable[..., Shop], visit: Callable[..., Page]) -> None:
    """In the banner under an open page, in that of a new page, and in the page of a refusal."""
    shop = serve()
    page = visit(shop, bypass_csp=True)
    with nothing_runs(page, shop.url):
        plant(shop.switch, CORPUS)
        until(page, lambda: SEEN in page.locator("[data-readonly-banner]").inner_text())
        page.reload()
        expect(page.locator("[data-readonly-banner]")).to_contain_text(SEEN)
        write(page, "my words")
        page.get_by_role("button", name="Post").click()
        page.get_by_role("heading", name="What you typed").wait_for()
        expect(page.locator("body")).to_contain_text(SEEN)


def test_what_visitors_wrote(serve: Callable[..., Shop], visit: Callable[..., Page]) -> None:
    """Given back in the refused form, kept for the tab, and in the form again."""
    shop = serve()
    page = visit(shop, bypass_csp=True)
    # A field of a form holds no half of a character.
    typed = CORPUS.encode("utf-8", "replace").decode()
    with nothing_runs(page, shop.url):
        write(page, typed)
        shop.switch.on()
        page.get_by_role("button", name="Post").click()
        page.get_by_role("heading", name="What you typed").wait_for()
        expect(told(page)).to_contain_text("sent by itself")
        assert SEEN in page.locator("textarea").first.input_value()
        page.reload()


def test_the_report_of_a_rehearsal(serve: Callable[..., Shop], visit: Callable[..., Page]) -> None:
    """Routes, clients and tables come from visitors, the reason from an operator."""
    shop = serve()
    page = visit(shop, bypass_csp=True)
    now = datetime.now(UTC)
    made_up = Rehearsal("r1", CORPUS, now, now + timedelta(hours=1), host=CORPUS)
    numbers = Numbers()
    for text in (CORPUS, *HOSTILE):
        route = numbers.route(text)
        route.act, route.refused, route.families[text], route.tables[text] = text, 1, 1, text
        numbers.jobs[text] = numbers.unnamed[text] = 1
        numbers.outside[text] = text
    with nothing_runs(page, shop.url):
        page.set_content(report(CORPUS, Found(made_up, now, numbers, 1, (CORPUS,), going_on=True)))
        expect(page.locator("body")).to_contain_text(SEEN)
