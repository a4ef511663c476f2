"""The demo site, broken on purpose: factories for `python -m demo_app.demo --app`, to see it find out."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

from sqlalchemy.ext.asyncio import async_sessionmaker
from starlette.applications import Starlette
from starlette.routing import Mount

from demo_app.on_starlette.app import assemble, create_app, engine, policy
from demo_app.settings import Settings
from readonly import Switch
from readonly_starlette import status_app


def without_gate() -> Starlette:
    """The processes report that they obey, and nobody looks at a request."""
    settings = Settings.from_env()
    switch = Switch.from_url(settings.store)
    primary = engine(settings)
    site = assemble(
        settings,
        sessions=async_sessionmaker(primary, expire_on_commit=False, autoflush=False),
        more_routes=[Mount("/-/readonly", status_app(switch))],
        engines=[primary],
    )
    ordinary = site.router.lifespan_context

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        switch.start()
        async with ordinary(app):
            yield
        switch.close()

    site.router.lifespan_context = lifespan
    return site


def with_sessions_kept() -> Starlette:
    """The gate refuses writes and logins, and whoever is logged in stays so."""
    settings = Settings.from_env()
    return create_app(settings, rules=replace(policy(settings), sessions="keep"))
