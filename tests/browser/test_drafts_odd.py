"""Forms as sites have them, browsers that forbid things, and visitors who go their own ways: once, and never lost."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import Error, Page, Request, Route, expect
from starlette.requests import Request as Asked
from starlette.responses import PlainTextResponse, Response

from support.waiting import eventually

from .site import Shop
from .test_drafts_kept import LONG, later, told, until

Serve = Callable[..., Shop]
Visit = Callable[..., Page]

TOKEN = '<input type="hidden" name="csrf_token" value="{token}">'
PLAIN = f'<form method="post" action="/comments">{TOKEN}<textarea name="text"></textarea><button>Send</button></form>'
# Where it goes, and that it posts at all, only its button says; which stands outside of it.
BUTTON = f"""
<form id="f" action="/elsewhere"><textarea name="text"></textarea>{TOKEN}</form>
<button form="f" formaction="/comments" formmethod="post" name="how" value="plain">Send</button>
"""
TWO = f"""
<form method="post" action="/comments">{TOKEN}<input type="hidden" name="n" value="1"><textarea name="text"></textarea>
<button>One</button></form>
<form method="post" action="/comments">{TOKEN}<input type="hidden" name="n" value="2"><textarea name="text"></textarea>
<select name="to" multiple><option>a</option><option selected>b</option></select>
<label><input type="checkbox" name="mail" value="yes" checked> mail</label><input name="elements"><button>Send</button>
</form>
"""
BLANK = f"""
<form method="post" action="/comments" target="_blank">{TOKEN}<textarea name="text"></textarea>
<input name="digits" autocomplete="cc-csc"><input type="password" name="zz"><button>Send</button></form>
"""


def refused(shop: Shop, page: Page, text: str = LONG) -> None:
    """Have what is typed into the last field refused."""
    page.locator("textarea").last.fill(text)
    if not shop.switch.state.read_only:
        shop.switch.on()
    page.get_by_role("button", name="Send").click()
    page.get_by_role("heading", name="What you typed").wait_for()


def kept(page: Page) -> Any:
    """Return what the browser keeps."""
    return page.evaluate("JSON.parse(sessionStorage.getItem('readonly.drafts') || '[]')")


def wait(page: Page) -> None:
    """Let some minutes pass, and what is asked in them be answered."""
    for _ in range(3):
        later(page, 60)
        # The page may be giving way to another one.
        eventually(lambda: page.evaluate("fetch('/style.css').then(() => true)"), ignoring=Error)


def settles(page: Page, shop: Shop, count: int = 1) -> None:
    """Expect so many comments, however long one waits."""
    until(page, lambda: len(shop.comments) >= count)
    wait(page)
    assert len(shop.comments) == count


def test_buttons_that_say_where(serve: Serve, visit: Visit) -> None:
    """A button's own address, method, name and value."""
    shop = serve(form=BUTTON)
    page = visit(shop)
    refused(shop, page)
    shop.switch.off()
    settles(page, shop)
    assert dict(shop.comments[0])["how"] == "plain"


def test_a_form_without_an_address(serve: Serve, visit: Visit) -> None:
    """It posts to its own page, as the admin's do: the page of the refusal has the address of the form's."""
    shop = serve(form=PLAIN.replace(' action="/comments"', "") + "<p>{list}</p>")
    page = visit(shop)
    refused(shop, page)
    shop.answer = lambda _request: PlainTextResponse("no", 422)
    shop.switch.off()
    until(page, lambda: "did not take it" in told(page).inner_text())
    told(page).get_by_role("link").click()
    expect(page.locator("textarea")).to_have_value(LONG)
    shop.answer = lambda _request: PlainTextResponse("thanks")
    refused(shop, page, LONG + "more")
    shop.switch.off()
    settles(page, shop, 2)
    expect(told(page)).to_contain_text("was sent")
    expect(page.locator("textarea")).to_have_value("")


def test_the_right_one_of_two_forms(serve: Serve, visit: Visit) -> None:
    """Which go to one place; what was not chosen is not chosen again, and what has no place any more is shown."""
    shop = serve(form=TWO)
    page = visit(shop)
    page.get_by_label("mail").uncheck()
    page.locator("select").select_option(["a", "b"])
    refused(shop, page)
    shop.form = TWO.replace("<option selected>b</option>", "<option>c</option>")
    page.route("**/comments", lambda route: route.fulfill(status=422, body="no"))
    shop.switch.off()
    until(page, lambda: "did not take it" in told(page).inner_text())
    told(page).get_by_role("link").click()
    expect(page.locator("textarea").last).to_have_value(LONG)
    expect(page.locator("textarea").first).to_have_value("")
    expect(page.get_by_label("mail")).not_to_be_checked()
    expect(page.locator("select")).to_have_values(["a"])
    expect(page.locator("pre", has_text=re.compile("^b$"))).to_be_visible()


@pytest.mark.parametrize("more", ["", " and more"])
def test_back_to_the_form(serve: Serve, visit: Visit, more: str) -> None:
    """They have it in hand again, change it or not, and send it: what was kept is not sent besides."""
    shop = serve(form=PLAIN)
    page = visit(shop)
    refused(shop, page)
    page.go_back()
    expect(page.locator("textarea")).to_have_value(LONG)
    expect(told(page)).to_contain_text("This is what you typed before")
    shop.switch.off()
    wait(page)
    page.locator("textarea").fill(LONG + more)
    assert shop.comments == []
    page.get_by_role("button").click()
    settles(page, shop)
    assert shop.texts() == [(LONG + more).replace("\n", "\r\n")]


def test_the_refusal_loaded_anew(serve: Serve, visit: Visit) -> None:
    """That sends the form, as browsers do: it has arrived by then, and the page says that it may have."""
    shop = serve(form=PLAIN)
    page = visit(shop, clock=False)
    refused(shop, page)
    page.reload()
    # It has asked how the site is, and asks again much later: what is sent is sent by the browser.
    expect(told(page)).to_contain_text("sent by itself")
    assert [draft["state"] for draft in kept(page)] == ["kept"]
    shop.switch.off()
    page.reload()
    expect(told(page)).to_contain_text("it may have arrived")
    assert [draft["state"] for draft in kept(page)] == ["unsure"]
    assert len(shop.comments) == 1


def test_a_script_that_is_loaded_twice(serve: Serve, visit: Visit) -> None:
    """By a site's layout, and with what was typed: it does everything once, and says what came of it."""
    shop = serve(form=PLAIN + "{list}")
    page = visit(shop)
    src = page.locator("script[src]").get_attribute("src")
    shop.form += f'<script src="{src}" defer></script>'
    refused(shop, page)
    page.goto(shop.url)
    shop.answer = lambda _request: PlainTextResponse("no", 500)
    shop.switch.off()
    settles(page, shop)
    expect(told(page)).to_contain_text("it may have arrived")
    assert page.locator("[data-readonly-banner]").count() == 1


FORBIDDEN = "Object.defineProperty(window, '{}', {{ get() {{ throw new DOMException('no', 'SecurityError'); }} }})"


@pytest.mark.parametrize("what", ["localStorage", "sessionStorage", "a day"])
def test_the_button_sends_it_where_nothing_can_be_kept(serve: Serve, visit: Visit, what: str) -> None:
    """A browser that keeps nothing, or no longer: it is still in the page, and a click sends it, once."""
    shop = serve(form=PLAIN)
    page = visit(shop, script=FORBIDDEN.format(what) if "Storage" in what else "")
    refused(shop, page)
    if what == "a day":
        later(page, 25 * 3600)
    shop.switch.off()
    wait(page)
    assert shop.comments == []
    page.get_by_role("button", name="Try again").click()
    settles(page, shop)


def test_a_press_while_it_is_being_sent_by_itself(serve: Serve, visit: Visit) -> None:
    """It is not lost, where that comes to nothing."""
    shop = serve(form=PLAIN)
    page = visit(shop, script=FORBIDDEN.format("localStorage"))
    refused(shop, page)
    held: list[Route] = []
    page.route(shop.url + "/", lambda route: route.continue_() if held else held.append(route))
    shop.switch.off()
    until(page, lambda: held)
    page.get_by_role("button", name="Try again").click()
    held[0].continue_()
    settles(page, shop)


def test_the_form_is_gone(serve: Serve, visit: Visit) -> None:
    """Nobody is told to log in, its page is not asked for again and again, and what was typed can be copied."""
    shop = serve(form=PLAIN)
    page = visit(shop)
    refused(shop, page)
    shop.gone = True
    asked: list[str] = []

    def note(request: Request) -> None:
        if request.url == f"{shop.url}/":
            asked.append(request.url)

    page.on("request", note)
    shop.switch.off()
    until(page, lambda: "no such form any more" in told(page).inner_text())
    wait(page)
    assert len(asked) == 1
    told(page).get_by_role("link").click()
    expect(told(page)).to_contain_text("no such form any more")
    page.get_by_text("What you typed", exact=True).click()
    expect(page.locator("pre")).to_have_text(LONG)
    page.get_by_role("button", name="Discard").click()
    expect(told(page)).to_have_count(0)
    assert kept(page) == []


def test_a_form_that_opens_another_tab(serve: Serve, visit: Visit) -> None:
    """Which knows nothing of the form: before anything is kept its page is asked what nobody may keep."""
    shop = serve(form=BLANK)
    page = visit(shop)
    page.locator("[name=digits]").fill("csc-987")
    page.locator("[name=zz]").fill("hush")
    page.locator("textarea").fill(LONG)
    shop.switch.on()
    with page.context.expect_page() as opened:
        page.get_by_role("button").click()
    tab = opened.value
    expect(told(tab)).to_contain_text("sent by itself")
    everything = tab.evaluate("JSON.stringify([{ ...sessionStorage }, { ...localStorage }])") + tab.content()
    assert "csc-987" not in everything
    assert "hush" not in everything
    assert [draft["state"] for draft in kept(tab)] == ["kept"]


def test_two_texts_are_told_apart_and_sent_in_turn(serve: Serve, visit: Visit) -> None:
    """Each has a place of its own; what has been said is not read out again; each fetches a token of its own."""
    shop = serve(form=PLAIN)
    page = visit(shop)
    refused(shop, page)
    page.goto(shop.url)
    refused(shop, page, "another")
    page.goto(f"{shop.url}/login")
    expect(told(page)).to_have_count(2)
    expect(told(page).last).to_contain_text("sent by itself")
    page.evaluate(
        "() => { window.changes = 0; for (const told of document.querySelectorAll('[data-readonly-told]'))"
        " new MutationObserver(() => window.changes++).observe(told, { childList: true }); }"
    )
    wait(page)
    assert page.evaluate("window.changes") == 0
    shop.switch.off()
    settles(page, shop, 2)
    assert {text[:4] for text in shop.texts()} == {"Dear", "anot"}


def test_nobody_knows_in_any_tab(serve: Serve, visit: Visit) -> None:
    """Where one tab has sent it and does not know what came of it, another one does not say that it has arrived."""
    shop = serve(form=PLAIN)
    page = visit(shop)
    other = page.context.new_page()
    other.clock.install()
    other.goto(shop.url)
    for tab in (page, other):
        refused(shop, tab)
    there = threading.Event()

    def fail(_request: Asked) -> Response:
        there.set()
        return PlainTextResponse("no", 500)

    shop.answer = fail
    shop.switch.off()
    until(page, there.is_set)
    expect(told(page)).to_contain_text("it may have arrived")
    until(other, lambda: "it may have arrived" in told(other).inner_text())
    assert [draft["state"] for tab in (page, other) for draft in kept(tab)] == ["unsure", "unsure"]
    assert len(shop.comments) == 1


def test_a_request_of_a_script_beside_a_form(serve: Serve, visit: Visit) -> None:
    """Which goes to the same place: it fits into no form, and the banner goes on."""
    shop = serve(form=PLAIN)
    page = visit(shop)
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    shop.switch.on()
    body = "{ method: 'POST', body: '{\"a\": 1}', headers: { 'Content-Type': 'application/json' } }"
    page.evaluate(f"readOnlyMode.fetch('/comments', {body}).then(response => response.status)")
    shop.switch.off()
    until(page, lambda: [draft["state"] for draft in kept(page)] == ["refused"])
    page.reload()
    expect(told(page)).to_contain_text("was not sent")
    page.get_by_text("What you typed", exact=True).click()
    expect(page.locator("pre")).to_have_text('{"a": 1}')
    shop.switch.on()
    until(page, lambda: page.get_by_text("The site is read-only").count())
    assert errors == []
