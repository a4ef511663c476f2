"""A small HTTP/1.1 client for the load: so cheap that two cores are busy with the site and not with the load."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

IDLE_LIMIT_SECONDS: Final = 2.0
"""A connection that lay idle for longer is opened anew: servers close idle ones (uvicorn: after 5 s), and a request
that crosses that close is neither accepted nor refused."""

LARGEST_HEAD: Final = 64 * 1024


class Broken(Exception):
    """No whole answer came: the connection was refused, closed or silent."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back; header names are in lower case, and of a repeated one all values are kept."""

    status: int
    headers: Mapping[str, Sequence[str]]
    body: bytes

    def header(self, name: str) -> str:
        """Return the first value of a header, or nothing."""
        values = self.headers.get(name)
        return values[0] if values else ""


class Connection:
    """One client's connection to the site, kept open between its requests. One request at a time."""

    def __init__(self, host: str, port: int, *, timeout: float = 60.0) -> None:
        self._host = host
        self._port = port
        self._timeout = timeout
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._used_at_monotonic = 0.0

    async def request(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str],
        body: bytes = b"",
        *,
        slowly_seconds: float = 0.0,
    ) -> Answer:
        """Send a request and return its answer. Nothing is sent twice.

        Args:
            method: Method, in capitals.
            path: Path and query, already encoded.
            headers: Headers besides Host and Content-Length.
            body: The whole body.
            slowly_seconds: Over how long the body is spread, as from a phone in a tunnel.

        Raises:
            Broken: If no whole answer came.
        """
        head = [f"{method} {path} HTTP/1.1", f"host: {self._host}:{self._port}"]
        head.extend(f"{name}: {value}" for name, value in headers.items())
        if body or method not in ("GET", "HEAD"):
            head.append(f"content-length: {len(body)}")
        start = ("\r\n".join(head) + "\r\n\r\n").encode("latin-1")
        try:
            async with asyncio.timeout(self._timeout + slowly_seconds):
                reader, writer = await self._open()
                if slowly_seconds:
                    answer, last = await self._slowly(reader, writer, method, start, body, slowly_seconds)
                else:
                    writer.write(start + body)
                    answer, last = await self._answer(reader, method)
        except (OSError, EOFError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError) as error:
            self.close()
            raise Broken(f"{type(error).__name__}: {error}") from error
        except BaseException:
            self.close()
            raise
        self._used_at_monotonic = time.monotonic()
        if last:
            self.close()
        return answer

    def close(self) -> None:
        """Close the connection; the next request opens another."""
        if self._writer is not None:
            self._writer.close()
        self._reader = self._writer = None

    async def _open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        idle = time.monotonic() - self._used_at_monotonic
        if self._reader is not None and self._writer is not None:
            if idle < IDLE_LIMIT_SECONDS and not self._reader.at_eof():
                return self._reader, self._writer
            self.close()
        self._reader, self._writer = await asyncio.open_connection(self._host, self._port, limit=LARGEST_HEAD)
        return self._reader, self._writer

    async def _slowly(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        method: str,
        start: bytes,
        body: bytes,
        seconds: float,
    ) -> tuple[Answer, bool]:
        pieces = [body[at : at + max(1, len(body) // 4)] for at in range(0, len(body), max(1, len(body) // 4))]
        writer.write(start)
        # A site that refuses answers before the body has come, and closes: the answer must be read by then.
        answering = asyncio.create_task(self._answer(reader, method))
        try:
            for piece in pieces:
                await asyncio.wait({answering}, timeout=seconds / len(pieces))
                if answering.done():
                    answer, _ = await answering
                    return answer, True
                writer.write(piece)
            return await answering
        finally:
            answering.cancel()

    async def _answer(self, reader: asyncio.StreamReader, method: str) -> tuple[Answer, bool]:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        status_line, *lines = head[:-4].split("\r\n")
        version, status_text, *_ = [*status_line.split(" ", 2), ""]
        if not version.startswith("HTTP/1."):
            raise ValueError(f"{status_line!r} is no status line")
        status = int(status_text)
        headers: dict[str, list[str]] = {}
        for line in lines:
            name, _, value = line.partition(":")
            headers.setdefault(name.strip().lower(), []).append(value.strip())
        last = headers.get("connection", [""])[0].lower() == "close"
        if method == "HEAD" or status in (204, 304):
            body = b""
        elif "content-length" in headers:
            body = await reader.readexactly(int(headers["content-length"][0]))
        elif headers.get("transfer-encoding", [""])[0].lower() == "chunked":
            body = await self._chunks(reader)
        else:
            body, last = await reader.read(), True
        return Answer(status, headers, body), last

    async def _chunks(self, reader: asyncio.StreamReader) -> bytes:
        body = bytearray()
        while size := int((await reader.readline()).split(b";")[0], 16):
            body += await reader.readexactly(size)
            await reader.readline()
        await reader.readline()
        return bytes(body)
