"""Fences at the command: `on` raises them, `off` lifts them, `fence …` one by one; over a real PostgreSQL."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from unittest import mock
from wsgiref.util import setup_testing_defaults

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.exc import DBAPIError

from readonly import Switch, changes, site
from readonly.bypass import HEADER
from readonly.changes import _lifting
from readonly.databases.fence import _pg_state
from readonly.databases.sqlalchemy import Database
from readonly.members import Guarded, Report
from readonly.record import OPERATOR
from readonly.wsgi import ReadOnlyMiddleware
from support import output_schema
from support.doctoring import report_of
from support.fence_layouts import one_role, two_roles
from support.fenced_site import WRITE, Fenced, fenced_site
from support.operating import ANNA, Member, Shop, json_lines, made, members
from support.postgres_server import PostgresServer
from support.waiting import eventually


@pytest.fixture(scope="module")
def one_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Shop, Member]]:
    """A site and its process, for all tests here."""
    shop = made(tmp_path_factory.mktemp("fenced") / "shop.db")
    with members(shop) as (member,):
        yield shop, member
    shop.store.close()


@pytest.fixture
def fenced(one_process: tuple[Shop, Member], postgres: PostgresServer, tmp_path: Path) -> Iterator[Fenced]:
    """Two roles, writable, not fenced."""
    with two_roles(postgres) as database:
        yield from fenced_site(one_process, database, tmp_path)


@pytest.fixture
def solo(one_process: tuple[Shop, Member], postgres: PostgresServer, tmp_path: Path) -> Iterator[Fenced]:
    """One role, writable, not fenced."""
    with one_role(postgres) as database:
        yield from fenced_site(one_process, database, tmp_path)


def test_on_says_hard_and_off_opens_both(fenced: Fenced) -> None:
    """SAFE (hard) with the position; afterwards the application writes again."""
    done = fenced.ctl("on", "--reason", "INC-441")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "fence main: hard, but for: large objects at 0/" in done.stdout
    assert "SAFE (hard) after " in done.stdout
    assert "the database refuses every client, until `off`." in done.stdout
    assert fenced.writes() == "42501"
    status = fenced.ctl("status", "--expect", "safe")
    assert status.returncode == 0
    assert "fence fence:main:" in status.stdout
    done = fenced.ctl("off")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Lifted   fence main: " in done.stdout
    assert "WRITABLE" in done.stdout
    assert fenced.writes() == ""


def test_who_is_let_through_is_held_by_the_fence(fenced: Fenced) -> None:
    """A bypass opens gate and guard; the database refuses its holder like everybody, and the answer is the 503."""
    database = fenced.database
    engine = create_engine(
        database.server.url(database.name, user=database.app).replace("postgresql:", "postgresql+psycopg:")
    )
    switch = Switch.from_url(fenced.shop.url, interval=0.05)
    guard = Database(engine, switch)

    def application(environ: Any, start_response: Any) -> list[bytes]:
        try:
            with engine.begin() as connection:
                connection.execute(text(WRITE))
        except DBAPIError:
            start_response("500 Internal Server Error", [])
            return [b"as frameworks answer"]
        start_response("200 OK", [])
        return [b"written"]

    app = ReadOnlyMiddleware(application, switch)
    statuses: list[str] = []

    def start(status: str, headers: list[tuple[str, str]], exc_info: Any = None, /) -> Any:
        statuses.append(status)

    def post(token: str) -> str:
        environ: dict[str, Any] = {"REQUEST_METHOD": "POST", "PATH_INFO": "/", "HTTP_X_READ_ONLY_BYPASS": token}
        setup_testing_defaults(environ)
        body = app(environ, start)
        b"".join(body)
        getattr(body, "close", lambda: None)()
        return statuses[-1][:3]

    try:
        switch.start()
        assert fenced.ctl("on").returncode == 0
        said = fenced.ctl("bypass", "ann")
        assert "at that database their writes are refused all the same" in said.stdout
        token = said.stdout.partition(f"{HEADER}: ")[2].split()[0]
        eventually(lambda: switch.state.bypasses != ())
        assert (post(""), post(token)) == ("503", "503")
        assert switch.tally.totals()["bypassed_by_name"] == {"ann": 1}
        assert fenced.ctl("fence", "lift", "main").returncode == 0
        eventually(lambda: switch.state.read_only and switch.state.bypasses != ())
        assert (post(""), post(token)) == ("503", "200")
    finally:
        guard.close()
        engine.dispose()
        switch.close()


@pytest.mark.parametrize("words", [["on"], ["wait"]])
@pytest.mark.parametrize("before", ["raise_fences", "wait_replicas"])
@pytest.mark.parametrize("again", [False, True], ids=["opened", "and closed again"])
def test_somebody_opens_it_while_fences_are_raised(fenced: Fenced, words: list[str], before: str, again: bool) -> None:
    """The members were confirmed by then; nobody is told that a site is safe which somebody else has opened since."""
    if words == ["wait"]:
        assert fenced.ctl("on", "--no-wait").returncode == 0
    found = getattr(site.Site, before)

    def opened(self: site.Site, *given: Any, **more: Any) -> Any:
        assert fenced.ctl("off", "--all").returncode == 0
        if again:
            assert fenced.ctl("on", "--no-wait").returncode == 0
        return found(self, *given, **more)

    with mock.patch.object(site.Site, before, opened):
        done = fenced.ctl(*words)
    assert "SAFE (" not in done.stdout
    assert done.returncode == 5, done.stdout
    assert "while this was raising the fences" in done.stderr
    # What was raised for a cause that stands no more is nobody's, and taken away by whoever opens the site.
    fenced.ctl("off")
    assert fenced.writes() == ""


def test_somebody_lifts_the_fence_while_replicas_are_waited_for(fenced: Fenced) -> None:
    """The site is read-only all the same, and not as safe as it would be said to be."""
    found = site.Site.wait_replicas

    def lifted(self: site.Site, *given: Any, **more: Any) -> Any:
        assert fenced.ctl("fence", "lift", "main").returncode == 0
        return found(self, *given, **more)

    with mock.patch.object(site.Site, "wait_replicas", lifted):
        done = fenced.ctl("on")
    assert done.returncode == 3
    assert "SAFE (" not in done.stdout
    assert "the fence main was lifted meanwhile" in done.stdout
    again = fenced.ctl("fence", "raise")
    assert again.returncode == 0
    assert "SAFE (hard)" in fenced.ctl("wait").stdout


def test_a_fence_that_is_raised_again_while_it_is_lifted(solo: Fenced) -> None:
    """Its triggers are taken off one by one: who lifts it is told that it stands."""
    assert solo.ctl("on").returncode == 0
    found, calls = _pg_state.lock, itertools.count()

    def lock(connection: Any) -> None:
        if next(calls) == 2:  # the gate is open by then
            assert solo.ctl("fence", "raise", "main").returncode == 0
        found(connection)

    with mock.patch.object(_pg_state, "lock", lock):
        done = solo.ctl("fence", "lift", "main")
    assert done.returncode == 3
    assert "raised it again meanwhile" in done.stdout
    assert solo.writes() == "25006"
    assert "SAFE (hard)" in solo.ctl("wait").stdout


def test_undo_that_comes_too_late_leaves_the_fence(fenced: Fenced) -> None:
    """It is refused before anything is let go of: what was said to be safe goes on being it."""
    assert fenced.ctl("on").returncode == 0
    with mock.patch.object(_lifting, "UNDO_GRACE", timedelta(0)):
        done = fenced.ctl("off", "--undo")
    assert done.returncode == 6, done.stdout
    assert "Nothing was changed" in done.stderr
    assert "Lifted" not in done.stdout
    assert fenced.writes() == "42501"
    status = fenced.ctl("status", "--expect", "safe")
    assert status.returncode == 0
    assert "fence fence:main:" in status.stdout


def test_a_cause_that_does_not_exist_leaves_a_fence_that_is_nobodys(fenced: Fenced) -> None:
    """Its holder is gone: a plain `off` takes it away, one with a slip in it does not."""
    assert fenced.ctl("on").returncode == 0
    (mine,) = [cause.id for cause in fenced.shop.look().state.causes if cause.kind == OPERATOR]
    changes.lift_exactly(fenced.shop.store, ANNA, mine)
    done = fenced.ctl("off", "--cause", f"{mine}x")
    assert done.returncode == 6
    assert "Nothing was changed" in done.stderr
    assert fenced.writes() == "42501"
    assert fenced.shop.look().state.read_only
    assert fenced.ctl("off").returncode == 0
    assert fenced.writes() == ""


def test_a_process_of_the_site_that_it_does_not_stop_is_named(fenced: Fenced) -> None:
    """One that connects as who migrates: no fence for it, whatever the server says of the others."""
    server = {"server": "postgresql", "database": fenced.database.name, "host": "127.0.0.1"}

    def connecting_as(user: str) -> Report:
        return report_of(closed=True, guards=(Guarded("main", "", {**server, "user": user}),))

    with mock.patch.object(site, "at_work", return_value=[connecting_as("owner_")]):
        done = fenced.ctl("on", "--reason", "INC-441")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "left open: web web-3/7 connects as owner_, whom it does not stop" in done.stdout
    assert "SAFE (cooperative) after " in done.stdout
    (mark,) = [cause.fence for cause in fenced.shop.look().state.causes if cause.fence is not None]
    assert mark.level == "cooperative"
    assert fenced.ctl("off").returncode == 0
    with mock.patch.object(site, "at_work", return_value=[connecting_as("app")]):
        assert "SAFE (hard) after " in fenced.ctl("on", "--reason", "INC-441").stdout


def test_a_level_that_was_asked_for_and_not_reached_is_exit_3(fenced: Fenced) -> None:
    """A script must not get 0 for less than it asked."""
    assert fenced.ctl("on", "--no-fence", "--require", "hard").returncode == 3
    assert fenced.writes() == ""
    fenced.database.sql("GRANT INSERT ON story TO rogue")
    fenced.configure(more='strategy = "revoke"\n')
    done = fenced.ctl("wait", "--require", "hard")
    assert done.returncode == 3
    assert "left open: rogue may write and is not among the writers" in done.stdout
    assert "SAFE (cooperative)" in done.stdout
    assert "You asked for hard." in done.stdout
    assert fenced.ctl("wait", "--require", "cooperative").returncode == 0
    assert fenced.ctl("off").returncode == 0


@pytest.mark.usefixtures("half_a_second_for_fences")
def test_who_is_waited_for_is_named_and_ended_when_told(fenced: Fenced) -> None:
    """Without a deadline for it: exit 3, by name. With one: ended, and SAFE."""
    writer = fenced.database.session("app", autocommit=False, application_name="nightly-import")
    writer.execute(WRITE)
    done = fenced.ctl("on", "--timeout", "500ms")
    assert done.returncode == 3
    assert "fence main waits for session" in done.stderr
    assert "new writes are refused, but what began before it has not ended" in done.stdout
    assert "NOT CONFIRMED" in done.stdout
    done = fenced.ctl("wait", "--end-writers-after", "200ms")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "  ended: session" in done.stdout
    assert fenced.ctl("off").returncode == 0


def test_without_the_rights_it_says_which(fenced: Fenced) -> None:
    """Exit 3: the site is read-only, its database is not fenced, and the statement to run is there."""
    fenced.configure(fencer="bare")
    done = fenced.ctl("on")
    assert done.returncode == 3
    assert "GRANT owner_ TO bare" in done.stdout
    assert fenced.writes() == ""
    plan = fenced.ctl("fence", "plan")
    assert plan.returncode == 3
    assert "  missing, run as who may:  GRANT owner_ TO bare" in plan.stdout
    # Nothing stands at the database, so nothing keeps the site closed.
    assert [c.kind for c in fenced.shop.look().state.causes] == ["operator"]
    assert fenced.ctl("off").returncode == 0


def test_off_without_the_database_opens_nothing_and_says_where(fenced: Fenced) -> None:
    """The operator's cause is lifted, the fence's stands; another machine lifts it."""
    assert fenced.ctl("on").returncode == 0
    fenced.configure(port=1)
    done = fenced.ctl("off", "--timeout", "5s")
    assert done.returncode == 3, done.stdout + done.stderr
    assert "Not lifted: main: the fence's server can't be reached" in done.stdout
    assert "Still READ-ONLY" in done.stdout
    assert fenced.writes() == "42501"
    # A machine whose file does not name the fence says so as well.
    fenced.configure(name="other")
    done = fenced.ctl("off", "--timeout", "5s")
    assert "nothing on this machine says how to reach it: where readonly.toml has [fence.main]" in done.stdout
    assert done.returncode == 3
    fenced.configure()
    done = fenced.ctl("off")
    assert done.returncode == 0, done.stdout + done.stderr
    assert fenced.writes() == ""


def test_a_lost_process_is_held_by_the_fence_when_that_is_accepted(fenced: Fenced) -> None:
    """`--accept-fenced`: it may still admit requests; the database refuses them."""
    fenced.shop.silent_member(75)
    done = fenced.ctl("on", "--timeout", "1s")
    assert done.returncode == 3
    done = fenced.ctl("wait", "--accept-fenced")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "held by the fence: " in done.stdout
    assert "SAFE (hard)" in done.stdout
    refused = fenced.ctl("wait", "--accept-fenced", "--no-fence")
    assert refused.returncode == 2
    fenced.ctl("members", "forget", "web-2", "--reason", "powered off")
    assert fenced.ctl("off").returncode == 0


def test_the_gate_is_installed_once(solo: Fenced) -> None:
    """`fence install`, then `on` shuts it; `--remove` takes it out."""
    done = solo.ctl("fence", "install", "main")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "an open gate is on 4 more tables" in done.stdout
    assert solo.writes() == ""
    done = solo.ctl("on")
    assert done.returncode == 0, done.stdout
    assert solo.writes() == "25006"
    assert "by gate" in solo.ctl("fence", "status").stdout
    assert solo.ctl("off").returncode == 0
    assert "taken off 4 tables" in solo.ctl("fence", "install", "main", "--remove").stdout


def test_fences_one_by_one(solo: Fenced) -> None:
    """Not on a writable site; a second raise covers what was made since; lift leaves the site closed."""
    done = solo.ctl("fence", "raise")
    assert done.returncode == 6
    assert "is not read-only, and a fence would give its visitors errors" in done.stderr
    assert solo.ctl("fence", "status").returncode == 3
    assert solo.ctl("on").returncode == 0
    solo.database.as_owner("CREATE TABLE fresh (id int)")
    done = solo.ctl("fence", "status")
    assert done.returncode == 3
    assert "not covered: public.fresh" in done.stdout
    done = solo.ctl("fence", "raise", "main")
    assert done.returncode == 0
    assert "covered since: public.fresh" in done.stdout
    assert solo.ctl("fence", "status").returncode == 0
    done = solo.ctl("fence", "lift", "main")
    assert done.returncode == 0, done.stdout + done.stderr
    assert solo.writes() == ""
    assert [c.kind for c in solo.shop.look().state.causes] == ["operator"]
    assert solo.ctl("off").returncode == 0
    assert solo.ctl("fence", "lift", "other").returncode == 2


def test_a_copy_of_another_sites_database(fenced: Fenced) -> None:
    """Its fence is named, and lifted only with --orphan."""
    fenced.database.fence().put_up(site="production", cause="c9", by="zoe", timeout=10)
    assert "a fence of the site production stands" in fenced.ctl("fence", "status").stdout
    done = fenced.ctl("fence", "lift", "main")
    assert done.returncode == 6
    assert "carries a fence of production, raised by zoe" in done.stderr
    assert fenced.ctl("fence", "lift", "main", "--orphan").returncode == 0
    assert fenced.writes() == ""


@pytest.mark.usefixtures("half_a_second_for_fences")
def test_every_field_of_fences_is_shown_by_a_real_command(fenced: Fenced, solo: Fenced) -> None:
    """What the schema says of fences is what commands print."""
    seen: set[tuple[str, str]] = set()

    def typed(where: Fenced, *words: str) -> None:
        for document in json_lines(where.ctl(*words, "--json").stdout):
            seen.update(output_schema.fields_in(document))

    typed(solo, "fence", "install", "main")
    typed(solo, "fence", "install", "main", "--remove")
    fenced.configure()
    typed(fenced, "fence", "raise")
    typed(fenced, "fence", "status")
    writer = fenced.database.session("app", autocommit=False)
    writer.execute(WRITE)
    typed(fenced, "on", "--timeout", "500ms")
    writer.rollback()
    typed(fenced, "fence", "plan")
    typed(fenced, "fence", "raise")
    typed(fenced, "fence", "status")
    fenced.configure(port=1)
    for words in (["status"], ["plan"], ["lift", "main"]):
        typed(fenced, "fence", *words)
    fenced.configure()
    typed(fenced, "off")
    typed(fenced, "fence", "lift", "main")
    typed(fenced, "--site", "blog", "fence", "lift", "main")
    fenced.configure(more='freeze = ["postgresql://nobody@127.0.0.1:1/gone"]\n')
    typed(fenced, "fence", "thaw")
    fenced.configure(fencer="bare")
    typed(fenced, "fence", "install", "main")
    for words in (["status"], ["plan"], ["raise"], ["install", "main"], ["thaw"]):
        typed(fenced, "--site", "blog", "fence", *words)
    defined = {
        (name, field)
        for name, definition in output_schema.schema()["$defs"].items()
        if "properties" in definition and output_schema.is_of_fences(name)
        for field in definition["properties"]
    }
    assert defined - seen == set()


@pytest.mark.parametrize("word", ["init", "on"])
def test_epochs_go_on_where_a_fence_remembers_them(word: str, postgres: PostgresServer, tmp_path: Path) -> None:
    """Store, members and host file are lost together; the fence stands, and what it was told is the floor."""
    nothing = {"READONLY_STATE_DIR": ""}
    with one_role(postgres) as database:
        shop = made(tmp_path / "alone.db")
        fenced = Fenced(shop, None, database, tmp_path)
        for _ in range(3):
            assert shop.here("--config", str(fenced.file), "on", "--no-wait", environment=nothing).returncode == 0
            assert shop.here("--config", str(fenced.file), "off", environment=nothing).returncode == 0
        # Nobody obeys, so all of that time passes; the fence has its own.
        shop.here("--config", str(fenced.file), "on", "--timeout", "100ms", environment=nothing)
        epoch = shop.look().state.epoch
        assert fenced.writes() != ""
        shop.store.close()
        for path in tmp_path.glob("alone.db*"):
            path.unlink()
        words = ["init", "shop"] if word == "init" else ["on", "--no-wait"]
        if word == "on":
            made(tmp_path / "alone.db", initialised=False)
        done = shop.here("--config", str(fenced.file), *words, environment=nothing)
        assert done.returncode == 0, done.stdout + done.stderr
        assert shop.look().state.epoch > epoch
        shop.store.close()
        database.fence().lift(site="shop")
