"""Articles, scores and the search, on Django."""

from __future__ import annotations

import time

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.http import require_POST, require_safe

from demo_app import forms, pages
from demo_app.on_django import queries
from demo_app.on_django.parts import page, reader, see, typed
from demo_app.trouble import no_article


@require_safe
def front(request: HttpRequest) -> HttpResponse:
    """The front page."""
    return page(request, "front.html", **queries.front_page(at=time.time()))


@require_safe
def section(request: HttpRequest, section: str) -> HttpResponse:
    """One department."""
    return page(request, "section.html", **queries.section_page(section))


@require_safe
def article(request: HttpRequest, slug: str) -> HttpResponse:
    """An article with its comments; opening it counts."""
    values = queries.article_page(slug)
    # A GET that writes; while the site is read-only, the guard drops it, by the model's name.
    queries.count_view(values["article"].id)
    return page(request, "article.html", **values)


@require_POST
def comment(request: HttpRequest, slug: str) -> HttpResponse:
    """Take a comment from somebody who is logged in."""
    who = reader(request)
    if who is None:
        return see(f"/login?next=/articles/{slug}")
    (body,) = typed(request, "body")
    found = queries.article_by_slug(slug)
    if found is None:
        raise no_article()
    number = queries.add_comment(article_id=found.id, account_id=who.id, body=forms.comment(body))
    return see(f"/articles/{found.slug}#comment-{number}")


@require_safe
def scores(request: HttpRequest) -> HttpResponse:
    """The match day."""
    return page(request, "scores.html", matches=queries.scores(at=time.time()))


@require_safe
def scores_json(request: HttpRequest) -> HttpResponse:
    """The match day again, for the script on the pages that asks every few seconds."""
    return JsonResponse(pages.scores_document(queries.scores(at=time.time())), headers=pages.SCORES_HEADERS)


def search(request: HttpRequest) -> HttpResponse:
    """Search by POST: nothing is written, so the settings declare it a read."""
    if request.method != "POST":
        return page(request, "search.html", words="", articles=None)
    (words,) = typed(request, "words")
    words = forms.search_words(words)
    return page(request, "search.html", words=words, articles=queries.search(words))


@require_safe
def healthz(request: HttpRequest) -> HttpResponse:
    """The process is up. No database, no session, no switch."""
    return HttpResponse("ok\n", content_type="text/plain; charset=utf-8")
