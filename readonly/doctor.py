"""Whether a site is ready for the night: each thing that may be wrong is looked for, and has a fix.

Nothing is changed. What only the site's processes can see, they report; what only the database can tell is asked with
the fencer's own rights.
"""

from __future__ import annotations

import importlib.metadata
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final

from .clock import APART_SECONDS
from .confirmation import Condition, Confirmation, roles_missing
from .databases.fence import Fence, FenceUnreachable, Level, Preflight, Strategy
from .doubts import ABSENT, CLOCK, COOKIE, EXEMPT, PAST, POSITION, TWICE, TWINS, WEBSOCKET
from .errors import Error, StoreUnreachable
from .fencing import let_past, standing_fences
from .following import Standbys
from .members import Report
from .record import FenceMark
from .replicating import reported
from .site import Look, Site
from .switchover import FILES

DISTRIBUTION: Final = "readonly-mode"
# Checks, in the order they are made and printed.
CHECKS: Final = (
    "package",
    "store",
    "record",
    "clock",
    "members",
    "versions",
    "switches",
    "middleware",
    "cookies",
    "exemptions",
    "websockets",
    "guards",
    "replicas",
    "fences",
)
_SILENT: Final = frozenset({Condition.LOST, Condition.EXPIRED, Condition.GONE})
_FIXES: Final = {
    TWINS: (
        "switches",
        "two switches of one process follow this store, made at {what}: what obeys the one knows nothing of the other",
        "make one, and give that object to middleware, databases and jobs",
    ),
    POSITION: (
        "middleware",
        "{what} stands outside of ReadOnlyMiddleware: it reads and writes sessions that are over",
        "make ReadOnlyMiddleware the outermost: the first of a list, the last that is added",
    ),
    TWICE: (
        "middleware",
        "ReadOnlyMiddleware is there twice, {what}: requests are judged and counted by each",
        "leave the outermost, take the other one out",
    ),
    ABSENT: (
        "middleware",
        "readonly_django is installed, and its middleware is not in {what}: nothing is refused",
        "put 'readonly_django.middleware.ReadOnlyMiddleware' first into MIDDLEWARE",
    ),
    COOKIE: (
        "cookies",
        "the cookie {what} is set like a session's, and the policy does not name it: sessions in it go on",
        "add it to the session cookies (session_cookies of Policy, SESSION_COOKIES of Django's READONLY, "
        "READONLY_SESSION_COOKIES in Flask), or rename it if nobody is signed in by it",
    ),
    EXEMPT: (
        "exemptions",
        "exempt {what} lets every write below it through",
        "name the few paths that must be reached, with their method",
    ),
    WEBSOCKET: (
        "websockets",
        "{what}: websockets are not closed at the switch, and what they write is not counted",
        "serve them behind readonly.asgi.ReadOnlyMiddleware, as an ASGI application; or count what they write: with "
        "switch.writing()",
    ),
    PAST: (
        "websockets",
        "websockets come to {what} past ReadOnlyMiddleware: they are not closed at the switch, and what they write is "
        "not counted",
        "in asgi.py, put around what serves them: readonly.asgi.ReadOnlyMiddleware(…, switch, policy=policy()), with "
        "switch and policy from readonly_django.conf",
    ),
}


@dataclass(frozen=True, slots=True)
class Finding:
    """What came of one check.

    Attributes:
        check: Which one, of `CHECKS`.
        ok: Whether all is well.
        what: One sentence.
        fix: What to do; "" where all is well.
    """

    check: str
    ok: bool
    what: str
    fix: str = ""


def check(site: Site, *, now: datetime | None = None) -> tuple[Finding, ...]:
    """Make every check; at least one finding for each that could be made.

    Args:
        site: The site, as the operator's machine knows it.
        now: This machine's clock; None: read it.
    """
    found = [*_package()]
    asked = datetime.now(UTC) if now is None else now
    try:
        look = site.look()
    except StoreUnreachable as error:
        found.append(Finding("store", False, str(error), _mended(site)))
        look = None
    answered = datetime.now(UTC) if now is None else now
    reports: list[Report] = []
    if look is not None:
        found += [*_store(site), *_record(site, look), *_clock(look, asked, answered)]
        members = site.judge(look)
        reports = [m.report for m in members.members if m.condition not in _SILENT]
        found += [*_members(site, members), *_clocks(reports), *_versions(reports), *_doubts(reports)]
        found += [*_guards(site, reports), *_apart(site, look, reports)]
        found += _replicas(reports)
    found += _fences(site, look, reports)
    return tuple(sorted(found, key=lambda one: CHECKS.index(one.check)))


def _package() -> Iterator[Finding]:
    owners = other_owners()
    if owners:
        what = f"a top-level `readonly` package comes with {', '.join(owners)} as well: which is imported is chance"
        yield Finding("package", False, what, f"pip uninstall {' '.join(owners)}, then reinstall {DISTRIBUTION}")
    else:
        yield Finding("package", True, "`readonly` belongs to one distribution")


def other_owners() -> list[str]:
    """Return other distributions that install a top-level `readonly` package: pip overwrites without asking."""
    return sorted({*importlib.metadata.packages_distributions().get("readonly", [])} - {DISTRIBUTION})


def _store(site: Site) -> Iterator[Finding]:
    warnings = site.warnings()
    for warning in warnings:
        yield Finding("store", False, warning, "set it as it says, before the night")
    try:
        site.store.try_write()
    except StoreUnreachable as error:
        yield Finding("store", False, f"it can be read, and nothing can be changed: {error}", _mended(site))
        return
    if not warnings:
        yield Finding("store", True, f"{site.shown_store} answers, and nothing in its settings can lose the record")


def _mended(site: Site) -> str:
    # Neither side says that the other one speaks TLS: a connection is closed, or nobody answers.
    tls = "; a server that speaks TLS is rediss…://, another one redis…://" if "redis" in site.store.url[:6] else ""
    return f"do as it says, start it, or mend the URL (READONLY_STORE, readonly.toml){tls}"


def _record(site: Site, look: Look) -> Iterator[Finding]:
    init = f"readonlyctl init {site.name}"
    if look.unreadable is not None:
        yield Finding(
            "record", False, look.unreadable.why, f"upgrade readonly-mode here; if it is corrupt: {init} --replace"
        )
    elif look.record is None:
        yield Finding("record", False, f"the store holds no record for {site.name}: writes are refused", init)
    elif look.record.partial:
        yield Finding("record", False, "the store was emptied, and nobody has written the whole record back", init)
    else:
        yield Finding("record", True, f"whole, epoch {look.record.epoch}")


def _clock(look: Look, asked: datetime, answered: datetime) -> Iterator[Finding]:
    # The store has read its clock somewhere between the two, however long the answer took.
    at = look.census.reading.at
    apart = max((asked - at).total_seconds(), (at - answered).total_seconds())
    if apart > APART_SECONDS:
        what = f"this machine's clock and the store's are {apart:.1f} s apart: times that are typed here mean others"
        yield Finding("clock", False, what, "set both by NTP (chronyc tracking, timedatectl)")
    else:
        yield Finding("clock", True, "this machine's clock is the store's")


def _clocks(reports: list[Report]) -> Iterator[Finding]:
    # One finding for a machine, however many processes of it say so, with what the first one says.
    hosts = {
        report.host: doubt.removeprefix(f"{CLOCK} ")
        for report in reversed(reports)
        for doubt in report.doubts
        if doubt.startswith(f"{CLOCK} ")
    }
    for host, apart in sorted(hosts.items()):
        what = f"the clock of {host} is {apart}: sessions that it stamps look older or newer than they are"
        yield Finding("clock", False, what, "set it by NTP there (chronyc tracking, timedatectl)")


def _members(site: Site, found: Confirmation) -> Iterator[Finding]:
    there = [m.report for m in found.members if m.condition not in _SILENT]
    wrong = list(_wrong_members(site, found, there))
    yield from wrong
    if not wrong:
        yield Finding("members", True, f"{len(there)} report: " + _counted(report.role for report in there))


def _wrong_members(site: Site, found: Confirmation, there: list[Report]) -> Iterator[Finding]:
    if not there:
        what = "no process of the site reports"
        fix = "install the middleware, with this very store; start the switch with the server (docs/checklist.md)"
        yield Finding("members", False, what, fix)
    for missing in roles_missing(site.expect, there) if there else ():
        yield Finding("members", False, missing, "start them, or mend expect in readonly.toml")
    for member in found.of(Condition.LOST):
        what = f"{member.report.name} is silent for {member.silent_seconds:.0f} s, and nobody knows whether it is over"
        fix = f"end it; or, if it is: readonlyctl members forget {member.report.id[:8]}"
        yield Finding("members", False, what, fix)
    inert = [report.name for report in there if report.inert]
    if inert:
        what = f"{inert[0]}{_more(inert)} obeys nothing: READONLY_DISABLED is set there"
        yield Finding("members", False, what, "take that out")
    strange = [report.name for report in there if report.role == "unreadable"]
    if strange:
        what = f"the report of {strange[0]}{_more(strange)} can't be read"
        yield Finding("members", False, what, "upgrade readonly-mode here")


def _versions(reports: list[Report]) -> Iterator[Finding]:
    libraries = {report.library for report in reports}
    lacking = sorted({feature for report in reports for feature in report.lacks})
    if len(libraries) > 1:
        what = f"members run different versions of {DISTRIBUTION}: {_counted(r.library or '?' for r in reports)}"
        yield Finding("versions", False, what, "finish the roll-out before the night")
    elif lacking:
        what = f"members do not know what the record needs: {', '.join(lacking)}"
        yield Finding("versions", False, what, f"upgrade {DISTRIBUTION} there")
    elif reports:
        yield Finding("versions", True, f"all run {libraries.pop() or '?'}")


def _doubts(reports: list[Report]) -> Iterator[Finding]:
    seen: dict[tuple[str, str], int] = Counter()
    for report in reports:
        for doubt in dict.fromkeys(report.doubts):
            about, _, what = doubt.partition(" ")
            seen[about, what] += 1
    wrong = set()
    for (about, what), number in sorted(seen.items()):
        if about in _FIXES:
            name, sentence, fix = _FIXES[about]
            wrong.add(name)
            by = f" ({number} of {len(reports)} members say so)"
            yield Finding(name, False, sentence.format(what=what) + by, fix)
    for name in dict.fromkeys(name for name, _, _ in _FIXES.values()):
        if reports and name not in wrong:
            yield Finding(name, True, "no member has seen anything wrong so far")


def _guards(site: Site, reports: list[Report]) -> Iterator[Finding]:
    unproven: dict[tuple[str, str], list[str]] = {}
    for report in reports:
        for guard in report.guards:
            if guard.proof not in ("", "pending"):
                unproven.setdefault((guard.name, guard.proof), []).append(report.name)
    for (name, proof), members in unproven.items():
        what = f"the guard of {name} in {members[0]}{_more(members)}: {proof}"
        yield Finding("guards", False, what, "a rehearsal shows what gets past it; a fence stops it")
    guarded = [report for report in reports if report.guards]
    if reports and not guarded and not site.fences:
        what = "no member guards a database: a write that no rule names is not stopped"
        yield Finding(
            "guards", False, what, "give the application's engine to Database(engine, switch), or raise a fence"
        )
    elif guarded and not unproven:
        yield Finding("guards", True, f"{len(guarded)} of {len(reports)} members guard their databases")


def _apart(site: Site, look: Look, reports: list[Report]) -> Iterator[Finding]:
    """Look whether processes that share a name and a role share their databases."""
    fix = (
        "give each site a name of its own (?site=NAME in the store's URL); after a switchover, restart who still "
        "writes to the old server"
    )
    split = site.splits(look, ask=False)
    for one in split:
        where = ", ".join(f"{seen.where} by {seen.members[0]}{_more(seen.members)}" for seen in one.seen)
        yield Finding("guards", False, f"{one.why} ({where}): two sites under one name, or half a switchover", fix)
    databases: dict[tuple[str, str], dict[str, list[str]]] = {}
    for report in reports:
        for guard in report.guards:
            database = str(guard.server.get("database", ""))
            if database and guard.server.get("server") != FILES and guard.name not in {one.name for one in split}:
                databases.setdefault((report.role, guard.name), {}).setdefault(database, []).append(report.name)
    for (_, name), seen_in in databases.items():
        if len(seen_in) > 1:
            where = ", ".join(f"{database} by {by[0]}{_more(by)}" for database, by in sorted(seen_in.items()))
            what = f"members write to {len(seen_in)} databases as {name} ({where}): two sites under one name?"
            yield Finding("guards", False, what, "give each site a name of its own (?site=NAME in the store's URL)")


def _replicas(reports: list[Report]) -> Iterator[Finding]:
    found = reported(reports)
    for one in found:
        for why, number in one.unfit:
            what = f"{one.name} is not fit for {number} of {one.members} members: {why}"
            yield Finding(
                "replicas", False, what, "mend that replica, or take it out: reads go to the primary until then"
            )
        if one.paused:
            what = f"{one.name} does not replay: what it shows grows old"
            fix = (
                "have it replay again there: SELECT pg_wal_replay_resume(), or START SLAVE at MariaDB; a run froze it: "
                "readonlyctl fence thaw"
            )
            yield Finding("replicas", False, what, fix)
    if found and not any(one.unfit or one.paused for one in found):
        yield Finding("replicas", True, f"{len(found)} fit")


def _standbys(site: Site, unanswered: Container[str]) -> Iterator[Finding]:
    """Look at the replicas that this machine knows, beside primaries that answer."""
    groups = [group for group in site.standbys.groups if group.standbys and group.fence.name not in unanswered]
    said, problems = Standbys(groups).fitness(freeze=True)
    for what in problems:
        yield Finding("replicas", False, what, "mend it before the night, or take it out of readonly.toml")
    if said and not problems:
        yield Finding("replicas", True, "; ".join(said))


def _fences(site: Site, look: Look | None, reports: list[Report]) -> list[Finding]:
    found: list[Finding] = []
    known = {c.fence.name for c in standing_fences(look.record) if c.fence is not None} if look is not None else None
    unanswered = set()
    for fence in site.fences.fences:
        try:
            found += _fence(site, fence, known, reports)
        except Error as error:
            unanswered.add(fence.name)
            away = isinstance(error, FenceUnreachable)
            fix = f"{'start the database, or mend url' if away else 'mend it'} in [fence.{fence.name}] of readonly.toml"
            found.append(Finding("fences", False, str(error), fix))
    return [*found, *_standbys(site, unanswered)]


def _fence(site: Site, fence: Fence, known: Container[str] | None, reports: list[Report]) -> Iterable[Finding]:
    name, standing = fence.name, fence.status()
    if standing is not None and standing.site != site.name:
        run = f", run {standing.run}" if standing.run else ""
        what = (
            f"{name} carries a fence of {standing.site}{run}, raised {standing.raised_at:%Y-%m-%d %H:%M} UTC: "
            "restored from a copy of its database?"
        )
        return [Finding("fences", False, what, f"readonlyctl fence lift {name} --orphan")]
    if standing is not None and known is not None and name not in known:
        what = f"{name} carries a fence that this site's record does not know: its writers are refused"
        return [Finding("fences", False, what, f"readonlyctl fence lift {name}")]
    if standing is not None:
        left = fence.open_tables()
        if left:
            what = f"the fence of {name} stands, and does not cover {', '.join(left)}"
            return [Finding("fences", False, what, f"readonlyctl fence raise {name}")]
        past = let_past(fence, FenceMark(name, server=standing.server), standing.strategy, reports)
        if past:
            what = f"the fence of {name} stands, and does not hold the application: "
            return [Finding("fences", False, what + way.what, way.remedy) for way in past]
        return [Finding("fences", True, f"{name}: a fence stands, {standing}")]
    if known is not None and name in known:
        what = f"the record says that {name} is fenced, and it is not: its writers are let through"
        return [Finding("fences", False, what, f"readonlyctl fence raise {name}")]
    plan = fence.preflight()
    past = let_past(fence, FenceMark(name, server=plan.server), plan.strategy, reports)
    return list(_planned(name, replace(plan, ways=(*past, *plan.ways))))


def _planned(name: str, plan: Preflight) -> Iterator[Finding]:
    if plan.pooled:
        what = f"something stands between {name} and its server (a pooler, such as PgBouncer): what is set in a session"
        fix = f"name the server itself, with its own port, as url in [fence.{name}] of readonly.toml"
        yield Finding("fences", False, f"{what} may be another's", fix)
        return
    if not plan.possible:
        # A command is typed here; all else is for somebody who may, at the server.
        typed = [one for one in plan.missing if one.startswith("readonlyctl ")]
        there = [one for one in plan.missing if one not in typed]
        steps = [f"run there, as somebody who may: {'; '.join(there)}"] if there else []
        what = f"{name}: no fence can be raised by {plan.strategy}, something is missing"
        yield Finding("fences", False, what, ". Then here: ".join([*steps, *typed]))
        return
    open_to_writers = [way for way in plan.ways if way.writers]
    for way in open_to_writers:
        what = f"{name}: a fence by {plan.strategy} would not hold the application: {way.what}"
        yield Finding("fences", False, what, way.remedy)
    if open_to_writers:
        return
    if plan.level is Level.APP_ONLY and plan.strategy is not Strategy.BARRIER:
        what = f"{name}: a fence by {plan.strategy} would not hold the application: {plan.why}"
        yield Finding("fences", False, what, f"leave strategy out of [fence.{name}] in readonly.toml")
        return
    ways = "; ".join(way.what for way in plan.ways if not way.insists)
    left = f"; left open: {ways}" if ways else ""
    yield Finding("fences", True, f"{name}: {plan.strategy} reaches {plan.level}, {plan.why}{left}")


def _more(names: Sequence[str]) -> str:
    return f" and {len(names) - 1} more" if len(names) > 1 else ""


def _counted(words: Iterable[str]) -> str:
    return ", ".join(f"{word} {number}" for word, number in sorted(Counter(words).items()))
