"""What the addresses of the Starlette site share: the database, who is reading, forms in and pages out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec, TypeVar

from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.templating import Jinja2Templates

from demo_app import forms, pages, queries
from demo_app.shown import ShownAccount
from demo_app.tokens import REMEMBER_COOKIE, Tokens
from demo_app.trouble import Trouble, of_status, unknown_caller

P = ParamSpec("P")
T = TypeVar("T")


async def read(request: Request, query: Callable[Concatenate[Session, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Ask the database something."""
    async with request.app.state.sessions() as session:
        return await _run(session, query, *args, **kwargs)


async def write(request: Request, change: Callable[Concatenate[Session, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Change something in the database; it is committed when this returns."""
    async with request.app.state.sessions.begin() as session:
        return await _run(session, change, *args, **kwargs)


async def _run(
    session: AsyncSession, call: Callable[Concatenate[Session, P], T], *args: P.args, **kwargs: P.kwargs
) -> T:
    return await session.run_sync(call, *args, **kwargs)


async def page(request: Request, template: str, *, status: int = 200, **values: Any) -> Response:
    """Render a page, with the reader's name in its head and whatever was left for the reader to be told."""
    if "account" not in values:
        values["account"] = await reader(request)
    templates: Jinja2Templates = request.app.state.templates
    messages = request.session.pop("messages") if "messages" in request.session else ()
    context = pages.common(here=request.url.path, messages=messages, **values)
    return templates.TemplateResponse(request, template, context, status_code=status)


def leave_message(request: Request, text: str) -> None:
    """Keep a sentence in the session, for the next page."""
    request.session["messages"] = [*request.session.get("messages", ()), text]


async def reader(request: Request) -> ShownAccount | None:
    """Return who is logged in here, by the session cookie; the remember-me cookie begins a new session."""
    account_id = request.session.get("account")
    if account_id is None:
        tokens: Tokens = request.app.state.tokens
        account_id = tokens.remembered(request.cookies.get(REMEMBER_COOKIE, ""))
        if account_id is None:
            return None
        await write(request, queries.note_login, account_id)
        begin_session(request, account_id)
    return await read(request, queries.account_by_id, account_id)


def begin_session(request: Request, account_id: int) -> None:
    """Log this browser in; whatever its session held before is gone."""
    request.session.clear()
    request.session["account"] = account_id


async def caller(request: Request) -> ShownAccount:
    """Return who calls the API, by bearer token or by the session cookie.

    Raises:
        Trouble: Nobody we know.
    """
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    found = (
        await read(request, queries.account_by_token, token.strip())
        if scheme.lower() == "bearer"
        else await reader(request)
    )
    if found is None:
        raise unknown_caller()
    return found


async def typed(request: Request, *names: str) -> list[str]:
    """Return these fields of the form that was sent; a missing one is empty, and so is a file in its place."""
    async with request.form() as form:
        values = [form.get(name, "") for name in names]
    return [value if isinstance(value, str) else "" for value in values]


def see(path: str) -> Response:
    """Send the browser on to another page, by GET."""
    return RedirectResponse(path, status_code=303)


async def trouble(request: Request, error: Exception) -> Response:
    """Answer what can't be answered as it was meant: as JSON to the API's callers, as a page to everybody else."""
    if isinstance(error, HTTPException):
        error = of_status(error.status_code)
    elif isinstance(error, forms.Problem):
        error = Trouble(422, str(error))
    assert isinstance(error, Trouble)  # noqa: S101 - the table in `assemble` sends nothing else here
    if request.url.path.startswith("/api/"):
        return JSONResponse({"error": error.detail}, error.status, headers=error.headers)
    return await page(request, "trouble.html", status=error.status, code=error.status, detail=error.detail)
