"""Read-your-writes by GTID on a real pair: the position of one's own commit, and the replica that is not there yet."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pymysql
import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session

from readonly import Switch, recent
from readonly.databases.sqlalchemy import Database
from readonly.recent import Recent, Wrote
from support.looking import NEVER_SECONDS, look_often, nothing_is_late
from support.mariadb_server import MariaDBPair
from support.waiting import eventually

from .conftest import Client

READS = {"info": {"reads": True}}
WRITE = "INSERT INTO story VALUES (1)"


class Site:
    """An application that reads from a replica while writable; each request is one visitor's."""

    def __init__(self, kind: str, pair: MariaDBPair, switch: Switch, name: str) -> None:
        self.pair = pair
        self.client = Client(kind, pair.primary.url(name, user=f"{name}_app"))
        self.replica = Client(kind, pair.replica.url(name, user=f"{name}_app"), beside=self.client)
        # Behind for as long as a test takes, the replica is read all the same.
        self.database = Database(
            self.client.engine, switch, replicas=[self.replica.engine], always=True, max_lag=NEVER_SECONDS
        )
        self.session_class = self.database.routing(Session)
        self._holding: Any = None

    def request(self, *statements: str, commit: bool = True) -> Wrote | None:
        """Serve a request that runs statements, and return what its visitor's cookie would hold of them."""

        def body(session: Session) -> None:
            for statement in statements:
                session.execute(text(statement))
            if commit:
                session.commit()

        with recent.following(Recent()) as found:
            self.client.session(body, self.session_class)
        return found.of("main")

    def read(self, visitor: Wrote | None = None) -> str:
        """Return where a visitor's read goes."""
        known = Recent()
        if visitor is not None:
            known.wrote("main", system=visitor.system, at=visitor.at)
        with recent.following(known):
            return self.client.session(_where, self.session_class, **READS)

    def reads(self, where: str, visitor: Wrote | None = None) -> None:
        """Wait until such a visitor's reads go there."""
        eventually(lambda: self.read(visitor) == where, 15.0, what=f"reads go to the {where}")

    def hold(self) -> None:
        """Keep the replica from applying what is written from now on, though it goes on following."""
        self.pair.wait_replicated()
        self._holding = pymysql.connect(
            host="127.0.0.1", port=self.pair.replica.port, user="root", database=self.client.sync_engine.url.database
        )
        with self._holding.cursor() as cursor:
            cursor.execute("LOCK TABLES story WRITE, counted WRITE")

    def release(self) -> None:
        """Let it go on."""
        if self._holding is not None:
            self._holding.close()
            self._holding = None

    def close(self) -> None:
        self.database.close()
        self.replica.close()
        self.client.close()


def _where(session: Session) -> str:
    return {1: "primary", 2: "replica"}[session.execute(text("SELECT @@server_id")).scalar_one()]


@pytest.fixture(scope="module")
def name(mariadb_pair: MariaDBPair) -> Iterator[str]:
    """A database with tables, and an account that may ask a replica how far behind it is."""
    primary = mariadb_pair.primary
    made = primary.new_database()
    app = f"{made}_app@'127.0.0.1'"
    primary.sql(
        f"CREATE USER {app}; GRANT ALL ON {made}.* TO {app}; GRANT REPLICA MONITOR ON *.* TO {app};"
        f"CREATE TABLE {made}.story (id int); CREATE TABLE {made}.counted (id int) ENGINE=Aria"
    )
    mariadb_pair.wait_replicated()
    yield made
    primary.drop_database(made)
    primary.sql(f"DROP USER {app}")


@pytest.fixture
def make_site(
    mariadb_pair: MariaDBPair, switch: Switch, name: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[str], Site]]:
    """Make the site with a driver; its replica is looked at often, and replays afterwards."""
    look_often(monkeypatch)
    nothing_is_late(monkeypatch)
    made: list[Site] = []

    def make(kind: str) -> Site:
        made.append(Site(kind, mariadb_pair, switch, name))
        made[-1].reads("replica")
        return made[-1]

    yield make
    for site in made:
        site.release()
        site.close()


@pytest.fixture
def site(make_site: Callable[[str], Site]) -> Site:
    """With PyMySQL."""
    return make_site("pymysql")


@pytest.mark.parametrize("kind", ["pymysql", "asyncmy"])
def test_a_visitor_sees_what_they_wrote(kind: str, make_site: Callable[[str], Site]) -> None:
    """From the primary while the replica has not replayed that GTID, though it has everything from before."""
    site = make_site(kind)
    before = site.request(WRITE)
    assert before is not None
    site.reads("replica", before)
    site.hold()
    wrote = site.request(WRITE)
    assert wrote is not None
    assert (wrote.system, wrote.at) == (
        site.pair.primary.sql("SELECT CONCAT(@@server_uid, ':', @@server_id)"),
        site.pair.primary.gtid,
    )
    assert wrote.system == site.database.describe()["system"]
    assert (site.read(wrote), site.read(before), site.read()) == ("primary", "replica", "replica")
    site.release()
    site.reads("replica", wrote)


def test_reading_is_no_write(site: Site) -> None:
    """Nor is a transaction that changed nothing, or that was rolled back; on a connection that has written before."""
    assert site.request(WRITE) is not None
    assert site.request("SELECT * FROM story") is None
    assert site.request("UPDATE story SET id = 2 WHERE false") is None
    assert site.request(WRITE, commit=False) is None
    assert site.request() is None


@pytest.mark.parametrize(
    "statements",
    [
        (WRITE, "CREATE TABLE IF NOT EXISTS fresh (id int)"),
        (WRITE, "COMMIT", "SELECT 1"),
        ("INSERT INTO counted VALUES (1)",),
        ("BEGIN NOT ATOMIC INSERT INTO story VALUES (3); COMMIT; END",),
    ],
)
def test_what_is_committed_before_the_commit(statements: tuple[str, ...], site: Site) -> None:
    """By a statement that commits by itself, by hand, in a table without transactions: it is there, and is noted."""
    site.hold()
    wrote = site.request(*statements)
    assert wrote is not None
    assert wrote.at == site.pair.primary.gtid
    assert (site.read(wrote), site.read()) == ("primary", "replica")


def test_a_position_of_another_server_means_nothing(site: Site) -> None:
    """After a failover: the primary, whatever the numbers say."""
    elsewhere = Recent()
    elsewhere.wrote("main", system="another", at="0-1-1")
    assert site.read(elsewhere.of("main")) == "primary"
    assert site.read() == "replica"
