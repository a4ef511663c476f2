"""What all commands share: which site, who types, the first line, and asking for a protected site's name."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import click

from .. import changes
from ..changes import Operator
from ..config import operator_config
from ..errors import ConfigurationError
from ..members import Confirmation
from ..record import Record
from ..site import Look, Site
from ..state import State
from ..stores import Census, Store, redacted
from .terminal import REFUSED, USAGE, Exit, Output, clock_time, printable, rfc3339, spoken

F = TypeVar("F", bound=Callable[..., Any])


def json_option(function: F) -> F:
    """Add --json."""
    return click.option(
        "--json", "as_json", is_flag=True, help="One JSON object a line; the last is the result."
    )(function)


@dataclass(slots=True)
class Options:
    """What was typed before the command's name.

    Attributes:
        make_site: Given by a framework's own command (manage.py, flask); None for readonlyctl.
    """

    store: str | None = None
    config: str | None = None
    expected_site: str | None = None
    operator_name: str | None = None
    make_site: Callable[[], Site] | None = None

    def store_url(self) -> str:
        """Return the store's URL, which need not name a site yet."""
        if self.make_site is not None and self.store is None:
            return self.make_site().store.url
        return operator_config(store=self.store, config=self.config).store

    def site(self) -> Site:
        """Return the site to work on; nothing is connected yet."""
        if self.make_site is not None and self.store is None:
            site = self.make_site()
        else:
            refuse_memory(self.store_url())
            site = Site.from_config(self.config, store=self.store)
        refuse_memory(site.store.url)
        return site

    def operator(self) -> Operator:
        """Return who is typing."""
        return Operator.here(self.operator_name)


def refuse_memory(url: str) -> None:
    """Refuse a store that no other process can see."""
    if url.startswith("memory:"):
        raise ConfigurationError(
            "memory:// lives inside one process and can't be operated from outside: give the site an SQLite file "
            "(sqlite:////absolute/path?site=NAME) or Redis"
        )


def survey(store: Store) -> tuple[Record | None, Census]:
    """Read record and registry."""
    return changes.survey(store, None)


def headline(site: Site, options: Options, output: Output) -> Look:
    """Print the first line of every command, site, store and members, and return what was read for it."""
    if options.expected_site is not None and options.expected_site != site.name:
        raise ConfigurationError(
            f"the store {redacted(site.store.url)} is {site.name}'s; you said --site {options.expected_site}. "
            "Nothing was changed"
        )
    look = site.look()
    output.site = site.name
    if look.record is not None and look.record.site != site.name:
        raise ConfigurationError(
            f"this store holds {look.record.site}; its URL says {site.name}. Nothing was changed"
        )
    there = len(living(look))
    protected = " (protected)" if look.record is not None and look.record.protected else ""
    output.line(
        f"{site.name}{protected} · {site.shown_store} · {there} {'member' if there == 1 else 'members'}"
    )
    return look


def living(look: Look) -> list[Any]:
    """Return the members that report."""
    from ..members import Condition, confirm

    found = confirm(look.record, look.census.reports, causes=(), closing=False, at=look.census.reading.at)
    silent = (Condition.LOST, Condition.EXPIRED, Condition.GONE)
    return [m for m in found.members if m.condition not in silent]


def check_site(options: Options, site: Site, look: Look, question: str, *, yes: bool = False) -> None:
    """Have a protected site's name typed on a terminal, or want --site without one."""
    if look.record is None or not look.record.protected:
        return
    if options.expected_site == site.name:
        return
    if yes and sys.stdin.isatty():
        return
    ask_for_name(options, site.name, question)


def ask_for_name(options: Options, name: str, question: str) -> None:
    """Ask for a site's name.

    Raises:
        Exit: It was not typed; nothing was changed.
    """
    if options.expected_site == name:
        return
    if not sys.stdin.isatty():
        click.echo(
            f"readonlyctl: {name} is protected: say --site {name} where no one can be asked. Nothing was changed",
            err=True,
        )
        raise Exit(REFUSED)
    typed = click.prompt(f"{question} Type its name to go on", default="", show_default=False, err=True)
    if typed.strip() != name:
        click.echo("readonlyctl: that is not its name. Nothing was changed", err=True)
        raise Exit(USAGE)


def state_fields(state: State) -> dict[str, Any]:
    """Return a state as JSON fields."""
    return {
        "mode": state.mode,
        "epoch": state.epoch,
        "since": state.since,
        "expected_end": state.expected_end,
        "causes": [
            {
                "id": c.id,
                "kind": c.kind,
                "by": c.by,
                "host": c.host,
                "since": rfc3339(c.since),
                "reason": c.reason,
                "message": c.message,
                "expected_end": rfc3339(c.expected_end) if c.expected_end else None,
                "sessions": c.sessions,
            }
            for c in state.causes
        ],
    }


def confirmation_fields(found: Confirmation) -> dict[str, Any]:
    """Return a confirmation as JSON fields."""
    return {
        "epoch": found.epoch,
        "confirmed": found.safe,
        "members": [
            {
                "id": m.report.id,
                "role": m.report.role,
                "host": m.report.host,
                "pid": m.report.pid,
                "condition": m.condition,
                "silent_seconds": round(m.silent_seconds, 1),
                "in_flight": m.report.in_flight,
                "why": m.why,
            }
            for m in found.members
        ],
    }


def cause_lines(state: State) -> list[str]:
    """Return one line a cause, as `off` and `status` show them."""
    now = state.record.changed_at if state.record is not None else None
    lines = []
    for cause in state.causes:
        since = clock_time(cause.since, now or cause.since)
        text = f"{cause.kind} {cause.id}   {printable(cause.by)}"
        if cause.host and not cause.by.endswith("@" + cause.host):
            text += f" @ {printable(cause.host)}"
        text += f"   since {since}"
        if cause.expected_end is not None:
            text += f", expected until {clock_time(cause.expected_end, now or cause.since)}"
        if cause.reason:
            text += f'   "{printable(cause.reason)}"'
        lines.append(text)
    return lines


def overdue(state: State, at: Any) -> str:
    """Say how long ago the announced end was, if it has passed."""
    if state.expected_end is None or state.expected_end >= at:
        return ""
    return f" (overdue {spoken((at - state.expected_end).total_seconds())})"
