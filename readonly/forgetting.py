"""A person vouches for members that can't be asked: they are taken off the registry, and the history says by whom."""

from __future__ import annotations

import re

from . import history
from .changes import Operator
from .confirmation import confirm
from .errors import ConfigurationError
from .hostfile import state_folder
from .members import Report, ttl_seconds
from .record import Record
from .stores import Census, Store

# A member's id, as every process draws it.
_AN_ID = re.compile(r"[0-9a-f]{32}")


def forget(
    store: Store, member: str, *, record: Record | None, census: Census, operator: Operator, reason: str = ""
) -> tuple[Report, ...]:
    """Take members off the registry, on a person's word that their processes are over.

    Args:
        store: Where they are registered.
        member: An id, or the beginning of it that no other id shares, also one that is not registered; or a host,
            for all of its members.
        record: What stands there.
        census: What was read with it.
        operator: Who says so.
        reason: How the person knows.

    Returns:
        Their last reports; empty if it was not registered.

    Raises:
        ConfigurationError: More than one id begins like that, none does, or a member reports.
    """
    # Seen from no change at all, everybody who is registered is there.
    there = confirm(record, census.reports, causes=(), closing=False, at=census.reading.at).members
    found = [m for m in there if m.report.host == member] or [m for m in there if m.report.id.startswith(member)]
    if len(found) > 1 and found[0].report.host != member:
        raise ConfigurationError(
            f"{member!r} is the beginning of {len(found)} ids: write more of it. Nothing was changed"
        )
    for one in found:
        if one.silent_seconds <= ttl_seconds(one.report) and not (one.report.gone or one.report.found_gone):
            raise ConfigurationError(
                f"{one.report.name} reported {one.silent_seconds:.1f} s ago: it is at work, and is not forgotten. "
                "Nothing was changed"
            )
    if not found and not _AN_ID.fullmatch(member):
        raise ConfigurationError(
            f"nobody is registered as {member!r}: no id begins like that, and no host is called so (members --all "
            "lists them). One of a registry that was lost is forgotten by its whole id. Nothing was changed"
        )
    for member_id in [m.report.id for m in found] or [member]:
        store.forget(member_id)
    history.write(
        store,
        state_folder(),
        history.Entry(
            at=history.instant(census.reading.at),
            site=store.site,
            what="forgot",
            by=operator.name,
            host=operator.host,
            epoch=record.epoch if record is not None else 0,
            reason=reason,
            missing=tuple(m.report.name for m in found) or (member,),
        ),
    )
    return tuple(m.report for m in found)
