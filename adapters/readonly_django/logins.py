"""Which views sign people in or out, of the applications that bring such views; none of them is imported here to look.

A view is recognised by the name of its class, or of a class it inherits from, wherever the URLconf puts it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from types import FunctionType, MethodType
from typing import Any, Final

from django.conf import settings

from readonly.marks import LOGIN, LOGOUT, WRITES

# A view that only shows a form on GET: reading it is no login.
_FORM: Final = frozenset({LOGIN})
# Where somebody comes back to from another site, or follows a link from a mail, and is signed in by that.
_RETURN: Final = frozenset({LOGIN, f"{LOGIN}:GET"})
# What is in the link is used up by the GET: it must be good for another one later.
_LINK: Final = frozenset({WRITES})
_LOGOUT: Final = frozenset({LOGOUT})
_LOGOUT_ON_GET: Final = frozenset({LOGOUT, f"{LOGOUT}:GET"})

_DJANGO: Final = {
    "django.contrib.auth.views.LoginView": _FORM,
    "django.contrib.auth.views.LogoutView": _LOGOUT,
    "django.contrib.auth.views.PasswordResetConfirmView": _LINK,
    "rest_framework.authtoken.views.ObtainAuthToken": _FORM,
}
_ACCOUNT: Final = "allauth.account.views."
_MFA: Final = "allauth.mfa."
_ALLAUTH: Final = {
    f"{_ACCOUNT}LoginView": _FORM,
    f"{_ACCOUNT}SignupView": _FORM,
    f"{_ACCOUNT}RequestLoginCodeView": _FORM,
    f"{_ACCOUNT}ConfirmLoginCodeView": _FORM,
    f"{_ACCOUNT}ConfirmEmailVerificationCodeView": _FORM,
    f"{_ACCOUNT}BaseReauthenticateView": _FORM,
    f"{_ACCOUNT}PasswordResetFromKeyView": _LINK,
    f"{_MFA}base.views.AuthenticateView": _FORM,
    f"{_MFA}webauthn.views.LoginWebAuthnView": _FORM,
    f"{_MFA}webauthn.views.SignupWebAuthnView": _FORM,
    "allauth.socialaccount.views.SignupView": _FORM,
}
# Each of them shows something on GET, unless a setting of allauth makes it act.
_BY_SETTING: Final = {
    f"{_ACCOUNT}ConfirmEmailView": ("ACCOUNT_CONFIRM_EMAIL_ON_GET", _FORM, _RETURN),
    f"{_ACCOUNT}LogoutView": ("ACCOUNT_LOGOUT_ON_GET", _LOGOUT, _LOGOUT_ON_GET),
    "allauth.socialaccount.providers.base.views.BaseLoginView": ("SOCIALACCOUNT_LOGIN_ON_GET", _FORM, _RETURN),
}
_PROVIDERS: Final = "allauth.socialaccount.providers."
_RETURNS: Final = ("CallbackView", "ACSView", "callback")
_ADMIN_SITE: Final = "django.contrib.admin.sites.AdminSite"
_OF_ADMIN: Final = {"login": _FORM, "logout": _LOGOUT}


def login_marks(view: Any) -> frozenset[str]:
    """Return how a view is to be marked if it signs people in or out, for `Endpoint.marks`; else nothing.

    Args:
        view: What the URLconf names, decorated or not.
    """
    found: set[str] = set()
    for layer in _layers(view):
        if isinstance(layer, MethodType):
            # The admin's own views are methods of a site.
            if any(_name(cls) == _ADMIN_SITE for cls in type(layer.__self__).__mro__):
                found |= _OF_ADMIN.get(layer.__name__, frozenset())
        elif isinstance(layer, FunctionType):
            found |= _of_name(_name(layer))
        for cls in _classes(layer):
            for ancestor in cls.__mro__:
                found |= _of_name(_name(ancestor))
    return frozenset(found)


def _of_name(name: str) -> frozenset[str]:
    known = _DJANGO.get(name) or _ALLAUTH.get(name)
    if known is not None:
        return known
    if name in _BY_SETTING:
        setting, without, with_it = _BY_SETTING[name]
        return with_it if getattr(settings, setting, False) else without
    if name.startswith(_PROVIDERS) and name.endswith(_RETURNS):
        return _RETURN
    return frozenset()


def _layers(view: Any) -> Iterator[Any]:
    """Yield a view and what its decorators have wrapped, outermost first."""
    seen: set[int] = set()
    while view is not None and id(view) not in seen:
        seen.add(id(view))
        yield view
        view = view.func if isinstance(view, partial) else getattr(view, "__wrapped__", None)


def _classes(view: Any) -> Iterator[type]:
    """Yield the classes that a view is made of."""
    for name in ("view_class", "cls"):
        found = getattr(view, name, None)
        if isinstance(found, type):
            yield found
    if not isinstance(view, (FunctionType, MethodType, type)):
        yield type(view)
    # allauth makes the views of its providers in functions, around a class.
    for cell in getattr(view, "__closure__", None) or ():
        try:
            found = cell.cell_contents
        except ValueError:  # nothing was put into it yet
            continue
        if isinstance(found, type):
            yield found


def _name(found: type | Callable[..., Any]) -> str:
    return f"{getattr(found, '__module__', '')}.{getattr(found, '__qualname__', '')}"
