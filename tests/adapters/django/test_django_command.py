"""`manage.py readonly`: the same commands with the same exit codes, whatever else is broken."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command, get_commands
from django.test import override_settings

from readonly.stores import store_from_url
from readonly_django.management.commands.readonly import Command, _ours
from support.processes import run

MANAGE = """\
import os, sys
os.environ["DJANGO_SETTINGS_MODULE"] = "settings"
from django.core.management import execute_from_command_line
execute_from_command_line(sys.argv)
"""
# Everything that may be wrong on a bad night: routes that can't be imported, a database that is not there, a check that
# fails, a setting that was mistyped in the very release that has to be stopped.
BROKEN = """\
SECRET_KEY = "x"
INSTALLED_APPS = ["django.contrib.auth", "django.contrib.contenttypes", "readonly_django", "broken"]
MIDDLEWARE = ["no.such.Middleware"]
ROOT_URLCONF = "no_such_urls"
DATABASES = {"default": {"ENGINE": "django.db.backends.postgresql", "HOST": "127.0.0.1", "PORT": "1", "NAME": "x"}}
READONLY = {"STORE": "STORE_URL", "LOGN": ["/typing/error"], "REPLICAS": ["nowhere"]}
"""
CHECK = """\
from django.core.checks import Error, register
@register()
def check(app_configs, **kwargs):
    return [Error("broken")]
"""


@pytest.fixture
def store(tmp_path: Path) -> Iterator[str]:
    """A site that exists."""
    url = f"sqlite:///{tmp_path}/flag.db?site=shop"
    made = store_from_url(url)
    assert made.read().record is not None
    made.close()
    with override_settings(READONLY={"STORE": url, "GUARD": False}):
        yield url


@pytest.fixture
def broken(tmp_path: Path, store: str) -> Path:
    """A project in which hardly anything works."""
    (tmp_path / "manage.py").write_text(MANAGE)
    (tmp_path / "settings.py").write_text(BROKEN.replace("STORE_URL", store))
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "__init__.py").write_text(CHECK)
    return tmp_path


def test_a_broken_deployment_keeps_nobody_from_off(broken: Path) -> None:
    """Nor from `on`; while every other command says what is wrong."""

    def manage(*words: str) -> Any:
        return run(sys.executable, "manage.py", *words, folder=broken, environment={"READONLY_STATE_DIR": ""})

    on = manage("readonly", "on", "--reason", "INC-441", "--timeout", "1s", "--settings=settings")
    assert (on.returncode, "READ-ONLY since" in on.stdout) == (3, True), on.stdout + on.stderr
    assert "python manage.py readonly" in on.stdout + on.stderr
    off = manage("readonly", "--json", "off")
    assert off.returncode == 0, off.stdout + off.stderr
    assert json.loads(off.stdout.splitlines()[-1])["mode"] == "writable"
    other = manage("check")
    assert other.returncode == 1
    assert "no setting is called 'LOGN'; did you mean 'LOGIN'?" in other.stderr


def test_it_is_the_same_group(store: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Also for whoever calls it from code; an exit code that is not 0 is an error that carries it."""
    assert get_commands()["readonly"] == "readonly_django"
    call_command("readonly", "status")
    assert "WRITABLE" in capsys.readouterr().out
    with pytest.raises(CommandError) as caught:
        call_command("readonly", "--json", "status", "--expect", "safe")
    assert caught.value.returncode == 3
    with pytest.raises(CommandError) as typed:
        call_command("readonly", "frobnicate")
    assert typed.value.returncode == 2


def test_its_help_is_the_groups(store: str, capsys: pytest.CaptureFixture[str]) -> None:
    """By `manage.py readonly --help` and by `manage.py help readonly`."""
    with pytest.raises(SystemExit) as end:
        Command().run_from_argv(["./manage.py", "readonly", "--help"])
    assert end.value.code == 0
    first = capsys.readouterr().out
    assert "python manage.py readonly on --for 45m" in first
    Command().print_help("manage.py", "readonly")
    assert capsys.readouterr().out == first


def test_a_project_without_a_store_is_told_where_to_name_it(capsys: pytest.CaptureFixture[str]) -> None:
    """As a mistake in what was typed."""
    with override_settings(READONLY=None), pytest.raises(CommandError) as caught:
        call_command("readonly", "status")
    assert caught.value.returncode == 2
    assert "READONLY_STORE" in capsys.readouterr().err


def test_a_project_may_be_told_another_store(store: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`--store` is for the night on which the settings name the wrong one."""
    other = f"sqlite:///{tmp_path}/other.db?site=other"
    made = store_from_url(other)
    made.read()
    made.close()
    call_command("readonly", "--store", other, "status")
    assert "other" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("typed", "ours"),
    [
        ("off --settings=shop.settings", "off"),
        ("--settings shop.settings off --traceback", "off"),
        ("-v 2 status --json --no-color", "status --json"),
        ("job --name x -- ./import --settings other -v", "job --name x -- ./import --settings other -v"),
        ("on --reason=--settings=x", "on --reason=--settings=x"),
    ],
)
def test_djangos_own_options_are_no_mistake(typed: str, ours: str) -> None:
    """They mean nothing here; what comes after `--` is somebody else's."""
    assert _ours(typed.split()) == ours.split()
