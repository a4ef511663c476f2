"""Commands of an application that write: while read-only each ends with two lines, and not with a traceback."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result
from flask import Blueprint, Flask, current_app
from flask.cli import FlaskGroup, ScriptInfo, with_appcontext
from flask_sqlalchemy import SQLAlchemy

from readonly import ReadOnlyError
from support.flask_sites import MakeApp, switch_of
from support.operating import ANNA, Shop, made
from support.processes import run


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    """A site in an SQLite file that anna has turned read-only."""
    found = made(tmp_path / "shop.db")
    found.on(ANNA, reason="new disks", expected=timedelta(minutes=30))
    yield found
    found.store.close()


@pytest.fixture
def app(shop: Shop, make_app: MakeApp, tmp_path: Path) -> Flask:
    """An application with commands that write, in one way or another."""
    app = make_app(READONLY_STORE=shop.url, SQLALCHEMY_DATABASE_URI=f"sqlite:///{tmp_path}/site.db")
    db = SQLAlchemy(app)
    imports = Blueprint("imports", __name__)

    @app.cli.command()
    def make() -> None:
        db.session.execute(db.text("CREATE TABLE made (x INTEGER)"))

    @app.cli.command()
    def translate() -> None:
        try:
            make.callback()  # type: ignore[misc]
        except ReadOnlyError as error:
            raise RuntimeError("the import has failed") from error

    @app.cli.command()
    def count() -> None:
        with switch_of(app).writing():
            raise AssertionError("it was begun")

    @imports.cli.command()
    def scores() -> None:
        make.callback()  # type: ignore[misc]

    @app.cli.command()
    def read() -> None:
        click.echo(db.session.scalar(db.text("SELECT 41 + 1")))

    @app.cli.command("break")
    def broken() -> None:
        raise ZeroDivisionError

    @app.cli.command()
    def complain() -> None:
        raise click.ClickException("not like that")

    app.register_blueprint(imports)
    return app


def refused(done: Result, *command: str) -> None:
    """Look at what the operator of a refused command reads."""
    assert done.exit_code == 75, done.output
    assert done.stderr.startswith(f"{command[-1]}: refused, since ")
    assert "new disks" in done.stderr
    assert "(expected until " in done.stderr
    assert "What it was about to write was not written." in done.stderr
    assert "readonly status` says" in done.stderr
    assert len(done.stderr.splitlines()) == 2


@pytest.mark.parametrize("words", [["make"], ["translate"], ["count"], ["imports", "scores"]])
def test_a_command_that_writes_says_so_in_two_lines(app: Flask, words: list[str]) -> None:
    """By the database, with words of its own around it, by what counts itself; a blueprint's too."""
    for _ in range(2):
        refused(app.test_cli_runner().invoke(args=words), words[0])


def test_what_is_no_refusal_stays(app: Flask) -> None:
    """A read, another error, and one that click says itself."""
    runner = app.test_cli_runner()
    assert runner.invoke(args=["read"]).stdout == "42\n"
    assert isinstance(runner.invoke(args=["break"]).exception, ZeroDivisionError)
    done = runner.invoke(args=["complain"])
    assert (done.exit_code, done.stderr) == (1, "Error: not like that\n")


def test_debug_shows_where(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    """With `flask --debug` it is the developer who reads."""
    monkeypatch.setenv("FLASK_DEBUG", "1")
    assert isinstance(app.test_cli_runner().invoke(args=["make"]).exception, ReadOnlyError)


def test_a_command_of_an_extension(shop: Shop, make_app: MakeApp) -> None:
    """`flask db upgrade` is running before the application is loaded; nobody has wrapped it."""
    group = FlaskGroup(create_app=lambda: make_app(READONLY_STORE=shop.url))

    @group.command()
    @with_appcontext
    def upgrade() -> None:
        with switch_of(current_app).writing():  # type: ignore[arg-type]  # what it stands for
            raise AssertionError("it was begun")

    refused(CliRunner().invoke(group, ["upgrade"], prog_name="flask"), "upgrade")
    done = CliRunner().invoke(group, ["--help"], obj=ScriptInfo(create_app=group.create_app))
    assert done.exit_code == 0


def test_as_it_is_typed(shop: Shop, tmp_path: Path) -> None:
    """The exit code is the process's, and the hint names the application."""
    (tmp_path / "refusing.py").write_text(
        "from flask import Flask\nfrom readonly_flask import ReadOnly\n"
        "app = Flask('refusing')\n"
        f"app.config.update(SECRET_KEY='key', READONLY_STORE={shop.url!r})\nsite = ReadOnly(app)\n"
        "@app.cli.command('import-scores')\ndef import_scores():\n    with site.switch.writing():\n        pass\n"
    )
    flask = [sys.executable, "-m", "flask", "--app", "refusing", "import-scores"]
    done = run(*flask, environment=shop.environment, folder=tmp_path)
    assert done.returncode == 75, done.stderr
    assert "Traceback" not in done.stderr
    assert "import-scores: refused, since " in done.stderr
    assert "`python -m flask --app refusing readonly run -- COMMAND`" in done.stderr
