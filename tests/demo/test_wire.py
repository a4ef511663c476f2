"""The load generator's HTTP client, over real sockets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from demo_app.wire import Answer, Broken, Connection

Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def server(talk: Talk) -> AsyncIterator[int]:
    """Serve connections by `talk` on a free port."""

    async def once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await talk(reader, writer)
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()
            await writer.wait_closed()

    listening = await asyncio.start_server(once, "127.0.0.1", 0)
    try:
        yield listening.sockets[0].getsockname()[1]
    finally:
        listening.close()


async def one_request(port: int, method: str = "GET", body: bytes = b"", *, slowly_seconds: float = 0.0) -> Answer:
    """Send one request on a connection of its own."""
    connection = Connection("127.0.0.1", port)
    try:
        return await connection.request(method, "/", {}, body, slowly_seconds=slowly_seconds)
    finally:
        connection.close()


def answering(*answers: bytes) -> Talk:
    """Answer the requests of a connection one after the other with these bytes, then close it."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for answer in answers:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(answer)
            await writer.drain()

    return talk


async def test_an_answer_with_a_length() -> None:
    """Status, repeated headers and body; the connection is used again."""
    first = b"HTTP/1.1 200 OK\r\nSet-Cookie: a=1\r\nset-cookie: b=2\r\nContent-Length: 5\r\n\r\nhello"
    second = b"HTTP/1.1 303 See Other\r\nLocation: /x\r\nContent-Length: 0\r\n\r\n"
    async with server(answering(first, second)) as port:
        connection = Connection("127.0.0.1", port)
        answer = await connection.request("GET", "/", {})
        assert (answer.status, answer.headers["set-cookie"], answer.body) == (200, ["a=1", "b=2"], b"hello")
        assert (await connection.request("GET", "/", {})).header("location") == "/x"
        connection.close()


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2;x=y\r\nlo\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello",
    ],
    ids=["chunked", "until the end", "the last one"],
)
async def test_other_ways_to_end_a_body(answer: bytes) -> None:
    """Chunks, the end of the connection, and an announced end."""
    async with server(answering(answer)) as port:
        connection = Connection("127.0.0.1", port)
        for _ in range(2):
            assert (await connection.request("GET", "/", {})).body == b"hello"
            if b"chunked" in answer:
                connection.close()
        connection.close()


async def test_a_slow_body_that_is_refused() -> None:
    """An answer that comes before the body has been sent is heard, though the server closes."""
    refusal = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 60\r\nContent-Length: 2\r\n\r\nno"
    async with server(answering(refusal)) as port:
        answer = await one_request(port, "POST", b"x" * 100, slowly_seconds=30)
        assert (answer.status, answer.header("retry-after")) == (503, "60")


async def test_a_slow_body_that_is_taken() -> None:
    """The body arrives in pieces, and whole."""
    got = bytearray()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        got.extend(await reader.readexactly(10))
        writer.write(b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()

    async with server(talk) as port:
        answer = await one_request(port, "POST", b"0123456789", slowly_seconds=0.05)
    assert (answer.status, bytes(got)) == (201, b"0123456789")


@pytest.mark.parametrize("sent", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhel", b"nonsense\r\n\r\n"])
async def test_no_whole_answer(sent: bytes) -> None:
    """Whatever is not an answer is `Broken`, and never taken for one."""
    async with server(answering(sent)) as port:
        with pytest.raises(Broken):
            await one_request(port)


async def test_nobody_there() -> None:
    """A refused connection is `Broken`, too."""
    async with server(answering()) as port:
        pass
    with pytest.raises(Broken):
        await one_request(port)
