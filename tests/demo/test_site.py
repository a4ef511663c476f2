"""The demo site as its visitors see it: writable, and read-only."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, closing
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import httpx
import pytest
from starlette.applications import Starlette

from demo_app.data import prepare, refresh_replica
from demo_app.on_starlette.app import create_app, plain_app
from demo_app.settings import Settings
from readonly import Switch
from support.waiting import eventually_async

pytestmark = pytest.mark.anyio

PAGES = (
    "/",
    "/sections/tennis",
    "/articles/mara-voss-800",
    "/scores",
    "/scores.json",
    "/search",
    "/login",
    "/register",
    "/oauth/harbour",
    "/api/articles",
    "/api/articles/1",
    "/api/articles/1/comments",
    "/api/scores",
    "/healthz",
    "/static/site.css",
    "/static/site.js",
    "/static/icon.svg",
    "/-/readonly/ready",
    "/-/readonly/status",
)


@dataclass
class Site:
    """A running site: what it is switched by, where its data is, and a way to get browsers."""

    app: Starlette
    settings: Settings
    switch: Switch | None
    stack: AsyncExitStack

    async def browser(self) -> httpx.AsyncClient:
        """Return a new visitor's browser."""
        client = httpx.AsyncClient(transport=httpx.ASGITransport(self.app), base_url="http://touchline.test")
        return await self.stack.enter_async_context(client)

    async def member(self, name: str = "sam") -> httpx.AsyncClient:
        """Return the browser of somebody who has just logged in."""
        browser = await self.browser()
        answer = await browser.post("/login", data={"name": name, "password": name})
        assert answer.status_code == 303
        return browser

    async def close_for_writes(self) -> int:
        """Turn the site read-only, proven; return the epoch."""
        assert self.switch is not None
        state = await self.switch.aon(reason="test", expected=timedelta(minutes=40), message="New floor in the lobby.")
        (await self.switch.aconfirm(state.epoch, timeout=10)).require_safe()
        return state.epoch

    def value(self, query: str, path: Path | None = None) -> object:
        """Ask the database itself."""
        with closing(sqlite3.connect(path or self.settings.database)) as connection:
            return connection.execute(query).fetchone()[0]


@asynccontextmanager
async def _running(app: Starlette, settings: Settings, switch: Switch | None) -> AsyncIterator[Site]:
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(app.router.lifespan_context(app))
        yield Site(app, settings, switch, stack)


def _prepared(folder: Path) -> Settings:
    settings = Settings.in_folder(folder / "data", secret="only for tests")
    assert prepare(settings)
    return settings


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    """The site with a switch of its own process."""
    settings = _prepared(tmp_path)
    switch = Switch.from_url("memory://?site=touchline", interval=0.05)
    async with _running(create_app(settings, switch=switch), settings, switch) as running:
        await switch.alook()
        yield running
    switch.close()


@pytest.fixture(params=["switchable", "plain"])
async def any_site(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Site]:
    """The site with the library and without: while it is writable, nobody can tell."""
    settings = _prepared(tmp_path)
    if request.param == "plain":
        async with _running(plain_app(settings), settings, None) as running:
            yield running
        return
    switch = Switch.from_url("memory://?site=touchline", interval=0.05)
    async with _running(create_app(settings, switch=switch), settings, switch) as running:
        await switch.alook()
        yield running
    switch.close()


async def test_every_page_is_served(any_site: Site) -> None:
    """Every address that a visitor can type answers, logged in or not."""
    for browser in (await any_site.browser(), await any_site.member()):
        for path in PAGES:
            if any_site.switch is not None or not path.startswith("/-/"):
                assert (await browser.get(path)).status_code == 200, path


async def test_what_is_not_there(any_site: Site) -> None:
    """404 as a page for people and as JSON for programs."""
    browser = await any_site.browser()
    for path in ("/nothing", "/articles/nothing", "/sections/nothing", "/oauth/nothing"):
        answer = await browser.get(path)
        assert (answer.status_code, "<h1>" in answer.text) == (404, True), path
    for path in ("/api/articles/999", "/api/nothing"):
        answer = await browser.get(path)
        assert (answer.status_code, list(answer.json())) == (404, ["error"]), path


async def test_an_account_from_beginning_to_end(any_site: Site) -> None:
    """Register, see oneself, change one's name, log out, log in again."""
    browser = await any_site.browser()
    assert (await browser.get("/account")).headers["location"] == "/login?next=/account"
    form = {"name": "new-one", "display_name": "New <One>", "password": "secret"}
    assert (await browser.post("/register", data=form)).status_code == 303
    assert '<body data-account="new-one">' in (await browser.get("/account")).text
    assert "New &lt;One&gt;" in (await browser.get("/account")).text
    assert (await browser.post("/account", data={"display_name": "Newer"})).headers["location"] == "/account?saved=1"
    assert "Newer" in (await browser.get("/account")).text
    assert (await browser.post("/account", data={"display_name": " "})).status_code == 422
    assert (await browser.post("/logout")).status_code == 303
    assert '<body data-account="">' in (await browser.get("/")).text
    wrong = await browser.post("/login", data={"name": "new-one", "password": "Secret"})
    assert (wrong.status_code, "do not fit together" in wrong.text) == (422, True)
    right = await browser.post("/login", data={"name": "new-one", "password": "secret", "next": "//elsewhere.example"})
    assert right.headers["location"] == "/account"
    assert (await (await any_site.browser()).post("/register", data=form)).status_code == 422


async def test_comments(any_site: Site) -> None:
    """Whoever is logged in may say something, and the answer names the row."""
    browser = await any_site.browser()
    asked = await browser.post("/articles/mara-voss-800/comments", data={"body": "hello"})
    assert asked.headers["location"] == "/login?next=/articles/mara-voss-800"
    member = await any_site.member()
    said = await member.post("/articles/mara-voss-800/comments", data={"body": "<b>hello</b>"})
    row = any_site.value("SELECT id FROM comment WHERE body = '<b>hello</b>'")
    assert said.headers["location"] == f"/articles/mara-voss-800#comment-{row}"
    assert "&lt;b&gt;hello&lt;/b&gt;" in (await browser.get("/articles/mara-voss-800")).text
    assert (await member.post("/articles/mara-voss-800/comments", data={"body": " "})).status_code == 422
    assert (await member.post("/articles/nothing/comments", data={"body": "x"})).status_code == 404


async def test_the_view_counter(any_site: Site) -> None:
    """Opening an article counts; looking it up by the API does not."""
    query = "SELECT views FROM page_view JOIN article ON id = article_id WHERE slug = 'mara-voss-800'"
    before = any_site.value(query)
    assert isinstance(before, int)
    browser = await any_site.browser()
    for _ in range(3):
        await browser.get("/articles/mara-voss-800")
    await browser.get("/api/articles/4")
    assert any_site.value(query) == before + 3


async def test_search(any_site: Site) -> None:
    """All words must be found, wherever; a percent sign is a percent sign."""
    browser = await any_site.browser()
    answers = [await browser.post("/search", data={"words": words}) for words in ("moth BRANDT", "moth kestrel", "%")]
    assert [answer.text.count('class="card ') for answer in answers] == [1, 0, 0]


async def test_the_api(any_site: Site) -> None:
    """The token of the account page lets a program read and write, with no session."""
    program = await any_site.browser()
    assert (await program.get("/api/account")).status_code == 401
    assert (await program.post("/api/articles/1/comments", json={"body": "x"})).status_code == 401
    token = (await (await any_site.member()).get("/api/account")).json()["api_token"]
    program.headers["authorization"] = f"Bearer {token}"
    assert (await program.get("/api/account")).json()["name"] == "sam"
    said = await program.post("/api/articles/1/comments", json={"body": "by a program"})
    assert (said.status_code, said.json()["body"]) == (201, "by a program")
    assert (await program.get("/api/articles/1/comments")).json()["comments"][0]["body"] == "by a program"
    for nonsense in ({"body": ""}, {"text": "x"}, ["x"], "x"):
        assert (await program.post("/api/articles/1/comments", json=nonsense)).status_code == 422
    assert (await program.post("/api/articles/999/comments", json={"body": "x"})).status_code == 404


async def test_a_login_by_get(any_site: Site) -> None:
    """A sign-in service sends the browser back with a code, which begins a session, again for the same account."""
    names = []
    for _ in range(2):
        browser = await any_site.browser()
        sent_back = await browser.get("/oauth/harbour/authorize?name=zoe-x")
        assert (await browser.get(sent_back.headers["location"])).headers["location"] == "/account"
        names.append((await browser.get("/api/account")).json())
    assert names[0] == names[1]
    assert (names[0]["name"], names[0]["provider"]) == ("harbour+zoe-x", "harbour")
    stranger = await any_site.browser()
    assert (await stranger.get("/oauth/harbour/callback?code=made-up")).status_code == 403
    other = sent_back.headers["location"].replace("harbour", "lighthouse", 1)
    assert (await stranger.get(other)).status_code == 403


# --- read-only --------------------------------------------------------------------------------------------------------


async def test_read_only_every_page_is_served(site: Site) -> None:
    """Nothing that can be read is missing, for whoever was logged in as well, and the pages say what is going on."""
    browsers = [await site.browser(), await site.member()]
    await site.close_for_writes()
    for browser in browsers:
        for path in PAGES:
            answer = await browser.get(path)
            assert (answer.status_code, answer.headers["x-read-only"]) == (200, "true"), path
        page = (await browser.get("/articles/mara-voss-800")).text
        assert "New floor in the lobby." in page
        assert "Comments are closed" in page
        assert '<body data-account="">' in page
        assert (await browser.post("/search", data={"words": "moth"})).text.count('class="card ') == 1


async def test_read_only_nothing_is_written(site: Site) -> None:
    """Forms, the API, registration and every way to log in are refused, and no table changes."""
    member, stranger, program = await site.member(), await site.browser(), await site.browser()
    token = (await member.get("/api/account")).json()["api_token"]
    program.headers["authorization"] = f"Bearer {token}"
    code = (await stranger.get("/oauth/harbour/authorize?name=zoe-x")).headers["location"]
    await site.close_for_writes()
    tables = ("comment", "account", "page_view")
    query = "SELECT " + " || ".join(
        f"(SELECT group_concat(hex({column})) FROM {table})"
        for table, column in zip(tables, ("body", "display_name || last_login_at", "views"), strict=True)
    )
    before = site.value(query)
    refused = [
        await stranger.post("/articles/mara-voss-800/comments", data={"body": "x"}),
        await stranger.post("/account", data={"display_name": "x"}),
        await stranger.post("/login", data={"name": "sam", "password": "sam"}),
        await stranger.post("/register", data={"name": "new-one", "password": "secret"}),
        await stranger.get(code),
        await member.post("/account", data={"display_name": "x"}),
        await program.post("/api/articles/1/comments", json={"body": "x"}),
    ]
    assert [answer.status_code for answer in refused] == [503] * len(refused)
    assert all(int(answer.headers["retry-after"]) >= 1 for answer in refused)
    assert refused[-1].json()["code"] == "READ_ONLY"
    assert not any("session" in answer.cookies for answer in refused)
    # Opening an article wants to count: the guard drops that, and the page is served.
    assert (await stranger.get("/articles/mara-voss-800")).status_code == 200
    assert (await program.get("/api/account")).status_code == 200
    assert site.value(query) == before


async def test_read_only_pages_come_from_the_copy(site: Site) -> None:
    """Once the replica is declared to have the epoch, readers go there, and after `off` back to the primary."""
    assert site.switch is not None
    browser = await site.browser()
    epoch = await site.close_for_writes()
    refresh_replica(site.settings, epoch=epoch)
    with closing(sqlite3.connect(site.settings.database)) as connection, connection:
        connection.execute("UPDATE article SET title = 'Migrated' WHERE slug = 'mara-voss-800'")

    async def from_the_copy() -> bool:
        return "Migrated" not in (await browser.get("/articles/mara-voss-800")).text

    # A probe finds the copy, not the request: until then the primary answers.
    await eventually_async(from_the_copy, what="reading from the copy")
    await site.switch.aoff()
    assert "Migrated" in (await browser.get("/articles/mara-voss-800")).text


async def test_after_off_the_old_session_stays_ended(site: Site) -> None:
    """The cookie from before is worthless, and logging in again works."""
    assert site.switch is not None
    member = await site.member()
    cookie = member.cookies["session"]
    await site.close_for_writes()
    await site.switch.aoff()
    assert (await member.get("/account")).headers["location"] == "/login?next=/account"
    again = await site.browser()
    again.cookies.set("session", cookie)
    assert '<body data-account="">' in (await again.get("/")).text
    fresh = await site.browser()

    async def logged_in() -> bool:
        await fresh.post("/login", data={"name": "sam", "password": "sam"})
        return (await fresh.get("/account")).status_code == 200

    # A signed cookie tells its time in whole seconds: in the second of the cut-off, a new session looks as old as it.
    await eventually_async(logged_in, what="logging in after `off`")
