"""docs/users.md keeps what its tables say, on the demo site; its client waits as it is told."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.testclient import TestClient

from demo_app.data import prepare
from demo_app.on_starlette.app import create_app
from demo_app.serve import settings_in
from readonly import Switch
from readonly.testing import memory_switch

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "users.md").read_text(encoding="utf-8")
ROWS = dict(re.findall(r"^\| ([^|]+?) \| (\d{3}) \|", TEXT, re.MULTILINE))
ARTICLE = "/articles/mara-voss-800"


class People:
    """Visitors of the demo site, as they were before it was turned read-only, and what they do then."""

    def __init__(self, browser: Callable[[], Any]) -> None:
        self.browser = browser
        self.stranger, self.member, self.remembered, self.program = (browser() for _ in range(4))
        form = {"name": "sam", "password": "sam"}
        self.member.post("/login", data=form)
        self.member_cookie = self.member.cookies["session"]
        self.remembered.post("/login", data={**form, "remember": "yes"})
        del self.remembered.cookies["session"]
        token = self.member.get("/api/account").json()["api_token"]
        self.program.headers["authorization"] = f"Bearer {token}"
        self.code = self.stranger.get("/oauth/harbour/authorize?name=zoe-x").headers["location"]

    def does(self, what: str) -> Any:
        """Do what a row says, and return the answer."""
        stranger, member = self.stranger, self.member
        login = {"name": "sam", "password": "sam"}
        return {
            "opens a page": lambda: stranger.get(ARTICLE),
            "searches, by a form that the site has declared a read": lambda: stranger.post(
                "/search", data={"words": "moth"}
            ),
            "opens a page while signed in": lambda: greets(member.get(ARTICLE), ""),
            "opens a page that is only for signed-in readers": lambda: member.get("/account"),
            "opens the sign-in form": lambda: stranger.get("/login"),
            "sends the sign-in form": lambda: stranger.post("/login", data=login),
            "makes an account": lambda: stranger.post("/register", data={"name": "new-one", "password": "secret"}),
            "comes from a sign-in service": lambda: stranger.get(self.code),
            "sends a form": lambda: stranger.post(f"{ARTICLE}/comments", data={"body": "x"}),
            "signs out": lambda: member.post("/logout"),
            "comes back with a remember-me cookie": lambda: greets(self.remembered.get("/"), ""),
            "reads with an API token": lambda: self.program.get("/api/account"),
            "writes with an API token": lambda: self.program.post("/api/articles/1/comments", json={"body": "x"}),
            "opens a page with the session from before": lambda: greets(self.from_before().get("/"), ""),
            "sends a form that they had opened before, signed in then": lambda: self.from_before().post(
                f"{ARTICLE}/comments", data={"body": "x"}
            ),
            "signs in again": lambda: stranger.post("/login", data=login),
        }[what]()

    def from_before(self) -> Any:
        """Return a browser with the cookie that the member had."""
        back = self.browser()
        back.cookies.set("session", self.member_cookie)
        return back


def greets(answer: Any, name: str) -> Any:
    """Return a page that greets somebody, or nobody."""
    assert f'<body data-account="{name}">' in answer.text
    return answer


@pytest.fixture(scope="module")
def switch() -> Iterator[Switch]:
    """The site's switch."""
    switch = memory_switch()
    yield switch
    switch.close()


@pytest.fixture(scope="module")
def answers(switch: Switch, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, int]]:
    """What somebody does, and the status of the answer: the rows of the tables, in their order."""
    settings = settings_in(tmp_path_factory.mktemp("site"))
    prepare(settings)
    app = create_app(settings, switch=switch)
    with TestClient(app) as entered:
        # One application, many browsers.
        people = People(lambda: TestClient(app, follow_redirects=False))
        found = {}
        switch.confirm(switch.on(message="New floor in the lobby.").epoch, timeout=60).require_safe()
        for what in ROWS:
            if what == "opens a page with the session from before":
                switch.off()
            found[what] = people.does(what).status_code
        assert entered is not None
        yield found


@pytest.mark.parametrize("what", ROWS)
def test_the_tables_are_true(what: str, answers: dict[str, int]) -> None:
    """Each row is done, and answered as it says."""
    assert answers[what] == int(ROWS[what])


def test_the_client_waits_as_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """It asks again after Retry-After, and takes any other answer."""
    found = re.search(r"<!-- sample: client -->\n```python\n(.*?)```", TEXT, re.DOTALL)
    assert found is not None
    given: dict[str, Any] = {}
    exec(compile(found[1], "client", "exec"), given)
    answers = [
        httpx.Response(503, json={"code": "READ_ONLY"}, headers={"retry-after": "61"}),
        httpx.Response(503, json={"code": "READ_ONLY"}, headers={"retry-after": "1"}),
        httpx.Response(201, json={"id": 1}),
        httpx.Response(503, json={"error": "down"}),
    ]
    waited: list[float] = []
    monkeypatch.setattr(given["time"], "sleep", waited.append)
    with httpx.Client(transport=httpx.MockTransport(lambda request: answers.pop(0)), base_url="http://x") as client:
        assert given["post"](client, "/", {}).status_code == 201
        assert given["post"](client, "/", {}).status_code == 503
    assert waited == [61.0, 1.0]
