"""`flask readonly …`: the command group of `readonlyctl`, on the store that the application's config names."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource
from flask import current_app
from flask.cli import ScriptInfo

from readonly.cli import command_group
from readonly.cli.common import Options
from readonly.site import Site

if TYPE_CHECKING:
    from .extension import Installed


def group() -> click.Group:
    """Return the group, for `app.cli`. It works on the application that Flask's command has loaded."""
    return command_group(site, program=typed)


def site() -> Site:
    """Return the current application's site. Nothing is connected, and the application's switch is not started."""
    installed: Installed = current_app.extensions["readonly"]
    options = click.get_current_context().find_object(Options)
    # Expectations and the like are the operator's, in readonly.toml and the environment, as for readonlyctl.
    return Site.from_config(options.config if options is not None else None, store=installed.switch.store.url)


def typed(context: click.Context) -> str:
    """Return how the command was called, with the option without which Flask would not find the application."""
    info = context.find_object(ScriptInfo)
    named = context.find_root().get_parameter_source("app") is ParameterSource.COMMANDLINE
    if info is None or info.app_import_path is None or not named:
        return context.command_path
    program, _, rest = context.command_path.partition(" ")
    return f"{program} --app {shlex.quote(info.app_import_path)} {rest}"
