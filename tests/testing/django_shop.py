"""The shop of the walk's tests, on Django: a URLconf over the models of the tests' project."""

from __future__ import annotations

import json
from types import ModuleType
from typing import Any

from django.db import connection
from django.db.models import F
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseNotAllowed
from django.urls import include, path
from django.views import View
from django.views.decorators.http import require_POST

from readonly import reads
from readonly.testing import Example
from readonly_django import conf
from support.django_site import SETTINGS
from support.django_site.models import Article, Comment, PageView

EXAMPLES: dict[str, Any] = {
    "number": 1,
    "POST /search": Example(form={"words": "boots"}),
    "POST /export": Example(json={"since": 1}),
}
MIDDLEWARE = ["readonly_django.middleware.ReadOnlyMiddleware", *SETTINGS["MIDDLEWARE"]]
DISCARD = ["news.PageView", "news.Article.views"]


def urls(*planted: str) -> ModuleType:
    """Return a URLconf: the shop on Django, with these faults."""

    def front(request: HttpRequest) -> HttpResponse:
        titles = ", ".join(Article.objects.values_list("title", flat=True))
        return HttpResponse(f"{titles}, {request.user.get_username() or 'nobody'}")

    class Item(View):
        """A class with two methods."""

        def get(self, request: HttpRequest, number: int) -> HttpResponse:
            """Read, and count the view in passing: discarded while read-only."""
            found = Article.objects.filter(id=number).first()
            if found is None:
                raise Http404
            PageView.objects.filter(article=found).update(count=F("count") + 1)
            Article.objects.filter(id=number).update(views=F("views") + 1)
            return HttpResponse(found.title)

        def post(self, request: HttpRequest, number: int) -> HttpResponse:
            """Write."""
            Comment.objects.create(article_id=number, text="bought")
            return HttpResponse("bought")

    def add(request: HttpRequest, number: int) -> HttpResponse:
        if "cart" in planted:
            Comment.objects.create(article_id=number, text="in the cart")
        return HttpResponse("empty")

    @require_POST
    @reads
    def search(request: HttpRequest) -> HttpResponse:
        return HttpResponse(str(Article.objects.filter(title=request.POST["words"]).exists()))

    @require_POST
    def export(request: HttpRequest) -> HttpResponse:
        if "export" in planted:
            with connection.cursor() as cursor:
                cursor.execute("INSERT INTO news_tag (name) VALUES ('exported')")
        return HttpResponse(str(json.loads(request.body)["since"]))

    def health(request: HttpRequest) -> HttpResponse:
        if request.method != "GET":
            return HttpResponseNotAllowed(["GET"])
        if "broken" in planted and conf.switch.state.read_only:
            raise RuntimeError("nobody thought of that")
        return HttpResponse("ok")

    module = ModuleType("shop_urls")
    module.urlpatterns = [  # type: ignore[attr-defined]  # as Django looks for it
        path("", front, name="front"),
        path("items/<int:number>", Item.as_view(), name="item"),
        path("cart/", include(([path("<int:number>", add, name="add")], "cart"))),
        path("search", search, name="search"),
        path("export", export, name="export"),
        path("healthz", health, name="health"),
    ]
    return module
