"""What a rehearsal's numbers mean: what to add to the policy, and what to mend, each with the reason."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from .errors import ConfigurationError
from .gate import ActKind
from .rehearsal_counts import OTHER, SIGNS_IN, Numbers, Route, named
from .rules import SAFE_METHODS, WEBSOCKET, Facts
from .rules import rule as rule_

# In this order they are printed.
POLICY: Final = ("login", "logout", "reads", "writes", "session_cookies")
DISCARD: Final = "discard"
CODE: Final = "code"
_DECLARED: Final = frozenset({str(kind) for kind in (ActKind.WRITE, ActKind.LOGIN, ActKind.LOGOUT)})
_DECLARED_SOMEHOW: Final = _DECLARED | {str(ActKind.DECLARED_READ)}
_RULES: Final = ("login", "logout", "reads", "writes")
_SIGNS_OUT: Final = re.compile(r"log_?out|log_?off|sign_?out|sign_?off", re.IGNORECASE)
# From this share of signed-in requests on a site is not read by strangers.
SIGNED_IN_SHARE: Final = 0.2


@dataclass(frozen=True, slots=True)
class Advice:
    """One thing to be done before the night.

    Attributes:
        where: An argument of `Policy`, `discard` (of `Database`, or Django's setting), or `code`.
        value: What to write there; for `code`, where.
        why: One sentence.
    """

    where: str
    value: str
    why: str


def advice(numbers: Numbers) -> tuple[Advice, ...]:
    """Return all that has to be done so that the next rehearsal is clean; empty when it was."""
    declared = {named(rule, route) for rule, route in numbers.routes.items() if route.act in _DECLARED_SOMEHOW}
    made: list[Advice] = []
    for key, route in sorted(numbers.routes.items()):
        rule = named(key, route)
        # What a rule lets through by its body, and nothing else of that route, is said already.
        if rule not in declared or route.act in _DECLARED_SOMEHOW:
            made += _of_route(rule, route)
    made = [_as_a_rule(one, made, numbers) for one in made]
    whole = {f"{one.value}." for one in made if one.where == DISCARD}
    made = [one for one in made if one.where != DISCARD or not one.value.startswith(tuple(whole))]
    for name, number in sorted(numbers.unnamed.items()):
        if name != OTHER:
            made.append(
                Advice(
                    "session_cookies",
                    name,
                    f"set {number} times, called like a session's cookie, and read by no script: sessions in it would "
                    "go on",
                )
            )
    made += [
        Advice(CODE, where, f"writes {tables} outside of any request or job: put it into `with switch.writing():`")
        for where, tables in sorted(numbers.outside.items())
    ]
    made += [
        Advice(CODE, client, f"a client that is none of this site's processes wrote {number} times: a fence stops it")
        for client, number in sorted(numbers.clients.items())
        if client not in numbers.own
    ]
    return tuple(dict.fromkeys(made))


def notes(numbers: Numbers) -> tuple[str, ...]:
    """Return what is worth knowing, and needs nothing to be done."""
    said = []
    if numbers.requests and numbers.signed_out > SIGNED_IN_SHARE * numbers.requests:
        said.append(
            f"{numbers.signed_out * 100 // numbers.requests}% of all requests were signed in and would not have been: "
            "pages that need a login can't be read then; `on --sessions suspend` or `keep`"
        )
    if numbers.running_out.number():
        said.append(
            f"{numbers.running_out.number()} bearer tokens would have run out before the end, and a new one could not "
            "have been had"
        )
    for rule, route in sorted(numbers.routes.items()):
        if route.begun and route.act == ActKind.READ and not route.wrote and not _is_sign_in(rule, route):
            said.append(f"{rule} begins sessions ({route.begun}): they would not have been; if that is a login, say so")
    for key, route in sorted(numbers.routes.items()):
        if route.tried and not route.wrote and route.act in (ActKind.READ, ActKind.DECLARED_READ):
            said.append(
                f"{named(key, route)} writes and takes it back ({route.tried} times): what it sends would be refused "
                "all the same"
            )
    if OTHER in numbers.routes:
        said.append("more routes than are told apart: what is said of `other` is the sum of the rest")
    return tuple(said)


def _of_route(rule: str, route: Route) -> Iterable[Advice]:
    method = rule.partition(" ")[0]
    if rule == OTHER or route.act in _DECLARED or route.absent == route.requests:
        return ()
    if route.act == ActKind.EXEMPT:
        where = _wrote(route)
        why = f"is exempt and writes {where}: the guard refuses that all the same: take it out of `exempt`"
        return (Advice(CODE, rule, why),) if route.wrote else ()
    if route.act == ActKind.UNDECLARED:
        return (_undeclared(rule, route, method),)
    if route.act == ActKind.DECLARED_READ:
        return (Advice("writes", rule, f"is declared as a read, and wrote {_wrote(route)}"),) if route.wrote else ()
    if route.wrote:
        return tuple(_writing_read(rule, route))
    if (route.begun or route.renewed) and _is_sign_in(rule, route):
        return (Advice("login", rule, f"begins sessions ({route.begun + route.renewed} times), on a {method}"),)
    if route.ended and _is_sign_out(rule, route):
        return (Advice("logout", rule, f"ends sessions ({route.ended} times), on a {method}"),)
    return ()


def _as_a_rule(one: Advice, made: Sequence[Advice], numbers: Numbers) -> Advice:
    """Return an advice, or another one where its rule can't be written, or would refuse what is to pass."""
    if one.where not in _RULES:
        return one
    try:
        written = rule_(one.value)
    except ConfigurationError:
        return Advice(CODE, one.value, f"{one.why}; it can't be written as a rule: mark its endpoint")
    if one.where not in ("writes", "login") or written.route is not None:
        return one
    through = {other.value for other in made if other.where in ("reads", "logout")}
    for key, route in sorted(numbers.routes.items()):
        rule = named(key, route)
        method = rule.partition(" ")[0]
        passes = rule in through or (route.passed and route.act not in _DECLARED)
        if rule != one.value and passes and route.example and written.refuses(Facts(method, route.example)):
            why = f"{one.why}; as a rule it would refuse {rule} as well: mark its endpoint with @writes"
            return Advice(CODE, one.value, why)
    return one


def _undeclared(rule: str, route: Route, method: str) -> Advice:
    seen = f"{route.requests} requests"
    if method == WEBSOCKET:
        if route.wrote:
            return Advice("writes", rule, f"{seen}; writes {_wrote(route)}; open ones are closed at the switch")
        return Advice("reads", rule, f"{seen}, none of which wrote: declared, it stays open")
    if route.begun:
        return Advice("login", rule, f"begins sessions ({route.begun} of {seen})")
    if route.renewed and SIGNS_IN.search(rule):
        return Advice("login", rule, f"gives another session to who has one ({route.renewed} of {seen})")
    if route.ended and not route.begun:
        return Advice("logout", rule, f"ends sessions ({route.ended} of {seen})")
    if route.wrote:
        why = f"{route.wrote} of {seen} wrote {_wrote(route)}"
        if route.wrote < route.requests and "graphql" in rule.lower():
            why += "; its queries can be let through by their body: reads=[rule(..., when=GraphQL().reads)]"
        return Advice("writes", rule, why)
    if route.asked:
        return Advice("reads", rule, f"{seen}, none of which wrote; the guard would still stop one that did")
    return Advice("writes", rule, f"{seen}; no guarded database was asked, so that nobody knows what they write")


def _writing_read(rule: str, route: Route) -> Iterable[Advice]:
    where = _wrote(route)
    sent_on = route.redirected * 2 > route.requests
    wrote = f"{route.wrote} of {route.requests} wrote {where}"
    droppable = [name for name in route.droppable if not any(name.startswith(f"{t}.") for t in route.droppable)]
    if (route.begun or route.renewed) and _is_sign_in(rule, route):
        yield Advice("login", rule, f"begins sessions ({route.begun + route.renewed} times) and writes {where}")
    elif route.ended and _is_sign_out(rule, route):
        yield Advice("logout", rule, f"ends sessions ({route.ended} times) and writes {where}")
    elif sent_on:
        yield Advice("writes", rule, f"{wrote}, and sent on elsewhere")
    elif route.raw or not droppable or _unknown(route.tables) or OTHER in droppable:
        # Refused it fails with a word at least; to be read, its code has to change.
        yield Advice("writes", rule, f"{wrote}, not only by statements that could be dropped")
    else:
        for one in droppable:
            name = one.partition(".")[2] or one
            yield Advice(
                DISCARD,
                name,
                f"{rule} is a page, and {route.wrote} of {route.requests} wrote {where}: dropped, it can be read",
            )


def _unknown(tables: Mapping[str, str]) -> bool:
    return not all(re.fullmatch(r"[\w$]+(?:\.[\w$]+){1,2}", table) for table in tables)


def _is_sign_out(rule: str, route: Route) -> bool:
    # A page may end a session that has nothing in it any more; whoever signs out is sent elsewhere.
    mostly = route.ended * 2 > route.requests
    return mostly and (route.redirected * 2 > route.requests or _SIGNS_OUT.search(rule) is not None)


def _is_sign_in(rule: str, route: Route) -> bool:
    return route.redirected > 0 and SIGNS_IN.search(rule) is not None and rule.partition(" ")[0] in SAFE_METHODS


def _wrote(route: Route) -> str:
    return ", ".join(table + (f" at {where}" if where else "") for table, where in route.tables.items())


def policy(found: Sequence[Advice]) -> dict[str, list[str]]:
    """Return the arguments of `Policy` to add to, and what to add to each."""
    return {
        name: values for name in POLICY if (values := list(dict.fromkeys(a.value for a in found if a.where == name)))
    }


def discards(found: Sequence[Advice]) -> list[str]:
    """Return what to add to the incidental writes that a guard drops."""
    return list(dict.fromkeys(a.value for a in found if a.where == DISCARD))


def lines(found: Sequence[Advice]) -> list[str]:
    """Return the same as lines of Python, to be put into the calls they are arguments of."""
    written = [f"{name}=[{', '.join(_quoted(v) for v in values)}]," for name, values in policy(found).items()]
    if dropped := discards(found):
        written.append(f"{DISCARD}=[{', '.join(_quoted(v) for v in dropped)}],  # of Database(...)")
    return written


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
