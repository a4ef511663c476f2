"""`flask readonly …` is the command group of readonlyctl, on the store that the application names."""

from __future__ import annotations

import json
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from flask import Flask
from flask.cli import FlaskGroup

from readonly import Switch
from support.flask_sites import MakeApp, installed
from support.operating import ANNA, Shop, made, members
from support.processes import run


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    """A writable site in an SQLite file, without a process."""
    found = made(tmp_path / "shop.db")
    yield found
    found.store.close()


@pytest.fixture
def app(shop: Shop, make_app: MakeApp, monkeypatch: pytest.MonkeyPatch) -> Flask:
    """An application on that site; the environment names another one."""
    app = make_app(READONLY_STORE=shop.url)
    monkeypatch.setenv("READONLY_STORE", "redis://127.0.0.1:1/0?site=wrong")
    monkeypatch.setenv("READONLY_OPERATOR", "anna")
    monkeypatch.chdir(shop.folder)
    return app


def typed(app: Flask, *words: str) -> Result:
    """Type `flask readonly …`."""
    return app.test_cli_runner().invoke(args=["readonly", *words])


def test_the_site_is_the_applications(app: Flask, shop: Shop) -> None:
    """Settings of the application, exit codes of the group, and hints that are typed the same way."""
    assert typed(app, "on", "--timeout", "100ms").exit_code == 3
    status = typed(app, "status")
    assert status.exit_code == 0
    assert status.output.startswith(f"shop · {shop.url} · 0 members\nREAD-ONLY")
    assert f"Without this framework:  readonlyctl --store '{shop.url}' status" in status.output
    assert "anna" in status.output
    assert typed(app, "status", "--expect", "writable").exit_code == 3
    assert typed(app, "off").exit_code == 0
    assert typed(app, "off", "--site", "blog").exit_code == 2
    assert typed(app, "onn").exit_code == 2


def test_the_command_is_no_member(app: Flask, shop: Shop) -> None:
    """It imports the application and starts nothing of it: whoever waits for all members does not wait for it."""
    document = json.loads(typed(app, "status", "--json").output.splitlines()[-1])
    assert document["members"] == []
    assert installed(app).switch._followers == {}


def test_a_store_that_is_typed_wins(app: Flask, tmp_path: Path) -> None:
    """For the night on which the application's settings are wrong."""
    other = made(tmp_path / "other.db", name="other")
    assert typed(app, "--store", other.url, "status").output.startswith("other · ")
    other.store.close()


def test_what_a_file_expects(app: Flask, tmp_path: Path) -> None:
    """readonly.toml says how many must be there, as it does for readonlyctl; its store is the application's."""
    config = tmp_path / "expect.toml"
    config.write_text('expect = "web=4"')
    done = typed(app, "--config", str(config), "members")
    assert (done.exit_code, "expected 4" in done.output) == (3, True)


def test_memory_is_refused(make_app: MakeApp) -> None:
    """No other process could see it."""
    done = typed(make_app(), "on")
    assert (done.exit_code, "memory://" in done.output) == (2, True)


def test_init_by_the_command(make_app: MakeApp, tmp_path: Path) -> None:
    """The URL comes from the application, and so must the name."""
    app = make_app(READONLY_STORE=f"sqlite:///{tmp_path}/new.db?site=shop")
    assert typed(app, "status").exit_code == 4
    assert typed(app, "init", "blog").exit_code == 2
    created = typed(app, "init", "shop")
    assert (created.exit_code, "WRITABLE, epoch 1" in created.output) == (0, True)
    assert typed(app, "init", "shop").exit_code == 6


def test_a_switch_that_was_given(make_app: MakeApp, shop: Shop) -> None:
    """Its store is the site's."""
    switch = Switch.from_url(shop.url)
    app = make_app(switch=switch)
    assert typed(app, "status").output.startswith("shop · ")
    switch.close()


def test_several_applications(make_app: MakeApp, tmp_path: Path) -> None:
    """Each command works on the application that Flask has loaded."""
    for name in ("one", "two"):
        store = made(tmp_path / f"{name}.db", name=name)
        assert typed(make_app(name, READONLY_STORE=store.url), "status").output.startswith(f"{name} · ")
        store.store.close()


def test_hints_name_the_application(shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What `--app` said must be said again, or Flask would not find it."""
    (tmp_path / "hinted.py").write_text(
        "from flask import Flask\nfrom readonly_flask import ReadOnly\n"
        f"app = Flask('hinted')\napp.config.update(SECRET_KEY='key', READONLY_STORE={shop.url!r})\nReadOnly(app)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)

    def hint(*words: str) -> str:
        done = CliRunner().invoke(FlaskGroup(), [*words, "readonly", "on", "--timeout", "100ms"], prog_name="flask")
        assert done.exit_code == 3, done.output
        return str(done.output)

    assert "flask --app hinted readonly wait" in hint("--app", "hinted")
    monkeypatch.setenv("FLASK_APP", "hinted:app")
    assert "  flask readonly wait" in hint()
    sys.modules.pop("hinted", None)


def test_a_database_that_is_away_and_a_broken_url_map(shop: Shop, tmp_path: Path) -> None:
    """The command needs neither: whoever can load the application can switch it."""
    (tmp_path / "shopsite.py").write_text(
        "from flask import Flask\nfrom flask_sqlalchemy import SQLAlchemy\nfrom readonly_flask import ReadOnly\n"
        "app = Flask('site')\n"
        f"app.config.update(SECRET_KEY='key', READONLY_STORE={shop.url!r},\n"
        "    SQLALCHEMY_DATABASE_URI='postgresql+psycopg://nobody@127.0.0.1:1/away')\n"
        "db = SQLAlchemy(app)\nReadOnly(app)\n"
        "app.add_url_rule('/', 'nowhere')\n"
    )
    flask = [sys.executable, "-m", "flask", "--app", "shopsite", "readonly"]
    done = run(*flask, "off", environment=shop.environment, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "shop · " in done.stdout


def test_a_migration_is_let_through_by_a_run(shop: Shop, tmp_path: Path) -> None:
    """A command of the application is guarded like the site; the one that `run` has started may write."""
    (tmp_path / "migrated.py").write_text(
        "from flask import Flask\nfrom flask_sqlalchemy import SQLAlchemy\nfrom readonly_flask import ReadOnly\n"
        "app = Flask('migrated')\n"
        f"app.config.update(SECRET_KEY='key', READONLY_STORE={shop.url!r},\n"
        f"    SQLALCHEMY_DATABASE_URI='sqlite:///{tmp_path}/site.db')\n"
        "db = SQLAlchemy(app)\nReadOnly(app)\n"
        "@app.cli.command()\ndef migrate():\n"
        "    db.session.execute(db.text('CREATE TABLE moved (x INTEGER)'))\n    db.session.commit()\n"
    )
    flask = [sys.executable, "-m", "flask", "--app", "migrated"]

    def typed(*words: str) -> tuple[int, str]:
        done = run(*flask, *words, environment=shop.environment, folder=tmp_path)
        return done.returncode, done.stdout + done.stderr

    with members(shop):
        shop.on(ANNA)
        code, said = typed("migrate")
        assert (code, "migrate: refused, since " in said) == (75, True)
        shop.open()
        code, said = typed("readonly", "run", "--", *flask, "migrate")
        assert code == 0, said
    with closing(sqlite3.connect(tmp_path / "site.db")) as connection:
        assert connection.execute("SELECT name FROM sqlite_master").fetchall() == [("moved",)]


def test_json_of_what_was_typed_wrongly(app: Flask) -> None:
    """Usage is Flask's command's to say: 2, as everywhere."""
    done: Any = typed(app, "on", "--for", "soon", "--json")
    assert done.exit_code == 2
    assert "no duration" in done.output
