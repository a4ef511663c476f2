"""Articles, scores and the search, on Starlette."""

from __future__ import annotations

import time

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from demo_app import forms, pages, queries
from demo_app.on_starlette.parts import page, read, reader, see, typed, write
from demo_app.trouble import no_article


def routes() -> list[BaseRoute]:
    """Return these addresses."""
    return [
        Route("/", front),
        Route("/sections/{section}", section),
        Route("/articles/{slug}", article),
        Route("/articles/{slug}/comments", comment, methods=["POST"]),
        Route("/scores", scores),
        Route("/scores.json", scores_json),
        Route("/search", search, methods=["GET", "POST"]),
        Route("/healthz", healthz),
        Mount("/static", StaticFiles(directory=pages.STATIC), name="static"),
    ]


async def front(request: Request) -> Response:
    """The front page."""
    return await page(request, "front.html", **await read(request, queries.front_page, at=time.time()))


async def section(request: Request) -> Response:
    """One department."""
    values = await read(request, queries.section_page, request.path_params["section"])
    return await page(request, "section.html", **values)


async def article(request: Request) -> Response:
    """An article with its comments; opening it counts."""
    values = await read(request, queries.article_page, request.path_params["slug"])
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
        raise no_article()
    number = await write(request, queries.add_comment, article_id=found.id, account_id=who.id, body=forms.comment(body))
    return see(f"/articles/{found.slug}#comment-{number}")


async def scores(request: Request) -> Response:
    """The match day."""
    return await page(request, "scores.html", matches=await read(request, queries.scores, at=time.time()))


async def scores_json(request: Request) -> Response:
    """The match day again, for the script on the pages that asks every few seconds."""
    matches = await read(request, queries.scores, at=time.time())
    return JSONResponse(pages.scores_document(matches), headers=pages.SCORES_HEADERS)


async def search(request: Request) -> Response:
    """Search by POST: nothing is written, so the policy declares it a read."""
    if request.method != "POST":
        return await page(request, "search.html", words="", articles=None)
    (words,) = await typed(request, "words")
    words = forms.search_words(words)
    return await page(request, "search.html", words=words, articles=await read(request, queries.search, words))


async def healthz(_request: Request) -> Response:
    """The process is up. No database, no session, no switch."""
    return PlainTextResponse("ok\n")
