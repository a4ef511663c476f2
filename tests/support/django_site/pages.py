"""Pages of the tests' Django project that write on the way, as real ones do: the URLconf of the proof."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.contrib import admin, messages
from django.contrib.auth import get_user_model, login, views
from django.db import transaction
from django.db.models import F
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.middleware.csrf import get_token, rotate_token
from django.urls import path
from django.utils import timezone

from .models import Article, Comment, PageView

REMEMBER = "remember"


class RememberMe:
    """Signs in whoever carries the cookie and has no session, as sites of any framework do."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        if REMEMBER in request.COOKIES and not request.user.is_authenticated:
            user = get_user_model()._default_manager.get(pk=request.get_signed_cookie(REMEMBER))
            login(request, user, backend="django.contrib.auth.backends.ModelBackend")
        return self.get_response(request)


def said(request: HttpRequest, text: object) -> HttpResponse:
    """Answer with who asks, and a text."""
    return HttpResponse(f"{request.user}: {text}".encode())


def front(request: HttpRequest) -> HttpResponse:
    """Read."""
    return said(request, [a.title for a in Article.objects.all()])


def article(request: HttpRequest, pk: int) -> HttpResponse:
    """Count itself in three ways."""
    found = Article.objects.get(pk=pk)
    PageView.objects.create(path=request.path, article=found)
    Article.objects.filter(pk=pk).update(views=F("views") + 1)
    found.seen_at = timezone.now()
    found.save(update_fields=["seen_at"])
    return said(request, found.title)


def article_in_a_block(request: HttpRequest, pk: int) -> HttpResponse:
    """The same with a count that is looked up and locked, in a transaction."""
    with transaction.atomic():
        PageView.objects.update_or_create(path="count", defaults={"count": 1})
        return article(request, pk)


def form(request: HttpRequest, pk: int) -> HttpResponse:
    """Show a form about an object that is not saved, with its token."""
    comment = Comment(article=Article.objects.get(pk=pk))
    return said(request, f"{comment.article.title} {bool(get_token(request))}")


def message(request: HttpRequest) -> HttpResponse:
    """Store a message for the next page."""
    messages.info(request, "You were here.")
    return said(request, "stored")


def messages_read(request: HttpRequest) -> HttpResponse:
    """Show what is stored, which takes it away."""
    return said(request, [str(m) for m in messages.get_messages(request)])


def touched(request: HttpRequest) -> HttpResponse:
    """Change the session."""
    request.session["visits"] = request.session.get("visits", 0) + 1
    return said(request, request.session["visits"])


def flushed(request: HttpRequest) -> HttpResponse:
    """End the visitor's session, by itself."""
    request.session.flush()
    return said(request, "ended")


def cycled(request: HttpRequest) -> HttpResponse:
    """Give the session another key."""
    request.session.cycle_key()
    return said(request, "another key")


def rotated(request: HttpRequest) -> HttpResponse:
    """Make another CSRF token."""
    rotate_token(request)
    return said(request, "another token")


def streamed(request: HttpRequest) -> StreamingHttpResponse:
    """Write while the response is sent."""

    def parts() -> Any:
        yield b"one "
        PageView.objects.create(path=request.path)
        yield str(Article.objects.count()).encode()

    return StreamingHttpResponse(parts())


PAGES = (
    "/",
    "/articles/1/",
    "/articles/1/block/",
    "/articles/1/comment/",
    "/message/",
    "/messages/",
    "/touched/",
    "/flushed/",
    "/cycled/",
    "/rotated/",
    "/streamed/",
    "/login/",
    "/admin/login/",
    "/admin/",
    "/admin/auth/user/",
    "/admin/auth/user/1/change/",
    "/admin/auth/user/1/delete/",
)

urlpatterns = [
    path("", front),
    path("articles/<int:pk>/", article),
    path("articles/<int:pk>/block/", article_in_a_block),
    path("articles/<int:pk>/comment/", form),
    path("message/", message),
    path("messages/", messages_read),
    path("touched/", touched),
    path("flushed/", flushed),
    path("cycled/", cycled),
    path("rotated/", rotated),
    path("streamed/", streamed),
    path("login/", views.LoginView.as_view(template_name="admin/login.html")),
    path("admin/", admin.site.urls),
]
