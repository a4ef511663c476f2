"""The admin's page of the read-only mode: what is in force, and a switch.

Whoever makes the site read-only here loses their session by it, and gets a pass for this one page in its place: see
`passes`. The page writes nothing to the database, and needs none but to show who is asking.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from django import forms
from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.http.response import HttpResponseBase
from django.template.response import TemplateResponse
from django.urls import URLPattern, path
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import csrf_exempt

from readonly.errors import Error, NotYours
from readonly.record import Mode
from readonly.state import State, sendable

from . import conf, passes
from .models import ReadOnlyMode

if TYPE_CHECKING:
    ModeAdmin = admin.ModelAdmin[ReadOnlyMode]
else:
    ModeAdmin = admin.ModelAdmin

# So long the page waits for the proof that all processes obey, before it shows what is missing and asks again.
PROOF_SECONDS: Final = 0.5
_LONGEST_MINUTES: Final = 366 * 24 * 60


class SwitchOn(forms.Form):
    """What is asked of somebody who makes the site read-only."""

    reason = forms.CharField(label=gettext_lazy("Reason, for colleagues"), max_length=200, required=False)
    message = forms.CharField(label=gettext_lazy("Message, for visitors"), max_length=500, required=False)
    minutes = forms.IntegerField(
        label=gettext_lazy("Expected to take, in minutes"), min_value=1, max_value=_LONGEST_MINUTES, required=False
    )


class _Page(TemplateResponse):
    """A page that can be sent, whatever stands in the record: nobody checks what was typed on another host."""

    @property
    def rendered_content(self) -> str:
        """The page, without halves of surrogate pairs."""
        return sendable(super().rendered_content)


@admin.register(ReadOnlyMode)
class ReadOnlyModeAdmin(ModeAdmin):
    """The page, in the place of a list of rows."""

    def get_urls(self) -> list[URLPattern]:
        """Return the one URL."""
        page = csrf_exempt(never_cache(self._page))  # checked inside, by Django's token or by the pass's own
        page.readonly_page = True  # type: ignore[attr-defined]  # what passes are for
        page.login_required = False  # type: ignore[attr-defined]  # asked for inside, but of who holds a pass
        return [path("", page, name="readonly_django_readonlymode_changelist")]

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Return whether the page is for this user."""
        return bool(getattr(request.user, "has_perm", lambda _: False)(passes.PERMISSION))

    def has_module_permission(self, request: HttpRequest) -> bool:
        """Return whether the index lists it."""
        return self.has_view_permission(request)

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Return False: there is nothing to add."""
        return False

    has_change_permission = has_delete_permission = has_add_permission

    # --- the page ----------------------------------------------------------------------------------------------------

    def _page(self, request: HttpRequest) -> HttpResponseBase:
        state = conf.current_switch().look()
        holder = passes.holder(request, state)
        if holder is None:
            # As any other page of the admin: signed in, and with Django's own token.
            return self.admin_site.admin_view(self._serve)(request)
        request.user = holder
        if request.method == "POST" and not passes.form_is_ours(request):
            raise PermissionDenied(_("This form was not sent from the page itself: open it again."))
        return self._serve(request)

    def _serve(self, request: HttpRequest) -> HttpResponseBase:
        if not self.has_view_permission(request):
            raise PermissionDenied
        if request.method != "POST":
            return self._show(request)
        if "off" in request.POST:
            return self._turn_off(request)
        return self._turn_on(request)

    def _turn_on(self, request: HttpRequest) -> HttpResponseBase:
        form = SwitchOn(request.POST)
        if not form.is_valid():
            return self._show(request, form=form)
        minutes = form.cleaned_data["minutes"]
        try:
            state = conf.current_switch().on(
                reason=form.cleaned_data["reason"],
                message=form.cleaned_data["message"],
                expected=timedelta(minutes=minutes) if minutes else None,
                by=request.user.get_username(),
            )
        except Error as error:
            return self._show(request, form=form, problem=str(error))
        response = HttpResponseRedirect(request.get_full_path().partition("?")[0])
        passes.give(response, request, passes.make(request.user, state))
        return response

    def _turn_off(self, request: HttpRequest) -> HttpResponseBase:
        try:
            state = conf.current_switch().off(every="every" in request.POST, by=request.user.get_username())
        except NotYours as error:
            return self._show(request, problem=str(error), others=True)
        except Error as error:
            return self._show(request, problem=str(error))
        response = self._show(request, done=not state.read_only)
        if not state.causes:
            passes.take_back(response, request)
        return response

    def _show(
        self,
        request: HttpRequest,
        *,
        form: SwitchOn | None = None,
        problem: str = "",
        others: bool = False,
        done: bool = False,
    ) -> HttpResponse:
        switch = conf.current_switch()
        state = switch.look()
        # Whoever sees the page may use it: where sessions are kept, this is how they get their pass.
        value = request.COOKIES.get(passes.COOKIE, "") if passes.is_valid(request, state) else ""
        given = not value and bool(state.causes)
        if given:
            value = passes.make(request.user, state)
        context = {
            **self.admin_site.each_context(request),
            "title": _("Read-only mode"),
            "opts": ReadOnlyMode._meta,
            "site": switch.site,
            "state": state,
            "causes": state.causes,
            "unknown": state.mode is Mode.UNKNOWN,
            "missing": _missing(state),
            "form": form or SwitchOn(),
            "problem": problem,
            "others": others,
            "done": done,
            "readonly_token": passes.form_token(value),
        }
        request.current_app = self.admin_site.name  # what `{% url %}` goes by
        response = _Page(request, "admin/readonly_django/mode.html", context)
        if given:
            passes.give(response, request, value)
        # Rendered here: what follows may not be the user's own page any more.
        return response.render()


def _missing(state: State) -> tuple[str, ...] | None:
    """Return what is still missing for a proof that all processes obey; None where nobody could be asked."""
    if not state.causes:
        return ()
    try:
        return conf.current_switch().confirm(timeout=PROOF_SECONDS).missing
    except Error as error:
        return (str(error),)
