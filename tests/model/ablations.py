"""The protocol with one rule taken out: each must be caught, else the model looks at nothing."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import replace
from datetime import datetime
from typing import Any

from readonly.changes import _setting, _surveying
from readonly.confirmation import Condition, Confirmation
from readonly.members import Report
from readonly.record import Cause, Record
from readonly.stores import Census
from readonly.transitions import Knowledge, _joining, _learning, first_record, with_cause

from .protocol import Model
from .values import I1, LOOKED, SITE, T0, Process, Server


def _newer_by_epoch(mine: Record, theirs: Record) -> bool:
    return mine.epoch > theirs.epoch


def _newer_wins(mine: Record, theirs: Record, *, at: datetime) -> Record:
    return mine if mine.epoch > theirs.epoch else theirs


def _whole_over_nothing(record: Record | None, cause: Cause, *, site: str, at: datetime, by: str) -> Record:
    if record is None:
        record = replace(first_record(SITE, at=T0, by=by), epoch=0)
    return with_cause(record, cause, site=site, at=at, by=by)


def _reported(census: Census, **changed: Any) -> Census:
    """Return a census in which every report says something else."""
    return replace(
        census,
        reports=tuple(
            replace(seen, report=replace(Report.load(seen.member, seen.report), **changed).dump())
            for seen in census.reports
        ),
    )


class EpochsDecide(Model):
    """Rule 3: a record with a higher epoch overrules the others."""

    swapped = tuple(
        (module, name, function)
        for module in (_joining, _learning, _surveying)
        for name, function in (("adds", _newer_by_epoch), ("join", _newer_wins))
    )


class EpochsDecideFollowed(EpochsDecide):
    """Rule 3: the same, followed until a write commits."""

    promises = (I1,)


class WholeOverNothing(Model):
    """Rule 5: `on` over an empty store writes a record that can open."""

    swapped = ((_setting, "with_cause", _whole_over_nothing),)
    promises = (I1,)


class RegistryIgnored(Model):
    """Rule 6: whoever is registered now is all there is."""

    def judged(self, record: Record | None, census: Census, cause: str, known: Record) -> Confirmation:
        census = replace(census, reading=replace(census.reading, incarnation_seconds=float("inf")))
        return super().judged(record, _reported(census, knew=()), cause, known)


class AgeAlone(Model):
    """Rule 6, half of it: the registry's age is looked at, and nobody asks after those who were known before."""

    def judged(self, record: Record | None, census: Census, cause: str, known: Record) -> Confirmation:
        return super().judged(record, _reported(census, knew=()), cause, known)


class MemoryAlone(Model):
    """Rule 6, the other half: members ask after those they knew, and a new registry is believed at once."""

    def judged(self, record: Record | None, census: Census, cause: str, known: Record) -> Confirmation:
        census = replace(census, reading=replace(census.reading, incarnation_seconds=float("inf")))
        return super().judged(record, census, cause, known)


class RegistryUnasked(Model):
    """Rule 6: a report counts, whatever registry its sender knew when it was built."""

    def judged(self, record: Record | None, census: Census, cause: str, known: Record) -> Confirmation:
        return super().judged(record, replace(census, reading=replace(census.reading, registry="")), cause, known)


class WholeTooEarly(Model):
    """Rule 6: who makes the record whole has told nobody yet whom it knew when the registry was lost."""

    def told_others(self, process: Process, server: Server) -> bool:
        return True


class LeaversForgotten(Model):
    """Rule 6: who has left, or was found over, is remembered by nobody, whatever it had begun."""

    def left(self, report: Report) -> bool:
        return report.gone or report.found_gone


class AdmitsUnregistered(Model):
    """Rule 7: a process that has read the record admits writes, registered or not."""

    waits_to_be_noted = False

    def young(self, server: Server, *, heartbeat: bool) -> bool:
        return super().young(server, heartbeat=True)


class AdmitsUnnoted(Model):
    """Rule 7, its other half: a process that is registered admits writes, though nobody else knows of it yet."""

    waits_to_be_noted = False


class NotedByAnswers(Model):
    """Rule 7: who is in an answer to another member counts as known to it, whether that has got the answer or not."""

    def named(self, process: Process, server: Server, name: str) -> Collection[str]:
        return self._met(name, process, server).neighbours


class AloneInANewRegistry(Model):
    """Rule 7: nobody else is registered, so nobody else is there."""

    def noted(self, server: Server, left: float | None, *, alone: bool) -> bool:
        return alone or super().noted(server, left, alone=alone)


class NoProbation(Model):
    """Rule 8: a young store is believed at once."""

    def young(self, server: Server, *, heartbeat: bool) -> bool:
        return not heartbeat


class LapsedKnows(Model):
    """Rule 8, its other half: what outlived its lease is worth as much as before."""

    def outlived(self, known: int) -> int:
        return known


class LapsedForgets(Model):
    """Rule 8, overdone: what outlived its lease is forgotten, lifts included."""

    def outlived(self, known: int) -> int:
        return self.knowledge_number(Knowledge())


class ReadsRenew(Model):
    """Rule 10: every answer renews the lease, a read's too."""

    def renewed(self, process: Process, *, heartbeat: bool) -> tuple[int, int]:
        return super().renewed(process, heartbeat=True)


class ConfirmedByEpoch(Model):
    """Rule 11: who reports the epoch of the change, or a later one, obeys."""

    def judged(self, record: Record | None, census: Census, cause: str, known: Record) -> Confirmation:
        standing = known.cause(cause)
        assert standing is not None
        reports = []
        for seen in census.reports:
            report = Report.load(seen.member, seen.report)
            if report.epoch >= standing.epoch:
                report = replace(report, causes=(cause,), closed=True)
            reports.append(replace(seen, report=report.dump()))
        return super().judged(record, replace(census, reports=tuple(reports)), cause, known)


class SilentIsDrained(Model):
    """Rule 11: a silent member counts as one that has drained."""

    def judged(self, record: Record | None, census: Census, cause: str, known: Record) -> Confirmation:
        found = super().judged(record, census, cause, known)
        silent = (Condition.LOST, Condition.EXPIRED, Condition.GONE)
        return replace(found, members=tuple(replace(m, why="") if m.condition in silent else m for m in found.members))


class FenceIsOneBit(Model):
    """Rule 13: whoever lets go of the fence takes it down."""

    def lowered(self, fence: int, operator: int) -> int:
        return 0


class LookFirst(Model):
    """The order: look first, count second."""

    first_step = LOOKED


class BlindWrites(Model):
    """Rule 2: a write-back does not compare."""

    def written(self, server: Server, was: int) -> bool:
        return True


class LooksAgain(Model):
    """No rule taken out, but one more: who stood still admits nothing before it has looked at the store again."""

    def _by_itself(self, slot: int, process: Process) -> Iterator[tuple[str, Process, str]]:
        for kind, after, effect in super()._by_itself(slot, process):
            yield kind, after._replace(noted=False) if kind == "continue" else after, effect
