"""The banner of an open page: it comes, counts and goes by itself, and nobody's poll harms the site."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from playwright.sync_api import Page, expect

from support.waiting import eventually

from .conftest import PHONE
from .site import Shop

Serve = Callable[..., Shop]
Visit = Callable[..., Page]
Shot = Callable[[Page, str], None]


def later(page: Page, seconds: float) -> None:
    """Let time pass in a page."""
    page.clock.fast_forward(int(seconds * 1000))


def test_it_turns_on_and_off_under_an_open_page(serve: Serve, visit: Visit, shot: Shot) -> None:
    """Without a reload, read out by screen readers; buttons that are marked for it are greyed out meanwhile."""
    shop = serve()
    page = visit(shop, still=True)
    banner = page.locator("[data-readonly-banner]")
    assert banner.get_attribute("role") == "status"
    assert banner.get_attribute("aria-live") == "polite"
    assert banner.inner_text() == ""
    shop.switch.on(message="We move <b>shelves</b> {ends} {{.", expected=timedelta(minutes=39, seconds=45))
    later(page, 15)
    expect(banner).to_contain_text("We move <b>shelves</b> {ends} {{.")
    expect(banner).to_contain_text("We expect to be done at")
    expect(page.get_by_role("timer")).to_have_text("in 40 minutes")
    end = shop.switch.state.expected_end
    assert end is not None
    # The visitor is in Berlin; just before midnight there, the day stands with it.
    expect(banner.locator("time")).to_contain_text(f"{end.astimezone(ZoneInfo('Europe/Berlin')):%H:%M}")
    expect(page.get_by_role("button", name="Send")).to_be_disabled()
    expect(page.get_by_role("button", name="Post")).to_be_enabled()
    shot(page, "banner-read-only")
    # Not so long that it asks again: the page's clock is put forward, the site's is not.
    later(page, 50)
    expect(page.get_by_role("timer")).to_have_text("in 39 minutes")
    shop.switch.off()
    later(page, 90)
    expect(banner).to_have_text("The site takes changes again.")
    expect(page.get_by_role("button", name="Send")).to_be_enabled()


def test_a_window_turns_the_page_by_itself(serve: Serve, visit: Visit, shot: Shot) -> None:
    """At the moment that was announced, without asking: by then the site itself may be unreachable."""
    shop = serve()
    begins = datetime.now(UTC) + timedelta(seconds=55)
    shop.switch.schedule(begins, lasting=timedelta(minutes=30))
    # What is asked at random comes in the middle of its time, so not in the second after the moment.
    page = visit(shop, viewport=PHONE, script="Math.random = () => 0.5")
    banner = page.locator("[data-readonly-banner]")
    expect(banner).to_have_attribute("data-readonly-banner", "announced")
    expect(banner).to_contain_text("you can read everything here and change nothing")
    expect(banner).to_contain_text("Save what you are working on")
    expect(page.get_by_role("timer")).to_contain_text("second")
    expect(page.get_by_role("button", name="Send")).to_be_enabled()
    shot(page, "banner-announced-phone")
    asked = shop.asked
    page.clock.pause_at(begins + timedelta(seconds=5))
    expect(banner).to_have_attribute("data-readonly-banner", "read_only")
    expect(page.get_by_role("button", name="Send")).to_be_disabled()
    assert shop.asked == asked
    expect(page.get_by_role("timer")).to_contain_text("in 30 minutes")


def test_in_the_pages_language(serve: Serve, visit: Visit) -> None:
    """The banner is a part of the page, whatever else its visitor speaks; however servers spell a language, or not."""
    shop = serve()
    page = visit(shop, locale="fr-FR")
    shop.switch.on(expected=timedelta(minutes=40))
    for path, said in [
        ("/", "The site is read-only"),
        ("/?lang=de", "Wir arbeiten an der Seite"),
        ("/?lang=de_AT", "Wir arbeiten an der Seite"),
        ("/?lang=no+language", "Le site est en lecture seule"),
    ]:
        page.goto(shop.url + path)
        later(page, 15)
        expect(page.locator("[data-readonly-banner]")).to_contain_text(said)


def test_nothing_moves_for_those_who_want_that(serve: Serve, visit: Visit) -> None:
    """No fading, and the countdown says minutes to its end."""
    shop = serve()
    shop.switch.schedule(datetime.now(UTC) + timedelta(seconds=50), lasting=timedelta(minutes=30))
    page = visit(shop, reduced_motion="reduce")
    expect(page.get_by_role("timer")).to_have_text("in 1 minute")
    assert page.evaluate("document.getAnimations().length") == 0


def test_hidden_tabs_ask_nothing(serve: Serve, visit: Visit) -> None:
    """And one that is shown again asks soon."""
    shop = serve()
    page = visit(shop)
    later(page, 15)
    eventually(lambda: shop.asked)
    hide = """hidden => {
      Object.defineProperty(document, 'hidden', { value: hidden, configurable: true });
      document.dispatchEvent(new Event('visibilitychange'));
    }"""
    # The answer is there, and the next look is planned.
    expect(page.locator("[data-readonly-banner]")).to_be_attached()
    page.evaluate("fetch('/style.css').then(response => response.text())")
    page.evaluate(hide, True)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    for _ in range(5):
        later(page, 600)
        page.evaluate("fetch('/style.css').then(response => response.text())")
    assert [url for url in asked if "/status" in url] == []
    assert len(asked) == 5
    shop.switch.on()
    page.evaluate(hide, False)
    later(page, 13)
    expect(page.locator("[data-readonly-banner]")).to_contain_text("The site is read-only")


def test_it_waits_longer_while_nobody_answers(serve: Serve, visit: Visit) -> None:
    """Five seconds, ten, and five minutes at most, each with a half of it more or less."""
    page = visit(serve())
    waits = page.evaluate(
        "Array.from({ length: 12 }, (_, n) => readOnlyMode.delay("
        "{ failures: n + 1, late: 0, readOnly: true, begins: null, ends: null, eager: false }, 0, () => 0.5) / 1000)"
    )
    assert waits == [5, 10, 20, 40, 80, 160, *[300] * 6]


# Plays the looks of so many pages, each by the script's own timing; returns when each of them looked, in seconds from
# the end of the window, while and after which the site is read-only (then it is late).
PLAY = """([pages, late]) => {
  const looks = [], end = 1800000;
  for (let page = 0; page < pages; page++) {
    // Opened some time in the half hour before the end.
    let now = Math.random() * end;
    const known = { readOnly: true, begins: null, ends: end, eager: false, late: 0, failures: 0 };
    while (now < end + 300000) {
      looks.push((now - end) / 1000);
      if (now >= end + late) break;
      if (now >= end) known.late += 1;
      now += readOnlyMode.delay(known, now, Math.random);
    }
  }
  return looks;
}"""


def test_a_thousand_open_pages_make_no_stampede(serve: Serve, visit: Visit, capsys: pytest.CaptureFixture[str]) -> None:
    """The script's own timing, a thousand times: its busiest second, beside that of pages that wait for the end."""
    page = visit(serve())
    for late in (0, 120):
        looks = page.evaluate(PLAY, [1000, late * 1000])
        seconds = Counter(int(look // 1) for look in looks)
        busiest = max(seconds.values())
        after = sum(count for second, count in seconds.items() if second >= 0)
        with capsys.disabled():
            print(
                f"\n1000 open pages, a window that ends {late} s late: busiest second {busiest} requests, naive 1000; "
                f"{after} requests after the end"
            )
        assert busiest <= 90
        assert len([second for second in seconds if 0 <= second < 30]) == 30


def test_the_script_is_kept_by_what_is_in_it(serve: Serve, visit: Visit) -> None:
    """For good under its own name; under another one, of another version's page, not at all."""
    page = visit(serve())
    src = page.locator("script[src]").get_attribute("src")
    assert src is not None
    for path, kept in [(src, "public, max-age=31536000, immutable"), ("/-/readonly/script-0.js", "no-store")]:
        answer = page.request.get(page.url.rstrip("/") + path)
        assert answer.status == 200
        assert answer.headers["content-type"] == "text/javascript; charset=utf-8"
        assert answer.headers["cache-control"] == kept
