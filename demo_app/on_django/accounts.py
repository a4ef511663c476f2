"""Logging in and out, the account page, and the sign-in services, on Django."""

from __future__ import annotations

from typing import cast

from django import views
from django.contrib.auth import authenticate, login, logout
from django.db import IntegrityError
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.views.decorators.http import require_POST, require_safe

from demo_app import forms
from demo_app.on_django import queries
from demo_app.on_django.models import Account
from demo_app.on_django.parts import leave_message, page, reader, see, tokens, typed
from demo_app.tokens import REMEMBER_COOKIE, REMEMBER_MAX_AGE_SECONDS, service_account
from demo_app.trouble import LOG_IN_FIRST, NAME_TAKEN, WRONG_PASSWORD, no_service


class LogIn(views.View):
    """The login form, and what happens when it is sent."""

    def get(self, request: HttpRequest) -> HttpResponse:
        """Show it."""
        back = forms.local_path(request.GET.get("next", "/account"))
        return page(request, "login.html", next=back, name="", providers=forms.PROVIDERS)

    def post(self, request: HttpRequest) -> HttpResponse:
        """Begin a session, or say why not."""
        name, password, back, remember = typed(request, "name", "password", "next", "remember")
        account = cast(Account | None, authenticate(request, username=name.strip().lower(), password=password))
        if account is None:
            return page(
                request,
                "login.html",
                status=422,
                next=forms.local_path(back),
                name=name,
                providers=forms.PROVIDERS,
                problem=WRONG_PASSWORD,
            )
        login(request, account)
        answer = see(forms.local_path(back, default="/account"))
        if remember:
            answer.set_cookie(
                REMEMBER_COOKIE,
                tokens().remember(account.id),
                max_age=REMEMBER_MAX_AGE_SECONDS,
                httponly=True,
                samesite="Lax",
            )
        return answer


class Register(views.View):
    """The form for a new account, and what happens when it is sent."""

    def get(self, request: HttpRequest) -> HttpResponse:
        """Show it."""
        return page(request, "register.html", name="", display_name="")

    def post(self, request: HttpRequest) -> HttpResponse:
        """Make the account and begin its first session."""
        name, display_name, password = typed(request, "name", "display_name", "password")
        try:
            account = queries.add_account(**forms.new_account(name, display_name, password))
        except (forms.Problem, IntegrityError) as error:
            problem = str(error) if isinstance(error, forms.Problem) else NAME_TAKEN
            values = {"name": name, "display_name": display_name, "problem": problem}
            return page(request, "register.html", status=422, **values)
        login(request, account)
        return see("/account")


@require_POST
def log_out(request: HttpRequest) -> HttpResponse:
    """End this browser's session, for good."""
    logout(request)
    answer = see("/")
    answer.delete_cookie(REMEMBER_COOKIE)
    return answer


class AccountPage(views.View):
    """The reader's own page, and the change of the name that others see."""

    def dispatch(self, request: HttpRequest, *args: object, **kwargs: object) -> HttpResponseBase:
        """Send strangers to the login form, with a message."""
        if not request.user.is_authenticated:
            leave_message(request, LOG_IN_FIRST)
            return see("/login?next=/account")
        return super().dispatch(request, *args, **kwargs)

    def get(self, request: HttpRequest) -> HttpResponse:
        """Show it."""
        return page(request, "account.html", account=reader(request), notice=request.GET.get("saved", ""))

    def post(self, request: HttpRequest) -> HttpResponse:
        """Change the name."""
        (name,) = typed(request, "display_name")
        try:
            queries.rename(cast(Account, request.user).id, forms.display_name(name))
        except forms.Problem as error:
            return page(request, "account.html", status=422, account=reader(request), problem=str(error))
        return see("/account?saved=1")


# The other way in: a sign-in service sends the browser back with a code, and the session begins on a GET. The service
# is played by the first two of these three addresses; it asks for no password and believes everybody.


def known_service(provider: str) -> str:
    """Return the name of a sign-in service.

    Raises:
        Trouble: It is none that we pretend to know.
    """
    if provider not in forms.PROVIDERS:
        raise no_service()
    return provider


@require_safe
def oauth_choose(request: HttpRequest, provider: str) -> HttpResponse:
    """The service asks who you are."""
    return page(request, "oauth.html", provider=known_service(provider))


@require_safe
def oauth_authorize(request: HttpRequest, provider: str) -> HttpResponse:
    """The service sends the browser back, with a signed code."""
    known_service(provider)
    subject = forms.account_name(request.GET.get("name", ""))
    return see(f"/oauth/{provider}/callback?code={tokens().code(provider, subject)}")


@require_safe
def oauth_callback(request: HttpRequest, provider: str) -> HttpResponse:
    """Begin a session for whoever the code names; their first visit makes an account."""
    subject = tokens().subject(known_service(provider), request.GET.get("code", ""))
    name, display_name = service_account(provider, subject)
    known = Account.objects.filter(name=name).first()
    login(request, known or queries.add_account(name=name, display_name=display_name, provider=provider))
    return see("/account")
