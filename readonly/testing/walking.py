"""The walk: every route of a site is asked while it is read-only, and the witnesses tell whether anybody wrote."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any, Final

from ..errors import ConfigurationError, ReadOnlyError
from ..record import Mode
from ..switch import Switch
from .findings import Finding, Kind, Walk, remedies_for_declared, remedies_for_read
from .routes import Answer, Example, Examples, Missing, Request, Route, Visitor, is_safe
from .witness import Witness, Write

# It takes milliseconds, but on a machine that stands still for a while, as one that runs tests does.
CONFIRM_SECONDS: Final = 30.0
BY: Final = "readonly.testing"


def walk(
    routes: Iterable[Route],
    switch: Switch,
    visitors: Mapping[str, Visitor],
    *,
    examples: Mapping[str, Any] | None = None,
    witnesses: Sequence[AbstractContextManager[Witness]] = (),
    skip: Mapping[str, str] | None = None,
    sessions: str | None = None,
) -> Walk:
    """Ask every route while the site is read-only, and tell which ones write.

    The site is turned read-only if it is not, and afterwards is what it was before. It must run in this process, on
    one thread of requests: what the guard and the witnesses see during a request is taken to be that request's.

    Args:
        routes: The site's routes, from an adapter: `readonly_starlette.testing.routes(app)` and its peers.
        switch: The very switch that the site's middleware has.
        visitors: Who asks, by name: at least an anonymous one and one that has logged in before.
        examples: What the routes are filled with: `{"slug": "mara-voss-800", "POST /search": Example(form={...})}`.
        witnesses: What sees writes beside the site's own guard: `[recorded_writes(engine)]`.
        skip: Routes that are left out (`"/path"` or `"METHOD /path"`), each with the reason.
        sessions: `end`, `suspend` or `keep` for this read-only time; None: what the policy says. With `keep` the pages
            that signed-in visitors see are looked at as well.

    Returns:
        What was found; `check()` raises an AssertionError that says it all.

    Raises:
        ConfigurationError: The walk would prove nothing, or would switch a site that others use.
        NotConfirmed: The site could not be proven read-only: a guard did not stand its own test.
    """
    known = tuple(routes)
    if not known:
        raise ConfigurationError("routes: there are none; pass the application itself to the adapter's routes(...)")
    if not visitors:
        raise ConfigurationError("visitors: there are none; pass {'anonymous': visitor(client), ...}")
    walker = _Walker(known, switch, visitors, Examples(examples or {}), dict(skip or {}))
    with ExitStack() as stack:
        walker.witnesses = [stack.enter_context(witness) for witness in witnesses]
        stack.enter_context(_listening(switch, walker))
        with _read_only(switch, sessions):
            return walker.walk()


@contextmanager
def _read_only(switch: Switch, sessions: str | None) -> Iterator[None]:
    if switch.look().mode is Mode.UNKNOWN:
        # A process that has just started keeps its writes back for a moment, in case somebody knows more.
        switch.wait_writable(CONFIRM_SECONDS)
    if switch.look().read_only:
        yield
        return
    others = [report for report in switch.members() if report.pid != os.getpid() and not report.gone]
    if others:
        first = others[0]
        raise ConfigurationError(
            f"{switch!r} has other members ({first.role} {first.host}/{first.pid}): this would switch a site"
            " that is in use; give the tests a store of their own, READONLY_STORE=memory://"
        )
    state = switch.on(reason="do any routes write?", by=BY, sessions=sessions)
    try:
        switch.confirm(state.epoch, timeout=CONFIRM_SECONDS).require_safe()
        yield
    finally:
        switch.off(by=BY)


@contextmanager
def _listening(switch: Switch, walker: _Walker) -> Iterator[None]:
    found, switch.tally.on_escape = switch.tally.on_escape, walker.escaped
    try:
        yield
    finally:
        switch.tally.on_escape = found


class _Walker:
    """One walk."""

    def __init__(
        self,
        routes: Sequence[Route],
        switch: Switch,
        visitors: Mapping[str, Visitor],
        examples: Examples,
        skip: dict[str, str],
    ) -> None:
        self.witnesses: Sequence[Witness] = ()
        self._routes = routes
        self._switch = switch
        self._visitors = visitors
        self._examples = examples
        self._skip = skip
        self._skipped: dict[str, str] = {}
        self._escapes: list[Write] = []
        self._findings: dict[tuple[Any, ...], Finding] = {}
        self._served = self._refused = self._marked = 0

    def escaped(self, refusal: ReadOnlyError) -> None:
        """Take in what a guard refused."""
        if refusal.database is None:
            self._escapes.append(Write("switch.writing()", True, "", refusal.reason))
        else:
            self._escapes.append(Write(refusal.database, True, refusal.table or "", refusal.reason))

    def walk(self) -> Walk:
        for route in self._routes:
            for method in route.methods:
                self._walk(route, method)
        self._look_back()
        return Walk(len(self._routes), self._served, self._refused, self._skipped, tuple(self._findings.values()))

    def _walk(self, route: Route, method: str) -> None:
        for key in (f"{method} {route.path}", route.path):
            if key in self._skip:
                self._skipped[key] = self._skip[key]
                return
        try:
            requests = list(self._examples.requests(route, method))
        except Missing as missing:
            needed = ", ".join(f'"{name}": ...' for name in missing.names)
            self._find(
                Finding(
                    Kind.NO_EXAMPLE,
                    route,
                    method,
                    what=f"Nothing says what to put for {', '.join(missing.names)}, so it was not asked.",
                    remedies=(
                        f"Give one by name, examples={{{needed}}}, or for this route alone,"
                        f' examples={{"{route.path}": {{{needed}}}}};',
                        f'or leave it out, with the reason: skip={{"{method} {route.path}": "..."}}',
                    ),
                )
            )
            return
        for example, request in requests:
            answers = [self._ask(route, example, request, name) for name in self._visitors]
            if route.parameters and all(answer is not None and answer.status == 404 for answer in answers):
                self._find(
                    Finding(
                        Kind.NOWHERE,
                        route,
                        method,
                        what=f"{request} is 404 for every visitor, so this proves nothing about the route.",
                        remedies=("Give an example of something that is there when the tests run.",),
                    )
                )

    def _ask(self, route: Route, example: Example, request: Request, name: str) -> Answer | None:
        """Send one request as one visitor; return the answer if the application gave it."""
        counted = self._switch.tally.totals()["refused"]
        seen = [len(witness.writes) for witness in self.witnesses]
        self._escapes.clear()
        answer = self._visitors[name](request)
        self._marked += answer.headers.get("x-read-only") == "true"
        by_witnesses = [
            write for witness, before in zip(self.witnesses, seen, strict=True) for write in witness.writes[before:]
        ]
        # A witness tells the statement and the guard does not: where both have seen it, the witness speaks.
        refused_by = {write.database for write in by_witnesses if write.refused}
        writes = (*by_witnesses, *(write for write in self._escapes if not refused_by))
        refused = self._switch.tally.totals()["refused"] > counted
        if refused:
            self._refused += 1
        else:
            self._served += 1
        if writes:
            self._judge_writes(route, request, name, answer, writes)
        elif refused:
            return None
        elif answer.status >= 500:
            self._failed(route, request, name, answer)
        elif not is_safe(request.method):
            self._judge_let_through(route, example, request, name, answer)
        return answer

    def _judge_writes(
        self, route: Route, request: Request, name: str, answer: Answer, writes: tuple[Write, ...]
    ) -> None:
        what = f"{request} was answered with {answer.status}."
        if any(not write.refused for write in writes):
            self._find(
                Finding(
                    Kind.WROTE,
                    route,
                    request.method,
                    (name,),
                    f"{what} No guard stood in the way: wrap the engine in readonly's Database (Django: the guarded"
                    " aliases), or take the route out of the site's read-only time.",
                    remedies_for_read(route, request.method, writes)
                    if is_safe(request.method)
                    else remedies_for_declared(route, request.method),
                    writes,
                )
            )
        elif is_safe(request.method):
            remedies = remedies_for_read(route, request.method, writes)
            self._find(Finding(Kind.WRITES_ON_READ, route, request.method, (name,), what, remedies, writes))
        else:
            remedies = remedies_for_declared(route, request.method)
            self._find(Finding(Kind.WRITES_THOUGH_DECLARED, route, request.method, (name,), what, remedies, writes))

    def _failed(self, route: Route, request: Request, name: str, answer: Answer) -> None:
        said = f": {answer.error}" if answer.error else ""
        self._find(
            Finding(
                Kind.FAILED,
                route,
                request.method,
                (name,),
                f"{request} was answered with {answer.status}{said}",
                ("Every page must be there while read-only. No guard has refused anything here: look at the error.",),
            )
        )

    def _judge_let_through(self, route: Route, example: Example, request: Request, name: str, answer: Answer) -> None:
        """An unsafe request that the policy let through, and that wrote nothing: it must have come to the point."""
        if answer.headers.get("x-read-only") != "true":
            return  # told once, for the whole walk
        if answer.status >= 400 and not example.has_body and answer.status not in (401, 403, 404, 405):
            self._find(
                Finding(
                    Kind.NO_BODY,
                    route,
                    request.method,
                    (name,),
                    f"{request} is let through by the policy, and an empty body was answered with {answer.status}:"
                    " this proves nothing about the route.",
                    (f'Give it one: examples={{"{request.method} {route.path}": Example(form={{...}})}}',),
                )
            )

    def _look_back(self) -> None:
        """What can only be said when everything was asked: whether the walk has proven anything."""
        if not self.witnesses and not self._switch.guarded:
            self._find(
                Finding(
                    Kind.BLIND,
                    None,
                    what="There is no guard on this switch and no witness: nobody could have seen a write.",
                    remedies=("Guard the site's database, or pass witnesses=[recorded_writes(engine)].",),
                )
            )
        if self._served and not self._marked:
            self._find(
                Finding(
                    Kind.NOT_REFUSED,
                    None,
                    what="No answer carried X-Read-Only: the requests went past the middleware, or it has another"
                    " switch than the walk.",
                    remedies=("Pass the middleware's own switch, and the application with its middleware.",),
                )
            )
        for witness in self.witnesses:
            if not witness.statements:
                self._find(
                    Finding(
                        Kind.BLIND,
                        None,
                        what=f"The witness of {witness.name} saw no statement at all: the site uses another engine.",
                        remedies=("Give recorded_writes(...) the engine that the site's sessions are bound to.",),
                    )
                )
        unused = [*self._examples.unused(), *sorted(set(self._skip) - set(self._skipped))]
        if unused:
            self._find(
                Finding(
                    Kind.UNUSED,
                    None,
                    what=f"No route has asked for {', '.join(map(repr, unused))}.",
                    remedies=("Is it misspelt, or is the route gone? Take it out of examples or skip.",),
                )
            )

    def _find(self, finding: Finding) -> None:
        """Take in a finding; what happens to several visitors in the same way is told once."""
        key = (finding.kind, finding.route, finding.method, finding.what, frozenset(map(str, finding.writes)))
        known = self._findings.get(key)
        if known is None:
            self._findings[key] = finding
        else:
            self._findings[key] = Finding(
                known.kind,
                known.route,
                known.method,
                tuple(dict.fromkeys((*known.visitors, *finding.visitors))),
                known.what,
                known.remedies,
                known.writes,
            )
