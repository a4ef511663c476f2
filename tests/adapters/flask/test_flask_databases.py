"""Flask-SQLAlchemy: every bind is guarded, reads go to binds that are replicas, incidental writes are dropped."""

from __future__ import annotations

import gc
import importlib
import sqlite3
import weakref
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, has_app_context
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import text
from sqlalchemy.orm import Session

from readonly import Switch
from readonly.databases.sqlite import copy_to_replica
from readonly.errors import ConfigurationError, ReadOnlyError
from readonly_flask import ReadOnly
from support.flask_sites import MakeApp, installed, switch_of
from support.waiting import eventually


class Site:
    """One application with two databases and a copy of the first, its models, and views that write on GET."""

    def __init__(self, folder: Path, make_app: MakeApp, *, first: bool = True, **config: Any) -> None:
        """Make it; `first`: the extension comes before Flask-SQLAlchemy."""
        self.folder = folder
        self.config = {
            "SQLALCHEMY_DATABASE_URI": f"sqlite:///{folder}/main.db",
            "SQLALCHEMY_BINDS": {"logs": f"sqlite:///{folder}/logs.db", "copy": f"sqlite:///{folder}/copy.db"},
            "READONLY_REPLICAS": ["copy"],
            **config,
        }
        self.app = make_app(wrap=False, **self.config)
        self.db: Any = SQLAlchemy()
        steps = [ReadOnly().init_app, self.db.init_app]
        for step in steps if first else reversed(steps):
            step(self.app)
        self.models()
        self.views()
        with self.app.app_context():
            self.db.create_all(None)
            self.db.create_all("logs")
            self.db.session.add(self.story(title="first", views=0))
            self.db.session.commit()

    def models(self) -> None:
        db = self.db

        class Story(db.Model):  # type: ignore[name-defined,misc]
            id = db.Column(db.Integer, primary_key=True)
            title = db.Column(db.String(80))
            views = db.Column(db.Integer)

        class Visit(db.Model):  # type: ignore[name-defined,misc]
            __bind_key__ = "logs"
            id = db.Column(db.Integer, primary_key=True)
            path = db.Column(db.String(80))

        self.story, self.visit = Story, Visit

    def views(self) -> None:
        db = self.db

        @self.app.get("/")
        def read() -> str:
            title: str = db.session.scalar(db.select(self.story.title))
            return title

        @self.app.get("/publish")
        def publish() -> str:
            db.session.add(self.story(title="sneaked in"))
            db.session.commit()
            return "published"

        @self.app.get("/log")
        def log() -> str:
            db.session.add(self.visit(path="/log"))
            db.session.commit()
            return "logged"

        @self.app.get("/count")
        def count() -> str:
            db.session.get(self.story, 1).views += 1
            db.session.add(self.visit(path="/count"))
            db.session.commit()
            return "counted"

        @self.app.post("/publish")
        def post() -> str:
            return publish()

    def get(self, path: str = "/") -> Any:
        return self.app.test_client().get(path)

    def rows(self, table: str, file: str = "main") -> int:
        with closing(sqlite3.connect(self.folder / f"{file}.db")) as connection:
            return int(connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0])

    def freeze(self) -> None:
        """Turn it read-only and copy it; the primary moves on by another program."""
        state = switch_of(self.app).on()
        copy_to_replica(self.folder / "main.db", self.folder / "copy.db", epoch=state.epoch)
        with closing(sqlite3.connect(self.folder / "main.db")) as connection, connection:
            connection.execute("UPDATE story SET title = 'on the primary'")


@pytest.fixture
def site(tmp_path: Path, make_app: MakeApp) -> Site:
    """The site with nothing special."""
    return Site(tmp_path, make_app)


# --- the guard --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("first", [True, False])
def test_every_bind_is_guarded(tmp_path: Path, make_app: MakeApp, first: bool) -> None:
    """Whichever extension came first: a GET that writes gets the 503, on each database, and writes nothing."""
    site = Site(tmp_path, make_app, first=first)
    assert {key: guard.name for key, guard in installed(site.app).databases.items()} == {None: "main", "logs": "logs"}
    assert [site.get(path).status_code for path in ("/publish", "/log")] == [200, 200]
    state = switch_of(site.app).on()
    assert switch_of(site.app).confirm(state.epoch, timeout=20).safe
    for path in ("/publish", "/log"):
        refused = site.get(path)
        assert (refused.status_code, refused.get_json()["code"]) == (503, "READ_ONLY")
    assert (site.rows("story"), site.rows("visit", "logs")) == (2, 1)
    switch_of(site.app).off()
    assert site.app.test_client().post("/publish").status_code == 200
    assert site.rows("story") == 3


def test_members_report_what_they_guard(site: Site) -> None:
    """Each bind by its name, with the server and the database that it writes to."""
    installed(site.app).start()
    (report,) = switch_of(site.app).members()
    assert sorted(guard.name for guard in report.guards) == ["logs", "main"]


def test_it_is_there_before_the_first_request(tmp_path: Path, make_app: MakeApp) -> None:
    """A command or a thread that pushes a context is guarded, though no request ever came."""
    site = Site(tmp_path, make_app)
    switch_of(site.app).on()
    with site.app.app_context():
        site.db.session.add(site.story(title="by a command"))
        with pytest.raises(ReadOnlyError, match="'main'"):
            site.db.session.commit()


def test_connections_and_engines_are_guarded_too(site: Site) -> None:
    """Whatever the session does not know of."""
    switch_of(site.app).on()
    with site.app.app_context():
        for engine, table in ((site.db.engine, "story"), (site.db.engines["logs"], "visit")):
            with engine.connect() as connection, pytest.raises(ReadOnlyError):
                connection.execute(text(f"DELETE FROM {table}"))


def test_without_flask_sqlalchemy_nothing_is_asked_for(make_app: MakeApp) -> None:
    """There is no database to guard, and none is reported."""
    app = make_app()
    app.test_client().get("/")
    assert installed(app).databases == {}


@pytest.mark.parametrize("config", [{"READONLY_GUARD": False}, {"READONLY_UNGUARDED": [None, "logs", "copy"]}])
def test_binds_that_are_left_alone(tmp_path: Path, make_app: MakeApp, config: dict[str, Any]) -> None:
    """All of them, or those that are named."""
    site = Site(tmp_path, make_app, READONLY_REPLICAS=[], **config)
    assert installed(site.app).databases == {}
    switch_of(site.app).on()
    assert site.get("/log").status_code == 200


def test_one_bind_that_is_left_alone(tmp_path: Path, make_app: MakeApp) -> None:
    """A database that has nothing to do with the migration may go on."""
    site = Site(tmp_path, make_app, READONLY_UNGUARDED=["logs"])
    switch_of(site.app).on()
    assert (site.get("/log").status_code, site.get("/publish").status_code) == (200, 503)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"READONLY_UNGUARDED": ["lgos"]}, r"READONLY_UNGUARDED: 'lgos' is no bind.*'logs'.*None"),
        ({"READONLY_POOLERS": {"lgos": "session"}}, r"READONLY_POOLERS: 'lgos' is no bind"),
        ({"READONLY_POOLERS": "session"}, r"pooler='session' is about PostgreSQL, and this is sqlite"),
        ({"READONLY_REPLICAS": ["copies"]}, r"READONLY_REPLICAS: 'copies' is no bind"),
        ({"READONLY_REPLICAS": {"main": ["copy"]}}, r"READONLY_REPLICAS: 'main' is no bind"),
        ({"READONLY_REPLICAS": {None: ["copy"], "logs": ["copy"]}}, r"'copy' stands for two things"),
        ({"READONLY_REPLICAS": {None: ["logs"], "logs": ["copy"]}}, r"'logs' stands for two things"),
        ({"READONLY_REPLICAS": ["copy"], "READONLY_UNGUARDED": ["copy"]}, r"'copy' stands for two things"),
        ({"READONLY_REPLICAS": ["copy"], "READONLY_UNGUARDED": [None]}, r"replicas of None"),
        ({"READONLY_DISCARD": ["*"]}, r"READONLY_DISCARD: discard='\*'"),
    ],
)
@pytest.mark.parametrize("first", [True, False])
def test_settings_that_name_no_bind(
    tmp_path: Path, make_app: MakeApp, config: dict[str, Any], message: str, first: bool
) -> None:
    """Said when the application is wrapped, or at its first context if Flask-SQLAlchemy comes later."""
    with pytest.raises(ConfigurationError, match=message):
        Site(tmp_path, make_app, first=first, **config)
    assert not has_app_context()  # a push that failed leaves nothing behind


def test_something_else_of_that_name(make_app: MakeApp) -> None:
    """An extension that has no engines is not guarded in silence."""
    app = make_app()
    app.extensions["sqlalchemy"] = object()
    with pytest.raises(ConfigurationError, match=r"not of Flask-SQLAlchemy 3.*READONLY_GUARD"), app.app_context():
        pass


def test_a_server_that_cannot_be_guarded(make_app: MakeApp, monkeypatch: pytest.MonkeyPatch) -> None:
    """Start-up stops, and the message says how the bind is left alone; the others are not guarded either."""
    guards: Any = importlib.import_module("readonly.databases.sqlalchemy")
    app = Flask("site")
    app.config.update(SQLALCHEMY_DATABASE_URI="sqlite://", SQLALCHEMY_BINDS={"other": "sqlite://"})
    SQLAlchemy(app)
    original = guards.server_behind
    asked: list[str] = []

    def second_is_unknown(name: str, pooler: Any) -> Any:
        asked.append(name)
        return original(name if len(asked) == 1 else "oracle", pooler)

    monkeypatch.setattr(guards, "server_behind", second_is_unknown)
    switch = Switch.from_url("memory://")
    with pytest.raises(ConfigurationError, match=r"bind .* of Flask-SQLAlchemy: .*oracle.*READONLY_UNGUARDED"):
        ReadOnly(app, switch=switch)
    assert switch.guards == ()


def test_applications_that_share_a_switch(tmp_path: Path) -> None:
    """Their databases have names of their own, and each is guarded."""
    switch = Switch.from_url("memory://")
    apps = []
    try:
        for name in ("one", "two"):
            app = Flask(name)
            app.config.update(SECRET_KEY="key", SQLALCHEMY_DATABASE_URI=f"sqlite:///{tmp_path}/{name}.db")
            SQLAlchemy(app)
            ReadOnly(app, switch=switch)
            apps.append(app)
        assert [guard.name for guard in switch.guards] == ["main", "main-2"]
        installed(apps[0]).close()
        assert [guard.name for guard in switch.guards] == ["main-2"]
    finally:
        for app in apps:
            installed(app).close()
        switch.close()


def test_two_sites_in_one_process(tmp_path: Path, make_app: MakeApp) -> None:
    """What one site admits opens no guard of the other's database."""
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    one, two = Site(tmp_path / "one", make_app), Site(tmp_path / "two", make_app)

    @one.app.post("/through")
    def through() -> str:
        with two.app.app_context():
            two.db.session.add(two.story(title="from the other site"))
            two.db.session.commit()
        return "written"

    switch_of(two.app).on()
    assert one.app.test_client().post("/through").status_code == 503
    assert two.rows("story") == 1
    switch_of(two.app).off()
    assert one.app.test_client().post("/through").status_code == 200


# --- incidental writes ------------------------------------------------------------------------------------------------


def test_incidental_writes_are_dropped(tmp_path: Path, make_app: MakeApp) -> None:
    """A counter and a line in a log: the page is served, nothing is written; afterwards both count again."""
    site = Site(tmp_path, make_app, READONLY_DISCARD=["story.views", "visit"])
    switch_of(site.app).on()
    assert site.get("/count").text == "counted"
    assert site.get("/publish").status_code == 503
    assert site.rows("visit", "logs") == 0
    switch_of(site.app).off()
    assert site.get("/count").text == "counted"
    assert site.rows("visit", "logs") == 1


# --- replicas ---------------------------------------------------------------------------------------------------------


def test_reads_go_to_a_replica(site: Site) -> None:
    """While read-only, by the session that the extension always had; and back to the primary after it."""
    assert site.get().text == "first"
    site.freeze()
    eventually(lambda: site.get().text == "first", what="the copy was found to be there")
    assert site.get("/publish").status_code == 503
    switch_of(site.app).off()
    assert site.get().text == "on the primary"


def test_a_replica_of_another_bind(tmp_path: Path, make_app: MakeApp) -> None:
    """Said by the keys of both; the default bind has none then."""
    site = Site(tmp_path, make_app, READONLY_REPLICAS={"logs": ["copy"]})
    site.get("/log")
    state = switch_of(site.app).on()
    copy_to_replica(tmp_path / "logs.db", tmp_path / "copy.db", epoch=state.epoch)
    with closing(sqlite3.connect(tmp_path / "logs.db")) as connection, connection:
        connection.execute("DELETE FROM visit")

    def visits() -> int:
        with site.app.app_context():
            assert site.db.session.scalar(site.db.select(site.story.title)) == "first"
            return len(site.db.session.scalars(site.db.select(site.visit)).all())

    eventually(lambda: visits() == 1, what="the copy was found to be there")


def test_always(tmp_path: Path, make_app: MakeApp) -> None:
    """A session that says of itself that it only reads may do so from a replica while the site is writable."""
    site = Site(tmp_path, make_app, READONLY_REPLICAS_ALWAYS=True)
    site.freeze()
    state = switch_of(site.app).off()
    with site.app.app_context():
        copies = installed(site.app).databases[None]
        copies.reached(site.db.engines["copy"], state.epoch)

    def title() -> str:
        with site.app.app_context():
            site.db.session().info["reads"] = True
            found: str = site.db.session.scalar(site.db.select(site.story.title))
            return found

    eventually(lambda: title() == "first", what="the copy was found to be there")
    assert site.get().text == "on the primary"


def test_without_replicas_the_session_is_left_as_it_is(tmp_path: Path, make_app: MakeApp) -> None:
    """Nothing is put into the extension's own class where there is nothing to route."""
    site = Site(tmp_path, make_app, READONLY_REPLICAS=[])
    before = SQLAlchemy().session.session_factory.class_.__mro__[1]
    assert site.db.session.session_factory.class_.__mro__[1] is before
    assert installed(site.app).session_class is None


@pytest.fixture
def shared(tmp_path: Path, make_app: MakeApp) -> tuple[Any, list[Flask]]:
    """Two applications of one `db`, each with a database and a copy; only the first names it."""
    db: Any = SQLAlchemy()
    apps = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        app = make_app(
            name,
            wrap=False,
            SQLALCHEMY_DATABASE_URI=f"sqlite:///{tmp_path}/{name}/main.db",
            SQLALCHEMY_BINDS={"copy": f"sqlite:///{tmp_path}/{name}/copy.db"},
            READONLY_REPLICAS=["copy"] if name == "one" else [],
        )
        db.init_app(app)
        ReadOnly(app)
        apps.append(app)
    return db, apps


def test_applications_that_share_a_db(shared: tuple[Any, list[Flask]]) -> None:
    """Each session is of its own application's class, and events on the extension's session reach both."""
    db, (one, two) = shared
    seen: list[Session] = []
    from sqlalchemy import event

    event.listen(db.session, "after_begin", lambda session, *_: seen.append(session))
    for app in (one, two):
        with app.app_context():
            db.session.execute(text("SELECT 1"))
            routed = installed(app).session_class
            assert (type(db.session()) is routed) is (app is one)
    assert len(seen) == 2


def test_a_hundred_applications_of_one_db(tmp_path: Path) -> None:
    """Test suites make one for each test: the session class of `db` is replaced once, and none of them stays."""
    db: Any = SQLAlchemy()
    gone: list[weakref.ref[Flask]] = []
    depths = set()
    for number in range(100):
        app = Flask("site")
        app.config.update(
            SECRET_KEY="key",
            READONLY_STORE="memory://",
            SQLALCHEMY_DATABASE_URI=f"sqlite:///{tmp_path}/main{number}.db",
            SQLALCHEMY_BINDS={"copy": f"sqlite:///{tmp_path}/copy{number}.db"},
            READONLY_REPLICAS=["copy"],
        )
        db.init_app(app)
        ReadOnly(app)
        with app.app_context():
            depths.add(len(type(db.session()).__mro__))
        gone.append(weakref.ref(app))
        installed(app).close()
    del app
    assert len(depths) == 1
    eventually(lambda: gc.collect() >= 0 and not any(found() for found in gone), what="all of them are collected")


def test_a_session_class_of_the_sites_own(tmp_path: Path, make_app: MakeApp) -> None:
    """Given to Flask-SQLAlchemy as its options allow, it stays what sessions are made of."""
    from flask_sqlalchemy.session import Session as Base

    class Own(Base):
        pass

    app = make_app(
        SQLALCHEMY_DATABASE_URI=f"sqlite:///{tmp_path}/main.db",
        SQLALCHEMY_BINDS={"copy": f"sqlite:///{tmp_path}/copy.db"},
        READONLY_REPLICAS=["copy"],
    )
    db = SQLAlchemy(app, session_options={"class_": Own})
    with app.app_context():
        assert isinstance(db.session(), Own)
        assert type(db.session()) is installed(app).session_class
    assert isinstance(db.session.session_factory(), Own)  # outside of any application, nobody's
