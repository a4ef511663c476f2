"""What `flask import-scores`, or any command that was about to write, says while the site is read-only.

Two lines and exit code 75 in the place of a traceback; with `--debug`, the traceback. Commands of the application are
wrapped when they are looked up. Those of an extension (`flask db upgrade`) are running by the time they load the
application: they are heard of when click's context ends, where it tells of errors (click 8.2 and later).
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import click
from flask import Flask
from flask.cli import FlaskGroup
from flask.helpers import get_debug_flag

from readonly.refused_commands import REFUSED, explained, refusal_behind

from . import cli

_DONE: Final = "_readonly_explains_refusals"


class Refused(click.ClickException):
    """A command was about to write. The refusal is its cause."""

    exit_code = REFUSED

    def show(self, file: Any = None) -> None:
        """Say so."""
        click.echo(self.message, file=file, err=file is None)


def explain_refusals(app: Flask) -> None:
    """Have every command of an application explain one."""
    original = app.cli.get_command

    def get_command(ctx: click.Context, cmd_name: str) -> click.Command | None:
        command = original(ctx, cmd_name)
        if command is not None and not hasattr(command, _DONE):
            setattr(command, _DONE, True)
            command.invoke = _invoking(command.invoke)  # type: ignore[method-assign]
        return command

    app.cli.get_command = get_command  # type: ignore[method-assign]
    context = click.get_current_context(silent=True)
    root = None if context is None else context.find_root()
    if root is not None and isinstance(root.command, FlaskGroup):
        root.with_resource(_explaining(root))


def _invoking(original: Any) -> Any:
    @functools.wraps(original)
    def invoke(context: click.Context) -> Any:
        with _explaining(context):
            return original(context)

    return invoke


@contextmanager
def _explaining(context: click.Context) -> Iterator[None]:
    try:
        yield
    except click.ClickException:  # it says itself what it has to say
        raise
    except Exception as error:
        refusal = refusal_behind(error)
        if refusal is None or get_debug_flag():
            raise
        # At the end of the outermost context it is not known any more which command that was.
        command = context.invoked_subcommand if context.parent is None else context.info_name
        program = cli.typed(context.find_root(), "readonly")
        raise Refused(explained(refusal, command or "the command", program=program)) from error
