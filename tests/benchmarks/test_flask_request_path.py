"""What a request costs a Flask application with the extension, beside one with a wrapper that does nothing.

Small views behind a URL map of ordinary size (measured as `beside.py` says). A refusal is compared with what a site
would write by hand: a `before_request` that returns a static 503.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from flask import Flask

from benchmarks.beside import Beside, Round, WsgiNoOp, in_state, wsgi_round
from readonly import writes
from readonly_flask import ReadOnly
from support.apps import Request

pytestmark = pytest.mark.bench

REQUESTS = 150
COSTS = Beside("Flask", rounds=10)

COOKIE = (("Cookie", "theme=dark; session=x.y.z"),)
GET, POST = Request("GET", "/articles/7"), Request("POST", "/articles/7/comments")
SIGNED_IN = Request("GET", "/articles/7", headers=COOKIE)


@dataclass(frozen=True)
class Case:
    """One line of the table.

    Attributes:
        name: What is measured.
        request: What is asked.
        state: What the switch says.
        target: The ratio that is aimed at, or None for a line that is only shown.
        marked: Some view of the process is marked `@writes`.
        refused: Compared with a refusal by hand, instead of the wrapper.
    """

    name: str
    request: Request
    state: str
    target: float | None
    marked: bool = False
    refused: bool = False


CASES = [
    Case("writable GET", GET, "writable", 1.0),
    Case("writable GET of somebody signed in", SIGNED_IN, "writable", 1.0),
    Case("writable GET, where some view is marked", GET, "writable", None, marked=True),
    Case("writable POST, routed and counted", POST, "writable", 1.25),
    Case("read-only GET", GET, "read-only", 3.0),
    Case("read-only GET of somebody signed in", SIGNED_IN, "read-only", 3.0),
    Case("GET after off", GET, "over", None),
    Case("GET after off of somebody signed in", SIGNED_IN, "over", None),
    Case("refused POST", POST, "read-only", 1.25, refused=True),
]


def site() -> Flask:
    """Return an application of ordinary size."""
    app = Flask("news", root_path=".")
    app.config["SECRET_KEY"] = "key"

    @app.get("/articles/<int:number>")
    def article(number: int) -> str:
        return "words"

    @app.post("/articles/<int:number>/comments")
    def comment(number: int) -> str:
        return "thanks"

    for number in range(50):
        app.add_url_rule(f"/part{number}/<name>/<int:page>", f"part{number}", lambda name, page: "")
    return app


def ours(case: Case) -> Flask:
    """Return that application with the extension, in the state of a case."""
    switch = in_state(case.state)
    app = site()
    ReadOnly(app, switch=switch.as_switch())
    if case.marked:
        app.add_url_rule("/ping", "ping", writes(lambda: ""))
    return app


def others(case: Case) -> Flask:
    """Return it with the wrapper, or with a refusal by hand."""
    app = site()
    if case.refused:
        headers = {"Retry-After": "60", "Cache-Control": "no-store"}
        app.before_request(lambda: ('{"detail": "The site is read-only at the moment."}', 503, headers))
        return app
    app.wsgi_app = WsgiNoOp(app.wsgi_app)  # type: ignore[method-assign]
    return app


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name.replace(" ", "-"))
def test_cost_of_a_request_to_flask(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """No request costs more than twice its target."""
    # A mark counts for the whole process, and other tests have set some.
    monkeypatch.setattr("readonly.marks._seen_marks", set())

    def candidates() -> list[Round]:
        return [wsgi_round(app, case.request, REQUESTS) for app in (site(), others(case), ours(case))]

    COSTS.check(case.name, case.target, candidates)


@pytest.fixture(scope="module", autouse=True)
def table() -> Iterator[None]:
    """Print the table at the end."""
    yield
    COSTS.show()
