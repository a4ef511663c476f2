"""The demo site as its visitors see it, writable and read-only, in every dress."""

from __future__ import annotations

import httpx
import psycopg
import pytest

from demo.dressed import Site
from demo_app.dresses import DRESSES
from demo_app.trouble import LOG_IN_FIRST

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
ARTICLE = "/articles/mara-voss-800"


@pytest.fixture(params=DRESSES)
def site(request: pytest.FixtureRequest, sites: dict[str, Site]) -> Site:
    """The site in each of its dresses."""
    return sites[request.param]


def location(answer: httpx.Response) -> str:
    """Return where an answer leads."""
    assert answer.status_code == 303, answer.text
    return answer.headers["location"]


def greeted(answer: httpx.Response) -> str:
    """Return whom a page greets, or nothing."""
    return answer.text.partition('<body data-account="')[2].partition('"')[0]


def value(site: Site, query: str) -> str:
    """Ask the database itself."""
    with psycopg.connect(site.settings.server) as connection:
        return "|".join(map(str, connection.execute(query).fetchone() or ()))


def come_back(site: Site, browser: httpx.Client, *, without: str) -> httpx.Client:
    """Return the browser of somebody who has all cookies of another but one."""
    other = site.browser()
    for name, value in browser.cookies.items():
        if name != without:
            # Beside the cookies of the site there may be a stamp that says since when they are good.
            other.cookies.set(name, value)
    return other


def test_every_page_is_served(site: Site) -> None:
    """Every address that a visitor can type answers, logged in or not."""
    for browser in (site.browser(), site.member()):
        for path in PAGES:
            assert browser.get(path).status_code == 200, path


def test_what_is_not_there(site: Site) -> None:
    """404 as a page for people and as JSON for programs."""
    browser = site.browser()
    for path in ("/nothing", "/articles/nothing", "/sections/nothing", "/oauth/nothing"):
        answer = browser.get(path)
        assert (answer.status_code, "<h1>" in answer.text) == (404, True), path
    for path in ("/api/articles/999", "/api/nothing"):
        answer = browser.get(path)
        assert (answer.status_code, list(answer.json())) == (404, ["error"]), path


def test_an_account_from_beginning_to_end(site: Site) -> None:
    """Register, see oneself, change one's name, log out, log in again."""
    browser = site.browser()
    assert location(browser.get("/account")) == "/login?next=/account"
    assert LOG_IN_FIRST in browser.get("/login").text
    assert LOG_IN_FIRST not in browser.get("/login").text
    form = {"name": "new-one", "display_name": "New <One>", "password": "secret"}
    assert location(browser.post("/register", data=form)) == "/account"
    assert greeted(browser.get("/account")) == "new-one"
    assert "New &lt;One&gt;" in browser.get("/account").text
    assert location(browser.post("/account", data={"display_name": "Newer"})) == "/account?saved=1"
    assert "Newer" in browser.get("/account").text
    assert browser.post("/account", data={"display_name": " "}).status_code == 422
    assert location(browser.post("/logout")) == "/"
    assert greeted(browser.get("/")) == ""
    wrong = browser.post("/login", data={"name": "new-one", "password": "Secret"})
    assert (wrong.status_code, "do not fit together" in wrong.text) == (422, True)
    right = browser.post("/login", data={"name": "new-one", "password": "secret", "next": "//elsewhere.example"})
    assert location(right) == "/account"
    assert site.browser().post("/register", data=form).status_code == 422


def test_comments(site: Site) -> None:
    """Whoever is logged in may say something, and the answer names the row."""
    browser = site.browser()
    asked = browser.post(f"{ARTICLE}/comments", data={"body": "hello"})
    assert location(asked) == f"/login?next={ARTICLE}"
    member = site.member()
    said = member.post(f"{ARTICLE}/comments", data={"body": "<b>hello</b>"})
    row = value(site, "SELECT id FROM comment WHERE body = '<b>hello</b>'")
    assert location(said) == f"{ARTICLE}#comment-{row}"
    assert "&lt;b&gt;hello&lt;/b&gt;" in browser.get(ARTICLE).text
    assert member.post(f"{ARTICLE}/comments", data={"body": " "}).status_code == 422
    assert member.post("/articles/nothing/comments", data={"body": "x"}).status_code == 404


def test_the_view_counter(site: Site) -> None:
    """Opening an article counts; looking it up by the API does not."""
    query = "SELECT views FROM page_view JOIN article ON id = article_id WHERE slug = 'pole-vault-barn'"
    before = int(value(site, query))
    browser = site.browser()
    for _ in range(3):
        browser.get("/articles/pole-vault-barn")
    browser.get("/api/articles/10")
    assert int(value(site, query)) == before + 3


def test_search(site: Site) -> None:
    """All words must be found, wherever; a percent sign is a percent sign."""
    browser = site.browser()
    answers = [browser.post("/search", data={"words": words}) for words in ("moth BRANDT", "moth kestrel", "%")]
    assert [answer.text.count('class="card ') for answer in answers] == [1, 0, 0]


def test_the_api(site: Site) -> None:
    """The token of the account page lets a program read and write, with no session."""
    program = site.browser()
    assert program.get("/api/account").status_code == 401
    assert program.post("/api/articles/1/comments", json={"body": "x"}).status_code == 401
    token = site.member().get("/api/account").json()["api_token"]
    program.headers["authorization"] = f"Bearer {token}"
    assert program.get("/api/account").json()["name"] == "sam"
    said = program.post("/api/articles/1/comments", json={"body": "by a program"})
    assert (said.status_code, said.json()["body"]) == (201, "by a program")
    assert program.get("/api/articles/1/comments").json()["comments"][0]["body"] == "by a program"
    for nonsense in ({"body": ""}, {"text": "x"}, ["x"], "x"):
        assert program.post("/api/articles/1/comments", json=nonsense).status_code == 422
    assert program.post("/api/articles/1/comments", content=b"{").status_code == 422
    assert program.post("/api/articles/999/comments", json={"body": "x"}).status_code == 404


def test_a_login_by_get(site: Site) -> None:
    """A sign-in service sends the browser back with a code, which begins a session, again for the same account."""
    names = []
    for _ in range(2):
        browser = site.browser()
        back = location(browser.get("/oauth/harbour/authorize?name=zoe-x"))
        assert location(browser.get(back)) == "/account"
        names.append(browser.get("/api/account").json())
    assert names[0] == names[1]
    assert (names[0]["name"], names[0]["provider"]) == ("harbour+zoe-x", "harbour")
    stranger = site.browser()
    assert stranger.get("/oauth/harbour/callback?code=made-up").status_code == 403
    assert stranger.get(back.replace("harbour", "lighthouse", 1)).status_code == 403


def test_the_remember_me_cookie(site: Site) -> None:
    """It logs its owner in again without a session, and is gone with a logout."""
    member = site.member("noor", remember="yes")
    seen = value(site, "SELECT last_login_at FROM account WHERE name = 'noor'")
    again = come_back(site, member, without="session")
    assert greeted(again.get("/scores")) == "noor"
    assert "session" in again.cookies
    assert value(site, "SELECT last_login_at FROM account WHERE name = 'noor'") != seen
    forged = come_back(site, member, without="session")
    token = member.cookies["remember_token"]
    forged.cookies.set("remember_token", token[:-10] + "x" * 10)
    assert greeted(forged.get("/scores")) == ""
    assert location(member.post("/logout")) == "/"
    assert "remember_token" not in member.cookies
    assert "remember_token" not in site.member("noor").cookies


# --- read-only --------------------------------------------------------------------------------------------------------


def test_read_only_every_page_is_served(site: Site) -> None:
    """Nothing that can be read is missing, for whoever was logged in as well, and the pages say what is going on."""
    browsers = [site.browser(), site.member()]
    with site.closed_for_writes():
        for browser in browsers:
            for path in PAGES:
                answer = browser.get(path)
                # What a load balancer asks may be answered beside the application.
                marked = answer.headers.get("x-read-only") == "true" or path.startswith("/-/")
                assert (answer.status_code, marked) == (200, True), path
            page = browser.get(ARTICLE)
            assert "New floor in the lobby." in page.text
            assert "Comments are closed" in page.text
            assert greeted(page) == ""
            assert browser.post("/search", data={"words": "moth"}).text.count('class="card ') == 1


def test_read_only_nothing_is_written(site: Site) -> None:
    """Forms, the API, registration and every way to log in are refused, and no table changes."""
    member, stranger, program = site.member(), site.browser(), site.browser()
    remembered = come_back(site, site.member("ravi", remember="yes"), without="session")
    program.headers["authorization"] = f"Bearer {member.get('/api/account').json()['api_token']}"
    code = location(stranger.get("/oauth/harbour/authorize?name=zoe-x"))
    query = "SELECT " + ", ".join(
        f"(SELECT md5(string_agg(row::text, '' ORDER BY row::text)) FROM {table} AS row)"
        for table in ("comment", "account", "page_view", "django_session")
    )
    with site.closed_for_writes():
        before = value(site, query)
        refused = [
            stranger.post(f"{ARTICLE}/comments", data={"body": "x"}),
            stranger.post("/account", data={"display_name": "x"}),
            stranger.post("/login", data={"name": "sam", "password": "sam"}),
            stranger.post("/register", data={"name": "new-two", "password": "secret"}),
            stranger.get(code),
            member.post("/account", data={"display_name": "x"}),
            program.post("/api/articles/1/comments", json={"body": "x"}),
        ]
        assert [answer.status_code for answer in refused] == [503] * len(refused)
        assert all(int(answer.headers["retry-after"]) >= 1 for answer in refused)
        assert refused[-1].json()["code"] == "READ_ONLY"
        assert not any("session" in answer.cookies for answer in refused)
        # Opening an article wants to count, and a stranger's account page wants to leave a message.
        assert stranger.get(ARTICLE).status_code == 200
        assert location(stranger.get("/account")) == "/login?next=/account"
        assert "session" not in stranger.cookies
        assert greeted(remembered.get("/")) == ""
        assert program.get("/api/account").status_code == 200
        assert value(site, query) == before


def test_after_off_the_old_session_stays_ended(site: Site) -> None:
    """The cookies from before are worthless, and logging in again works."""
    member = site.member(remember="yes")
    again = [come_back(site, member, without=name) for name in ("session", "remember_token")]
    assert [greeted(each.get("/account")) for each in again] == ["sam", "sam"]
    again = [come_back(site, member, without=name) for name in ("session", "remember_token")]
    with site.closed_for_writes():
        assert greeted(member.get("/")) == ""
    assert [greeted(each.get("/")) for each in again] == ["", ""]
    assert greeted(site.member().get("/")) == "sam"
