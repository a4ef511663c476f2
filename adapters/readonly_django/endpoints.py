"""What the URLconf knows about a request, asked before the application sees it, and the marks of its views."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any, Final

from django.conf import settings
from django.conf.urls.i18n import is_language_prefix_patterns_used
from django.http import HttpRequest
from django.urls import ResolverMatch, get_resolver
from django.utils import translation

from readonly.marks import marks_of
from readonly.rules import SAFE_METHODS, Endpoint

from .logins import login_marks

# Views that are remembered. Past that all are forgotten: a URLconf may make them as it goes.
REMEMBERED: Final = 4096
# Marks by which a safe request writes.
_SIGNS: Final = (f"{mark}:{method}" for mark in ("writes", "login", "logout") for method in SAFE_METHODS)
_OF_READS: Final = frozenset({"writes", *_SIGNS})


class Endpoints:
    """Knows the marks of views: those that `@reads` and `@writes` left, and what signs people in and out."""

    def __init__(self, *, find_logins: bool) -> None:
        self._find_logins = find_logins
        self._marks: dict[Any, frozenset[str]] = {}
        self._matter: dict[Any, bool] = {}

    def marks(self, view: Any) -> frozenset[str]:
        """Return the marks of a view."""
        try:
            found = self._marks.get(view)
        except TypeError:  # a callable object that can't be a key
            return self._marked(view)
        if found is None:
            if len(self._marks) >= REMEMBERED:
                self._marks.clear()
            found = self._marks[view] = self._marked(view)
        return found

    def writes_on_get(self, view: Any) -> bool:
        """Return whether a view is marked as one that may write on a safe method, too; cheap, for each request."""
        try:
            return self._matter[view]
        except TypeError:
            return not _OF_READS.isdisjoint(self._marked(view))
        except KeyError:
            if len(self._matter) >= REMEMBERED:
                self._matter.clear()
            found = self._matter[view] = not _OF_READS.isdisjoint(self.marks(view))
            return found

    def of(self, match: ResolverMatch) -> Endpoint:
        """Return name and marks of what was resolved."""
        return Endpoint(match.view_name, self.marks(match.func))

    def _marked(self, view: Any) -> frozenset[str]:
        found = marks_of(view)
        return found | login_marks(view) if self._find_logins else found


def takes_every_method(view: Any) -> bool:
    """Return whether a view's own code runs for any method, as that of a function does; a class has one for each."""
    return not any(isinstance(getattr(view, name, None), type) for name in ("view_class", "cls"))


def resolved(request: HttpRequest) -> ResolverMatch | None:
    """Return what Django would call for a request, asked before it does; None if nothing is there, or it can't say."""
    path = request.path_info
    urlconf = getattr(request, "urlconf", None)
    try:
        # Where URLs begin with a language, they are only found while that is active; LocaleMiddleware has not run yet.
        in_path = settings.USE_I18N and is_language_prefix_patterns_used(urlconf or settings.ROOT_URLCONF)[0]
        language = translation.get_language_from_path(path) if in_path else None
        with translation.override(language) if language else nullcontext():
            return get_resolver(urlconf).resolve(path)
    except Exception:
        # A path that leads nowhere, or a URLconf that is broken: Django meets it again in a moment, and answers.
        return None
