"""A URLconf with a view of every kind that the adapter has to tell from the others."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, cast

from django.conf.urls.i18n import i18n_patterns
from django.contrib import admin, messages
from django.contrib.auth import login, logout
from django.contrib.auth.models import User
from django.http import FileResponse, Http404, HttpRequest, HttpResponse, JsonResponse, StreamingHttpResponse
from django.middleware.csrf import get_token, rotate_token
from django.template import engines
from django.urls import include, path
from django.utils.decorators import method_decorator
from django.views import View
from django.views.decorators.csrf import csrf_exempt
from rest_framework import serializers, viewsets
from rest_framework.authtoken.views import obtain_auth_token
from rest_framework.decorators import action, api_view
from rest_framework.response import Response
from rest_framework.routers import SimpleRouter

from readonly import ReadOnlyError, reads, writes
from readonly_django.conf import switch
from support.django_site.models import Article
from support.holding import PUBLIC

# What a view saw; emptied by a fixture.
SEEN: list[Any] = []
# What a slow view waits for, and says that it waits.
GO_ON, WAITS = threading.Event(), threading.Event()


def page(request: HttpRequest, **_: Any) -> HttpResponse:
    """Answer, and note how many writes are in flight meanwhile."""
    SEEN.append((request.method, switch.inflight.count()))
    return HttpResponse(f"{request.method} {request.path_info}")


async def apage(request: HttpRequest, **_: Any) -> HttpResponse:
    """The same, as a coroutine."""
    return page(request)


@csrf_exempt
@reads
def search(request: HttpRequest) -> HttpResponse:
    """A POST that only reads."""
    return page(request)


@writes
def ping(request: HttpRequest) -> HttpResponse:
    """A GET that writes."""
    Article.objects.create(title="ping")
    return page(request)


@writes
async def aping(request: HttpRequest) -> HttpResponse:
    """A GET that writes, as a coroutine."""
    await Article.objects.acreate(title="ping")
    return page(request)


class Comments(View):
    """One method of it only reads."""

    def get(self, request: HttpRequest) -> HttpResponse:
        return page(request)

    @reads
    def post(self, request: HttpRequest) -> HttpResponse:
        return page(request)

    def put(self, request: HttpRequest) -> HttpResponse:
        return page(request)


@writes
class Votes(View):
    """All of it writes."""

    def get(self, request: HttpRequest) -> HttpResponse:
        return page(request)


@method_decorator(reads, name="dispatch")
class Preview(View):
    """All of it only reads, said as Django's users say it."""

    def post(self, request: HttpRequest) -> HttpResponse:
        return page(request)


class ArticleSerializer(serializers.ModelSerializer):
    class Meta:  # noqa: D106 - REST framework's own
        model = Article
        fields = ("id", "title")


class Articles(viewsets.ModelViewSet):
    queryset = Article.objects.all()
    serializer_class = ArticleSerializer

    @reads
    @action(detail=False, methods=["post"])
    def compare(self, request: Any) -> Response:
        return Response("compared")

    @action(detail=False, methods=["get"])
    def counted(self, request: Any) -> Response:
        with switch.writing():
            return Response("counted")

    @action(detail=False, methods=["get"])
    def whoami(self, request: Any) -> Response:
        return Response(request.user.get_username())

    @action(detail=False, methods=["get"])
    @writes
    def touch(self, request: Any) -> Response:
        return Response("touched")


@reads
@api_view(["POST"])
def lookup(request: Any) -> Response:
    """A function of REST framework's."""
    return Response("looked up")


# --- what Django writes on the way ----------------------------------------------------------------------------------


def basket(request: HttpRequest) -> HttpResponse:
    """Count in the session."""
    request.session["count"] = request.session.get("count", 0) + 1
    return HttpResponse(str(request.session["count"]))


async def abasket(request: HttpRequest) -> HttpResponse:
    """The same, with the session's async methods, saved by hand."""
    count = await request.session.aget("count", 0) + 1
    await request.session.aset("count", count)
    await request.session.asave()
    return HttpResponse(str(count))


def cycled(request: HttpRequest) -> HttpResponse:
    """Give the session another key, as a login does."""
    request.session["count"] = 1
    request.session.cycle_key()
    return HttpResponse("cycled")


async def acycled(request: HttpRequest) -> HttpResponse:
    """The same, as a coroutine."""
    await request.session.aset("count", 1)
    await request.session.acycle_key()
    return HttpResponse("cycled")


def flushed(request: HttpRequest) -> HttpResponse:
    """Throw the session away."""
    request.session.flush()
    return HttpResponse("flushed")


async def aflushed(request: HttpRequest) -> HttpResponse:
    """The same, as a coroutine."""
    await request.session.aflush()
    return HttpResponse("flushed")


def message(request: HttpRequest) -> HttpResponse:
    """Leave a message for the next page."""
    messages.info(request, "stored " + "x" * 4000)  # too long for a cookie: it goes to the session
    return HttpResponse("stored")


def form(request: HttpRequest) -> HttpResponse:
    """Show a form, with a token."""
    if request.method == "POST":
        return page(request)
    return HttpResponse(get_token(request))


def rotated(request: HttpRequest) -> HttpResponse:
    """Give out another token."""
    rotate_token(request)
    return HttpResponse(get_token(request))


def signs_in(request: HttpRequest) -> HttpResponse:
    """Sign somebody in on a GET, as a single sign-on does."""
    login(request, User.objects.get(username="ada"), backend="django.contrib.auth.backends.ModelBackend")
    return HttpResponse("in")


def signs_out(request: HttpRequest) -> HttpResponse:
    """Sign somebody out on a GET."""
    logout(request)
    return HttpResponse("out")


def whoami(request: HttpRequest) -> HttpResponse:
    """Say who is signed in."""
    return HttpResponse(request.user.get_username() or "nobody")


ORDINARY = {
    "basket": basket,
    "abasket": abasket,
    "cycled": cycled,
    "acycled": acycled,
    "flushed": flushed,
    "aflushed": aflushed,
    "message": message,
    "form": form,
    "rotated": rotated,
    "signs-in": signs_in,
    "signs-out": signs_out,
    "whoami": whoami,
}

# --- what goes wrong, and what takes long ----------------------------------------------------------------------------


def refused(request: HttpRequest) -> HttpResponse:
    """Do counted work in a view that the gate lets through."""
    with switch.writing():
        return HttpResponse("written")


async def arefused(request: HttpRequest) -> HttpResponse:
    """The same, as a coroutine."""
    async with switch.writing():
        return HttpResponse("written")


def swallowed(request: HttpRequest) -> HttpResponse:
    """Go on without the write."""
    try:
        with switch.writing():
            return HttpResponse("written")
    except ReadOnlyError:
        return HttpResponse("gone on")


def wrapped(request: HttpRequest) -> HttpResponse:
    """Fail because of the write, and say so in another way."""
    try:
        with switch.writing():
            return HttpResponse("written")
    except ReadOnlyError as error:
        raise ValueError("could not save") from error


def missing(request: HttpRequest) -> HttpResponse:
    """Say 404 in the place of a write."""
    try:
        with switch.writing():
            return HttpResponse("written")
    except ReadOnlyError:
        raise Http404 from None


def broken(request: HttpRequest) -> HttpResponse:
    """Fail for reasons of its own."""
    raise ValueError("broken")


def slow(request: HttpRequest) -> HttpResponse:
    """Write for as long as the test wants it to."""
    WAITS.set()
    if not GO_ON.wait(120):
        raise TimeoutError
    return page(request)


def streamed(request: HttpRequest) -> StreamingHttpResponse:
    """Answer in parts, and note how many writes are in flight at each."""

    def parts() -> Iterator[bytes]:
        for part in (b"one ", b"two"):
            SEEN.append(switch.inflight.count())
            yield part

    return StreamingHttpResponse(parts())


async def astreamed(request: HttpRequest) -> StreamingHttpResponse:
    """The same, as a coroutine."""

    async def parts() -> AsyncIterator[bytes]:
        for part in (b"one ", b"two"):
            SEEN.append(switch.inflight.count())
            await asyncio.sleep(0)
            yield part

    return StreamingHttpResponse(parts())


def streamed_write(request: HttpRequest) -> StreamingHttpResponse:
    """Write while the answer is on its way."""

    def parts() -> Iterator[bytes]:
        yield b"one "
        with switch.writing():
            yield b"two"

    return StreamingHttpResponse(parts())


def file(request: HttpRequest) -> FileResponse:
    """Send a file."""
    return FileResponse(Path(__file__).open("rb"))  # closed with the response


TROUBLE = {
    "refused": refused,
    "arefused": arefused,
    "swallowed": swallowed,
    "wrapped": wrapped,
    "missing": missing,
    "broken": broken,
    "slow": slow,
    "streamed": streamed,
    "astreamed": astreamed,
    "streamed-write": streamed_write,
    "file": file,
}


# What a page with the banner has in its template.
BANNER = "{% load readonly %}{% readonly_banner %}"


def banner(request: HttpRequest) -> HttpResponse:
    """A page with the banner, and what templates know, which everybody may keep."""
    template = engines["django"].from_string(BANNER + "<p>{{ readonly.read_only }}</p>")
    return HttpResponse(template.render({}, request), headers={"Cache-Control": PUBLIC})


def own_page(refused: Any) -> str:
    """The site's own page, by the path of a function."""
    return f"own page in {refused.language}: {refused.code}"


def body(request: HttpRequest) -> JsonResponse:
    """Say what was sent."""
    return JsonResponse({"form": request.POST.dict()})


router = SimpleRouter()
router.register("articles", Articles)

urlpatterns = [
    path("", page, name="home"),
    path("a", apage),
    path("search", search, name="search"),
    path("ping", ping),
    path("aping", aping),
    path("comments", Comments.as_view()),
    path("votes", Votes.as_view()),
    path("preview", Preview.as_view()),
    path("compare", page, name="compare"),
    path("body", body),
    path("banner", banner),
    path("lookup", lookup),
    path("api/", include((router.urls, "api"))),
    path("api/token", obtain_auth_token),
    path("accounts/", include("django.contrib.auth.urls")),
    path("allauth/", include("allauth.urls")),
    path("admin/", admin.site.urls),
    path("probes/", include("readonly_django.urls")),
    *(path(name, cast(Any, view)) for name, view in {**ORDINARY, **TROUBLE}.items()),
    *i18n_patterns(path("local/search", search, name="local-search")),
]
