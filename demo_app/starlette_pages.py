"""The site's addresses and what they answer, on Starlette. Nothing here knows that the site can be switched."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any, Concatenate, ParamSpec, TypeVar

from itsdangerous import BadSignature
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.templating import Jinja2Templates

from demo_app import forms, pages, queries, story
from demo_app.shown import ShownAccount

P = ParamSpec("P")
T = TypeVar("T")

CODE_MAX_AGE_SECONDS = 300
"""How long the code of a (pretended) sign-in service may take to come back."""

SCORES_MAX_AGE_SECONDS = 2


def routes() -> list[BaseRoute]:
    """Return every address of the site."""
    return [
        Route("/", front),
        Route("/sections/{section}", section),
        Route("/articles/{slug}", article),
        Route("/articles/{slug}/comments", comment, methods=["POST"]),
        Route("/scores", scores),
        Route("/scores.json", scores_json),
        Route("/search", search, methods=["GET", "POST"]),
        Route("/login", login, methods=["GET", "POST"]),
        Route("/register", register, methods=["GET", "POST"]),
        Route("/logout", logout, methods=["POST"]),
        Route("/account", account, methods=["GET", "POST"]),
        Route("/oauth/{provider}", oauth_choose),
        Route("/oauth/{provider}/authorize", oauth_authorize),
        Route("/oauth/{provider}/callback", oauth_callback),
        Route("/api/articles", api_articles),
        Route("/api/articles/{id:int}", api_article),
        Route("/api/articles/{id:int}/comments", api_comments, methods=["GET", "POST"]),
        Route("/api/scores", scores_json),
        Route("/api/account", api_account),
        Route("/healthz", healthz),
        Mount("/static", StaticFiles(directory=pages.STATIC)),
    ]


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
    """Render a page, with the reader's name in its head."""
    if "account" not in values:
        values["account"] = await reader(request)
    templates: Jinja2Templates = request.app.state.templates
    context = pages.common(here=request.url.path, **values)
    return templates.TemplateResponse(request, template, context, status_code=status)


async def reader(request: Request) -> ShownAccount | None:
    """Return who is logged in here, by the session cookie."""
    account_id = request.session.get("account")
    if account_id is None:
        return None
    return await read(request, queries.account_by_id, account_id)


async def caller(request: Request) -> ShownAccount:
    """Return who calls the API, by bearer token or by the session cookie.

    Raises:
        HTTPException: 401, if nobody we know.
    """
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    found = (
        await read(request, queries.account_by_token, token.strip())
        if scheme.lower() == "bearer"
        else await reader(request)
    )
    if found is None:
        raise HTTPException(401, "Log in, or send the token from your account page.", {"WWW-Authenticate": "Bearer"})
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
    """Answer 404 and its kind: as JSON to the API's callers, as a page to everybody else."""
    assert isinstance(error, HTTPException)  # noqa: S101 - the table in `assemble` sends nothing else here
    if request.url.path.startswith("/api/"):
        return JSONResponse({"error": error.detail}, error.status_code, headers=error.headers)
    return await page(request, "trouble.html", status=error.status_code, code=error.status_code, detail=error.detail)


async def mistyped(request: Request, error: Exception) -> Response:
    """Answer what can't be taken, where no form is at hand to be shown again."""
    if request.url.path.startswith("/api/"):
        return JSONResponse({"error": str(error)}, 422)
    return await page(request, "trouble.html", status=422, code=422, detail=str(error))


# --- pages ------------------------------------------------------------------------------------------------------------


async def front(request: Request) -> Response:
    """The front page."""

    def everything(session: Session) -> dict[str, Any]:
        return {
            "articles": queries.latest(session),
            "most_read": queries.most_read(session),
            "matches": queries.scores(session, at=time.time()),
        }

    return await page(request, "front.html", **await read(request, everything))


async def section(request: Request) -> Response:
    """One department."""
    slug = request.path_params["section"]
    if slug not in {known.slug for known in story.SECTIONS}:
        raise HTTPException(404, "There is no such section.")
    return await page(request, "section.html", section=slug, articles=await read(request, queries.latest, section=slug))


async def article(request: Request) -> Response:
    """An article with its comments; opening it counts."""

    def everything(session: Session) -> dict[str, Any] | None:
        found = queries.article_by_slug(session, request.path_params["slug"])
        if found is None:
            return None
        return {
            "article": found,
            "comments": queries.comments(session, found.id),
            "more": [card for card in queries.latest(session, section=found.section) if card.id != found.id][:3],
        }

    values = await read(request, everything)
    if values is None:
        raise HTTPException(404, "There is no such article.")
    # A GET that writes. In a transaction of its own, so that nobody waits for the page with the write lock held;
    # while the site is read-only, the guard drops the statement, by the table's name.
    await write(request, queries.count_view, values["article"].id)
    return await page(request, "article.html", **values)


async def comment(request: Request) -> Response:
    """Take a comment from somebody who is logged in."""
    who = await reader(request)
    if who is None:
        return see(f"/login?next=/articles/{request.path_params['slug']}")
    (body,) = await typed(request, "body")
    found = await read(request, queries.article_by_slug, request.path_params["slug"])
    if found is None:
        raise HTTPException(404, "There is no such article.")
    number = await write(request, queries.add_comment, article_id=found.id, account_id=who.id, body=forms.comment(body))
    return see(f"/articles/{found.slug}#comment-{number}")


async def scores(request: Request) -> Response:
    """The match day."""
    return await page(request, "scores.html", matches=await read(request, queries.scores, at=time.time()))


async def scores_json(request: Request) -> Response:
    """The match day again, for the script on the pages that asks every few seconds."""
    matches = await read(request, queries.scores, at=time.time())
    return JSONResponse(
        {"matches": [asdict(match) for match in matches]},
        headers={"cache-control": f"max-age={SCORES_MAX_AGE_SECONDS}"},
    )


async def search(request: Request) -> Response:
    """Search by POST: nothing is written, so the policy declares it a read."""
    if request.method != "POST":
        return await page(request, "search.html", words="", articles=None)
    (words,) = await typed(request, "words")
    words = words.strip()[:100]
    return await page(request, "search.html", words=words, articles=await read(request, queries.search, words))


# --- accounts ---------------------------------------------------------------------------------------------------------


async def login(request: Request) -> Response:
    """The login form, and what happens when it is sent."""
    back = forms.local_path(request.query_params.get("next", "/account"))
    if request.method != "POST":
        return await page(request, "login.html", next=back, name="", providers=forms.PROVIDERS)
    name, password, back = await typed(request, "name", "password", "next")
    found = await read(request, queries.account_by_password, name.strip().lower(), password)
    if found is None:
        return await page(
            request,
            "login.html",
            status=422,
            next=forms.local_path(back),
            name=name,
            providers=forms.PROVIDERS,
            problem="Name and password do not fit together.",
        )
    await write(request, queries.note_login, found.id)
    begin_session(request, found.id)
    return see(forms.local_path(back, default="/account"))


async def register(request: Request) -> Response:
    """The form for a new account, and what happens when it is sent."""
    if request.method != "POST":
        return await page(request, "register.html", name="", display_name="")
    name, display_name, password = await typed(request, "name", "display_name", "password")
    try:
        number = await write(
            request,
            queries.add_account,
            name=forms.account_name(name),
            display_name=forms.display_name(display_name or name),
            password=forms.password(password),
        )
    except (forms.Problem, IntegrityError) as error:
        problem = str(error) if isinstance(error, forms.Problem) else "Somebody else has that name already."
        return await page(request, "register.html", status=422, name=name, display_name=display_name, problem=problem)
    begin_session(request, number)
    return see("/account")


def begin_session(request: Request, account_id: int) -> None:
    """Log this browser in; whatever its session held before is gone."""
    request.session.clear()
    request.session["account"] = account_id


async def logout(request: Request) -> Response:
    """End this browser's session."""
    request.session.clear()
    return see("/")


async def account(request: Request) -> Response:
    """The reader's own page, and the change of the name that others see."""
    who = await reader(request)
    if who is None:
        return see("/login?next=/account")
    if request.method != "POST":
        return await page(request, "account.html", account=who, notice=request.query_params.get("saved", ""))
    (name,) = await typed(request, "display_name")
    try:
        await write(request, queries.rename, who.id, forms.display_name(name))
    except forms.Problem as error:
        return await page(request, "account.html", status=422, account=who, problem=str(error))
    return see("/account?saved=1")


# The other way in: a sign-in service sends the browser back with a code, and the session begins on a GET. The service
# is played by the first two of these three addresses; it asks for no password and believes everybody.


def provider(request: Request) -> str:
    """Return the sign-in service that the address names.

    Raises:
        HTTPException: 404, if it is none that we pretend to know.
    """
    name: str = request.path_params["provider"]
    if name not in forms.PROVIDERS:
        raise HTTPException(404, "There is no such sign-in service.")
    return name


async def oauth_choose(request: Request) -> Response:
    """The service asks who you are."""
    return await page(request, "oauth.html", provider=provider(request))


async def oauth_authorize(request: Request) -> Response:
    """The service sends the browser back, with a signed code."""
    service = provider(request)
    subject = forms.account_name(request.query_params.get("name", ""))
    code = request.app.state.codes.dumps([service, subject])
    return see(f"/oauth/{service}/callback?code={code}")


async def oauth_callback(request: Request) -> Response:
    """Begin a session for whoever the code names; their first visit makes an account."""
    service = provider(request)
    try:
        signed_for, subject = request.app.state.codes.loads(
            request.query_params.get("code", ""), max_age=CODE_MAX_AGE_SECONDS
        )
    except BadSignature:
        raise HTTPException(403, "That code is not, or no longer, worth anything.") from None
    if signed_for != service:
        raise HTTPException(403, "That code is another service's.")
    # A plus sign can't be in a name that was registered here, so nobody can claim another's account through a service.
    name = f"{service}+{subject}"
    known = await read(request, queries.account_by_name, name)
    if known is not None:
        await write(request, queries.note_login, known.id)
        begin_session(request, known.id)
    else:
        display_name = subject.replace("-", " ").title()
        number = await write(request, queries.add_account, name=name, display_name=display_name, provider=service)
        begin_session(request, number)
    return see("/account")


# --- the JSON API -----------------------------------------------------------------------------------------------------


async def api_articles(request: Request) -> Response:
    """The newest articles."""
    return JSONResponse({"articles": [plain(card) for card in await read(request, queries.latest)]})


async def api_article(request: Request) -> Response:
    """One article."""
    found = await read(request, queries.article_by_id, request.path_params["id"])
    if found is None:
        raise HTTPException(404, "There is no such article.")
    return JSONResponse(plain(found))


async def api_comments(request: Request) -> Response:
    """The comments of an article, and one more."""
    article_id = request.path_params["id"]
    if request.method != "POST":
        found = await read(request, queries.comments, article_id)
        return JSONResponse({"comments": [plain(each) for each in found]})
    who = await caller(request)
    try:
        sent = await request.json()
        body = forms.comment(str(sent["body"]))
    except (ValueError, KeyError, TypeError) as error:
        detail = str(error) if isinstance(error, forms.Problem) else 'Send {"body": "..."}.'
        raise HTTPException(422, detail) from None
    try:
        number = await write(request, queries.add_comment, article_id=article_id, account_id=who.id, body=body)
    except IntegrityError:
        raise HTTPException(404, "There is no such article.") from None
    return JSONResponse({"id": number, "article": article_id, "body": body}, 201)


async def api_account(request: Request) -> Response:
    """Who is calling; whoever has a session learns the token for the API."""
    return JSONResponse(plain(await caller(request)))


def plain(shown: Any) -> Mapping[str, Any]:
    """Return what a template would be given, as JSON takes it."""
    return {key: value if isinstance(value, int | str | None) else _text(value) for key, value in asdict(shown).items()}


def _text(value: Any) -> Any:
    return value.isoformat() if hasattr(value, "isoformat") else list(value)


async def healthz(_request: Request) -> Response:
    """The process is up. No database, no session, no switch."""
    return PlainTextResponse("ok\n")
