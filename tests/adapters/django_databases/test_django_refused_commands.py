"""Management commands that write: while read-only each of them ends with a few lines, and not with a traceback."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from django.contrib.auth.management.commands import changepassword, createsuperuser
from django.contrib.auth.models import User
from django.core.management import call_command
from django.core.management.base import BaseCommand
from django.core.management.commands import loaddata

from readonly import ReadOnlyError, Switch
from readonly_django.databases import install
from readonly_django.refused_commands import explain_refusals
from support.django_site.models import Article

from .conftest import POSTGRESQL, SQLITE, Site

CREATE = ["createsuperuser", "--no-input", "--username", "ada", "--email", "ada@example.com"]


class Counts(BaseCommand):
    """A project's own command, with what it was told to do."""

    requires_system_checks = ()

    def __init__(self, work: Callable[[], object]) -> None:
        super().__init__()
        self.work = work

    def handle(self, *args: object, **options: object) -> None:
        """Do it."""
        self.work()


def typed(command: BaseCommand, *words: str) -> None:
    """Run a command as `manage.py` does."""
    command.run_from_argv(["manage.py", *words, *(["--skip-checks"] if command.requires_system_checks else [])])


def refused(capsys: pytest.CaptureFixture[str], command: BaseCommand, *words: str) -> str:
    """Run a command that is refused; return what its operator reads."""
    with pytest.raises(SystemExit) as end:
        typed(command, *words)
    assert end.value.code == 75
    said = capsys.readouterr().err
    assert "Traceback" not in said
    assert said.startswith(f"{words[0]}: refused, since ")
    assert "new disks" in said
    assert "What it was about to write was not written." in said
    assert "manage.py readonly status" in said
    assert "manage.py readonly run -- COMMAND" in said
    return said


@pytest.mark.parametrize("vendor", [SQLITE, POSTGRESQL])
def test_createsuperuser(
    make_site: Callable[..., Site], vendor: str, switch: Switch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The first thing that somebody types on a new site."""
    make_site(vendor)
    install(switch)
    switch.on(reason="new disks", expected=timedelta(minutes=30))
    said = refused(capsys, createsuperuser.Command(), *CREATE)
    assert "database 'default'" in said
    assert "(expected until " in said
    assert not User.objects.exists()
    switch.off()
    switch.confirm(timeout=10)
    typed(createsuperuser.Command(), *CREATE)
    assert User.objects.get().username == "ada"


@pytest.fixture
def closed(make_site: Callable[..., Site], switch: Switch) -> None:
    """A site with one account, read-only."""
    make_site(SQLITE)
    User.objects.create_user("ada", password="old")
    install(switch)
    switch.on(reason="new disks")


def test_loaddata(closed: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It puts words of its own around every error of a database."""
    fixture = tmp_path / "more.json"
    fixture.write_text(json.dumps([{"model": "news.article", "pk": 7, "fields": {"title": "x", "views": 0}}]))
    refused(capsys, loaddata.Command(), "loaddata", str(fixture))
    assert not Article.objects.filter(pk=7).exists()


def test_changepassword(closed: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """It asks first."""
    monkeypatch.setattr("getpass.getpass", lambda prompt: "a new one, and long")
    refused(capsys, changepassword.Command(), "changepassword", "ada")
    assert User.objects.get().check_password("old")


def test_a_command_of_the_projects_own(closed: None, switch: Switch, capsys: pytest.CaptureFixture[str]) -> None:
    """What writes by the ORM, what counts itself, and what says something else because of it."""

    def translated() -> None:
        try:
            Article.objects.create(title="x")
        except ReadOnlyError as error:
            raise RuntimeError("the import has failed") from error

    def counted() -> None:
        with switch.writing():
            raise AssertionError("it was begun")

    for work in (lambda: Article.objects.create(title="x"), translated, counted):
        refused(capsys, Counts(work), "count")
    assert Article.objects.count() == 1


def test_what_is_no_refusal_is_left_alone(closed: None) -> None:
    """An error of the command's own, one that came while a refusal was handled, and whoever wants the traceback."""

    def fails() -> None:
        raise ValueError("no")

    def fails_otherwise() -> None:
        try:
            Article.objects.create(title="x")
        except ReadOnlyError:
            fails()

    for work in (fails, fails_otherwise):
        with pytest.raises(ValueError, match="no"):
            typed(Counts(work), "count")
    with pytest.raises(ReadOnlyError):
        typed(Counts(lambda: Article.objects.create(title="x")), "count", "--traceback")


def test_code_that_calls_a_command_gets_the_refusal(closed: None) -> None:
    """A view that does is answered with the 503."""
    with pytest.raises(ReadOnlyError):
        call_command("createsuperuser", interactive=False, username="ada2", email="a@example.com")


def test_it_is_explained_once(closed: None, capsys: pytest.CaptureFixture[str]) -> None:
    """However often Django is set up in a process."""
    before = BaseCommand.run_from_argv
    explain_refusals()
    assert BaseCommand.run_from_argv is before
