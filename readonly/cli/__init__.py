"""The command group: `readonlyctl`, `python -m readonly`, `flask readonly` and `manage.py readonly` are this one."""

from __future__ import annotations

import sys
from collections.abc import Callable

import click

from .. import __version__
from ..site import Site
from .bypass import bypass
from .change import off, on, wait
from .common import Options
from .doctor import doctor
from .extend import extend
from .fence import fence
from .history import history
from .init import init
from .job import job
from .options import Text
from .rehearse import rehearse
from .run import abandon, attach_, resume, run
from .schedule import schedule
from .show import members, status
from .terminal import GROUP, INTERRUPTED, usage_error
from .watch import metrics, watch

HELP = """Make a running site read-only while you do something irreversible, and know when it is safe.

\b
Before the night    init  doctor  rehearse [report|stop]
                    schedule add|list|cancel|skip
The night           on  wait  extend  off  run -- COMMAND  job -- COMMAND
                    status  members [forget]  watch  bypass [list|revoke]
When it went wrong  resume  abandon  attach
                    fence status|plan|raise|lift|install|thaw
The morning after   history [show]
At any time         metrics

\b
  {program} on --for 45m --reason "INC-441" && ./irreversible
  {program} status --expect safe && ./next-step
  {program} off

\b
Exit  0 true, and proven                  1 failed
      2 typed wrongly, or another site    3 set, not proven; still read-only
      4 no store, or no record in it      5 lost against another operator
      6 refused, nothing was changed      130, 143 interrupted
"""


class _Group(click.Group):
    """A group whose help lists its commands by when they are needed, once."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Add nothing: the text names them."""

    def format_help_text(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the text with the name that was typed."""
        formatter.write_paragraph()
        with formatter.indentation():
            formatter.write_text(HELP.format(program=ctx.command_path))


def command_group(
    site: Callable[[], Site] | None = None, *, program: Callable[[click.Context], str] | None = None
) -> click.Group:
    """Return the command group.

    Args:
        site: Makes the site to operate, from a framework's own settings; None: from options and environment.
        program: Tells how the group was called, for what may be typed next; None: the names of the commands.
    """

    @click.group(
        name=GROUP,
        cls=_Group,
        help="Make the site read-only, know when it is safe, and open it again.",
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
    )
    @click.option("--store", metavar="URL", help="The store's URL (READONLY_STORE, readonly.toml).")
    @click.option("--site", "expected", metavar="NAME", help="An assertion: exit 2 if it is another site's.")
    @click.option("--config", type=click.Path(dir_okay=False), metavar="FILE", help="A readonly.toml.")
    @click.option(
        "--as",
        "operator",
        type=Text(),
        metavar="NAME",
        help="Who you are (READONLY_OPERATOR, SUDO_USER, user).",
    )
    @click.option("--json", "as_json", is_flag=True, help="One JSON object a line; the last is the result.")
    @click.version_option(__version__, prog_name="readonlyctl")
    @click.pass_context
    def group(
        context: click.Context,
        store: str | None,
        expected: str | None,
        config: str | None,
        operator: str | None,
        as_json: bool,
    ) -> None:
        context.obj = Options(
            program=context.command_path if program is None else program(context),
            store=store,
            config=config,
            expected_site=expected,
            operator_name=operator,
            as_json=as_json,
            make_site=site,
        )

    night = (on, wait, bypass, extend, off, run, job, resume, abandon, attach_, fence, status, members, watch, history)
    for command in (init, doctor, rehearse, schedule, *night, metrics):
        group.add_command(command)
    return group


def main(
    arguments: list[str] | None = None,
    *,
    site: Callable[[], Site] | None = None,
    program: str = "readonlyctl",
) -> None:
    """Run the command group; ends the process with an exit code of the design.

    Args:
        arguments: What was typed after its name; None: the command line.
        site: As for `command_group`.
        program: How it was called.
    """
    words = sys.argv[1:] if arguments is None else arguments
    try:
        code = command_group(site).main(args=words, prog_name=program, standalone_mode=False)
    except click.ClickException as error:
        usage_error(error, words)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(INTERRUPTED)
    sys.exit(code if isinstance(code, int) else 0)
