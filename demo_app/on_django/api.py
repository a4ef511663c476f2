"""The JSON API, on Django."""

from __future__ import annotations

import json

from django import views
from django.db import IntegrityError
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.http import require_safe

from demo_app import forms, pages
from demo_app.on_django import queries
from demo_app.on_django.parts import caller
from demo_app.trouble import no_article, no_comment


@require_safe
def articles(request: HttpRequest) -> HttpResponse:
    """The newest articles."""
    return JsonResponse({"articles": [pages.plain(card) for card in queries.latest()]})


@require_safe
def article(request: HttpRequest, id: int) -> HttpResponse:
    """One article."""
    found = queries.article_by_id(id)
    if found is None:
        raise no_article()
    return JsonResponse(pages.plain(found))


class Comments(views.View):
    """The comments of an article, and one more."""

    def get(self, request: HttpRequest, id: int) -> HttpResponse:
        """Show them."""
        return JsonResponse({"comments": [pages.plain(each) for each in queries.comments(id)]})

    def post(self, request: HttpRequest, id: int) -> HttpResponse:
        """Take one."""
        who = caller(request)
        try:
            body = forms.comment_sent(json.loads(request.body))
        except forms.Problem:
            raise
        except ValueError:
            raise no_comment() from None
        try:
            number = queries.add_comment(article_id=id, account_id=who.id, body=body)
        except IntegrityError:
            raise no_article() from None
        return JsonResponse({"id": number, "article": id, "body": body}, status=201)


@require_safe
def account(request: HttpRequest) -> HttpResponse:
    """Who is calling; whoever has a session learns the token for the API."""
    return JsonResponse(pages.plain(caller(request)))
