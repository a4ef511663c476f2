"""What the addresses of the Django site share: who is reading, forms in and pages out."""

from __future__ import annotations

from typing import Any, cast

from django.conf import settings
from django.contrib import messages
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect, JsonResponse
from django.shortcuts import render

from demo_app import pages
from demo_app.on_django.models import Account
from demo_app.on_django.queries import shown
from demo_app.shown import ShownAccount
from demo_app.tokens import Tokens
from demo_app.trouble import Trouble, of_status, unknown_caller


class SeeOther(HttpResponseRedirect):
    """Sends the browser on to another page, by GET."""

    status_code = 303


def see(path: str) -> HttpResponse:
    """Send the browser on to another page, by GET."""
    return SeeOther(path)


def page(request: HttpRequest, template: str, *, status: int = 200, **values: Any) -> HttpResponse:
    """Render a page, with the reader's name in its head and whatever was left for the reader to be told."""
    if "account" not in values:
        values["account"] = reader(request)
    context = pages.common(here=request.path, messages=messages.get_messages(request), **values)
    return render(request, template, context, status=status)


def leave_message(request: HttpRequest, text: str) -> None:
    """Keep a sentence in the session, for the next page."""
    messages.info(request, text)


def reader(request: HttpRequest) -> ShownAccount | None:
    """Return who is logged in here."""
    return shown(cast(Account, request.user)) if request.user.is_authenticated else None


def caller(request: HttpRequest) -> ShownAccount:
    """Return who calls the API, by bearer token or by the session cookie.

    Raises:
        Trouble: Nobody we know.
    """
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        account = Account.objects.filter(api_token=token.strip()).first()
        found = None if account is None else shown(account)
    else:
        found = reader(request)
    if found is None:
        raise unknown_caller()
    return found


def typed(request: HttpRequest, *names: str) -> list[str]:
    """Return these fields of the form that was sent; a missing one is empty."""
    return [request.POST.get(name, "") for name in names]


def tokens() -> Tokens:
    """Return what signs and reads codes and cookies."""
    return Tokens(settings.SECRET_KEY)


def trouble(request: HttpRequest, error: Trouble) -> HttpResponse:
    """Answer what can't be answered as it was meant: as JSON to the API's callers, as a page to everybody else."""
    if request.path.startswith("/api/"):
        return JsonResponse({"error": error.detail}, status=error.status, headers=error.headers)
    return page(request, "trouble.html", status=error.status, code=error.status, detail=error.detail)


def not_found(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Answer an address that nobody has: Django's `handler404`."""
    return trouble(request, of_status(404))


def not_switchable(_request: HttpRequest) -> dict[str, Any]:
    """Tell templates of a site without a switch: they need not know that there may be none."""
    return {"readonly": pages.NOT_SWITCHABLE}
