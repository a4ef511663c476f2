"""What the load's clients write down of each answer: nothing is called accepted that was not promised."""

from __future__ import annotations

import asyncio
import io
import random

from demo_app import load
from demo_app.seen import Seen, from_lines
from demo_app.wire import Answer


def _seen_after(answer: Answer, **asked: str) -> Seen:
    """Return what a client writes down when it gets this answer."""
    book = load.Book(io.StringIO(), seed=1)
    client = load.Client("fan-00", "127.0.0.1", 1, book, random.Random(1))

    async def request(*_args: object, **_more: object) -> Answer:
        return answer

    client.connection.request = request  # type: ignore[method-assign]
    asyncio.run(client.ask(asked.pop("action", "read"), "POST", "/x", "/x", **asked))  # type: ignore[arg-type]
    book.flush()
    file = book._file
    assert isinstance(file, io.StringIO)
    (found,) = from_lines(file.getvalue().splitlines(keepends=True))
    return found


def _answer(status: int, body: bytes = b"", **headers: str) -> Answer:
    return Answer(status, {name.replace("_", "-"): [value] for name, value in headers.items()}, body)


def test_a_page_that_greets() -> None:
    """The name in the page's body says who is logged in; an empty one, nobody."""
    greeted = _seen_after(_answer(200, b'<html><body data-account="fan-00">'))
    nobody = _seen_after(_answer(200, b'<html><body data-account="">'))
    silent = _seen_after(_answer(200, b"{}"))
    assert (greeted.signed_in, nobody.signed_in, silent.signed_in) == ("fan-00", "", None)


def test_being_sent_to_the_login() -> None:
    """Whoever is sent to the login form is not logged in; nothing of theirs was stored."""
    found = _seen_after(_answer(303, location="/login?next=/account"), action="write", kind="name", text="x")
    assert (found.signed_in, found.accepted, found.refused) == ("", False, False)


def test_an_accepted_comment() -> None:
    """Only an answer that names the row is an acknowledgement."""
    by_form = _seen_after(_answer(303, location="/articles/a#comment-12"), action="write", kind="comment", text="x")
    by_api = _seen_after(_answer(201, b'{"id": 13}'), action="write", kind="comment", text="x")
    assert [(found.accepted, found.row) for found in (by_form, by_api)] == [(True, 12), (True, 13)]


def test_a_refusal() -> None:
    """503 and the 403 of an ended session are refusals, with what they say about coming back."""
    answer = _answer(503, retry_after="61", x_read_only="true")
    found = _seen_after(answer, action="write", kind="comment", text="x")
    assert (found.refused, found.accepted, found.retry_after, found.read_only) == (True, False, "61", True)
    assert _seen_after(_answer(403), action="write").refused
    assert not _seen_after(_answer(403)).refused


def test_a_read_that_failed() -> None:
    """A read is served or it is an error."""
    assert [_seen_after(_answer(status)).error for status in (200, 303, 404, 503)] == [
        "",
        "",
        "status 404",
        "status 503",
    ]


def test_a_login() -> None:
    """A cookie that is set begins a session; one that is expired begins none."""
    entered = _seen_after(_answer(303, set_cookie="session=abc; Path=/; HttpOnly"), action="login")
    expired = _seen_after(_answer(303, set_cookie="session=; Max-Age=0; Path=/"), action="login")
    cleared = _seen_after(
        _answer(303, set_cookie="session=null; expires=Thu, 01 Jan 1970 00:00:00 GMT"), action="login"
    )
    assert [found.entered for found in (entered, expired, cleared)] == [True, False, False]


def test_a_line_that_is_still_being_written() -> None:
    """Half a line is left for the next look."""
    whole = Seen("c", "read", "GET /", 1, 2, 200, signed_in="").as_line() + "\n"
    assert list(from_lines([whole, whole[:-5]])) == [Seen("c", "read", "GET /", 1, 2, 200, signed_in="")]
