"""`manage.py readonly …`: the same commands as `readonlyctl`, for the store that the project's settings name.

It looks at no database, no URLconf and no check, and not at the other settings: a broken deployment must not keep
anybody from `off`. Where even `INSTALLED_APPS` can't be loaded, `readonlyctl --store URL off` is there.
"""

from __future__ import annotations

from argparse import Namespace
from typing import Any, Final, NoReturn

from django.core.management.base import BaseCommand, CommandError, CommandParser

from readonly.cli import main
from readonly.errors import ConfigurationError
from readonly.site import Site
from readonly_django import conf

# Django's own, which `manage.py` has dealt with, or which mean nothing here; with a value, and without.
_WITH_VALUE: Final = ("--settings", "--pythonpath", "--verbosity", "-v")
_WITHOUT: Final = ("--traceback", "--no-color", "--force-color", "--skip-checks")


class Command(BaseCommand):
    """The command group, as Django finds it."""

    help = "Make the site read-only, know when it is safe, and open it again."
    requires_system_checks = ()
    requires_migrations_checks = False

    def run_from_argv(self, argv: list[str]) -> NoReturn:
        """Run what was typed, help included, and end the process with its exit code."""
        main(_ours(argv[2:]), site=_site, program=f"{_shown(argv[0])} {argv[1]}")
        raise AssertionError("main() ends the process")

    def print_help(self, prog_name: str, subcommand: str) -> None:
        """Print the group's own help, for `manage.py help readonly`."""
        self._call(["--help"], f"{_shown(prog_name)} {subcommand}")

    def create_parser(self, prog_name: str, subcommand: str, **kwargs: Any) -> CommandParser:
        """Return a parser that takes whatever follows, for `call_command`."""
        return _Everything(prog=f"{prog_name} {subcommand}")

    def handle(self, *args: Any, words: list[str], **options: Any) -> None:
        """Run it for `call_command("readonly", "on", ...)`.

        Raises:
            CommandError: It did not end with 0; `returncode` says with what.
        """
        code = self._call(words, "manage.py readonly")
        if code:
            raise CommandError(f"readonly {' '.join(words)}: exit code {code}", returncode=code)

    @staticmethod
    def _call(words: list[str], program: str) -> int:
        try:
            main(words, site=_site, program=program)
        except SystemExit as end:
            return end.code if isinstance(end.code, int) else 1
        return 0


class _Everything(CommandParser):
    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        # The others are those that Django looks at before it calls a command.
        return Namespace(words=list(args or ()), force_color=False, no_color=False)


def _site() -> Site:
    url = conf.store_url()
    if not url:
        raise ConfigurationError(
            'which site? Set READONLY = {"STORE": ...} in the settings, or READONLY_STORE in the environment, or say '
            "--store. A store's URL looks like redis://flag.internal/0?site=shop"
        )
    return Site.from_config(store=url)


def _shown(program: str) -> str:
    name = program.rpartition("/")[2]
    return f"python {name}" if name.endswith(".py") and name != "__main__.py" else name


def _ours(words: list[str]) -> list[str]:
    """Return the words without Django's options, up to a `--`: what follows is somebody else's command."""
    found: list[str] = []
    rest = iter(words)
    for word in rest:
        if word == "--":
            return [*found, word, *rest]
        if word in _WITH_VALUE:
            next(rest, None)
        elif word not in _WITHOUT and not word.startswith(tuple(f"{name}=" for name in _WITH_VALUE)):
            found.append(word)
    return found
