"""What the pages for users say of the script, as it is written there."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, Request, Route, expect

from .site import Shop
from .test_drafts_kept import later, told, until

Serve = Callable[..., Shop]
Visit = Callable[..., Page]
DOCS = Path(__file__).parents[2] / "docs"

# What the sample takes for granted: a request of the site's own that was refused, its token, and what shows an answer.
AROUND = """async () => {
  const text = 'by fetch', token = () => 'fresh', show = (response, said) => window.shown.push([response.status, said]);
  window.shown = [];
  const xhr = new XMLHttpRequest();
  await new Promise(done => {
    xhr.onloadend = done;
    xhr.open('POST', '/comments');
    xhr.setRequestHeader('Content-Type', 'application/json');
    xhr.send(JSON.stringify({ text }));
  });
  %s
  return [xhr.status, response.status];
}"""


def test_the_sample_for_fetch_and_xmlhttprequest(serve: Serve, visit: Visit) -> None:
    """Both are handed the 503 and kept, and sent once: with the key of the first try, and what the site adds to it."""
    (sample,) = re.findall(r"```js\n(.*?)```", (DOCS / "drafts.md").read_text(), re.DOTALL)
    shop = serve()
    page = visit(shop)
    shop.switch.on()
    sent: list[Request] = []
    page.on("request", lambda request: sent.append(request) if request.method == "POST" else None)
    assert page.evaluate(AROUND % sample) == [503, 503]
    (_, tried) = sent
    sent.clear()
    expect(told(page)).to_have_count(2)
    page.route("**/comments", lambda route: route.fulfill(status=201, body="taken"))
    shop.switch.off()
    until(page, lambda: len(page.evaluate("window.shown")) == 2)
    assert page.evaluate("window.shown") == [[201, "taken"]] * 2
    later(page, 600)
    assert sorted((one.post_data or "", one.headers["content-type"]) for one in sent) == [
        ("text=by+fetch", "application/x-www-form-urlencoded;charset=UTF-8"),
        ('{"text":"by fetch"}', "application/json"),
    ]
    assert {one.headers["x-csrftoken"] for one in sent} == {"fresh"}
    keys = [one.headers["idempotency-key"] for one in sent]
    assert len(set(keys)) == 2
    assert tried.headers["idempotency-key"] in keys


def test_an_end_that_nobody_believes_in_is_not_shown(serve: Serve, visit: Visit) -> None:
    """An open page whose site does not answer past the announced end says that it takes longer, and no time."""
    shop = serve()
    page = visit(shop)
    shop.switch.on(message="New shelves.", expected=timedelta(minutes=10))
    banner = page.locator("[data-readonly-banner]")
    until(page, lambda: "We expect to be done at" in banner.inner_text())
    page.route("**/status*", lambda route: route.abort())
    later(page, 590)
    until(page, lambda: "longer than planned" in banner.inner_text())
    expect(banner).to_contain_text("New shelves.")
    expect(banner.locator("time")).to_have_count(0)
    expect(page.get_by_role("timer")).to_have_text("")
    page.unroute("**/status*")
    until(page, lambda: "We expect to be done at" in banner.inner_text())


@pytest.mark.parametrize("hours", [23, 25])
def test_it_is_kept_for_a_day(serve: Serve, visit: Visit, hours: int) -> None:
    """And sent at its end; a text that is older nobody sends any more, on whatever page of the tab."""
    shop = serve()
    page = visit(shop)
    page.get_by_label("Comment").fill("my words")
    shop.switch.on()
    page.get_by_role("button", name="Post").click()
    expect(told(page)).to_contain_text("sent by itself")
    page.goto(shop.url)
    expect(told(page)).to_contain_text("sent by itself")
    later(page, hours * 3600)
    shop.switch.off()
    banner = page.locator("[data-readonly-banner]")
    until(page, lambda: "takes changes again" in banner.inner_text())
    if hours < 24:
        until(page, lambda: shop.comments)
    for _ in range(3):
        later(page, 60)
        page.evaluate("fetch('/style.css').then(response => response.text())")
    assert shop.texts() == (["my words"] if hours < 24 else [])


HIDE = """() => {
  Object.defineProperty(document, 'hidden', { value: true, configurable: true });
  document.dispatchEvent(new Event('visibilitychange'));
}"""


def test_a_tab_that_is_hidden_while_it_asks(serve: Serve, visit: Visit) -> None:
    """It takes the answer, and asks nothing after that."""
    page = visit(serve())
    held: list[Route] = []
    page.route("**/status*", lambda route: held.append(route))
    until(page, lambda: held)
    page.evaluate(HIDE)
    with page.expect_response("**/status*"):
        held[0].continue_()
    for _ in range(3):
        later(page, 600)
        page.evaluate("fetch('/style.css').then(response => response.text())")
    assert len(held) == 1


NOTE = "addEventListener('securitypolicyviolation', event => { (window.against ??= []).push(event.violatedDirective) })"


def test_nothing_of_it_is_against_a_strict_policy(serve: Serve, visit: Visit) -> None:
    """Neither the banner that it makes, nor what was typed, on a page of the site's and on that of a refusal."""
    shop = serve()
    page = visit(shop, script=NOTE)
    against: list[Any] = []
    shop.switch.on(message="New shelves.", expected=timedelta(minutes=10))
    until(page, lambda: "New shelves." in page.locator("[data-readonly-banner]").inner_text())
    against.append(page.evaluate("window.against"))
    page.get_by_label("Comment").fill("my words")
    page.get_by_role("button", name="Post").click()
    expect(told(page)).to_contain_text("sent by itself")
    against.append(page.evaluate("window.against"))
    page.goto(shop.url)
    expect(told(page)).to_contain_text("sent by itself")
    page.get_by_text("What you typed", exact=True).click()
    against.append(page.evaluate("window.against"))
    assert against == [None, None, None]
