"""The site on Starlette, put together. `create_app` is where `readonly` comes in; the rest is an ordinary site."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import Session
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.sessions import SessionMiddleware
from starlette.requests import Request
from starlette.routing import BaseRoute, Mount
from starlette.templating import Jinja2Templates

from demo_app import forms, pages
from demo_app.on_starlette import accounts, api, news
from demo_app.on_starlette.parts import trouble
from demo_app.settings import DISCARD, Settings
from demo_app.sqlite_setup import on_connect
from demo_app.tokens import REMEMBER_COOKIE, Tokens
from demo_app.trouble import Trouble
from readonly import Policy, Switch
from readonly.databases.sqlalchemy import Database
from readonly_starlette import ReadOnlyMiddleware, status_app, template_context

COOKIE = "session"


# --- the site becomes switchable --------------------------------------------------------------------------------------


def policy(settings: Settings) -> Policy:
    """Return what this site counts as a login, as a read, and as nobody's business."""
    return Policy(
        exempt=["/healthz"],
        login=["/login", "/register", "GET /oauth/{provider}/callback"],
        logout=["/logout"],
        reads=["POST /search"],
        session_cookies=[COOKIE, REMEMBER_COOKIE],
        secret=settings.secret,
    )


def create_app(
    settings: Settings,
    *,
    switch: Switch | None = None,
    rules: Policy | None = None,
    discard: Sequence[str] = DISCARD,
) -> Starlette:
    """Return the site, with its switch.

    Args:
        settings: Where the data is, and the store.
        switch: Another switch than the store's own: a test keeps it, to turn it.
        rules: Another policy than the site's own.
        discard: Other writes that are dropped than the site's own.
    """
    switch = Switch.from_url(settings.store) if switch is None else switch
    primary = engine(settings)
    replicas = [engine(settings, copy=True)] if settings.standby or not settings.server else []
    database = Database(primary, switch, replicas=replicas, discard=discard)
    return assemble(
        settings,
        sessions=async_sessionmaker(
            primary, sync_session_class=database.routing(Session), expire_on_commit=False, autoflush=False
        ),
        # The first one is the outermost: it takes the ended cookie off a request before SessionMiddleware can see it.
        middleware=[
            Middleware(ReadOnlyMiddleware, switch=switch, policy=policy(settings) if rules is None else rules),
        ],
        more_routes=[Mount("/-/readonly", status_app(switch))],
        context_processors=[template_context(switch)],
        engines=[primary, *replicas],
        at_end=[database.close],
    )


def plain_app(settings: Settings) -> Starlette:
    """Return the same site without `readonly`: what a measurement is compared with."""
    primary = engine(settings)
    sessions = async_sessionmaker(primary, expire_on_commit=False, autoflush=False)
    return assemble(settings, sessions=sessions, engines=[primary])


def app() -> Starlette:
    """Return the site as the environment describes it: `uvicorn --factory demo_app.on_starlette.app:app`."""
    return create_app(Settings.from_env())


def plain() -> Starlette:
    """Return the site without `readonly`, as the environment describes it."""
    return plain_app(Settings.from_env())


# --- an ordinary site -------------------------------------------------------------------------------------------------


def engine(settings: Settings, *, copy: bool = False) -> AsyncEngine:
    """Return an engine for the database, or for its copy; several processes read and write an SQLite file."""
    if settings.server:
        return create_async_engine(settings.server_url("psycopg", copy=copy))
    path = settings.replica if copy else settings.database
    created = create_async_engine(f"sqlite+aiosqlite:///{path}", pool_size=8, max_overflow=8)
    event.listen(created.sync_engine, "connect", on_connect)
    return created


def all_routes() -> list[BaseRoute]:
    """Return every address of the site."""
    return [*news.routes(), *accounts.routes(), *api.routes()]


def assemble(
    settings: Settings,
    *,
    sessions: async_sessionmaker[AsyncSession],
    middleware: Sequence[Middleware] = (),
    more_routes: Sequence[BaseRoute] = (),
    context_processors: Sequence[Callable[[Request], dict[str, Any]]] = (),
    engines: Sequence[AsyncEngine] = (),
    at_end: Sequence[Callable[[], None]] = (),
) -> Starlette:
    """Return the site's application, with whatever is put around it."""

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        yield
        for used in engines:
            await used.dispose()
        for call in at_end:
            call()

    application = Starlette(
        routes=[*all_routes(), *more_routes],
        middleware=[
            *middleware,
            Middleware(SessionMiddleware, secret_key=settings.secret, session_cookie=COOKIE),
        ],
        exception_handlers={HTTPException: trouble, Trouble: trouble, forms.Problem: trouble},
        lifespan=lifespan,
    )
    application.state.sessions = sessions
    application.state.tokens = Tokens(settings.secret)
    application.state.templates = Jinja2Templates(
        env=pages.environment(), context_processors=[_not_switchable, *context_processors]
    )
    return application


def _not_switchable(_request: Request) -> dict[str, Any]:
    # The templates need not know that there may be no switch.
    return {"readonly": pages.NOT_SWITCHABLE}
