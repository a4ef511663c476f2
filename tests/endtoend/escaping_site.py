"""A small site for tests of what the gate can't know: GET /stories/{id} counts a visit in PostgreSQL, GET / reads."""

from __future__ import annotations

import logging
import os

from sqlalchemy import make_url, text
from sqlalchemy.ext.asyncio import create_async_engine
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from readonly import Switch
from readonly.databases.sqlalchemy import Database
from readonly_starlette import ReadOnlyMiddleware

# What a site's own logging would show.
logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")

switch = Switch.from_url(os.environ["READONLY_STORE"], interval=0.2, role="web")
engine = create_async_engine(make_url(os.environ["TEST_DATABASE"]).set(drivername="postgresql+asyncpg"))
Database(engine, switch)


async def front(request: Request) -> PlainTextResponse:
    """Read."""
    async with engine.connect() as connection:
        visits = (await connection.execute(text("SELECT count(*) FROM visit"))).scalar_one()
    return PlainTextResponse(f"{visits} visits")


async def story(request: Request) -> PlainTextResponse:
    """Write, though it looks like reading."""
    async with engine.begin() as connection:
        await connection.execute(text("INSERT INTO visit (story) VALUES (:id)"), {"id": request.path_params["id"]})
    return PlainTextResponse("a story")


app = Starlette(
    routes=[Route("/", front), Route("/stories/{id}", story, name="story")],
    middleware=[Middleware(ReadOnlyMiddleware, switch=switch)],
)
