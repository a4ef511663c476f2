"""The JSON API, on Flask."""

from __future__ import annotations

from flask import Blueprint, request
from flask.typing import ResponseReturnValue
from sqlalchemy.exc import IntegrityError

from demo_app import forms, pages, queries
from demo_app.on_flask.news import scores_json
from demo_app.on_flask.parts import caller, json, transact
from demo_app.trouble import no_article, no_comment

api = Blueprint("api", __name__, url_prefix="/api")
api.add_url_rule("/scores", "scores", scores_json)


@api.get("/articles")
def articles() -> ResponseReturnValue:
    """The newest articles."""
    return json({"articles": [pages.plain(card) for card in transact(queries.latest)]})


@api.get("/articles/<int:id>")
def article(id: int) -> ResponseReturnValue:
    """One article."""
    found = transact(queries.article_by_id, id)
    if found is None:
        raise no_article()
    return json(pages.plain(found))


@api.get("/articles/<int:id>/comments")
def comments(id: int) -> ResponseReturnValue:
    """The comments of an article."""
    return json({"comments": [pages.plain(each) for each in transact(queries.comments, id)]})


@api.post("/articles/<int:id>/comments")
def add_comment(id: int) -> ResponseReturnValue:
    """One more comment."""
    who = caller()
    try:
        body = forms.comment_sent(request.get_json(force=True, silent=True))
    except forms.Problem:
        raise
    except ValueError:
        raise no_comment() from None
    try:
        number = transact(queries.add_comment, article_id=id, account_id=who.id, body=body)
    except IntegrityError:
        raise no_article() from None
    return json({"id": number, "article": id, "body": body}, 201)


@api.get("/account")
def account() -> ResponseReturnValue:
    """Who is calling; whoever has a session learns the token for the API."""
    return json(pages.plain(caller()))
