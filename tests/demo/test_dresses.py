"""All dresses are one site: the same addresses, and on each of them the same text."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from typing import Any

import httpx
import pytest

from demo.dressed import Site, import_path, start
from demo_app.dresses import DRESSES
from support.waiting import eventually

ADDRESSES = (
    "/",
    "/sections/tennis",
    "/articles/becalmed-off-skerry",
    "/scores",
    "/scores.json",
    "/search",
    "/login",
    "/login?next=/scores",
    "/register",
    "/oauth/harbour",
    "/oauth/harbour/authorize?name=a",
    "/oauth/harbour/callback?code=made-up",
    "/account",
    "/api/articles",
    "/api/articles/7",
    "/api/articles/7/comments",
    "/api/scores",
    "/api/account",
    "/healthz",
    "/static/site.css",
    "/nothing",
    "/sections/nothing",
    "/articles/nothing",
    "/oauth/nothing",
    "/static/nothing",
    "/api/nothing",
    "/api/articles/999",
)


TOLD = ("href", "action", "name", "value", "placeholder")


class Text(HTMLParser):
    """What a person reads of a page, and what a form would send."""

    def __init__(self) -> None:
        super().__init__()
        self.words: list[str] = []

    def handle_data(self, data: str) -> None:
        """Take in text."""
        self.words += data.split()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Take in where links and forms lead, and what fields hold."""
        self.words += [
            str(value) for name, value in attrs if name in ("href", "action", "name", "value", "placeholder")
        ]


def seen(answer: httpx.Response) -> object:
    """Return what a visitor makes of an answer."""
    media = answer.headers.get("content-type", "").partition(";")[0]
    if answer.status_code == 303:
        return answer.headers["location"]
    if media == "application/json":
        return answer.status_code, answer.json()
    if media != "text/html":
        return answer.status_code, media, answer.text
    text = Text()
    text.feed(answer.text)
    # How often an article was opened depends on who else has been here.
    return answer.status_code, re.sub(r"read [\d,]+ times", "read", " ".join(text.words))


@pytest.fixture(scope="module")
def inside(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What each dress tells of itself from within its own process."""
    started = {}
    for name in DRESSES:
        folder = tmp_path_factory.mktemp(name)
        started[name] = start(["tests/demo/inside.py", name, str(folder)], folder, {"PYTHONPATH": import_path()})
    found = {}
    for name, (process, output) in started.items():
        assert process.wait(240) == 0, output()
        found[name] = json.loads(output().splitlines()[-1])
    return found


def test_all_dresses_have_the_same_addresses(inside: dict[str, dict[str, Any]]) -> None:
    """Path by path and method by method, where the framework tells its methods."""
    found: dict[str, dict[str, set[str]]] = {}
    for name, told in inside.items():
        here = found.setdefault(name, {})
        for methods, path, guessed in told["routes"]:
            if path.startswith("/-/"):
                continue  # what load balancers ask is a mount on Starlette, and beside the application elsewhere
            shape = re.sub(r"\{\w+", "{", path)
            here.setdefault(shape, set()).update(() if guessed else methods)
    assert len(found["starlette"]) == 21
    for name, here in found.items():
        for shape, methods in found["starlette"].items():
            assert here[shape] in (methods, set()), (name, shape)
        assert set(here) == set(found["starlette"]), name


def test_read_only_pages_come_from_the_copy(inside: dict[str, dict[str, Any]]) -> None:
    """On SQLite: once the replica is declared to have the epoch, readers go there, and after `off` to the primary."""
    assert {name: told["pages from"] for name, told in inside.items()} == {
        name: ["copy", "primary"] for name in DRESSES
    }


@pytest.mark.parametrize("as_member", [False, True], ids=["stranger", "member"])
def test_all_dresses_show_the_same(sites: dict[str, Site], as_member: bool) -> None:
    """Text, links, forms and JSON, page by page; the pages of other tests' comments and names are not among them."""
    browsers = {name: site.member("ravi") if as_member else site.browser() for name, site in sites.items()}
    for address in ADDRESSES:

        def same(address: str = address) -> bool:
            shown = [seen(browser.get(address)) for browser in browsers.values()]
            return all(one == shown[0] for one in shown[1:])

        # Matches go on while we look: of two looks in a row, one falls between two playing minutes.
        eventually(same, 5, what=f"{address} is the same everywhere")
