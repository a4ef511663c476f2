"""What the addresses of the Flask site share: the database, who is reading, forms in and pages out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec, TypeVar

from flask import Flask, Response, flash, get_flashed_messages, jsonify, redirect, render_template, request, session
from flask.typing import ResponseReturnValue
from flask_login import LoginManager, UserMixin, current_user, login_user, user_loaded_from_cookie
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy.orm import Session
from werkzeug.exceptions import HTTPException

from demo_app import forms, pages, queries
from demo_app.shown import ShownAccount
from demo_app.trouble import Trouble, of_status, unknown_caller

P = ParamSpec("P")
T = TypeVar("T")

db = SQLAlchemy()
logins = LoginManager()


def transact(call: Callable[Concatenate[Session, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Ask the database something, or change something in it, in a transaction of its own."""
    with db.session.begin():
        return call(db.session(), *args, **kwargs)


# --- who is reading ---------------------------------------------------------------------------------------------------


class Reader(UserMixin):  # type: ignore[misc]  # Flask-Login has no types
    """Somebody with an account, as Flask-Login wants them."""

    def __init__(self, account: ShownAccount) -> None:
        self.account = account
        self.id = account.id


@logins.user_loader  # type: ignore[untyped-decorator]  # see above
def load_reader(account_id: str) -> Reader | None:
    """Return who a session is of."""
    found = transact(queries.account_by_id, int(account_id))
    return None if found is None else Reader(found)


def note_return(_app: Flask, user: Reader, **_more: Any) -> None:
    """Somebody came back by the remember-me cookie, which begins a session: a GET that writes."""
    transact(queries.note_login, user.id)


def reader() -> ShownAccount | None:
    """Return who is logged in here."""
    return current_user.account if current_user.is_authenticated else None


def begin_session(account_id: int, *, remember: bool = False) -> None:
    """Log this browser in; whatever its session held before is gone."""
    session.clear()
    login_user(load_reader(str(account_id)), remember=remember)


def caller() -> ShownAccount:
    """Return who calls the API, by bearer token or by the session cookie.

    Raises:
        Trouble: Nobody we know.
    """
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    found = transact(queries.account_by_token, token.strip()) if scheme.lower() == "bearer" else reader()
    if found is None:
        raise unknown_caller()
    return found


# --- forms in, pages out ----------------------------------------------------------------------------------------------


def page(template: str, *, status: int = 200, **values: Any) -> tuple[str, int]:
    """Render a page, with the reader's name in its head and whatever was left for the reader to be told."""
    if "account" not in values:
        values["account"] = reader()
    context = pages.common(here=request.path, messages=get_flashed_messages(), **values)
    return render_template(template, **context), status


def leave_message(text: str) -> None:
    """Keep a sentence in the session, for the next page."""
    flash(text)


def typed(*names: str) -> list[str]:
    """Return these fields of the form that was sent; a missing one is empty."""
    return [request.form.get(name, "") for name in names]


def see(path: str) -> ResponseReturnValue:
    """Send the browser on to another page, by GET."""
    return redirect(path, 303)


def trouble(error: Exception) -> ResponseReturnValue:
    """Answer what can't be answered as it was meant: as JSON to the API's callers, as a page to everybody else."""
    if isinstance(error, HTTPException):
        error = of_status(error.code or 500)
    elif isinstance(error, forms.Problem):
        error = Trouble(422, str(error))
    assert isinstance(error, Trouble)  # noqa: S101 - `create_app` registers this for nothing else
    if request.path.startswith("/api/"):
        return json({"error": error.detail}, error.status, error.headers)
    return page("trouble.html", status=error.status, code=error.status, detail=error.detail)


def json(document: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """Return a JSON document."""
    answer = jsonify(document)
    answer.status_code = status
    answer.headers.update(headers or {})
    return answer


def install(app: Flask) -> None:
    """Give an application all of this."""
    db.init_app(app)
    logins.init_app(app)
    user_loaded_from_cookie.connect(note_return, app)
    for kind in (HTTPException, Trouble, forms.Problem):
        app.register_error_handler(kind, trouble)
