"""What somebody types is there exactly once when the site takes changes again; or they are told what became of it."""

from __future__ import annotations

import html
import re
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from playwright.sync_api import Dialog, Error, Page, Route, expect
from starlette.requests import Request

from readonly import SessionCookie
from support.waiting import eventually

from .conftest import PHONE
from .site import Shop, signed_in_at

Serve = Callable[..., Shop]
Visit = Callable[..., Page]
Shot = Callable[[Page, str], None]

LONG = 'Dear all,\n\n  <b>this</b> took me "half" an hour: Žluťoučký kůň 🐎 &amp; so on.\n' + "More of it. " * 60
SESSION = [SessionCookie("session", issued_at=signed_in_at)]


def later(page: Page, seconds: float) -> None:
    """Let time pass in a page."""
    page.clock.fast_forward(int(seconds * 1000))


def until(page: Page, what: Callable[[], object]) -> None:
    """Let time pass in a page until something is so, and none after that."""

    def once() -> object:
        found = what()
        if not found:
            later(page, 20)
        return found

    eventually(once, timeout=20, poll_seconds=0.03)


# But for the comment: of the last one nothing but the form says what it is.
FIELDS = [("tag", "b"), ("tag", "a"), ("password", "hush-hush"), ("number", "4111111111111111"), ("digits", "csc-987")]
TYPE = """(all, fields) => {
  for (const [name, value] of fields) [...all].find(field => field.name === name && !field.value).value = value;
}"""


def write(page: Page, text: str = LONG) -> None:
    """Fill the form in."""
    page.get_by_label("Comment").fill(text)
    # To fill each by itself takes longer than the rest of a test.
    page.locator("form input").evaluate_all(TYPE, FIELDS)


def refused(shop: Shop, page: Page, text: str = LONG, **on: Any) -> None:
    """Have it refused: the site turns read-only before they press send."""
    write(page, text)
    shop.switch.on(**on)
    page.get_by_role("button", name="Post").click()
    page.get_by_role("heading", name="What you typed").wait_for()


def arrived(shop: Shop, page: Page, text: str = LONG) -> None:
    """Expect it to arrive once, whole."""
    until(page, lambda: shop.comments)
    assert shop.texts() == [text.replace("\n", "\r\n")]
    assert [value for name, value in shop.comments[0] if name == "tag"] == ["b", "a"]


def told(page: Page) -> Any:
    """Return where a page says what became of it."""
    return page.locator("[data-readonly-told]")


def secrets_in(page: Page) -> list[str]:
    """Return what surrounds each secret that is in the page, or in what the browser keeps for it."""
    kept = page.evaluate(
        "JSON.stringify([{ ...sessionStorage }, { ...localStorage }, document.documentElement.outerHTML])"
    )
    # Whole: four digits of a card come along by chance in tokens, ids and times.
    typed = "|".join(re.escape(value) for name, value in FIELDS if name != "tag")
    return re.findall(f".{{0,80}}(?:{typed}).{{0,80}}", kept)


def test_through_a_whole_window(serve: Serve, visit: Visit, shot: Shot) -> None:
    """Nobody has to log in: it is sent by itself, once, with a token that is valid by then."""
    shop = serve()
    page = visit(shop)
    refused(shop, page, message="New shelves. Back soon.", expected=timedelta(minutes=40))
    expect(page.locator("textarea").first).to_have_value(LONG)
    expect(told(page)).to_contain_text("sent by itself as soon as changes are possible")
    assert not secrets_in(page)
    assert "csrf" not in page.evaluate("JSON.stringify({ ...sessionStorage })")
    shot(page, "draft-desktop")
    later(page, 600)
    assert shop.comments == []
    shop.switch.off()
    arrived(shop, page)
    page.wait_for_url(f"{shop.url}/")
    expect(page.get_by_role("listitem")).to_have_count(1)
    assert shop.keys[0] is not None
    expect(told(page)).to_contain_text("was sent")
    assert page.evaluate("sessionStorage.getItem('readonly.drafts')") is None
    later(page, 600)
    assert len(shop.comments) == 1


def test_a_suspended_session(serve: Serve, visit: Visit) -> None:
    """It comes back, and so the text is sent by itself in its name."""
    shop = serve(login=True, session_cookies=SESSION, sessions="suspend")
    page = visit(shop, "/login")
    page.get_by_role("button").click()
    refused(shop, page)
    shop.switch.off()
    arrived(shop, page)
    page.wait_for_url(f"{shop.url}/")


def test_an_ended_session_wants_one_click(serve: Serve, visit: Visit, shot: Shot) -> None:
    """Log in again, then the form is filled in, and waits."""
    shop = serve(login=True, session_cookies=SESSION)
    page = visit(shop, "/login", viewport=PHONE)
    page.get_by_role("button").click()
    refused(shop, page)
    shop.switch.off()
    until(page, lambda: "log in again, then send it" in told(page).inner_text())
    shot(page, "draft-ended-phone")
    assert shop.comments == []
    told(page).get_by_role("link", name="Log in again").click()
    page.wait_for_url(f"{shop.url}/login")
    page.get_by_label("Password").fill("x")
    page.get_by_role("button", name="Log in").click()
    page.wait_for_url(f"{shop.url}/")
    expect(page.get_by_label("Comment")).to_have_value(LONG)
    expect(page.get_by_label("Another")).to_have_value("a")
    expect(page.get_by_label("Password")).to_have_value("")
    expect(told(page)).to_contain_text("This is what you typed before")
    shot(page, "draft-filled-phone")
    later(page, 600)
    assert shop.comments == []
    page.get_by_role("button", name="Post").click()
    arrived(shop, page)
    expect(page.get_by_label("Comment")).to_have_value("")
    # Said once, with the text; and kept no longer.
    expect(told(page)).to_contain_text("was sent")
    assert page.evaluate("sessionStorage.getItem('readonly.drafts')") is None


@pytest.mark.parametrize("script", [True, False], ids=["script", "no script"])
@pytest.mark.parametrize("noticed", [True, False], ids=["cookie gone", "cookie there"])
def test_a_form_from_before_that_is_sent_after(
    serve: Serve, visit: Visit, monkeypatch: pytest.MonkeyPatch, script: bool, noticed: bool
) -> None:
    """The site was read-only in between, and has signed them out: the text is there, and waits for them.

    Another tab of theirs may have read pages meanwhile; by that the browser has lost the session's cookie.
    """
    monkeypatch.setattr("readonly.sessions.GRACE", timedelta(0))
    shop = serve(login=True, session_cookies=SESSION)
    page = visit(shop, "/login", java_script_enabled=script)
    page.get_by_role("button").click()
    write(page)
    shop.switch.on()
    if noticed:
        other = page.context.new_page()
        other.goto(shop.url)
        assert "session" not in {cookie["name"] for cookie in page.context.cookies()}
        other.close()
    shop.switch.off()
    page.get_by_role("button", name="Post").click()
    expect(page.get_by_role("heading", name="You have been signed out")).to_be_visible()
    expect(page.locator("textarea").first).to_have_value(LONG)
    assert shop.comments == []
    if script:
        assert not secrets_in(page)
        later(page, 20)
        told(page).get_by_role("link", name="Log in again").click()
        page.get_by_role("button", name="Log in").click()
        expect(page.get_by_label("Comment")).to_have_value(LONG)
        later(page, 600)
        assert shop.comments == []
        page.get_by_role("button", name="Post").click()
        page.wait_for_url(f"{shop.url}/")
    else:
        # Sent all the same it asks who they are, beside the page with the text. A form's token is good for one login,
        # and without a script nobody has a new one: the text is copied.
        with page.context.expect_page() as opened:
            page.get_by_role("button", name="Try again").click()
        beside = opened.value
        beside.get_by_role("button", name="Log in").click()
        beside.wait_for_url(f"{shop.url}/")
        write(beside, page.locator("textarea").first.input_value())
        beside.get_by_role("button", name="Post").click()
        beside.wait_for_url(f"{shop.url}/")
    arrived(shop, page)


def test_two_tabs_send_it_once(serve: Serve, visit: Visit) -> None:
    """The lock is the browser's, not the tab's."""
    shop = serve()
    page = visit(shop)
    other = page.context.new_page()
    other.goto(shop.url)
    for tab in (page, other):
        write(tab)
    shop.switch.on()
    for tab in (page, other):
        tab.get_by_role("button", name="Post").click()
        expect(told(tab)).to_contain_text("sent by itself")
    held: list[Route] = []
    page.context.route("**/comments", lambda route: held.append(route))
    shop.switch.off()
    # One sends it, and the other one waits for its turn. From then on time is not put forward: when its turn comes, it
    # gives the browser a moment to tell it what the first one has stored.
    waiting = "navigator.locks.query().then(locks => locks.pending.length)"
    until(page, lambda: held and page.evaluate(waiting))
    held[0].continue_()
    eventually(lambda: shop.comments)
    arrived(shop, page)
    # One of them has sent it, and shows what came of it; the other one says so.
    home = f"{shop.url}/"

    def at_home() -> list[Page]:
        return [tab for tab in (page, other) if tab.evaluate("location.href") == home]

    eventually(at_home, ignoring=Error)
    for tab in (page, other):
        tab.wait_for_load_state()
        if tab not in at_home():
            expect(told(tab)).to_contain_text("sent from another tab")
        later(tab, 600)
    assert len(held) == len(shop.comments) == 1


def test_without_javascript_it_is_one_click(serve: Serve, visit: Visit, shot: Shot) -> None:
    """Plain HTML, with the token as it was: the form is the very one that was sent, but for what is secret."""
    shop = serve()
    page = visit(shop, java_script_enabled=False, color_scheme="dark")
    refused(shop, page)
    shot(page, "draft-no-script-dark")
    with page.expect_event("domcontentloaded"):
        page.get_by_role("button", name="Try again").click()
    page.get_by_role("heading", name="What you typed").wait_for()
    assert shop.comments == []
    shop.switch.off()
    page.get_by_role("button", name="Try again").click()
    arrived(shop, page)
    assert shop.keys == [None]


def test_an_answer_that_is_cut_off(serve: Serve, visit: Visit, shot: Shot) -> None:
    """It may have arrived: it is not sent again, the page says so, and keeps the text."""
    shop = serve()
    page = visit(shop)
    refused(shop, page)
    cut = threading.Event()

    def hold(_request: Request) -> None:
        cut.set()

    shop.answer = hold
    page.route("**/comments", lambda route: (route.fetch(max_redirects=0), route.abort("connectionreset")))
    shop.switch.off()
    until(page, lambda: "it may have arrived" in told(page).inner_text())
    assert cut.is_set()
    arrived(shop, page)
    page.unroute("**/comments")
    shot(page, "draft-unsure")
    for _ in range(5):
        later(page, 300)
    expect(told(page)).to_contain_text("it may have arrived")
    assert len(shop.comments) == 1
    assert "Dear all" in page.evaluate("sessionStorage.getItem('readonly.drafts')")


def test_a_form_of_another_site_gets_nothing_back(serve: Serve, visit: Visit) -> None:
    """The plain page: no "try again" that would make the request this site's own."""
    shop = serve()
    shop.switch.on()
    page = visit(shop)
    form = (
        f'<form method="post" action="{shop.url}/comments"><input name="text" value="forged"><button>Go</button></form>'
    )
    page.route("http://127.0.0.1:9/*", lambda route: route.fulfill(content_type="text/html", body=form))
    page.goto("http://127.0.0.1:9/")
    page.get_by_role("button").click()
    expect(page.get_by_role("heading", name="No changes right now")).to_be_visible()
    assert "forged" not in page.content()
    assert page.locator("form").count() == 0
    assert page.evaluate("sessionStorage.length") == 0


def test_it_can_be_thrown_away(serve: Serve, visit: Visit) -> None:
    """By the visitor; and by time, after a day."""
    shop = serve()
    page = visit(shop)
    refused(shop, page)
    page.get_by_role("button", name="Discard").click()
    page.wait_for_url(f"{shop.url}/")
    assert page.evaluate("sessionStorage.getItem('readonly.drafts')") is None
    refused(shop, page)
    later(page, 25 * 3600)
    shop.switch.off()
    until(page, lambda: page.get_by_text("takes changes again").count())
    assert shop.comments == []


def test_it_is_sent_from_another_page_of_the_tab(serve: Serve, visit: Visit) -> None:
    """Whoever goes on need not stay on the page of the refusal; nor does the page that they are at go away."""
    shop = serve()
    page = visit(shop)
    refused(shop, page)
    page.goto(shop.url)
    expect(told(page)).to_contain_text("sent by itself")
    page.get_by_label("Comment").fill("a second text, not to be lost to the first")
    shop.switch.off()
    arrived(shop, page)
    expect(told(page)).to_contain_text("was sent")
    expect(page.get_by_label("Comment")).to_have_value("a second text, not to be lost to the first")
    page.get_by_text("What you typed", exact=True).click()
    expect(page.locator("pre").first).to_have_text(LONG)


AGAIN = '<form method="post" action="/comments"><textarea name="text">{text}</textarea><button>Send</button></form>'


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (422, "too long", "did not take it"),
        # Most frameworks show a form that does not hold once more, with what was typed, and call that 200.
        (200, AGAIN.format(text=html.escape(LONG)), "did not take it"),
        (200, '<form method="post"><input type="password" name="p"></form>', "log in again"),
        (401, "", "log in again"),
    ],
    ids=["422", "200, the form again", "200, a login", "401"],
)
def test_what_the_site_does_not_take(serve: Serve, visit: Visit, status: int, body: str, said: str) -> None:
    """It is not sent again and again; it is in the form, to be looked at."""
    # Nobody needs a password to write a comment.
    shop = serve(form=AGAIN.format(text="") + "<ul>{list}</ul>")
    page = visit(shop)
    page.locator("textarea").fill(LONG)
    shop.switch.on()
    page.get_by_role("button").click()
    page.get_by_role("heading", name="What you typed").wait_for()
    tries: list[str] = []

    def answer(route: Route) -> None:
        tries.append(route.request.url)
        route.fulfill(status=status, content_type="text/html", body=body)

    page.route("**/comments", answer)
    shop.switch.off()
    until(page, lambda: said in told(page).inner_text())
    for _ in range(3):
        later(page, 60)
    assert len(tries) == 1
    told(page).get_by_role("link").click()
    expect(page.locator("textarea")).to_have_value(LONG)


def test_requests_that_a_script_makes(serve: Serve, visit: Visit) -> None:
    """`readOnlyMode.fetch` keeps what was refused, and sends it later under the same key."""
    shop = serve()
    page = visit(shop)
    shop.switch.on()
    token = page.locator("input[name=csrf_token]").get_attribute("value")
    status = page.evaluate(
        """token => readOnlyMode.fetch('/comments', {
          method: 'POST',
          body: new URLSearchParams([['csrf_token', token], ['text', 'by script'], ['tag', 'b'], ['tag', 'a']]),
        }).then(response => response.status)""",
        token,
    )
    assert status == 503
    expect(told(page)).to_contain_text("sent by itself")
    shop.switch.off()
    arrived(shop, page, "by script")
    assert shop.keys[0]
    later(page, 600)
    assert len(shop.comments) == 1


def test_hostile_text_runs_nowhere(serve: Serve, visit: Visit) -> None:
    """Neither what a visitor typed nor what an operator wrote."""
    shop = serve()
    page = visit(shop)
    ran: list[str] = []

    def run(dialog: Dialog) -> None:
        ran.append(dialog.message)
        dialog.dismiss()

    page.on("dialog", run)
    text = '</textarea></script><script>alert(1)</script><img src=x onerror=alert(2)>" onfocus=alert(3) autofocus x="'
    refused(shop, page, text, message=text)
    expect(page.locator("textarea").first).to_have_value(text)
    expect(told(page)).to_contain_text("sent by itself")
    shop.switch.off()
    arrived(shop, page, text)
    page.wait_for_url(f"{shop.url}/")
    assert ran == []
