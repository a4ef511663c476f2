"""`flask readonly …`: the command group of `readonlyctl`, on the store that the application's config names."""

from __future__ import annotations

import shlex

import click
from click.core import ParameterSource
from flask.cli import ScriptInfo

from readonly.cli import command_group
from readonly.cli.common import Options
from readonly.site import Site
from readonly.switch import Switch


def group(switch: Switch) -> click.Group:
    """Return the group for the `app.cli` of an application with that switch, which is not started.

    Nothing of the application but the URL of its store is used: no database, no route, no context.
    """

    def site() -> Site:
        options = click.get_current_context().find_object(Options)
        # Expectations and the like are the operator's, in readonly.toml and the environment, as for readonlyctl.
        return Site.from_config(options.config if options is not None else None, store=switch.store.url)

    return command_group(site, program=typed)


def typed(context: click.Context, *words: str) -> str:
    """Return how the command was called, with the option without which Flask would not find the application."""
    path = " ".join([context.command_path, *words])
    info = context.find_object(ScriptInfo)
    named = context.find_root().get_parameter_source("app") is ParameterSource.COMMANDLINE
    if info is None or info.app_import_path is None or not named:
        return path
    # `flask`, or `python -m flask`.
    program = str(context.find_root().info_name)
    return f"{program} --app {shlex.quote(info.app_import_path)}{path[len(program) :]}"
