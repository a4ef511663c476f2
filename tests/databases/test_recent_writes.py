"""Read-your-writes on a real pair: who has written reads from the primary until a standby is there, and no longer."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DataError
from sqlalchemy.orm import Session

from readonly import Switch, recent
from readonly.databases.replicas import watching, written
from readonly.databases.sqlalchemy import Database
from readonly.recent import COOKIE, Cookie, Recent
from readonly.wsgi.recent import RecentWrites
from support.looking import NEVER_SECONDS, look_often, nothing_is_late
from support.postgres_server import PostgresPair
from support.waiting import eventually

from .conftest import Client

SECRET = "tests only"
READS = {"info": {"reads": True}}


class Site:
    """An application that reads from a standby while writable, as browsers see it."""

    def __init__(self, kind: str, pair: PostgresPair, switch: Switch, name: str) -> None:
        self.pair = pair
        self.client = Client(kind, pair.primary.url(name))
        self.standby = Client(kind, pair.standby.url(name), beside=self.client)
        # Behind for as long as a test takes, the standby is read all the same.
        self.database = Database(
            self.client.engine, switch, replicas=[self.standby.engine], always=True, max_lag=NEVER_SECONDS
        )
        self.session_class = self.database.routing(Session)
        self.app = RecentWrites(self._serve, secret=SECRET)  # type: ignore[arg-type]

    def _serve(self, environ: dict[str, Any], start_response: Any) -> list[bytes]:
        if environ["REQUEST_METHOD"] == "POST":

            def write(session: Session) -> None:
                session.execute(text(environ.get("statement", "INSERT INTO story VALUES (1)")))
                session.commit()

            self.client.session(write, self.session_class, twophase="twophase" in environ)
            body = b"written"
        else:
            body = b"standby" if self.client.session(_reads_standby, self.session_class, **READS) else b"primary"
        start_response("200 OK", [])
        return [body]

    def ask(self, method: str = "GET", cookie: str = "", **environ: str) -> tuple[str, str]:
        """Return the body, and the cookie that the answer sets."""
        told: list[tuple[str, str]] = []
        request = {"REQUEST_METHOD": method, "HTTP_COOKIE": cookie, "wsgi.url_scheme": "http", **environ}
        (body,) = self.app(request, lambda _, headers: told.extend(headers))  # type: ignore[arg-type,return-value,misc]
        return body.decode(), next((value.partition(";")[0] for name, value in told if name == "Set-Cookie"), "")

    def reads(self, where: str, cookie: str = "") -> None:
        """Wait until such a browser's reads go there."""
        eventually(lambda: self.ask(cookie=cookie)[0] == where, 15.0, what=f"reads go to the {where}")

    def pause(self) -> None:
        self.pair.wait_replayed()
        self.pair.standby.sql("SELECT pg_wal_replay_pause()")

    def resume(self) -> None:
        self.pair.standby.sql("SELECT pg_wal_replay_resume()")

    def close(self) -> None:
        self.database.close()
        self.standby.close()
        self.client.close()


def _reads_standby(session: Session) -> bool:
    return bool(session.execute(text("SELECT pg_is_in_recovery()")).scalar_one())


@pytest.fixture(scope="module")
def name(postgres_pair: PostgresPair) -> Iterator[str]:
    """A database with a table."""
    made = postgres_pair.primary.new_database()
    postgres_pair.primary.sql("CREATE TABLE story (id int)", database=made)
    postgres_pair.wait_replayed()
    yield made
    postgres_pair.primary.drop_database(made)


@pytest.fixture
def make_site(
    postgres_pair: PostgresPair, switch: Switch, name: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[str], Site]]:
    """Make the site with a driver; its standby is looked at often, and replays afterwards."""
    look_often(monkeypatch)
    nothing_is_late(monkeypatch)
    made: list[Site] = []

    def make(kind: str) -> Site:
        made.append(Site(kind, postgres_pair, switch, name))
        made[-1].reads("standby")
        return made[-1]

    yield make
    for site in made:
        site.resume()
        site.close()


@pytest.fixture
def site(make_site: Callable[[str], Site]) -> Site:
    """With psycopg."""
    return make_site("psycopg")


@pytest.mark.parametrize("kind", ["psycopg", "psycopg_async", "asyncpg"])
def test_a_visitor_sees_what_they_wrote(kind: str, make_site: Callable[[str], Site]) -> None:
    """From the primary while the standby is behind that position; others go on reading the standby."""
    site = make_site(kind)
    site.pause()
    body, cookie = site.ask("POST")
    assert body == "written"
    assert cookie.startswith(COOKIE)
    assert site.ask(cookie=cookie) == ("primary", "")
    assert site.ask() == ("standby", "")
    known = Cookie(SECRET).read(cookie).of("main")
    assert known is not None
    assert known.system == site.database.describe()["system"]
    site.resume()
    site.reads("standby", cookie)


def test_reading_sets_no_cookie(site: Site) -> None:
    """Nor does a transaction on the primary that wrote nothing, or that was rolled back."""
    assert site.ask() == ("standby", "")
    assert site.ask("POST", statement="SELECT 1") == ("written", "")
    assert site.ask("POST", statement="UPDATE story SET id = 2 WHERE false") == ("written", "")


@pytest.mark.parametrize("statement", ["SET LOCAL synchronous_commit = off; INSERT INTO story VALUES (2)"])
def test_a_commit_that_waits_for_no_disk(statement: str, site: Site) -> None:
    """Its position is the whole log's: never too little."""
    site.pause()
    _, cookie = site.ask("POST", statement=statement)
    assert site.ask(cookie=cookie)[0] == "primary"


def test_a_two_phase_commit(site: Site) -> None:
    """What was prepared is not asked about any more: its position is the whole log's."""
    site.pause()
    _, cookie = site.ask("POST", twophase="yes")
    assert site.ask(cookie=cookie)[0] == "primary"
    site.resume()
    site.reads("standby", cookie)


def test_a_position_of_another_system(site: Site) -> None:
    """It means nothing here: the primary, though a standby is at a higher number, and though nobody else reads it."""
    site.database._none_fit = "refuse"
    elsewhere = Recent()
    elsewhere.wrote("main", system="7388402", at="0/1")
    cookie = str(Cookie(SECRET).write(elsewhere, secure=False)).partition(";")[0]
    assert site.ask(cookie=cookie)[0] == "primary"
    site.database._none_fit = "primary"
    nowhere = Recent()
    nowhere.wrote("main", system=str(site.database.describe()["system"]), at="nowhere")
    cookie = str(Cookie(SECRET).write(nowhere, secure=False)).partition(";")[0]
    assert site.ask(cookie=cookie)[0] == "primary"


def test_one_that_was_made_up(site: Site) -> None:
    """The primary, and the cookie is taken back."""
    body, cookie = site.ask(cookie=f"{COOKIE}=forged")
    assert (body, cookie) == ("primary", f"{COOKIE}=")
    assert site.ask()[0] == "standby"


def test_without_a_position_it_goes_by_time(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Just written: the primary. Longer ago than any standby lags: the standby again."""
    # Just now is a second; as much may pass here until the next request.
    monkeypatch.setattr(watching, "CLOCK_SECONDS", 25.0)

    def ago(seconds: float) -> str:
        wrote = Recent()
        now = time.time()
        wrote.wrote("main", now=lambda: now - seconds)
        return str(Cookie(SECRET).write(wrote, secure=False)).partition(";")[0]

    assert site.ask(cookie=ago(0.0))[0] == "primary"
    site.reads("standby", ago(30.0))
    assert site.ask(cookie=ago(61.0))[0] == "standby"
    with recent.following(Recent()):
        recent.wrote("main")  # said by hand: raw, in autocommit
        assert not site.client.session(_reads_standby, site.session_class, **READS)


def test_while_read_only_as_well(site: Site, switch: Switch) -> None:
    """What was written last is still to be seen; then the standby is read like everybody else's."""
    site.pause()
    _, cookie = site.ask("POST")
    switch.on()
    eventually(lambda: site.ask(cookie=cookie)[0] == "primary")
    site.resume()
    site.reads("standby", cookie)


def test_a_question_before_the_commit_that_fails_is_no_success(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """PostgreSQL makes a ROLLBACK of that COMMIT without a word: whoever wrote must hear of it."""

    class Failing(type(written.MARKS["postgresql"])):  # type: ignore[misc]
        def before(self, connection: Any, memory: Any) -> object:
            cursor = connection.cursor()
            cursor.execute("SELECT 1/0")
            return True

    monkeypatch.setitem(written.MARKS, "postgresql", Failing())
    before = site.client.count()
    with pytest.raises(DataError, match="division by zero"):
        site.ask("POST")
    assert site.client.count() == before
    monkeypatch.undo()
    assert site.ask("POST")[0] == "written"
    assert site.client.count() == before + 1
