"""The servers that other tests rely on are real, and do what their helpers say."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import psycopg
import pytest

from support import children, missing
from support.mariadb_server import MariaDBPair, MariaDBServer
from support.missing import ServerMissing
from support.pgbouncer import PgBouncer
from support.postgres_server import PostgresPair, PostgresServer
from support.processes import gunicorn, run, uvicorn
from support.redis_server import CommandRefused, RedisServer
from support.waiting import eventually


def test_redis_answers_and_each_url_names_another_site(redis_server: RedisServer) -> None:
    """The shared server is up; two URLs never share a site."""
    assert redis_server.command("PING") == "+PONG"
    assert redis_server.url() != redis_server.url()
    assert redis_server.url("shop") == f"redis://127.0.0.1:{redis_server.port}/0?site=shop"


def test_redis_allows_debug(redis_server: RedisServer) -> None:
    """DEBUG is there for faults; a wrong command is an exception."""
    assert redis_server.command("DEBUG", "SLEEP", "0") == "+OK"
    with pytest.raises(CommandRefused, match="unknown"):
        redis_server.command("NOSUCH")


def test_redis_forgets_when_restarted_and_keeps_its_port(own_redis: RedisServer) -> None:
    """Nothing is persisted: kill, flush and restart each leave an empty server."""
    port = own_redis.port
    own_redis.command("SET", "key", "value")
    own_redis.restart()
    assert own_redis.port == port
    assert own_redis.command("GET", "key") in {"$-1", "_"}
    own_redis.command("SET", "key", "value")
    own_redis.flush()
    assert own_redis.command("DBSIZE") == ":0"
    own_redis.kill()
    assert not own_redis.running
    assert not children.accepts(port)
    own_redis.start()
    assert own_redis.command("PING") == "+PONG"


def test_paused_redis_answers_nothing_until_resumed(own_redis: RedisServer) -> None:
    """A stopped server keeps its connections and is silent."""
    own_redis.pause()
    with pytest.raises(TimeoutError):
        own_redis.command("PING", timeout=0.1)
    own_redis.resume()
    assert own_redis.command("PING") == "+PONG"


@pytest.mark.usefixtures("redis_server")
def test_redis_does_not_outlive_a_killed_runner() -> None:
    """`kill -9` of the test runner takes its servers along, where the system can do that."""
    folder = _killed_with_its_runner("from support.redis_server import RedisServer as Server")
    (folder / "server.log").unlink()
    folder.rmdir()


def _killed_with_its_runner(importing: str) -> Path:
    """Start a server in a process that is then killed, wait until the server is gone and return its folder."""
    if children._setpriv() is None:
        raise missing.outcome(ServerMissing("setpriv", "setpriv with --pdeathsig on PATH"))
    script = (
        f"import sys; {importing}; server = Server().start();"
        "print(server.pid, server.folder, flush=True); sys.stdin.read()"
    )
    runner = subprocess.Popen(
        [sys.executable, "-c", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.fspath(Path(__file__).parents[1])},
    )
    with runner:
        assert runner.stdout is not None
        pid, folder = runner.stdout.readline().split()
        runner.kill()
    eventually(lambda: not _alive(int(pid)), what="the server is gone")
    return Path(folder)


def test_postgres_gives_each_test_a_database(postgres: PostgresServer, postgres_url: str) -> None:
    """The URL leads to an empty database of that name."""
    name = postgres_url.rpartition("/")[2]
    assert postgres.sql("SELECT current_database()", database=name) == name
    with pytest.raises(RuntimeError, match="syntax error"):
        postgres.sql("SELECT FROM WHERE")


def test_a_killed_postgres_recovers_on_its_port(own_postgres_pair: PostgresPair) -> None:
    """What was committed is there after a crash; the standby follows, and can take over."""
    pair = own_postgres_pair
    port = pair.primary.port
    pair.primary.sql("CREATE TABLE kept (n int)")
    pair.primary.sql("INSERT INTO kept VALUES (1)")
    pair.primary.restart()
    assert pair.primary.port == port
    assert pair.primary.sql("SELECT n FROM kept") == "1"
    pair.primary.sql("INSERT INTO kept VALUES (2)")
    pair.wait_replayed()
    pair.primary.kill()
    assert pair.standby.in_recovery
    with pytest.raises(RuntimeError, match="read-only transaction"):
        pair.standby.sql("INSERT INTO kept VALUES (3)")
    pair.standby.promote()
    pair.standby.sql("INSERT INTO kept VALUES (3)")
    assert pair.standby.sql("SELECT count(*) FROM kept") == "3"


def test_the_shared_pair_replicates(postgres_pair: PostgresPair) -> None:
    """The standby is of the same system and streams."""
    assert postgres_pair.standby.in_recovery
    identity = "SELECT system_identifier FROM pg_control_system()"
    assert postgres_pair.primary.sql(identity) == postgres_pair.standby.sql(identity)
    name = postgres_pair.primary.new_database()
    postgres_pair.wait_replayed()
    assert postgres_pair.standby.sql("SELECT 1", database=name) == "1"
    postgres_pair.primary.drop_database(name)


def test_pgbouncer_pools_transactions(pgbouncer: PgBouncer, postgres_url: str) -> None:
    """Two clients are served by one of the server's connections in turn, and do not run as root."""
    url = pgbouncer.url(postgres_url.rpartition("/")[2])
    with psycopg.connect(url, autocommit=True) as one, psycopg.connect(url, autocommit=True) as other:
        asked = [found.execute("SELECT pg_backend_pid()").fetchone() for found in (one, other)]
        assert asked[0] == asked[1]
    assert psutil.Process(pgbouncer.pid).uids().effective != 0


def test_mariadb_gives_each_test_a_database(mariadb: MariaDBServer, mariadb_url: str) -> None:
    """The URL leads to an empty database of that name; the programs do not run as root."""
    name = mariadb_url.rpartition("/")[2]
    assert mariadb.sql("SELECT DATABASE()", database=name) == name
    assert mariadb.sql("SHOW TABLES", database=name) == ""
    assert psutil.Process(mariadb.pid).uids().effective != 0
    with pytest.raises(RuntimeError, match="error in your SQL syntax"):
        mariadb.sql("SELECT FROM WHERE")


def test_mariadbs_replica_follows_by_gtid(mariadb_pair: MariaDBPair) -> None:
    """What the primary logged is at the replica, and the two name the same position."""
    name = mariadb_pair.primary.new_database()
    mariadb_pair.primary.sql("CREATE TABLE kept (n int); INSERT INTO kept VALUES (1)", database=name)
    mariadb_pair.wait_replicated()
    assert mariadb_pair.replica.sql("SELECT n FROM kept", database=name) == "1"
    assert mariadb_pair.replica.sql("SELECT @@global.gtid_slave_pos") == mariadb_pair.primary.gtid
    mariadb_pair.primary.drop_database(name)


def test_a_killed_mariadb_recovers_on_its_port_and_forgets_what_was_set(own_mariadb: MariaDBServer) -> None:
    """Rows survive a crash, SET GLOBAL does not."""
    name = own_mariadb.new_database()
    port = own_mariadb.port
    own_mariadb.sql("CREATE TABLE kept (n int); INSERT INTO kept VALUES (1); SET GLOBAL read_only=1", database=name)
    own_mariadb.sql("FLUSH LOGS")
    own_mariadb.restart()
    assert own_mariadb.port == port
    assert own_mariadb.sql("SELECT n, @@global.read_only FROM kept", database=name) == "1\t0"


@pytest.mark.usefixtures("mariadb")
def test_mariadb_does_not_outlive_a_killed_runner() -> None:
    """`kill -9` of the test runner takes it along, too."""
    shutil.rmtree(_killed_with_its_runner("from support.mariadb_server import MariaDBServer as Server"))


def _alive(pid: int) -> bool:
    """Tell whether the process runs; one that nobody has reaped yet does not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


ASGI_APP = """
async def app(scope, receive, send):
    assert scope["type"] == "http"
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"hello"})
"""
WSGI_APP = """
def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"hello"]
"""


def test_uvicorn_runs_with_two_workers(tmp_path: Path) -> None:
    """Both workers have begun, are named, can be stopped, and end when asked."""
    (tmp_path / "site_asgi.py").write_text(ASGI_APP)
    with uvicorn("site_asgi:app", "--lifespan", "off", log=tmp_path / "log", folder=tmp_path, workers=2) as server:
        workers = server.worker_pids()
        assert len(workers) == 2
        server.pause(workers[0])
        stopped = psutil.Process(workers[0])
        eventually(lambda: stopped.status() == psutil.STATUS_STOPPED)
        server.resume(workers[0])
        server.terminate()
        eventually(lambda: not any(_alive(pid) for pid in workers))


@pytest.mark.parametrize("options", [(), ("--preload", "--worker-class", "gthread", "--threads", "2")])
def test_gunicorn_runs_with_two_workers(tmp_path: Path, options: tuple[str, ...]) -> None:
    """A killed worker is replaced by gunicorn; killing the server takes all of them."""
    (tmp_path / "site_wsgi.py").write_text(WSGI_APP)
    with gunicorn("site_wsgi:app", *options, log=tmp_path / "log", folder=tmp_path, workers=2) as server:
        before = server.worker_pids()
        assert len(before) == 2
        server.signal(signal.SIGKILL, before[0])
        eventually(lambda: len(set(server.worker_pids()) - {before[0]}) == 2, what="the worker is replaced")
        workers = server.worker_pids()
        server.kill()
        eventually(lambda: not any(_alive(pid) for pid in workers))


def test_a_server_that_does_not_start_says_why(tmp_path: Path) -> None:
    """The failure carries the server's own output."""
    with pytest.raises(RuntimeError, match="no_such_module"):
        uvicorn("no_such_module:app", log=tmp_path / "log", folder=tmp_path)


def test_a_developers_own_settings_reach_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """READONLY_ variables are taken out, but for those of the tests and those that are given."""
    monkeypatch.setenv("READONLY_STORE", "redis://live.example/0?site=shop")
    monkeypatch.setenv("READONLY_TEST_REDIS", "kept")
    show = "import os; print(sorted(name for name in os.environ if name.startswith('READONLY_')))"
    done = run(sys.executable, "-c", show, environment={"READONLY_LEASE": "5"})
    assert done.stdout.strip() == "['READONLY_LEASE', 'READONLY_STATE_DIR', 'READONLY_TEST_REDIS']"
