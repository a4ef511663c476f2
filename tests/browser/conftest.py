"""One browser and one server for the folder, and a site for each test."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Error, Page, expect, sync_playwright

from readonly import Policy, Switch
from support import missing
from support.chromium import find_chromium
from support.waiting import eventually

from .site import FORM, Host, Shop

PHONE = {"width": 390, "height": 844}
DESKTOP = {"width": 1280, "height": 800}
# What is waited for comes; on a machine that does much else, late. Playwright's own five seconds are few.
PATIENCE_SECONDS = 60.0
_numbers = itertools.count()


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    """Return a browser."""
    try:
        path = find_chromium()
    except missing.ServerMissing as error:
        raise missing.outcome(error) from error
    with sync_playwright() as playwright:
        # Without its sandbox, which a container's root has no right to; it only sees our own pages.
        browser = playwright.chromium.launch(
            executable_path=path, args=["--no-sandbox"], timeout=PATIENCE_SECONDS * 1000
        )
        expect.set_options(timeout=PATIENCE_SECONDS * 1000)
        yield browser
        browser.close()


@pytest.fixture(scope="package")
def host() -> Iterator[Host]:
    """Return the server."""
    host = Host()
    yield host
    host.close()


@pytest.fixture
def serve(host: Host) -> Iterator[Callable[..., Shop]]:
    """Return what serves a site until the end of the test, in place of the one before."""
    left: list[Switch] = []

    def start(*, login: bool = False, words: Path | None = None, form: str = FORM, **policy: Any) -> Shop:
        switch = Switch.from_url(f"memory://?site=browser{next(_numbers)}", interval=0.1)
        left.append(switch)
        shop = Shop(switch, login=login, words=words, form=form)
        host.shows(shop, Policy(login=["/login"], **policy))
        return shop

    yield start
    for switch in left:
        switch.close()


def _emptied(page: Page) -> bool:
    page.goto("about:blank", timeout=PATIENCE_SECONDS * 1000 / 6)
    return True


@pytest.fixture
def visit(browser: Browser) -> Iterator[Callable[..., Page]]:
    """Return what opens a page of a site, as another visitor each time; a `still` one's clock is only put forward."""
    contexts = []

    def open_page(
        shop: Shop, path: str = "/", *, clock: bool = True, still: bool = False, script: str = "", **options: Any
    ) -> Page:
        usual = {"viewport": DESKTOP, "locale": "en-GB", "timezone_id": "Europe/Berlin"}
        context = browser.new_context(**{**usual, **options})
        context.set_default_timeout(PATIENCE_SECONDS * 1000)
        contexts.append(context)
        if script:
            context.add_init_script(script)
        page = context.new_page()
        if clock:
            page.clock.install()
        if still:
            page.clock.pause_at(datetime.now(UTC) + timedelta(minutes=1))
        page.goto(shop.url + path, wait_until="domcontentloaded")
        return page

    yield open_page
    for context in contexts:
        for page in context.pages:
            # Chromium may wait for ever where a page is closed that is giving way to another one at that moment.
            eventually(partial(_emptied, page), ignoring=Error)
        context.close()


@pytest.fixture
def shot(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Page, str], None]:
    """Return what keeps a picture of a page, in READONLY_TEST_SHOTS if that is set: build output, to be looked at."""
    folder = Path(os.environ.get("READONLY_TEST_SHOTS") or tmp_path_factory.mktemp("shots"))
    folder.mkdir(parents=True, exist_ok=True)

    def take(page: Page, name: str) -> None:
        page.screenshot(path=folder / f"{name}.png", full_page=True, animations="disabled")

    return take
