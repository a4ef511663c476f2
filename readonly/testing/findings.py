"""What a walk found, and how it is told to whoever has to mend it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from .routes import Route
from .witness import Write


class Kind(StrEnum):
    """What may be wrong with a route."""

    WROTE = "it wrote, and nothing stopped it"
    WRITES_ON_READ = "a read that writes"
    WRITES_THOUGH_DECLARED = "declared as harmless, and writes"
    FAILED = "it failed"
    NO_EXAMPLE = "no example"
    NOWHERE = "its example leads nowhere"
    NO_BODY = "no example of a body"
    NOT_REFUSED = "not refused"
    BLIND = "nothing was seen"
    UNUSED = "unused"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong.

    Attributes:
        kind: What.
        route: Where; None if it is about the walk itself.
        method: By which method.
        visitors: As whom.
        what: What happened, one sentence a line.
        remedies: What to do, one line each: the sentence, and the line to write.
        writes: What the witnesses saw.
    """

    kind: Kind
    route: Route | None
    method: str = ""
    visitors: tuple[str, ...] = ()
    what: str = ""
    remedies: tuple[str, ...] = ()
    writes: tuple[Write, ...] = ()

    def text(self) -> str:
        """Return it as a paragraph."""
        where = f"{self.method} {self.route}" if self.route is not None else "The walk itself"
        whom = f"  [{', '.join(self.visitors)}]" if self.visitors else ""
        lines = [f"{where}{whom}: {self.kind}"]
        lines += [f"    {line}" for line in self.what.splitlines()]
        lines += [f"    - {write}" for write in dict.fromkeys(map(str, self.writes))]
        lines += [f"    {remedy}" for remedy in self.remedies]
        return "\n".join(lines)


@dataclass(frozen=True, slots=True)
class Walk:
    """The result of a walk.

    Attributes:
        routes: How many routes were there.
        served: How many requests the application answered.
        refused: How many the gate refused.
        skipped: Routes that were left out, with the reason that the site gave.
        findings: What is wrong, in the order of the routes.
    """

    routes: int
    served: int
    refused: int
    skipped: Mapping[str, str]
    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        """Whether no route writes, each was asked, and each answered."""
        return not self.findings

    @property
    def summary(self) -> str:
        """One line: how much was looked at."""
        skipped = f" ({len(self.skipped)} skipped)" if self.skipped else ""
        found = f"{len(self.findings) or 'no'} finding{'' if len(self.findings) == 1 else 's'}"
        return f"{self.routes} routes{skipped}, {self.served} requests served, {self.refused} refused, {found}"

    def text(self) -> str:
        """Return everything, to be read by people."""
        parts = [f"Read-only walk: {self.summary}."]
        parts += [finding.text() for finding in self.findings]
        if self.skipped:
            parts.append("Skipped:\n" + "\n".join(f"    {route}: {why}" for route, why in self.skipped.items()))
        return "\n\n".join(parts)

    def check(self) -> Walk:
        """Return the walk if nothing is wrong.

        Raises:
            AssertionError: Something is; the message is the whole text.
        """
        if self.findings:
            raise AssertionError(self.text())
        return self


# --- what to do about it ----------------------------------------------------------------------------------------------

_TABLE_UNKNOWN: Final = "the_table"


def remedies_for_read(route: Route, method: str, writes: tuple[Write, ...]) -> tuple[str, ...]:
    """Return what to do about a safe request that writes."""
    tables = sorted({write.table for write in writes if write.table}) or [_TABLE_UNKNOWN]
    named = ", ".join(f'"{table}"' for table in tables)
    return (
        "If the write is what the request is for, refuse it before it begins:",
        f'    writes=["{route.rule(method)}"]    in the policy, or @writes on the endpoint',
        "If it comes along with the page (a counter, a last-seen), let it be dropped while read-only:",
        f"    discard=[{named}]    for the guarded database; or the one column, as table.column",
    )


def remedies_for_declared(route: Route, method: str) -> tuple[str, ...]:
    """Return what to do about an unsafe request that was let through and writes."""
    if any(mark == "reads" or mark.startswith("reads:") for mark in route.marks):
        return (f'Take @reads off the endpoint, or declare this method: writes=["{route.rule(method)}"]',)
    return (
        "Take the rule that lets it through out of `reads` (or `exempt`, `logout`) of the policy, or refuse this one:",
        f'    writes=["{route.rule(method)}"]    in the policy',
    )
