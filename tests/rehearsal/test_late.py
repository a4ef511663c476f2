"""Requests and tasks that outlive what they were counted in."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

from sqlalchemy import column, create_engine, insert, table, text
from sqlalchemy.pool import StaticPool

from readonly import Policy, rehearsal
from readonly.context import Notes, current
from readonly.databases.sqlalchemy import Database
from readonly.exchange import Exchange
from readonly.handling import Handling
from readonly.rehearsal_advice import advice, notes
from readonly.rules import Facts
from rehearsal.conftest import Stage
from support.operating import ANNA
from support.waiting import eventually


def noted(stage: Stage, found: list[Notes]) -> Callable[[], None]:
    """Return a view that begins a task, which goes on with the request's context."""

    def view() -> None:
        work = current(stage.switch)
        assert work is not None
        assert work.noted is not None
        found.append(work.noted)

    return view


def test_what_a_task_writes_after_its_request_is_that_routes(stage: Stage) -> None:
    """Once, however often it writes; and once more for the next request."""
    tasks: list[Notes] = []
    for _ in range(2):
        assert stage.ask("GET /start", view=noted(stage, tasks))
    assert not stage.numbers.routes
    for task in (*tasks, *tasks):
        task.transaction({"main.notes": "tasks.py:3 in later"}, droppable=["main.notes"])
    route = stage.numbers.routes["GET /start"]
    assert (route.passed, route.wrote, route.tables) == (2, 2, {"main.notes": "tasks.py:3 in later"})
    assert [(one.where, one.value) for one in advice(stage.numbers)] == [("discard", "notes")]


def test_a_request_that_outlives_its_rehearsal_takes_nothing_from_the_next_one(stage: Stage) -> None:
    """It was counted in the first, whose numbers are kept; the second one's stay."""
    handling: Handling[Any] = Handling(stage.switch, Policy(), None, None)
    slow = Exchange(handling, Facts("POST", "/slow"))
    assert slow.begin() is None
    first = stage.switch.rehearsed.of
    rehearsal.stop(stage.store, ANNA)
    eventually(lambda: not stage.switch.rehearsed.totals(), what="the first one's numbers being kept")
    rehearsal.begin(stage.store, ANNA, lasting=timedelta(hours=1))
    eventually(lambda: stage.switch.rehearsed.of not in ("", first), what="the second one")
    assert stage.ask("POST /quick")
    slow.end()
    assert stage.ask("POST /quick")
    assert {rule: one.refused for rule, one in stage.numbers.routes.items()} == {"POST /quick": 2}


def test_what_is_taken_back_is_worth_a_word(stage: Stage) -> None:
    """It is no write, and it would be refused all the same."""
    engine = create_engine("sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False})
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE notes (id INTEGER)"))
    database = Database(engine, stage.switch)

    def view() -> None:
        with engine.connect() as connection:
            connection.execute(insert(table("notes", column("id"))).values(id=1))
            connection.rollback()

    assert stage.ask("GET /tries", view=view)
    assert advice(stage.numbers) == ()
    assert [one for one in notes(stage.numbers) if one.startswith("GET /tries writes and takes it back (1 times)")]
    database.close()
    engine.dispose()
