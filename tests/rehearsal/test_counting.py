"""What a rehearsal counts of requests and work, that it refuses nothing, and that it stays small."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Column, Integer, MetaData, String, Table, create_engine, insert, select, text, update
from sqlalchemy.exc import InternalError
from sqlalchemy.ext.asyncio import create_async_engine

from readonly import Policy, ReadOnlyError, SessionCookie, rehearsal, rule
from readonly.context import current
from readonly.databases.sqlalchemy import Database
from readonly.errors import ConfigurationError, NotYours
from readonly.record_format import dump
from readonly.rehearsal_advice import advice, lines, notes, policy
from readonly.rehearsal_counts import MAX_ROUTES, OTHER, ROUTES_SENT, SKETCH, Numbers, Sketch
from readonly.rehearsal_watch import family, looks_like_a_session, rule_of
from readonly.rules import Endpoint, Facts
from rehearsal.conftest import Stage
from support.operating import ANNA
from support.waiting import eventually

POLICY = Policy(
    login=["/login"],
    logout=["/logout"],
    reads=["POST /search"],
    exempt=["/hook"],
    session_cookies=["session"],
    secret="k",
)
META = MetaData()
SEEN = Table("seen", META, Column("id", Integer, primary_key=True), Column("page", String(20)))
NOTES = Table("notes", META, Column("id", Integer, primary_key=True), Column("body", String(20)))


def wheres(stage: Stage) -> list[tuple[str, str]]:
    """Return what there is to do, without the reasons."""
    return [(one.where, one.value) for one in advice(stage.numbers)]


# --- requests --------------------------------------------------------------------------------------------------------


def test_nothing_is_refused_and_all_that_would_have_been_is_counted(stage: Stage) -> None:
    """By route, method and client family; logins by their own kind."""
    for _ in range(3):
        assert stage.ask("POST /notes/17", POLICY, headers={"user-agent": "Mozilla/5.0 (X11)"})
    assert stage.ask("DELETE /notes/18", POLICY, headers={"user-agent": "curl/8.1"})
    assert stage.ask("POST /login", POLICY)
    assert stage.ask("POST /search", POLICY)
    assert stage.ask("GET /notes/17", POLICY)
    found = stage.numbers
    assert found.requests == 7
    assert {rule: (one.refused, one.act, one.families) for rule, one in found.routes.items()} == {
        "POST /notes/{id}": (3, "undeclared", {"browser": 3}),
        "DELETE /notes/{id}": (1, "undeclared", {"program": 1}),
        "POST /login": (1, "login", {"none": 1}),
        "POST /search": (0, "declared read", {}),
    }
    assert stage.switch.tally.totals()["refused"] == 0


def test_a_real_on_wins_and_the_rest_of_the_rehearsal_comes_after_it(stage: Stage) -> None:
    """Refused is what is refused, and it is not counted as if it had not been."""
    assert stage.ask("POST /notes", POLICY)
    stage.switch.on(by="anna")
    assert stage.switch.state.rehearsal is None
    assert not stage.ask("POST /notes", POLICY)
    stage.switch.off(by="anna")
    eventually(lambda: stage.switch.state.rehearsal is not None, what="the rehearsal going on")
    assert stage.ask("POST /notes", POLICY)
    assert stage.numbers.routes["POST /notes"].refused == 2


def test_who_rehearses_already_does_not_begin_again_and_who_is_closed_has_nothing_to_rehearse(stage: Stage) -> None:
    """And a length that makes no sense is no rehearsal."""
    with pytest.raises(NotYours, match=r"rehearses already.*rehearse stop"):
        rehearsal.begin(stage.store, ANNA, lasting=timedelta(hours=1))
    for lasting in (timedelta(0), timedelta(days=8)):
        with pytest.raises(ConfigurationError, match="makes no sense"):
            rehearsal.begin(stage.store, ANNA, lasting=lasting)
    assert rehearsal.stop(stage.store, ANNA).changed
    assert not rehearsal.stop(stage.store, ANNA).changed
    stage.switch.on(by="anna")
    with pytest.raises(NotYours, match="nothing to rehearse"):
        rehearsal.begin(stage.store, ANNA, lasting=timedelta(hours=1))


def test_the_fast_path_comes_back_when_it_is_over(stage: Stage) -> None:
    """It ends by its own time, too, and writes are admitted all the while."""
    assert not stage.switch.view.open
    assert stage.switch.admit() is None
    rehearsal.stop(stage.store, ANNA)
    eventually(lambda: stage.switch.view.open, what="the fast path")
    change = rehearsal.begin(stage.store, ANNA, lasting=timedelta(hours=1))
    eventually(lambda: not stage.switch.view.open, what="another rehearsal")
    # As if its time had come since.
    going_on = change.record.rehearsal
    assert going_on is not None
    short = replace(going_on, until=going_on.since, revision=going_on.revision + 1)
    new = dump(replace(change.record, epoch=change.record.epoch + 1, id="short", rehearsal=short))
    assert stage.store.replace(new, was=change.reading.record).record == new
    eventually(lambda: stage.switch.view.open, what="its end by itself")


def test_readers_who_were_signed_in_are_counted_once_each(stage: Stage) -> None:
    """And said of them: whether they would have been signed out."""
    for reader in ("ann", "ben", "ann"):
        assert stage.ask("GET /account", POLICY, cookie=f"session={reader}-0123456789")
    assert stage.ask("GET /account", POLICY)
    found = stage.numbers
    assert (found.signed_in, found.signed_out, found.readers.number()) == (3, 3, 2)
    assert any("signed in and would not have been" in note for note in notes(found))
    keeping = Policy(session_cookies=["session"], sessions="keep")
    assert stage.ask("GET /account", keeping, cookie="session=cleo")
    assert (stage.numbers.signed_in, stage.numbers.signed_out) == (4, 3)


def test_tokens_that_would_have_run_out_are_counted(stage: Stage) -> None:
    """By what a token says of itself; one that lasts longer, one that says nothing and rubbish do not count."""

    def token(expires: object) -> str:
        payload = base64.urlsafe_b64encode(json.dumps({"exp": expires}).encode()).decode().rstrip("=")
        return f"Bearer e30.{payload}.c2ln"

    soon, late = time.time() + 900, time.time() + 90_000
    for value in (token(soon), token(soon), token(soon + 1), token(late), token("x"), "Bearer opaque", "Basic x"):
        assert stage.ask("GET /api", headers={"authorization": value})
    assert (stage.numbers.bearers, stage.numbers.running_out.number()) == (6, 2)


def test_what_begins_and_ends_sessions_is_known_by_its_cookies(stage: Stage) -> None:
    """A cookie that is renewed begins nothing; a CSRF cookie is no session."""
    bare = Policy()
    begins = [("set-cookie", "sid=abcdefgh; HttpOnly; Path=/"), ("location", "/account")]
    ends = [("set-cookie", "sid=; Max-Age=0; Path=/")]
    assert stage.ask("POST /enter", bare, answer=begins)
    assert stage.ask("GET /oauth/x/callback", bare, answer=begins)
    assert stage.ask("POST /leave", bare, cookie="sid=abcdefgh", answer=ends)
    assert stage.ask("POST /search", bare, cookie="sid=abcdefgh", answer=begins)
    assert stage.ask("GET /form", bare, answer=[("set-cookie", "csrftoken=abcdefgh; HttpOnly")])
    assert wheres(stage) == [
        ("login", "GET /oauth/x/callback"),
        ("login", "POST /enter"),
        ("logout", "POST /leave"),
        ("writes", "POST /search"),
        ("session_cookies", "sid"),
    ]
    assert not looks_like_a_session("theme", "dark; HttpOnly")


def test_websockets_are_counted(stage: Stage) -> None:
    """One that is not declared would have been closed; declared, it stays."""
    assert stage.ask("WEBSOCKET /live/7")
    assert wheres(stage) == [("reads", "WEBSOCKET /live/{id}")]
    assert stage.ask("WEBSOCKET /live/7", Policy(reads=["WEBSOCKET /live/{id}"]))
    assert stage.numbers.routes["WEBSOCKET /live/{id}"].refused == 1


def test_jobs_are_counted_by_name(stage: Stage) -> None:
    """Functions by theirs, blocks by their place."""

    @stage.switch.writing()
    def import_prices() -> None:
        """Do nothing."""

    import_prices()
    import_prices()
    with stage.switch.writing():
        pass
    found = stage.numbers.jobs
    assert sum(found.values()) == 3
    assert [number for name, number in found.items() if name.endswith("import_prices")] == [2]
    assert [name for name in found if "test_counting.py:" in name], found


def test_a_get_that_uses_writing_is_found(stage: Stage) -> None:
    """It would have been refused, whatever it does."""

    def view() -> None:
        with stage.switch.writing():
            pass

    assert stage.ask("GET /export", view=view)
    assert wheres(stage) == [("writes", "GET /export")]
    assert not stage.numbers.jobs


# --- databases -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("asyncio_", [False, True], ids=["sync", "async"])
def test_a_get_that_writes_is_found_with_table_and_place(stage: Stage, asyncio_: bool, tmp_path: Path) -> None:
    """By the word of SQLite; a read is no write, what is rolled back is none, and what is discarded is set apart."""
    url = f"sqlite:///{tmp_path}/found.db"
    sync = create_engine(url)
    META.create_all(sync)
    engine = create_async_engine(url.replace("sqlite:", "sqlite+aiosqlite:")) if asyncio_ else sync
    database = Database(engine, stage.switch, discard=["seen"])

    def run(*statements: Any, commit: bool = True) -> None:
        if not asyncio_:
            with sync.connect() as connection:
                for one in statements:
                    connection.execute(one)
                if commit:
                    connection.commit()
            return

        async def arun() -> None:
            async with engine.connect() as connection:  # type: ignore[union-attr]
                for one in statements:
                    await connection.execute(one)
                if commit:
                    await connection.commit()

        asyncio.run(arun())

    try:
        assert stage.ask("GET /plain", view=lambda: run(select(NOTES)))
        assert stage.ask("GET /rolled", view=lambda: run(insert(NOTES).values(body="x"), commit=False))
        assert stage.ask("GET /page", view=lambda: run(insert(SEEN).values(page="p")))
        assert stage.ask("GET /count", view=lambda: run(insert(NOTES).values(body="x")))
        assert stage.ask("GET /text", view=lambda: run(text("UPDATE notes SET body = 'y'")))
        assert stage.ask("GET /both", view=lambda: run(insert(SEEN).values(page="p"), update(NOTES).values(body="z")))
        assert stage.ask("POST /form", view=lambda: run(insert(NOTES).values(body="x")))
        assert stage.ask("POST /seek", view=lambda: run(select(NOTES)))
        run(insert(NOTES).values(body="outside"))
    finally:
        database.close()
        if asyncio_:
            asyncio.run(engine.dispose())  # type: ignore[arg-type]
        META.drop_all(sync)
        sync.dispose()
    found = stage.numbers
    assert {rule: (r.wrote, r.dropped, sorted(r.tables)) for rule, r in found.routes.items()} == {
        "GET /rolled": (0, 0, []),
        "GET /page": (0, 1, []),
        "GET /count": (1, 0, ["main.notes"]),
        "GET /text": (1, 0, ["main.?"]),
        "GET /both": (1, 0, ["main.notes"]),
        "POST /form": (1, 0, ["main.notes"]),
        "POST /seek": (0, 0, []),
    }
    assert all("test_counting.py:" in r.tables[t] for r in found.routes.values() for t in r.tables)
    assert list(found.outside.values()) == ["main.notes"]
    assert list(dict.fromkeys(w for w in wheres(stage) if w[0] != "code")) == [
        ("discard", "notes"),
        ("writes", "GET /text"),
        ("writes", "POST /form"),
        ("reads", "POST /seek"),
    ]


def test_an_engine_is_as_it_was_when_it_is_over(stage: Stage) -> None:
    """Nothing of a rehearsal is left in anybody's way, and one that begins later is taken in."""
    engine = create_engine("sqlite://")
    before = dict(vars(engine.dialect))
    rehearsal.stop(stage.store, ANNA)
    eventually(lambda: stage.switch.state.rehearsal is None, what="its end")
    database = Database(engine, stage.switch)
    idle = dict(vars(engine.dialect))
    rehearsal.begin(stage.store, ANNA, lasting=timedelta(hours=1))
    eventually(lambda: dict(vars(engine.dialect)) != idle, what="the engine being listened to")
    rehearsal.stop(stage.store, ANNA)
    eventually(lambda: dict(vars(engine.dialect)) == idle, what="the engine being as it was")
    database.close()
    assert {k: v for k, v in vars(engine.dialect).items() if k in before} == before


def test_an_exempt_route_that_writes_is_a_fault(stage: Stage) -> None:
    """The gate looks away, the guard does not."""

    def view() -> None:
        work = current(stage.switch)
        assert work is not None
        assert work.noted is not None
        work.noted.transaction({"main.events": "hooks.py:3 in hook"}, dropped=False)

    assert stage.ask("POST /hook", POLICY, view=view)
    (one,) = advice(stage.numbers)
    assert (one.where, one.value) == ("code", "POST /hook")
    assert "hooks.py:3" in one.why
    assert "guard refuses" in one.why


# --- small, and printed ----------------------------------------------------------------------------------------------


def test_it_stays_small_whatever_visitors_send(stage: Stage) -> None:
    """Routes, cookies and clients are theirs to invent."""
    for number in range(MAX_ROUTES + 50):
        name = f"{number:x}".translate(str.maketrans("0123456789abcdef", "ghijklmnopqrstuv"))
        assert stage.ask(
            f"POST /{name}/x",
            headers={"user-agent": name * 100},
            answer=[("set-cookie", f"sess{name}={'x' * 3000}; HttpOnly")],
        )
    travelling = stage.switch.rehearsed.totals()
    assert len(travelling["routes"]) <= ROUTES_SENT + 1
    assert sum(one["refused"] for one in travelling["routes"].values()) == MAX_ROUTES + 50
    assert len(json.dumps(travelling)) < 30_000
    assert any(OTHER in note for note in notes(stage.numbers))


def test_how_many_there_were_is_nearly_right_and_adds_up() -> None:
    """Exactly for a few; within a third for many; whoever was seen by two processes is one."""
    few, one, two = Sketch(), Sketch(), Sketch()
    for number in range(SKETCH - 1):
        few.add("r", str(number))
        few.add("r", str(number))
    assert few.number() == SKETCH - 1
    for number in range(6000):
        one.add("r", str(number))
        two.add("r", str(number + 3000))
    one.merge(two.dump())
    assert 6000 < one.number() < 12000
    assert len(one.dump()) == SKETCH


def test_numbers_that_travel_come_back_and_rubbish_adds_nothing(stage: Stage) -> None:
    """A report is somebody else's word."""
    assert stage.ask("POST /a", cookie="session=x" * 2, policy=POLICY)
    there = stage.switch.rehearsed.totals()
    twice = Numbers()
    twice.add(there)
    twice.add(json.loads(json.dumps(there)))
    assert (twice.requests, twice.routes["POST /a"].refused) == (2, 2)
    before = twice.dump()
    for rubbish in (
        {}, {"requests": "7", "routes": []}, {"routes": {"x": 3}, "jobs": [], "readers": {"a": 1}},
        {"jobs": {"a": "b"}, "readers": ["x", -1, True], "clients": 3, "outside": None},
    ):  # fmt: skip
        twice.add(rubbish)
    assert twice.dump() == before


@pytest.mark.parametrize(
    ("path", "endpoint", "expected"),
    [
        ("/", None, "GET /"),
        ("/a/17/b", None, "GET /a/{id}/b"),
        ("/a/0b5f4c4e-7f5a-4c0e-9f57-0c8e9d0c7b11", None, "GET /a/{id}"),
        ("/a/b c/<script>", None, "GET /a/{part}/{part}"),
        ("/a/../b", None, "GET /a/{part}/b"),
        ("/a/*", None, "GET /a/{part}"),
        ("/" + "/".join("abcdefghijkl"), None, "GET /a/b/c/d/e/f/g/h/*"),
        ("/a/17", Endpoint("notes:one"), "GET name:notes:one"),
        ("/a/17", Endpoint("one", path="/a/{number}"), "GET /a/{number}"),
    ],
)
def test_a_route_is_named_by_a_rule(path: str, endpoint: Endpoint | None, expected: str) -> None:
    """Whatever it is made of, it can be put into a policy, and covers the request."""
    facts = Facts("GET", path, endpoint=endpoint)
    assert rule_of(facts) == expected
    made = rule(rule_of(facts))
    if path != "/a/../b":
        assert made.refuses(facts)


@pytest.mark.parametrize(
    ("agent", "expected"),
    [
        (None, "none"),
        ("Mozilla/5.0 (X11; Linux) Firefox/130", "browser"),
        ("Mozilla/5.0 (compatible; Googlebot/2.1)", "bot"),
        ("python-requests/2.32", "program"),
        ("MyApp/3 CFNetwork/1494", "app"),
        ("\x1b[31mwho", "other"),
    ],
)
def test_client_families(agent: str | None, expected: str) -> None:
    """A handful of words, whatever clients call themselves."""
    assert family(agent) == expected


def test_what_is_printed_is_python(stage: Stage) -> None:
    """Quotes and all."""
    assert stage.ask("POST /a", endpoint=Endpoint('it"s\\'))
    what = advice(stage.numbers)
    assert policy(what) == {"writes": ['POST name:it"s\\']}
    assert lines(what) == ['writes=["POST name:it\\"s\\\\"],']


def test_session_cookies_of_another_kind_are_known(stage: Stage) -> None:
    """One that the policy names with its settings, and one in the wrong place of a header."""
    named = Policy(session_cookies=[SessionCookie("id", signed=True)])
    assert stage.ask("GET /", named, cookie="a=1; id=x.y.z")
    assert stage.numbers.signed_in == 1


def test_a_view_that_fails_is_counted_all_the_same(stage: Stage) -> None:
    """It was asked for."""

    def view() -> None:
        raise ReadOnlyError("the application's own")

    with pytest.raises(ReadOnlyError):
        stage.ask("POST /broken", view=view)
    assert stage.numbers.routes["POST /broken"].refused == 1


def test_the_application_s_own_read_only_transaction_stays_its_own(stage: Stage, postgres_url: str) -> None:
    """Its error is no refusal of ours: nothing turns it into a 503 while a rehearsal goes on."""
    engine = create_engine(postgres_url.replace("postgresql://", "postgresql+psycopg://"))
    database = Database(engine, stage.switch)

    def view() -> None:
        with engine.connect().execution_options(postgresql_readonly=True) as connection:
            connection.execute(text("CREATE TABLE t (id int)"))

    with pytest.raises(InternalError, match="read-only transaction"):
        stage.ask("GET /own", view=view)
    database.close()
    engine.dispose()
