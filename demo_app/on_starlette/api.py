"""The JSON API, on Starlette."""

from __future__ import annotations

from sqlalchemy.exc import IntegrityError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from demo_app import forms, pages, queries
from demo_app.on_starlette.news import scores_json
from demo_app.on_starlette.parts import caller, read, write
from demo_app.trouble import no_article, no_comment


def routes() -> list[BaseRoute]:
    """Return these addresses."""
    return [
        Route("/api/articles", articles),
        Route("/api/articles/{id:int}", article),
        Route("/api/articles/{id:int}/comments", comments, methods=["GET", "POST"]),
        Route("/api/scores", scores_json),
        Route("/api/account", account),
    ]


async def articles(request: Request) -> Response:
    """The newest articles."""
    return JSONResponse({"articles": [pages.plain(card) for card in await read(request, queries.latest)]})


async def article(request: Request) -> Response:
    """One article."""
    found = await read(request, queries.article_by_id, request.path_params["id"])
    if found is None:
        raise no_article()
    return JSONResponse(pages.plain(found))


async def comments(request: Request) -> Response:
    """The comments of an article, and one more."""
    article_id = request.path_params["id"]
    if request.method != "POST":
        found = await read(request, queries.comments, article_id)
        return JSONResponse({"comments": [pages.plain(each) for each in found]})
    who = await caller(request)
    try:
        body = forms.comment_sent(await request.json())
    except forms.Problem:
        raise
    except ValueError:
        raise no_comment() from None
    try:
        number = await write(request, queries.add_comment, article_id=article_id, account_id=who.id, body=body)
    except IntegrityError:
        raise no_article() from None
    return JSONResponse({"id": number, "article": article_id, "body": body}, 201)


async def account(request: Request) -> Response:
    """Who is calling; whoever has a session learns the token for the API."""
    return JSONResponse(pages.plain(await caller(request)))
