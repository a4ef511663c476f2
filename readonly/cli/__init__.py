"""The command group: `readonlyctl`, `python -m readonly`, `flask readonly` and `manage.py readonly` are this one."""

from __future__ import annotations

import sys
from collections.abc import Callable

import click

from .. import __version__
from ..site import Site
from .change import init, off, on, wait
from .common import Options
from .show import members, status

HELP = """Make a running site read-only while you do something irreversible, and know when it is safe.

\b
Before the night    init
The night           on  wait  off
                    status  members

\b
Exit codes: 0 true and proven · 1 failed · 2 usage, or another site · 3 set but not proven, or still read-only
4 store not reachable, or no record · 5 lost against another operator · 6 refused · 130/143 interrupted
"""


def command_group(site: Callable[[], Site] | None = None) -> click.Group:
    """Return the command group.

    Args:
        site: Makes the site to operate, from a framework's own settings; None: from options and environment.
    """

    @click.group(name="readonly", help=HELP, context_settings={"help_option_names": ["-h", "--help"]})
    @click.option(
        "--store", metavar="URL", help="The store's URL (default: READONLY_STORE, or readonly.toml)."
    )
    @click.option(
        "--site", "expected", metavar="NAME", help="An assertion: exit 2 if the store holds another site."
    )
    @click.option("--config", type=click.Path(dir_okay=False), help="A readonly.toml.")
    @click.option(
        "--as", "operator", metavar="NAME", help="Who you are (default: READONLY_OPERATOR, SUDO_USER, user)."
    )
    @click.version_option(__version__, prog_name="readonlyctl")
    @click.pass_context
    def group(
        context: click.Context,
        store: str | None,
        expected: str | None,
        config: str | None,
        operator: str | None,
    ) -> None:
        context.obj = Options(
            store=store, config=config, expected_site=expected, operator_name=operator, make_site=site
        )

    for command in (init, on, wait, off, status, members):
        group.add_command(command)
    return group


def main(arguments: list[str] | None = None) -> None:
    """Run `readonlyctl`; ends the process with an exit code of the design."""
    try:
        command_group().main(args=arguments, prog_name="readonlyctl", standalone_mode=True)
    except KeyboardInterrupt:
        sys.exit(130)
