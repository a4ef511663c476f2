"""Logging in and out, the account page, and the sign-in services, on Flask."""

from __future__ import annotations

from flask import Blueprint, current_app, request, session
from flask.typing import ResponseReturnValue
from flask_login import logout_user
from sqlalchemy.exc import IntegrityError

from demo_app import forms, queries
from demo_app.on_flask.parts import begin_session, leave_message, page, reader, see, transact, typed
from demo_app.tokens import Tokens, service_account
from demo_app.trouble import LOG_IN_FIRST, NAME_TAKEN, WRONG_PASSWORD, no_service

accounts = Blueprint("accounts", __name__)


@accounts.route("/login", methods=["GET", "POST"])
def login() -> ResponseReturnValue:
    """The login form, and what happens when it is sent."""
    back = forms.local_path(request.args.get("next", "/account"))
    if request.method != "POST":
        return page("login.html", next=back, name="", providers=forms.PROVIDERS)
    name, password, back, remember = typed("name", "password", "next", "remember")
    found = transact(queries.account_by_password, name.strip().lower(), password)
    if found is None:
        back = forms.local_path(back)
        return page("login.html", status=422, next=back, name=name, providers=forms.PROVIDERS, problem=WRONG_PASSWORD)
    transact(queries.note_login, found.id)
    begin_session(found.id, remember=bool(remember))
    return see(forms.local_path(back, default="/account"))


@accounts.route("/register", methods=["GET", "POST"])
def register() -> ResponseReturnValue:
    """The form for a new account, and what happens when it is sent."""
    if request.method != "POST":
        return page("register.html", name="", display_name="")
    name, display_name, password = typed("name", "display_name", "password")
    try:
        number = transact(queries.add_account, **forms.new_account(name, display_name, password))
    except (forms.Problem, IntegrityError) as error:
        problem = str(error) if isinstance(error, forms.Problem) else NAME_TAKEN
        return page("register.html", status=422, name=name, display_name=display_name, problem=problem)
    begin_session(number)
    return see("/account")


@accounts.post("/logout")
def logout() -> ResponseReturnValue:
    """End this browser's session, for good."""
    logout_user()
    # What Flask-Login has to say to its own cookie stays; the rest goes.
    for key in [key for key in session if key != "_remember"]:
        del session[key]
    return see("/")


@accounts.route("/account", methods=["GET", "POST"])
def account() -> ResponseReturnValue:
    """The reader's own page, and the change of the name that others see."""
    who = reader()
    if who is None:
        leave_message(LOG_IN_FIRST)
        return see("/login?next=/account")
    if request.method != "POST":
        return page("account.html", account=who, notice=request.args.get("saved", ""))
    (name,) = typed("display_name")
    try:
        transact(queries.rename, who.id, forms.display_name(name))
    except forms.Problem as error:
        return page("account.html", status=422, account=who, problem=str(error))
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


def tokens() -> Tokens:
    """Return what signs and reads codes."""
    return Tokens(str(current_app.secret_key))


@accounts.get("/oauth/<provider>")
def oauth_choose(provider: str) -> ResponseReturnValue:
    """The service asks who you are."""
    return page("oauth.html", provider=known_service(provider))


@accounts.get("/oauth/<provider>/authorize")
def oauth_authorize(provider: str) -> ResponseReturnValue:
    """The service sends the browser back, with a signed code."""
    subject = forms.account_name(request.args.get("name", ""))
    return see(f"/oauth/{provider}/callback?code={tokens().code(known_service(provider), subject)}")


@accounts.get("/oauth/<provider>/callback")
def oauth_callback(provider: str) -> ResponseReturnValue:
    """Begin a session for whoever the code names; their first visit makes an account."""
    subject = tokens().subject(known_service(provider), request.args.get("code", ""))
    name, display_name = service_account(provider, subject)
    known = transact(queries.account_by_name, name)
    if known is not None:
        transact(queries.note_login, known.id)
        begin_session(known.id)
    else:
        begin_session(transact(queries.add_account, name=name, display_name=display_name, provider=provider))
    return see("/account")
