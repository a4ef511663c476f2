"""Articles, scores and the search, on Flask."""

from __future__ import annotations

import time

from flask import Blueprint, request
from flask.typing import ResponseReturnValue

from demo_app import forms, pages, queries
from demo_app.on_flask.parts import json, page, reader, see, transact, typed
from demo_app.trouble import no_article

news = Blueprint("news", __name__)


@news.get("/")
def front() -> ResponseReturnValue:
    """The front page."""
    return page("front.html", **transact(queries.front_page, at=time.time()))


@news.get("/sections/<section>")
def section(section: str) -> ResponseReturnValue:
    """One department."""
    return page("section.html", **transact(queries.section_page, section))


@news.get("/articles/<slug>")
def article(slug: str) -> ResponseReturnValue:
    """An article with its comments; opening it counts."""
    values = transact(queries.article_page, slug)
    # A GET that writes; while the site is read-only, the guard drops the statement, by the table's name.
    transact(queries.count_view, values["article"].id)
    return page("article.html", **values)


@news.post("/articles/<slug>/comments")
def comment(slug: str) -> ResponseReturnValue:
    """Take a comment from somebody who is logged in."""
    who = reader()
    if who is None:
        return see(f"/login?next=/articles/{slug}")
    (body,) = typed("body")
    found = transact(queries.article_by_slug, slug)
    if found is None:
        raise no_article()
    number = transact(queries.add_comment, article_id=found.id, account_id=who.id, body=forms.comment(body))
    return see(f"/articles/{found.slug}#comment-{number}")


@news.get("/scores")
def scores() -> ResponseReturnValue:
    """The match day."""
    return page("scores.html", matches=transact(queries.scores, at=time.time()))


@news.get("/scores.json")
def scores_json() -> ResponseReturnValue:
    """The match day again, for the script on the pages that asks every few seconds."""
    return json(pages.scores_document(transact(queries.scores, at=time.time())), headers=pages.SCORES_HEADERS)


@news.route("/search", methods=["GET", "POST"])
def search() -> ResponseReturnValue:
    """Search by POST: nothing is written, so it is declared a read."""
    if request.method != "POST":
        return page("search.html", words="", articles=None)
    (words,) = typed("words")
    words = forms.search_words(words)
    return page("search.html", words=words, articles=transact(queries.search, words))


@news.get("/healthz")
def healthz() -> ResponseReturnValue:
    """The process is up. No database, no session, no switch."""
    return "ok\n", 200, {"content-type": "text/plain; charset=utf-8"}
