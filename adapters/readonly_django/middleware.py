"""The middleware. It comes first in MIDDLEWARE: what is over must not be read, and what is refused has begun nothing.

A request is looked at twice. First before any other middleware has seen it; while the site is read-only the URLconf is
asked for its view then. And once more when Django has found the view (`process_view`), which another middleware may
have had a hand in: that look can refuse what the first one let through, and never the other way round.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, Final, cast

from asgiref.sync import iscoroutinefunction, markcoroutinefunction, sync_to_async
from django.conf import settings as django_settings
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase, StreamingHttpResponse
from django.urls import ResolverMatch

from readonly.context import Work
from readonly.errors import ReadOnlyError
from readonly.exchange import Exchange
from readonly.gate import PREFLIGHT
from readonly.handling import Handling
from readonly.marks import READS
from readonly.rejection import Answer, Rejection
from readonly.rules import Endpoint

from . import conf, passes
from .endpoints import Endpoints, resolved, takes_every_method
from .page import own_page
from .quiet import Incidentals, keep_last_login_quiet, watch
from .requests import at_end, cookies_of, facts_of, respond, show_body, strip, treat, work_in
from .visible import BANNER
from .words import languages

# Marked views are looked for where Django has found them, at no cost for the others.
_ROUTES: Final = SimpleNamespace(reads_matter=False)


class ReadOnlyMiddleware:
    """Refuses writes and logins while the site is read-only, ends sessions, and counts the writes in flight.

    Sync under WSGI and async under ASGI, with no thread in between.

    Raises:
        SettingsError: A setting can't be right, or no store is set: the server does not start.
    """

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: Callable[[HttpRequest], Any]) -> None:
        said, policy, switch = conf.settings(), conf.policy(), conf.current_switch()
        self.get_response = get_response
        self._endpoints = Endpoints(find_logins=said.find_logins)
        # From the first request on each carries what a refusal marks: the first `writing()` may be inside of one.
        switch.writing()
        self._handling = Handling[Any](switch, policy, None, _ROUTES)
        self._handling.rejection = Rejection(
            page=own_page(said.page), retry_after_seconds=policy.retry_after_seconds, languages=languages
        )
        keep_last_login_quiet()
        self._is_async = iscoroutinefunction(get_response)
        if self._is_async:
            markcoroutinefunction(self)
            # Anything but a coroutine function would be run in a thread.
            self.process_view = self._aprocess_view  # type: ignore[method-assign]

    def __call__(self, request: HttpRequest) -> Any:
        """Return the response, or an awaitable of it."""
        return self._aserve(request) if self._is_async else self._serve(request)

    # --- under WSGI --------------------------------------------------------------------------------------------------

    def _serve(self, request: HttpRequest) -> HttpResponseBase:
        visit = _Visit(request, self._handling)
        if not self._handling.is_free(cast(str, request.method)):
            answer = self._exchange(request, visit).begin()
            if answer is not None and self._knew_too_little(visit):
                answer = self._exchange(request, visit).begin()
            if answer is not None:
                return self._given_back(request, visit, answer)
            self._doubt(request, visit)
        try:
            visit.enter(request, self._handling)
            response: HttpResponseBase = self.get_response(request)
        except Exception:
            answer = visit.failed()
            if answer is None:
                raise
            return respond(answer)
        except BaseException:
            visit.failed()
            raise
        return visit.leave(request, response)

    def process_view(self, request: HttpRequest, view: Any, args: Any, kwargs: Any) -> Any:
        """Look at a request once more, now that its view is known."""
        visit = _visit_of(request)
        if visit is None or not self._may_have_changed(visit, view):
            return None
        endpoint = self._endpoint(request.resolver_match, request, runs=True)
        if visit.exchange is None:
            answer = self._exchange(request, visit, endpoint).begin()
            if answer is None:
                visit.enter(request, self._handling)
        else:
            answer = visit.exchange.look_again(endpoint)
        return None if answer is None else respond(answer)

    # --- under ASGI --------------------------------------------------------------------------------------------------

    async def _aserve(self, request: HttpRequest) -> HttpResponseBase:
        visit = _Visit(request, self._handling)
        if not self._handling.is_free(cast(str, request.method)):
            answer = await self._exchange(request, visit).abegin()
            if answer is not None and self._knew_too_little(visit):
                answer = await self._exchange(request, visit).abegin()
            if answer is not None:
                return self._given_back(request, visit, answer)
            self._doubt(request, visit)
        try:
            visit.enter(request, self._handling)
            response: HttpResponseBase = await self.get_response(request)
        except Exception:
            answer = visit.failed()
            if answer is None:
                raise
            return respond(answer)
        except asyncio.CancelledError:
            # The client has left. A view that runs in a thread goes on all the same, and may yet commit.
            await visit.outlived()
            raise
        except BaseException:
            visit.failed()
            raise
        return visit.leave(request, response)

    async def _aprocess_view(self, request: HttpRequest, view: Any, args: Any, kwargs: Any) -> Any:
        visit = _visit_of(request)
        if visit is None or not self._may_have_changed(visit, view):
            return None
        endpoint = self._endpoint(request.resolver_match, request, runs=True)
        if visit.exchange is None:
            answer = await self._exchange(request, visit, endpoint).abegin()
            if answer is None:
                visit.enter(request, self._handling)
        else:
            answer = await visit.exchange.alook_again(endpoint)
        return None if answer is None else respond(answer)

    # --- either ------------------------------------------------------------------------------------------------------

    def process_exception(self, request: HttpRequest, exception: Exception) -> HttpResponse | None:
        """Answer for a view to which a guard, or `switch.writing()`, has refused a write."""
        visit = _visit_of(request)
        # An error that came of a refusal is for Django to report; its 500 is replaced when it leaves.
        if visit is None or not isinstance(exception, ReadOnlyError):
            return None
        handling, exchange = self._handling, visit.exchange
        if exchange is not None and exchange.work is not None:
            exchange.work.mark(exception)
            answer = exchange.replacement()
            return None if answer is None else respond(answer)
        facts = facts_of(request) if exchange is None else exchange.facts
        judged = handling.anonymous(handling.view.state) if exchange is None else exchange.judged
        handling.count_escape(Work(handling.switch, name=handling.route(judged.verdict.act, facts)), exception)
        return respond(handling.escape(judged, facts))

    def _exchange(self, request: HttpRequest, visit: _Visit, endpoint: Endpoint | None = None) -> Exchange:
        """Begin to know a request: anew if it was known before."""
        handling, view = self._handling, self._handling.view
        facts = facts_of(request)
        if endpoint is None and (visit.exchange is not None or not view.open or view.sessions_cut):
            # A writable site counts what is not a plain read, whatever its view; then this look can be spared.
            match = visit.match = resolved(request)
            endpoint = self._endpoint(match, request)
        facts.endpoint = endpoint
        if handling.wants_body(facts):
            show_body(facts, request)
        visit.exchange = Exchange(
            handling,
            facts,
            cookies=cookies_of(request),
            secure=request.is_secure(),
            client=request.META.get("REMOTE_ADDR"),
            looks_again=True,
            mount=request.META.get("SCRIPT_NAME", ""),
        )
        return visit.exchange

    def _doubt(self, request: HttpRequest, visit: _Visit) -> None:
        """Look whether middleware outside of this one was at work; at the few requests that are looked at closely."""
        if visit.exchange is not None and visit.exchange.judged.noted is not None:
            self._handling.stands_behind(vars(request))

    def _knew_too_little(self, visit: _Visit) -> bool:
        # It was refused in the moment of the switch, before anybody asked for its view, which may only read.
        return visit.match is None and visit.exchange is not None and visit.exchange.facts.endpoint is None

    def _given_back(self, request: HttpRequest, visit: _Visit, answer: Answer) -> HttpResponse:
        """Answer a request that was refused; with what was typed, if it was a form that may be read."""
        exchange = visit.exchange
        if exchange is not None and exchange.wants_form:
            if exchange.facts.body is None:
                show_body(exchange.facts, request)
            answer = exchange.given_back()
        return respond(answer)

    def _endpoint(self, match: ResolverMatch | None, request: HttpRequest, *, runs: bool = False) -> Endpoint | None:
        if match is None:
            return None
        found = self._endpoints.of(match)
        if runs and request.method == "OPTIONS" and takes_every_method(match.func):
            # No middleware has answered it, and Django would run the view as for any method.
            found = replace(found, takes_preflights=True)
        if passes.is_page(match.func) and passes.is_valid(request, self._handling.view.state):
            return replace(found, marks=found.marks | {READS})
        return found

    def _may_have_changed(self, visit: _Visit, view: Any) -> bool:
        """Return whether a view makes a difference that the first look did not see."""
        if visit.exchange is None:
            return self._endpoints.writes_on_get(view)
        if visit.exchange.key is not None:
            return False
        return visit.match is None or visit.match.func is not view or visit.exchange.act.rule == PREFLIGHT


class _Visit:
    """One request on its way through the application, which knows it; it does not know the request.

    In a cycle the two would be left to the collector of garbage, which takes longer than all that is done here.

    Attributes:
        match: What the URLconf said at the first look, if it was asked.
        exchange: What the core knows of it; None for a read of a writable site, until its view says otherwise.
    """

    __slots__ = ("_handling", "_incidentals", "_working", "exchange", "match")

    def __init__(self, request: HttpRequest, handling: Handling[Any]) -> None:
        self._handling = handling
        self.match: ResolverMatch | None = None
        self.exchange: Exchange | None = None
        self._incidentals: Incidentals | None = None
        self._working: AbstractContextManager[None] | None = None
        request._readonly_visit = self  # type: ignore[attr-defined]

    def enter(self, request: HttpRequest, handling: Handling[Any]) -> None:
        """Let the application have it."""
        exchange = self.exchange
        if exchange is None:
            self._incidentals = Incidentals(handling.switch, never=False)
            watch(request, self._incidentals)
            return
        strip(request, exchange)
        if self._incidentals is not None:
            self._incidentals.counted_with = exchange
        elif exchange.key is None and not exchange.judged.verdict.bypass:
            judged = exchange.judged
            self._incidentals = Incidentals(
                handling.switch, never=judged.state.read_only, leave_cache=judged.verdict.look_away
            )
            self._incidentals.counted_with = exchange
            watch(request, self._incidentals)
        self._working = exchange.working()
        self._working.__enter__()

    def leave(self, request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
        """Take the application's response; returns what is sent."""
        self._stop_working()
        if self._incidentals is not None and self._incidentals.skipped:
            self._drop_what_was_not_stored(request, response)
        if self._handling.view.announced is not None:
            for name, value in self._handling.announcement:
                response.headers[name] = value
            if getattr(request, BANNER, False):
                response.headers["Cache-Control"] = "no-store"
        exchange = self.exchange
        if exchange is None:
            return response
        answer = exchange.replacement(response.status_code)
        if answer is not None:
            replaced = respond(answer)
            replaced._resource_closers += response._resource_closers  # type: ignore[attr-defined]
            response = replaced
        elif exchange.treats_what_starts_now:
            treat(response, exchange)
            if getattr(request, BANNER, False):
                # Nobody is to be told for another hour by a cache what is over by then.
                response.headers["Cache-Control"] = "no-store"
        self._end_with(response, exchange)
        return response

    def failed(self) -> Answer | None:
        """End it, since the application raised; returns what to answer if a guard is behind that."""
        self._stop_working()
        if self.exchange is None:
            return None
        answer = self.exchange.replacement()
        self.exchange.end()
        return answer

    async def outlived(self) -> None:
        """End it when the thread that works for it has come to its end."""
        self._stop_working()
        exchange = self.exchange
        if exchange is None:
            return
        try:
            if exchange.counted is not None:
                # Django runs all of a request's threads one after the other: this comes after what is running.
                await sync_to_async(exchange.end, thread_sensitive=True)()
        finally:
            exchange.end()

    def _stop_working(self) -> None:
        working, self._working = self._working, None
        if working is not None:
            # It was entered in `process_view`, perhaps, which a middleware may run in a context of its own.
            with suppress(ValueError):
                working.__exit__(None, None, None)

    def _end_with(self, response: HttpResponseBase, exchange: Exchange) -> None:
        streams = isinstance(response, StreamingHttpResponse)
        if exchange.counted is None and not (streams and exchange.work is not None):
            exchange.end()
            return
        if isinstance(response, StreamingHttpResponse) and exchange.work is not None:
            work_in(response, exchange)
        at_end(response, exchange.end)

    @staticmethod
    def _drop_what_was_not_stored(request: HttpRequest, response: HttpResponseBase) -> None:
        session = getattr(request, "session", None)
        name = django_settings.SESSION_COOKIE_NAME
        cookie = response.cookies.get(name)
        # Without a key there is nothing to name, but a deletion may pass.
        if cookie is not None and not getattr(session, "session_key", None) and cookie["max-age"] != 0:
            del response.cookies[name]


def _visit_of(request: HttpRequest) -> _Visit | None:
    return getattr(request, "_readonly_visit", None)
