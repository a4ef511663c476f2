"""Logging in and out, the account page, and the sign-in services, on Starlette."""

from __future__ import annotations

from sqlalchemy.exc import IntegrityError
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from demo_app import forms, queries
from demo_app.on_starlette.parts import begin_session, leave_message, page, read, reader, see, typed, write
from demo_app.tokens import REMEMBER_COOKIE, REMEMBER_MAX_AGE_SECONDS, Tokens, service_account
from demo_app.trouble import LOG_IN_FIRST, NAME_TAKEN, WRONG_PASSWORD, no_service


def routes() -> list[BaseRoute]:
    """Return these addresses."""
    return [
        Route("/login", login, methods=["GET", "POST"]),
        Route("/register", register, methods=["GET", "POST"]),
        Route("/logout", logout, methods=["POST"]),
        Route("/account", account, methods=["GET", "POST"]),
        Route("/oauth/{provider}", oauth_choose),
        Route("/oauth/{provider}/authorize", oauth_authorize),
        Route("/oauth/{provider}/callback", oauth_callback),
    ]


async def login(request: Request) -> Response:
    """The login form, and what happens when it is sent."""
    back = forms.local_path(request.query_params.get("next", "/account"))
    if request.method != "POST":
        return await page(request, "login.html", next=back, name="", providers=forms.PROVIDERS)
    name, password, back, remember = await typed(request, "name", "password", "next", "remember")
    found = await read(request, queries.account_by_password, name.strip().lower(), password)
    if found is None:
        return await page(
            request,
            "login.html",
            status=422,
            next=forms.local_path(back),
            name=name,
            providers=forms.PROVIDERS,
            problem=WRONG_PASSWORD,
        )
    await write(request, queries.note_login, found.id)
    begin_session(request, found.id)
    answer = see(forms.local_path(back, default="/account"))
    if remember:
        tokens: Tokens = request.app.state.tokens
        answer.set_cookie(
            REMEMBER_COOKIE,
            tokens.remember(found.id),
            max_age=REMEMBER_MAX_AGE_SECONDS,
            httponly=True,
            samesite="lax",
        )
    return answer


async def register(request: Request) -> Response:
    """The form for a new account, and what happens when it is sent."""
    if request.method != "POST":
        return await page(request, "register.html", name="", display_name="")
    name, display_name, password = await typed(request, "name", "display_name", "password")
    try:
        new = forms.new_account(name, display_name, password)
        number = await write(request, queries.add_account, **new)
    except (forms.Problem, IntegrityError) as error:
        problem = str(error) if isinstance(error, forms.Problem) else NAME_TAKEN
        return await page(request, "register.html", status=422, name=name, display_name=display_name, problem=problem)
    begin_session(request, number)
    return see("/account")


async def logout(request: Request) -> Response:
    """End this browser's session, for good."""
    request.session.clear()
    answer = see("/")
    answer.delete_cookie(REMEMBER_COOKIE)
    return answer


async def account(request: Request) -> Response:
    """The reader's own page, and the change of the name that others see."""
    who = await reader(request)
    if who is None:
        leave_message(request, LOG_IN_FIRST)
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
        Trouble: It is none that we pretend to know.
    """
    name: str = request.path_params["provider"]
    if name not in forms.PROVIDERS:
        raise no_service()
    return name


async def oauth_choose(request: Request) -> Response:
    """The service asks who you are."""
    return await page(request, "oauth.html", provider=provider(request))


async def oauth_authorize(request: Request) -> Response:
    """The service sends the browser back, with a signed code."""
    service = provider(request)
    subject = forms.account_name(request.query_params.get("name", ""))
    tokens: Tokens = request.app.state.tokens
    return see(f"/oauth/{service}/callback?code={tokens.code(service, subject)}")


async def oauth_callback(request: Request) -> Response:
    """Begin a session for whoever the code names; their first visit makes an account."""
    service = provider(request)
    tokens: Tokens = request.app.state.tokens
    name, display_name = service_account(service, tokens.subject(service, request.query_params.get("code", "")))
    known = await read(request, queries.account_by_name, name)
    if known is not None:
        await write(request, queries.note_login, known.id)
        begin_session(request, known.id)
    else:
        number = await write(request, queries.add_account, name=name, display_name=display_name, provider=service)
        begin_session(request, number)
    return see("/account")
