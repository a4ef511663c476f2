"""A write that only the guard has stopped is answered with the 503, whatever Flask makes of the exception."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from flask import Blueprint, Flask, Response, got_request_exception, stream_with_context
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import text
from werkzeug.debug import DebuggedApplication
from werkzeug.test import Client

from readonly import ReadOnlyError, reads
from readonly_flask import ReadOnly
from support.flask_sites import MakeApp, switch_of

EVERY_MODE = [
    {},
    {"TESTING": True},
    {"DEBUG": True},
    {"PROPAGATE_EXCEPTIONS": True},
    {"PROPAGATE_EXCEPTIONS": False},
    {"TRAP_HTTP_EXCEPTIONS": True},
    {"TESTING": True, "DEBUG": True, "PRESERVE_CONTEXT_ON_EXCEPTION": True},
]


def writing(make_app: MakeApp, folder: Path, **config: Any) -> Flask:
    """Return an application whose GETs write, read-only."""
    app = make_app(SQLALCHEMY_DATABASE_URI=f"sqlite:///{folder}/main.db", **config)
    db = SQLAlchemy(app)
    with app.app_context(), db.engine.begin() as connection:
        connection.execute(text("CREATE TABLE note (words TEXT)"))

    @app.get("/write")
    def write() -> str:
        db.session.execute(text("INSERT INTO note VALUES ('x')"))
        db.session.commit()
        return "written"

    @app.get("/counted")
    @switch_of(app).writing()
    def counted() -> str:
        return "counted"

    @app.get("/streamed")
    def streamed() -> Response:
        def parts() -> Iterator[str]:
            write()
            yield "written"

        return Response(stream_with_context(parts()))

    @app.get("/half")
    def half() -> Response:
        def parts() -> Iterator[str]:
            yield "half of it, and "
            write()
            yield "the other half"

        return Response(stream_with_context(parts()))

    @app.get("/broken")
    def broken() -> str:
        raise LookupError("a fault of the site's own")

    switch_of(app).on(message="moving")
    return app


@pytest.mark.parametrize("config", EVERY_MODE)
@pytest.mark.parametrize("path", ["/write", "/counted", "/streamed"])
def test_in_every_mode(make_app: MakeApp, tmp_path: Path, config: dict[str, Any], path: str) -> None:
    """Errors that are propagated, or shown by a debugger, are answered all the same."""
    app = writing(make_app, tmp_path, **config)
    for client in (app.test_client(), Client(DebuggedApplication(app))):
        refused = client.get(path, headers={"Accept": "application/json"})
        assert refused.status_code == 503
        assert refused.get_json()["detail"] == "moving"  # type: ignore[index]
        assert refused.headers["Retry-After"].isdigit()


@pytest.mark.parametrize("config", [{}, {"TESTING": True}])
def test_other_errors_stay_errors(make_app: MakeApp, tmp_path: Path, config: dict[str, Any]) -> None:
    """What is no refusal is none of ours."""
    app = writing(make_app, tmp_path, **config)
    if config:
        with pytest.raises(LookupError):
            app.test_client().get("/broken")
    else:
        assert app.test_client().get("/broken").status_code == 500


def test_an_answer_that_has_begun_is_not_replaced(make_app: MakeApp, tmp_path: Path) -> None:
    """Half of a page is out: the server breaks it off, and nothing is written."""
    app = writing(make_app, tmp_path)
    with pytest.raises(ReadOnlyError):
        _ = app.test_client().get("/half").data


def test_a_handler_for_everything_is_not_asked(make_app: MakeApp, tmp_path: Path) -> None:
    """`@app.errorhandler(Exception)` would answer with a page of its own; a refusal is more special than that."""
    app = writing(make_app, tmp_path)
    app.register_error_handler(Exception, lambda error: ("oops", 200))
    assert app.test_client().get("/write").status_code == 503
    assert app.test_client().get("/broken").text == "oops"


def test_a_handler_of_the_sites_own(tmp_path: Path, make_app: MakeApp) -> None:
    """A site may say what a refusal is; its 5xx is made the full answer, anything else is its own affair."""

    def handled(*, first: bool, status: int) -> Any:
        app = make_app(wrap=False)
        steps = [
            lambda: ReadOnly(app),
            lambda: app.register_error_handler(ReadOnlyError, lambda error: ("mine", status)),
        ]
        for step in steps if first else reversed(steps):
            step()
        app.add_url_rule("/", "home", switch_of(app).writing()(lambda: "written"))
        switch_of(app).on()
        return app.test_client().get("/", headers={"Accept": "application/json"})

    for first in (True, False):
        assert handled(first=first, status=500).get_json()["code"] == "READ_ONLY"
        assert handled(first=first, status=202).text == "mine"


def test_a_blueprints_handler_for_everything(make_app: MakeApp, tmp_path: Path) -> None:
    """It comes before ours, as Flask has it: with 500 the answer is the full one."""
    app = make_app()
    part = Blueprint("part", __name__)
    part.register_error_handler(Exception, lambda error: ("oops", 500))
    part.add_url_rule("/", "home", switch_of(app).writing()(lambda: "written"))
    app.register_blueprint(part)
    switch_of(app).on()
    assert app.test_client().get("/").get_json()["code"] == "READ_ONLY"


def test_a_refusal_is_not_logged_as_a_crash(
    make_app: MakeApp, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """No traceback and no `got_request_exception`, which wakes people; one line says which rule is missing."""
    app = writing(make_app, tmp_path)
    app.add_url_rule("/noted", "noted", app.view_functions["write"])
    crashed: list[BaseException] = []

    def note(sender: Flask, exception: BaseException, **_more: Any) -> None:
        crashed.append(exception)

    with caplog.at_level(logging.INFO), got_request_exception.connected_to(note, app):
        for _ in range(3):
            assert app.test_client().get("/noted", buffered=True).status_code == 503  # closed, as a server does
    assert crashed == []
    # Answers that other tests have left open are counted when they go, which may be now.
    assert {record.name for record in caplog.records} <= {"readonly"}
    assert caplog.text.count("noted tried to write while read-only") == 1
    assert switch_of(app).tally.totals()["escaped"] == 3


def test_in_a_view_that_is_a_coroutine(make_app: MakeApp, tmp_path: Path) -> None:
    """Flask runs it on a loop in another context; what is refused there is answered here, and marks count."""
    app = writing(make_app, tmp_path)
    db = app.extensions["sqlalchemy"]

    @app.get("/async")
    async def view() -> str:
        db.session.execute(text("INSERT INTO note VALUES ('x')"))
        return "written"

    @app.get("/counted-async")
    async def counted_async() -> str:
        async with switch_of(app).writing():
            return "counted"

    @app.post("/search")
    @reads
    async def search() -> str:
        return "found"

    for path in ("/async", "/counted-async"):
        assert app.test_client().get(path).get_json()["detail"] == "moving"
    assert app.test_client().post("/search").text == "found"


def test_a_refusal_outside_of_a_guarded_request(make_app: MakeApp) -> None:
    """Another site's refusal, or a block that nobody had counted before, is a 503 as well, with the time it may end."""
    app = make_app()
    other = make_app("other")
    app.add_url_rule("/", "home", lambda: switch_of(other).writing()(str)())
    switch_of(other).on(expected=timedelta(minutes=5))
    answer = app.test_client().get("/")
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "60")
    assert answer.headers["X-Read-Only-Until"].endswith("Z")
    assert answer.headers["Cache-Control"] == "no-store"
