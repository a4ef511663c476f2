"""Pages as they look, on phones and desktops, light and dark, and to those who can't see them; and a bypass's link."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from babel.messages.catalog import Catalog
from babel.messages.mofile import write_mo
from playwright.sync_api import Page, expect

from readonly import bypassing
from readonly.changes import Operator
from support.waiting import eventually

from .conftest import DESKTOP, PHONE
from .site import Shop

Serve = Callable[..., Shop]
Visit = Callable[..., Page]
Shot = Callable[[Page, str], None]


def faults(page: Page) -> list[str]:
    """Return what axe-core finds serious or worse."""
    # What is still fading in has little contrast.
    eventually(lambda: page.evaluate("document.getAnimations().length === 0"))
    found = Axe().run(page).response["violations"]
    return [f"{one['id']}: {one['help']}" for one in found if one["impact"] in ("serious", "critical")]


@pytest.mark.parametrize(("size", "scheme"), [(DESKTOP, "light"), (PHONE, "dark")], ids=["desktop", "phone"])
def test_nobody_is_kept_out(serve: Serve, visit: Visit, shot: Shot, size: dict[str, int], scheme: str) -> None:
    """The banner, the page with and without what was typed: nothing serious, and nothing wider than the screen."""
    shop = serve()
    page = visit(shop, viewport=size, color_scheme=scheme)
    # The shop's own form has no fault that we would not want to see.
    shop.switch.on(message="New shelves.\nBack soon, " + "promised " * 12, expected=timedelta(hours=30))
    page.reload()
    expect(page.get_by_role("timer")).to_have_text("in 30 hours")
    assert faults(page) == []
    page.get_by_label("Comment").fill("A line.\n" * 3 + "x" * 300)
    page.get_by_role("button", name="Post").click()
    expect(page.locator("[data-readonly-told]")).to_contain_text("sent by itself")
    assert faults(page) == []
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    shot(page, f"refused-{size['width']}-{scheme}")
    page.goto(f"{shop.url}/-/readonly/status")
    page.set_content(f'<form method="post" action="{shop.url}/comments"><button>Go</button></form>')
    page.get_by_role("button").click()
    expect(page.get_by_role("heading", name="No changes right now")).to_be_visible()
    assert faults(page) == []


def test_from_right_to_left(serve: Serve, visit: Visit, shot: Shot, tmp_path: Path) -> None:
    """A language that the site adds is laid out as it is written."""
    catalog = Catalog(locale="ar")
    catalog.add("No changes right now", "لا تغييرات الآن")
    catalog.add("What you typed", "ما كتبته")
    folder = tmp_path / "ar" / "LC_MESSAGES"
    folder.mkdir(parents=True)
    with (folder / "readonly.mo").open("wb") as out:
        write_mo(out, catalog)
    shop = serve(words=tmp_path)
    page = visit(shop, locale="ar")
    page.get_by_label("Comment").fill("نص طويل")
    shop.switch.on()
    page.get_by_role("button", name="Post").click()
    expect(page.get_by_role("heading", name="لا تغييرات الآن")).to_be_visible()
    assert page.evaluate("getComputedStyle(document.querySelector('h1')).direction") == "rtl"
    shot(page, "refused-rtl")


def test_a_link_that_lets_somebody_through(serve: Serve, visit: Visit, shot: Shot) -> None:
    """It is used once, and leaves the address; its holder writes, and reads until when."""
    shop = serve()
    shop.switch.on(message="New shelves.")
    _, _, link, _ = bypassing.give(shop.switch.store, Operator("bob", "bastion"), "ann", lasting=timedelta(minutes=30))
    shop.switch.look()
    page = visit(shop, f"/-/readonly/bypass/{link}")
    assert page.url == f"{shop.url}/"
    banner = page.locator("[data-readonly-banner]")
    expect(banner).to_contain_text("You may write until")
    expect(page.get_by_role("button", name="Send")).to_be_enabled()
    page.get_by_label("Comment").fill("Corrected.")
    page.get_by_role("button", name="Send").click()
    expect(page.get_by_role("listitem")).to_have_text("Corrected.")
    shot(page, "bypass")
    other = visit(shop, f"/-/readonly/bypass/{link}")
    expect(other.get_by_role("heading")).to_have_text("This link does nothing")
    other.goto(shop.url)
    expect(other.locator("[data-readonly-banner]")).to_contain_text("New shelves.")
