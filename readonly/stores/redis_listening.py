"""Waiting for a word from Redis: the connection that listens, and how such a wait is ended from inside."""

from __future__ import annotations

import contextlib
import os
import selectors
import time
from collections.abc import Callable, Collection
from typing import Any

from .redis_connection import Connection, NoAnswer

# A connection that listens is given up when a ping on it is not answered for so long. TCP alone may take
# minutes.
DEAD_SECONDS = 1.5
# Pings are for a connection that listens and is dead while the other one lives, which is rare; what is lost by it the
# next heartbeat finds. A ping costs the server a third of one, so those of many members are rarer than these.
PING_SECONDS = 1.0
PINGS_PER_SECOND = 10.0


class Waker:
    """A pipe to itself: the one way to end a wait for a socket that a signal handler may use."""

    def __init__(self) -> None:
        self.read_end, self._write_end = os.pipe()
        os.set_blocking(self.read_end, False)
        os.set_blocking(self._write_end, False)

    def ring(self) -> None:
        """End a wait, or the next one."""
        with contextlib.suppress(BlockingIOError):  # full: it rings already
            os.write(self._write_end, b"\0")

    def quiet(self) -> None:
        """Ring no more."""
        with contextlib.suppress(BlockingIOError):
            os.read(self.read_end, 65536)

    def __del__(self) -> None:
        with contextlib.suppress(AttributeError, OSError):
            os.close(self.read_end)
            os.close(self._write_end)


class Listener:
    """A connection that listens, from its subscription on.

    Attributes:
        connection: It.
        channels: What it is subscribed to.

    Args:
        connection: A new one, which is closed if it can't be subscribed.
        waker: Ends a wait.
        channels: What to subscribe to.
    """

    def __init__(self, connection: Connection, waker: Waker, channels: Collection[str]) -> None:
        self.connection = connection
        self.channels = frozenset(channels)
        try:
            connection.send_command("SUBSCRIBE", *sorted(channels))
            for _ in channels:
                connection.read_response()
            self._selector = getattr(selectors, "PollSelector", selectors.SelectSelector)()
            self._selector.register(connection._sock, selectors.EVENT_READ)
            self._selector.register(waker.read_end, selectors.EVENT_READ)
        except BaseException:
            connection.disconnect()
            raise
        # When something last came, when it was last looked at, and when a ping was sent that was not answered: all on
        # the monotonic clock.
        self._heard = self._looked = time.monotonic()
        self._pinged: float | None = None

    def listen(self, deadline: float, wanted: Collection[str], *, members: int, woken: Callable[[], bool]) -> bool:
        """Wait for a hint: returns whether one came, or the wait was ended otherwise.

        Args:
            deadline: Until when, on the monotonic clock.
            wanted: The channels that are one.
            members: How many the site has: the more, the rarer are pings.
            woken: Tells whether somebody rang, and forgets it.

        Raises:
            redis.RedisError, OSError: The connection is lost.
            NoAnswer: It is dead, by all appearance.
        """
        connection = self.connection
        if self._pinged is not None:
            # Nobody looked for an answer while nobody waited.
            self._pinged += time.monotonic() - self._looked
        ping_seconds = max(PING_SECONDS, members / PINGS_PER_SECOND)
        while True:
            hint = False
            # Also what redis-py or TLS has read already, and no selector will show again.
            while connection.can_read(0):
                hint = _is_hint(connection.read_response(), wanted) or hint
                self._heard, self._pinged = time.monotonic(), None
            if hint:
                return True
            if woken():
                return False
            now = self._looked = time.monotonic()
            if now >= deadline:
                return False
            if self._pinged is None and now - self._heard >= ping_seconds:
                connection.send_command("PING")
                self._pinged = now
            if self._pinged is None:
                due = self._heard + ping_seconds
            elif now - self._pinged < DEAD_SECONDS:
                due = self._pinged + DEAD_SECONDS
            else:
                raise NoAnswer(f"no answer to a ping for {DEAD_SECONDS:g} s")
            self._selector.select(min(deadline, due) - now)
            self._looked = time.monotonic()

    def close(self) -> None:
        """Hang up."""
        self._selector.close()
        self.connection.disconnect()


def _is_hint(message: Any, wanted: Collection[str]) -> bool:
    # [b"message", channel, data]; [b"pong", b""]; a second [b"subscribe", …] is a connection made again.
    kind, channel = bytes(message[0]), bytes(message[1])
    if kind == b"message":
        return channel.decode(errors="replace") in wanted
    return kind != b"pong"
