"""The pass that keeps the page of the read-only mode open for whoever switched it on there.

Their session ends with the switch, like everybody's, and nobody can sign in: without a pass they would have locked
themselves out. It is a cookie of its own, signed, sent to that page alone, out of reach for scripts and other sites.
It is worth nothing once the causes that it was given for are lifted, or its holder may not switch any more.
"""

from __future__ import annotations

from typing import Any, Final

from django.contrib.auth import get_user_model
from django.core import signing
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.utils.crypto import constant_time_compare, salted_hmac
from django.utils.encoding import escape_uri_path

from readonly.state import State

COOKIE: Final = "readonly_page"
PERMISSION: Final = "readonly_django.switch_site"
_SALT: Final = "readonly_django.passes"
# The view that a pass is for carries this attribute.
_PAGE: Final = "readonly_page"


def is_page(view: Any) -> bool:
    """Return whether a view is the page that passes are for."""
    return getattr(view, _PAGE, False) is True


def make(user: Any, state: State) -> str:
    """Return a pass for a user, good for as long as one of these causes stands."""
    return signing.dumps(
        {"user": str(user.pk), "hash": _hash(user), "causes": [c.id for c in state.causes]}, salt=_SALT
    )


def give(response: HttpResponseBase, request: HttpRequest, value: str) -> None:
    """Hand a pass to the browser, for the page that it has asked for."""
    # Until the browser is closed: how long the read-only time takes nobody knows, and the server looks at its causes.
    response.set_cookie(
        COOKIE, value, path=_path_of(request), secure=request.is_secure(), httponly=True, samesite="Strict"
    )


def take_back(response: HttpResponseBase, request: HttpRequest) -> None:
    """Have the browser forget it."""
    response.delete_cookie(COOKIE, path=_path_of(request), samesite="Strict")


def _path_of(request: HttpRequest) -> str:
    # As the browser spells it. The URL may hold a part that is anybody's to choose (`/<tenant>/admin/`), and a cookie's
    # attributes are written as they are.
    return escape_uri_path(request.path)


def is_valid(request: HttpRequest, state: State) -> bool:
    """Return whether a request carries a pass that is genuine and in force. It looks into no database."""
    return _read(request, state) is not None


def holder(request: HttpRequest, state: State) -> Any:
    """Return the user who holds the request's pass, and still may switch; None where there is none."""
    data = _read(request, state)
    if data is None:
        return None
    users = get_user_model()
    try:
        user: Any = users._default_manager.get(pk=data["user"])
    except (users.DoesNotExist, ValueError, TypeError):
        return None
    # A changed password ends it, as it ends a session.
    if not (user.is_active and constant_time_compare(_hash(user), data["hash"])):
        return None
    return user if user.has_perm(PERMISSION) else None


def form_token(value: str) -> str:
    """Return what a form carries in a hidden field beside a pass: only who reads the page knows it.

    Django's own token may be in the session, which is over.
    """
    return salted_hmac(_SALT + ".form", value, algorithm="sha256").hexdigest()


def form_is_ours(request: HttpRequest) -> bool:
    """Return whether a form was sent from the page itself."""
    return constant_time_compare(request.POST.get("readonly_token", ""), form_token(request.COOKIES.get(COOKIE, "")))


def _read(request: HttpRequest, state: State) -> dict[str, Any] | None:
    value = request.COOKIES.get(COOKIE)
    if not value or not state.causes:
        return None
    try:
        data: dict[str, Any] = signing.loads(value, salt=_SALT)
        standing = {cause.id for cause in state.causes}
        return data if standing.intersection(data["causes"]) else None
    except (signing.BadSignature, KeyError, TypeError):
        return None


def _hash(user: Any) -> str:
    found = getattr(user, "get_session_auth_hash", None)
    return found() if found is not None else ""
