"""The site's own middleware: whoever asked to be remembered comes back logged in, and trouble becomes a page."""

from __future__ import annotations

from collections.abc import Callable

from django.contrib.auth import login
from django.http import HttpRequest, HttpResponse

from demo_app import forms
from demo_app.on_django.models import Account
from demo_app.on_django.parts import tokens, trouble
from demo_app.tokens import REMEMBER_COOKIE
from demo_app.trouble import Trouble

Answering = Callable[[HttpRequest], HttpResponse]


class RememberMiddleware:
    """Begins a session for a valid remember-me cookie: a row of `django_session` and a time of login, on a GET."""

    def __init__(self, get_response: Answering) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        """Look at the cookie where nobody is logged in."""
        token = request.COOKIES.get(REMEMBER_COOKIE)
        if token and not request.user.is_authenticated:
            account = Account.objects.filter(id=tokens().remembered(token)).first()
            if account is not None:
                login(request, account)
        return self._get_response(request)


class TroubleMiddleware:
    """Turns what views raise for visitors into pages."""

    def __init__(self, get_response: Answering) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        """Go on."""
        return self._get_response(request)

    def process_exception(self, request: HttpRequest, exception: Exception) -> HttpResponse | None:
        """Answer what the site itself has raised; everything else is a mistake."""
        if isinstance(exception, forms.Problem):
            exception = Trouble(422, str(exception))
        return trouble(request, exception) if isinstance(exception, Trouble) else None
