"""A rehearsal on the demo site under the demo's load: what it finds, and that what it prints is enough."""

from __future__ import annotations

import ast
import asyncio
import os
import signal
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TextIO

import pytest
import uvicorn

from demo_app.data import prepare
from demo_app.load import run as load
from demo_app.on_starlette.app import create_app
from demo_app.seen import Seen, from_lines
from demo_app.settings import Settings
from readonly import Policy, Switch, rehearsal
from readonly.rehearsal import Found, found
from readonly.rehearsal_advice import Advice, advice, lines
from readonly.rehearsal_page import page
from readonly.site import Site
from readonly.stores import Store, store_from_url
from support.operating import ANNA
from support.waiting import eventually

# The load goes on until its book has all of these: what reads, or ends something, and what is to have been accepted.
SEEN = {"GET /articles/{slug}", "POST /logout", "POST /search"}
DONE = {
    "GET /oauth/{provider}/callback",
    "POST /account",
    "POST /api/articles/{id}/comments",
    "POST /articles/{slug}/comments",
    "POST /login",
    "POST /register",
}


@contextmanager
def served(settings: Settings, switch: Switch, rules: Policy, discard: tuple[str, ...]) -> Iterator[str]:
    """Serve the demo site in a thread; yields its address."""
    app = create_app(settings, switch=switch, rules=rules, discard=discard)
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning", lifespan="on"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        eventually(lambda: server.started, what="the site being served")
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(20)
        switch.close()


def worked(seen: Iterable[Seen]) -> set[str]:
    """Return the routes by which something was written, or somebody has signed in."""
    used = {one.route for one in seen if one.action in ("write", "login") and one.accepted}
    return used | {one.route for one in seen if one.action == "login" and one.entered}


async def loaded(url: str, book: Path, file: TextIO) -> None:
    """Let visitors in until each has done what is wanted."""

    def done() -> bool:
        seen = [one for one in from_lines(book.read_text().splitlines(keepends=True)) if not one.error]
        return {one.route for one in seen} >= SEEN and worked(seen) >= DONE

    running = asyncio.create_task(load(url, 120.0, file, seed=6))
    while not running.done() and not done():
        await asyncio.wait((running,), timeout=0.2)
    if not running.done():
        os.kill(os.getpid(), signal.SIGTERM)  # which the load takes for the end of its time
    await running
    assert done()


def rehearsed(
    folder: Path, settings: Settings, store: Store, rules: Policy, discard: tuple[str, ...]
) -> tuple[Found, list[Seen]]:
    """Rehearse under the load; return what was found, and what the load did."""
    switch = Switch.from_url(settings.store)
    book = folder / "book"
    with served(settings, switch, rules, discard) as url, book.open("w") as file:
        rehearsal.begin(store, ANNA, lasting=timedelta(hours=1))
        eventually(lambda: switch.view.state.rehearsal is not None, what="the site rehearsing")
        asyncio.run(loaded(url, book, file))
        rehearsal.stop(store, ANNA)
        eventually(lambda: switch.view.state.rehearsal is None, what="the rehearsal being over")
        eventually(lambda: not switch.rehearsed.totals(), what="what was counted being kept")
    result = found(Site.from_config(store=settings.store))
    assert result is not None
    return result, list(from_lines(book.read_text().splitlines(keepends=True)))


def printed(what: tuple[Advice, ...]) -> dict[str, list[str]]:
    """Return the lines that are printed, read as the Python that they are."""
    call = ast.parse("f(" + "\n".join(lines(what)) + "\n)", mode="eval").body
    assert isinstance(call, ast.Call)
    return {str(word.arg): ast.literal_eval(word.value) for word in call.keywords}


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """The demo site's files."""
    made = Settings.in_folder(tmp_path, secret="s3cret-of-the-demo")
    monkeypatch.setenv("READONLY_STATE_DIR", str(tmp_path))
    prepare(made)
    return made


def test_the_policy_that_it_prints_makes_the_next_rehearsal_clean(tmp_path: Path, settings: Settings) -> None:
    """Every write route that the load used, the GET that writes, the OAuth callback; and then nothing is left."""
    store = store_from_url(settings.store)
    first, seen = rehearsed(tmp_path, settings, store, Policy(), ())
    assert all(not one.error for one in seen), "nothing was refused, and nothing broke"
    assert all(one.status < 500 and not one.read_only for one in seen)
    assert first.numbers.requests == len(seen)

    used = worked(seen)
    assert used == DONE
    what = advice(first.numbers)
    told = printed(what)
    writing = {*told["writes"], *told["login"]}
    assert used <= writing, used - writing
    assert "GET /oauth/{provider}/callback" in told["login"]
    assert "page_view" in told["discard"]
    views = next(one for one in what if one.value == "page_view")
    assert "queries.py:" in views.why, "with the place in the code"
    assert "GET /articles/{slug}" in views.why
    assert "POST /search" in told["reads"]
    assert "POST /logout" in told["logout"]
    assert "<script" not in page("touchline", first)

    discard = tuple(told.pop("discard"))
    rules = Policy(**told, secret=settings.secret)  # type: ignore[arg-type]  # lists of rules, all of them
    second, seen = rehearsed(tmp_path, settings, store, rules, discard)
    assert advice(second.numbers) == ()
    assert second.numbers.requests == len(seen)
    assert second.numbers.signed_in > 0
    assert second.numbers.readers.number() > 0
    assert second.numbers.routes["GET /articles/{slug}"].dropped > 0
    assert sum(route.refused for route in second.numbers.routes.values()) > 0
    store.close()
