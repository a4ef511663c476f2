"""Whether the site is ready for the night: doctor."""

from __future__ import annotations

import click

from .. import doctor as checks
from . import common
from .options import json_option
from .terminal import FAILED, OK, Output, run
from .words import counted, printable


@click.command(short_help="Look for what would go wrong on the night, each with its fix.")
@json_option
@click.pass_obj
def doctor(options: common.Options, as_json: bool) -> None:
    """Look for what would go wrong on the night. Changes nothing; exits 0 if all is well, 1 if not.

    Store, record, clock, members, and what they report of middleware, cookies, exemptions, websockets, guards and
    replicas; the fencer's rights, and fences that a copy of another database brought along.
    """
    output = Output(as_json=as_json or options.as_json)

    def body() -> None:
        site = options.site()
        output.site = site.name
        output.line(f"{printable(site.name)} · {printable(site.shown_store)}")
        found = checks.check(site)
        for one in found:
            output.line(f"{'ok  ' if one.ok else 'FAIL'}  {one.check:<10}  {printable(one.what)}")
            if one.fix:
                output.line(f"      {'':<10}  fix: {printable(one.fix)}")
        wrong = [one for one in found if not one.ok]
        output.line("All is well." if not wrong else f"{counted(len(wrong), 'fault')}.")
        output.result(
            FAILED if wrong else OK,
            healthy=not wrong,
            findings=[{"check": one.check, "ok": one.ok, "what": one.what, "fix": one.fix} for one in found],
        )

    run(body, output)
