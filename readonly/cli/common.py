"""What all commands share: which site, who types, the first line, and asking for a protected site's name."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import click

from ..changes import Operator
from ..config import operator_config
from ..confirmation import Member, parse_expect
from ..errors import ConfigurationError, Error, StoreUnreachable
from ..record import Mode
from ..site import Look, Site
from ..stores import redacted
from .groups import SILENT
from .terminal import REFUSED, USAGE, Output, Refusal
from .words import cause_lines, clock_time, counted, printable, state_fields

NOBODY = "no process of the site reports: is the middleware installed, and does it use this very store?"


@dataclass(slots=True)
class Options:
    """What was typed before the command's name.

    Attributes:
        program: How the group was called: `readonlyctl`, `flask readonly`.
        make_site: Given by a framework's own command; None for readonlyctl.
    """

    program: str = "readonlyctl"
    store: str | None = None
    config: str | None = None
    expected_site: str | None = None
    operator_name: str | None = None
    as_json: bool = False
    make_site: Callable[[], Site] | None = None

    def store_url(self) -> str:
        """Return the store's URL, which need not name a site yet."""
        if self.make_site is not None and self.store is None:
            return self.make_site().store.url
        return operator_config(store=self.store, config=self.config).store

    def site(self, expect: str | None = None) -> Site:
        """Return the site to work on; nothing is connected yet."""
        if self.make_site is not None and self.store is None:
            site = self.make_site()
        else:
            refuse_memory(self.store_url())
            site = Site.from_config(self.config, store=self.store)
        refuse_memory(site.store.url)
        if self.expected_site not in (None, site.name):
            raise ConfigurationError(
                f"{redacted(site.store.url)} is the store of {site.name}; you said --site {self.expected_site}. "
                "Nothing was changed"
            )
        site.operator = self.operator()
        if expect is not None:
            site.expect.update(parse_expect(expect))
        return site

    def zone(self, typed: str | None) -> str:
        """Return whose clocks are meant: what was typed, READONLY_TIMEZONE, the configuration's; "" if nobody said."""
        if typed or (self.make_site is not None and self.store is None):
            return typed or os.environ.get("READONLY_TIMEZONE", "")
        return operator_config(store=self.store, config=self.config).timezone

    def operator(self) -> Operator:
        """Return who is typing."""
        return Operator.here(self.operator_name)

    def typed(self, command: str) -> str:
        """Return a command as it must be typed here to mean the same site and the same person."""
        words = [self.program]
        if self.store is not None:
            words += ["--store", shlex.quote(redacted(self.store))]
        if self.config is not None:
            words += ["--config", shlex.quote(self.config)]
        if self.expected_site is not None:
            words += ["--site", shlex.quote(self.expected_site)]
        if self.operator_name is not None:
            words += ["--as", shlex.quote(self.operator_name)]
        return printable(" ".join([*words, command]))


def refuse_memory(url: str) -> None:
    """Refuse a store that no other process can see."""
    if url.startswith("memory:"):
        raise ConfigurationError(
            "memory:// lives inside one process and can't be operated from outside: give the site an SQLite file "
            "(sqlite:////absolute/path?site=NAME) or Redis"
        )


@contextmanager
def naming_init(site_name: str, options: Options) -> Any:
    """Have errors about a store file that is not there name `init`, for a site that is new."""
    try:
        yield
    except StoreUnreachable as error:
        if isinstance(error.__cause__, FileNotFoundError):
            raise StoreUnreachable(f"{error}. New site? {options.typed(f'init {site_name}')}") from error.__cause__
        raise


def headline(site: Site, options: Options, output: Output) -> Look:
    """Print the first line of every command, site, store and members, and return what was read for it.

    Raises:
        UnreadableRecord: There is a record that this version can't read.
    """
    look = first_line(site, options, output)
    if look.unreadable is not None:
        raise look.unreadable
    protected = look.record is not None and look.record.protected
    output.event("site", store=site.shown_store, protected=protected, reporting=len(living(site, look)))
    return look


def first_line(site: Site, options: Options, output: Output) -> Look:
    """Do what `headline` does, and let the caller judge what was read."""
    output.site = site.name
    try:
        with naming_init(site.name, options):
            look = site.look()
    except StoreUnreachable as error:
        if not isinstance(error.__cause__, FileNotFoundError):
            before = output.standing
            output.standing = lambda why: _away(site, output, before(why))
        raise
    there = living(site, look)
    hosts = len({m.report.host for m in there})
    protected = look.record is not None and look.record.protected
    text = f"{site.name}{' (protected)' if protected else ''} · {site.shown_store} · {counted(len(there), 'member')}"
    output.line(text + (f" on {hosts} hosts" if hosts > 1 else ""))
    return look


def _away(site: Site, output: Output, fields: dict[str, Any]) -> dict[str, Any]:
    """Say what an operator has without the store: what was seen last, where else to look, what to do if it is lost."""
    output.note("Processes keep what they last saw, and follow again by themselves when the store answers.")
    state = site.last_seen()
    if state is not None and state.record is not None:
        at = clock_time(state.record.changed_at, datetime.now(UTC))
        output.note(f"This host saw it change last at {at}: {state.mode.upper()}, epoch {state.epoch}")
        for line in cause_lines(state.causes, state.record.changed_at):
            output.note("  " + line)
    if site.store.url.startswith("redis"):
        output.note("See a process for yourself:   curl -sI https://YOUR-SITE/ | grep -i x-read-only")
        output.note(
            "If the store is lost for good: start an empty one at the same address; any process that knew the state "
            "writes it back within seconds."
        )
    return fields


def living(site: Site, look: Look) -> list[Member]:
    """Return the members that report."""
    return [m for m in site.judge(look).members if m.condition not in SILENT]


def stands_now(site: Site, output: Output) -> dict[str, Any]:
    """Read and say what stands, after a command could not do what it was told; return it as JSON fields."""
    try:
        look = site.look()
    except Error:
        output.note("What stands now is not known: the store does not answer.")
        return {"mode": "unknown"}
    state = look.state
    if state.mode is Mode.READ_ONLY:
        output.note(f"What stands now: READ-ONLY, epoch {state.epoch}")
        for line in cause_lines(state.causes, look.census.reading.at):
            output.note("  " + line)
    elif state.mode is Mode.WRITABLE:
        output.note(f"What stands now: WRITABLE, epoch {state.epoch}")
    else:
        output.note(f"What stands now: UNKNOWN ({state.unknown_because})")
    return state_fields(state)


def check_site(options: Options, site: Site, look: Look, question: str, *, yes: bool = False) -> None:
    """Have a protected site's name typed on a terminal, or want --site without one."""
    if look.record is None or not look.record.protected:
        return
    if yes and sys.stdin.isatty():
        return
    ask_for_name(options, site.name, question)


def ask_for_name(options: Options, name: str, question: str) -> None:
    """Ask for a site's name; `--site` has answered already.

    Raises:
        Refusal: It was not typed; nothing was changed.
    """
    if options.expected_site == name:
        return
    if not sys.stdin.isatty():
        raise Refusal(f"{name} is protected: say --site {name} where nobody can be asked. Nothing was changed", REFUSED)
    try:
        typed = click.prompt(f"{question} Type its name to go on", default="", show_default=False, err=True)
    except click.Abort:  # the end of the input
        raise Refusal("no name was typed. Nothing was changed", REFUSED) from None
    if typed.strip() != name:
        raise Refusal("that is not its name. Nothing was changed", USAGE)
