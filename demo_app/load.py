"""`python -m demo_app.load`: visitors of every kind at once, and a record of what each of them saw.

It knows nothing of switches: it is told an address and for how long, and behaves as visitors do.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import itertools
import json
import random
import re
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, TextIO
from urllib.parse import urlencode, urlsplit

from demo_app import story
from demo_app.seen import Action, Seen
from demo_app.wire import Answer, Broken, Connection

SESSION_COOKIE: Final = "session"
SERVED: Final = (200, 303, 304)
FORM: Final = "application/x-www-form-urlencoded"

# How many of each, and how long each pauses between two requests (seconds, before jitter). Together a few hundred
# requests a second: two workers on two busy cores can answer that, and the load keeps its own share of them small.
READERS, READER_PAUSE = 10, 0.06
MEMBERS, MEMBER_PAUSE = 30, 0.30
PROGRAMS, PROGRAM_PAUSE = 4, 0.08
ENTRANTS, ENTRANT_PAUSE = 3, 0.15
OAUTH_ENTRANTS, OAUTH_PAUSE = 2, 0.20
SLOW_PHONES, SLOW_SECONDS = 4, 0.6
FLUSH_SECONDS: Final = 0.1

_GREETED = re.compile(rb'<body data-account="([^"]*)"')
_COMMENT_ROW = re.compile(r"#comment-(\d+)$")
WORDS: Final = ("moth", "harbour", "league", "corner", "wind", "barn", "nothing", "lap", "river", "stage")


class Closed(Exception):
    """The time is over: nobody sends another request."""


class Book:
    """Where every client writes down what it saw; a file that others may follow while it grows."""

    def __init__(self, file: TextIO, *, seed: int) -> None:
        self._file = file
        self._waiting: list[Seen] = []
        self._numbers = itertools.count(1)
        self._run = f"{seed:x}"
        self.closed = False

    def unique(self, client: str) -> str:
        """Return a text that no other write of this run has."""
        return f"{client} {self._run}-{next(self._numbers):06d}"

    def add(self, seen: Seen) -> None:
        """Write down one request."""
        self._waiting.append(seen)

    def flush(self) -> None:
        """Hand everything to the file."""
        if self._waiting:
            self._file.write("".join(seen.as_line() + "\n" for seen in self._waiting))
            self._file.flush()
            self._waiting.clear()


class Client:
    """One visitor: a connection, a cookie jar with one cookie in it, and a name."""

    def __init__(
        self, name: str, host: str, port: int, book: Book, chance: random.Random, *, pace: float = 1.0
    ) -> None:  # fmt: skip
        self.name = name
        self.book = book
        self.chance = chance
        self.pace = pace
        self.connection = Connection(host, port)
        self.cookie = ""
        self.session: int | None = None
        self.bearer = ""

    async def pause(self, seconds: float) -> None:
        """Do nothing for about this long."""
        await asyncio.sleep(seconds * self.pace * self.chance.uniform(0.5, 1.5))

    async def get(self, path: str, route: str, **more: object) -> Answer | None:
        """Read a page."""
        return await self.ask("read", "GET", path, route, **more)  # type: ignore[arg-type]  # passed on as they are

    async def send_form(
        self, action: Action, path: str, route: str, form: Mapping[str, str], **more: object
    ) -> Answer | None:
        """Send a form."""
        body = urlencode(form).encode()
        return await self.ask(action, "POST", path, route, body=body, content_type=FORM, **more)  # type: ignore[arg-type]  # see above

    async def ask(
        self,
        action: Action,
        method: str,
        path: str,
        route: str,
        *,
        body: bytes = b"",
        content_type: str = "",
        kind: str = "",
        text: str = "",
        slowly_seconds: float = 0.0,
        cookie: tuple[str, int | None] | None = None,
    ) -> Answer | None:
        """Send a request, write down what came of it, and keep the cookie that came with it.

        Args:
            action: What this is meant to be.
            method: HTTP method.
            path: Path and query.
            route: The path with names for what varies.
            body: The body.
            content_type: Its type.
            kind: What a write would store.
            text: The unique text that it would store.
            slowly_seconds: Over how long the body is spread.
            cookie: Another session cookie than the one in the jar, and since when it is one; the answer's are ignored.

        Returns:
            The answer, or None if there was none.

        Raises:
            Closed: If the time is over.
        """
        if self.book.closed:
            raise Closed
        value, session = (self.cookie, self.session) if cookie is None else cookie
        headers = {"accept": "application/json" if path.startswith(("/api/", "/scores.json")) else "text/html"}
        if value:
            headers["cookie"] = f"{SESSION_COOKIE}={value}"
        if self.bearer:
            headers["authorization"] = f"Bearer {self.bearer}"
        if content_type:
            headers["content-type"] = content_type
        start = time.monotonic_ns()
        answer: Answer | None = None
        error = ""
        try:
            answer = await self.connection.request(method, path, headers, body, slowly_seconds=slowly_seconds)
        except (Broken, TimeoutError) as broken:
            error = f"{type(broken).__name__}: {broken}"
        end = time.monotonic_ns()
        if answer is not None and action == "read" and answer.status not in SERVED:
            error = f"status {answer.status}"
        row = _row(answer) if kind == "comment" else None
        entered = cookie is None and answer is not None and self._keep_cookie(answer, start)
        self.book.add(
            Seen(
                client=self.name,
                action=action,
                route=f"{method} {route}",
                start=start,
                end=end,
                status=0 if answer is None else answer.status,
                error=error,
                retry_after="" if answer is None else answer.header("retry-after"),
                read_only=answer is not None and answer.header("x-read-only") == "true",
                signed_in=_signed_in(answer),
                session=session if value else None,
                entered=entered,
                accepted=_accepted(answer, kind, row, entered),
                kind=kind,
                text=text,
                row=row,
            )
        )
        return answer

    def _keep_cookie(self, answer: Answer, sent_at: int) -> bool:
        entered = False
        for line in answer.headers.get("set-cookie", ()):
            pair, *attributes = line.split(";")
            name, _, value = pair.strip().partition("=")
            if name != SESSION_COOKIE:
                continue
            settings = [attribute.strip().lower() for attribute in attributes]
            gone = value in ("", "null", '""') or any(
                setting == "max-age=0" or (setting.startswith("expires=") and "1970" in setting) for setting in settings
            )
            self.cookie, self.session = ("", None) if gone else (value, sent_at)
            entered = not gone
        return entered


def _row(answer: Answer | None) -> int | None:
    if answer is None:
        return None
    if answer.status == 201:
        return int(json.loads(answer.body)["id"])
    found = _COMMENT_ROW.search(answer.header("location"))
    return int(found[1]) if found else None


def _signed_in(answer: Answer | None) -> str | None:
    if answer is None:
        return None
    if answer.status == 303 and answer.header("location").startswith("/login"):
        return ""
    if answer.status == 200 and (found := _GREETED.search(answer.body, 0, 8192)):
        return found[1].decode()
    return None


def _accepted(answer: Answer | None, kind: str, row: int | None, entered: bool) -> bool:
    """Return whether the answer promises that the write is stored."""
    if answer is None:
        return False
    if kind == "comment":
        return row is not None
    if kind == "name":
        return answer.status == 303 and answer.header("location").startswith("/account?saved")
    if kind == "account":
        return answer.status == 303 and entered
    return False


# --- the visitors -----------------------------------------------------------------------------------------------------


def _article(client: Client) -> str:
    return client.chance.choice(story.ARTICLES).slug


async def read_something(client: Client) -> None:
    """Do what anonymous readers do, by weights that resemble a day's log."""
    draw = client.chance.random()
    if draw < 0.25:
        await client.get("/", "/")
    elif draw < 0.45:
        await client.get(f"/articles/{_article(client)}", "/articles/{slug}")
    elif draw < 0.55:
        await client.get(f"/sections/{client.chance.choice(story.SECTIONS).slug}", "/sections/{section}")
    elif draw < 0.80:
        await client.get("/scores.json", "/scores.json")
    elif draw < 0.85:
        await client.get("/scores", "/scores")
    elif draw < 0.92:
        await client.get("/api/articles", "/api/articles")
    elif draw < 0.94:
        await client.get("/static/site.css", "/static/site.css")
    else:
        words = {"words": client.chance.choice(WORDS)}
        await client.send_form("read", "/search", "/search", words)


async def be_a_reader(client: Client) -> None:
    """Somebody without an account."""
    while True:
        await read_something(client)
        await client.pause(READER_PAUSE)


async def log_in(client: Client, account: str) -> bool:
    """Send the login form; return whether this began a session."""
    form = {"name": account, "password": account, "next": "/account"}
    await client.send_form("login", "/login", "/login", form)
    return bool(client.cookie)


async def be_a_member(client: Client) -> None:
    """Somebody who logs in once, reads and writes, and wants back in when logged out.

    The old cookie is kept and tried again later, as a stolen or restored one would be: it must stay worthless.
    """
    outlived: tuple[str, int | None] | None = None
    await client.pause(2 * MEMBER_PAUSE)
    while True:
        before = (client.cookie, client.session)
        answer = await client.get("/account", "/account")
        if answer is not None and answer.status == 303:
            outlived = before if before[0] else outlived
            if outlived is not None:
                await client.get("/account", "/account (old cookie)", cookie=outlived)
            # A form that was open when the session ended is sent all the same, now and then.
            if client.chance.random() < 0.5:
                await write_something(client)
            await client.pause(MEMBER_PAUSE)
            await log_in(client, client.name)
        else:
            await write_something(client)
        await client.pause(MEMBER_PAUSE)


async def write_something(client: Client) -> None:
    """Post a comment, or change one's name."""
    text = client.book.unique(client.name)
    if client.chance.random() < 0.75:
        await client.send_form(
            "write",
            f"/articles/{_article(client)}/comments",
            "/articles/{slug}/comments",
            {"body": text},
            kind="comment",
            text=text,
        )
    else:
        await client.send_form("write", "/account", "/account", {"display_name": text}, kind="name", text=text)


async def learn_token(client: Client) -> None:
    """Fetch the token for the API with a session, and go on without that session."""
    while not client.bearer:
        if await log_in(client, client.name):
            answer = await client.get("/api/account", "/api/account")
            if answer is not None and answer.status == 200:
                client.bearer = json.loads(answer.body)["api_token"]
        await client.pause(PROGRAM_PAUSE)
    client.cookie, client.session = "", None


async def post_by_api(client: Client, *, slowly_seconds: float = 0.0) -> None:
    """Post a comment with the token."""
    text = client.book.unique(client.name)
    number = client.chance.randint(1, len(story.ARTICLES))
    await client.ask(
        "write",
        "POST",
        f"/api/articles/{number}/comments",
        "/api/articles/{id}/comments",
        body=json.dumps({"body": text}).encode(),
        content_type="application/json",
        kind="comment",
        text=text,
        slowly_seconds=slowly_seconds,
    )


async def be_a_program(client: Client) -> None:
    """Somebody's script: writes and reads by the JSON API."""
    await learn_token(client)
    for turn in itertools.count():
        if turn % 3:
            await post_by_api(client)
        else:
            number = client.chance.randint(1, len(story.ARTICLES))
            await client.get(f"/api/articles/{number}/comments", "/api/articles/{id}/comments")
        await client.pause(PROGRAM_PAUSE)


async def be_a_slow_phone(client: Client) -> None:
    """Somebody in a tunnel: there is nearly always one of these whose write has begun and not ended."""
    await learn_token(client)
    while True:
        await post_by_api(client, slowly_seconds=SLOW_SECONDS * client.chance.uniform(0.5, 1.5))
        await client.pause(PROGRAM_PAUSE)


async def be_an_entrant(client: Client) -> None:
    """Somebody who logs in and out all day, and sometimes makes a new account."""
    for turn in itertools.count():
        await client.get("/login", "/login")
        if turn % 3 == 2:
            name = client.book.unique(client.name).replace(" ", "-")
            form = {"name": name, "display_name": name, "password": name}
            await client.send_form("login", "/register", "/register", form, kind="account", text=name)
        else:
            await log_in(client, client.name)
        await client.get("/account", "/account")
        if client.cookie:
            await client.send_form("logout", "/logout", "/logout", {})
        await client.pause(ENTRANT_PAUSE)


async def be_an_oauth_entrant(client: Client) -> None:
    """Somebody who comes in by a GET, with a code from a sign-in service."""
    service = client.chance.choice(("lighthouse", "harbour"))
    while True:
        answer = await client.get(f"/oauth/{service}/authorize?name={client.name}", "/oauth/{provider}/authorize")
        if answer is not None and answer.status == 303:
            await client.ask("login", "GET", answer.header("location"), "/oauth/{provider}/callback")
        await client.get("/account", "/account")
        if client.cookie:
            await client.send_form("logout", "/logout", "/logout", {})
        await client.pause(OAUTH_PAUSE)


# How many of each kind; and whether they have an account.
LIVES: Final = (
    (READERS, be_a_reader, False),
    (MEMBERS, be_a_member, True),
    (PROGRAMS, be_a_program, True),
    (SLOW_PHONES, be_a_slow_phone, True),
    (ENTRANTS, be_an_entrant, True),
    (OAUTH_ENTRANTS, be_an_oauth_entrant, False),
)


def kind_of(life: Callable[[Client], Awaitable[None]]) -> str:
    """Return what a kind of visitor is called: `be_a_slow_phone` is a `slow-phone`."""
    return life.__name__.removeprefix("be_").removeprefix("an_").removeprefix("a_").replace("_", "-")


async def run(
    base_url: str, seconds: float, file: TextIO, *, seed: int, pace: float = 1.0, kinds: Sequence[str] = ()
) -> None:  # fmt: skip
    """Let everybody in for so many seconds, or until SIGTERM."""
    address = urlsplit(base_url)
    host, port = address.hostname or "127.0.0.1", address.port or 80
    book = Book(file, seed=seed)
    accounts = (story.load_reader(number).name for number in itertools.count())

    async def live(life: Callable[[Client], Awaitable[None]], client: Client) -> None:
        try:
            with contextlib.suppress(Closed):
                await life(client)
        finally:
            client.connection.close()

    def clients(count: int, life: Callable[[Client], Awaitable[None]], *, known: bool) -> list[Awaitable[None]]:
        kind = kind_of(life)
        if kinds and kind not in kinds:
            return []
        names = [next(accounts) if known else f"{kind}-{number}" for number in range(count)]
        return [
            live(life, Client(name, host, port, book, random.Random(f"{seed} {name}"), pace=pace)) for name in names
        ]

    lives = [one for count, life, known in LIVES for one in clients(count, life, known=known)]

    async def keep_book() -> None:
        while True:
            await asyncio.sleep(FLUSH_SECONDS)
            book.flush()

    tasks = [asyncio.ensure_future(life) for life in lives]
    keeper = asyncio.create_task(keep_book())
    over = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, over.set)
    ending = asyncio.create_task(over.wait())
    try:
        # A client that ends by itself has died of a mistake of the load's own, and must not be missing in silence.
        done, _ = await asyncio.wait({*tasks, ending}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            await task
        # What has been sent is waited for: an answer that nobody heard would be a write that nobody can judge.
        book.closed = True
        await asyncio.gather(*tasks)
    finally:
        for task in (*tasks, keeper, ending):
            task.cancel()
        await asyncio.gather(*tasks, keeper, ending, return_exceptions=True)
        book.flush()


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(prog="python -m demo_app.load", description=__doc__)
    parser.add_argument("--base-url", required=True)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=None, help="repeats the order in which clients do things")
    parser.add_argument("--pace", type=float, default=1.0, help="so many times as long is each pause")
    parser.add_argument("--kind", action="append", choices=[kind_of(life) for _, life, _ in LIVES], help="only these")
    options = parser.parse_args(arguments)
    seed = options.seed if options.seed is not None else time.time_ns() % 0xFFFFFF
    # Records pile up and form no cycles; collecting them would show as pauses in what is measured.
    gc.disable()
    with options.out.open("w", encoding="utf-8") as file:
        asyncio.run(
            run(options.base_url, options.seconds, file, seed=seed, pace=options.pace, kinds=options.kind or ())
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
