"""A pseudo-terminal with a size, on which a command runs, and the screen that a person would see."""

from __future__ import annotations

import codecs
import fcntl
import os
import pty
import select
import struct
import subprocess
import termios
import time
from collections.abc import Mapping
from types import TracebackType

import pyte

from support import children
from support.forked import forker
from support.operating import Shop
from support.waiting import PATIENCE, eventually


class Terminal:
    """`readonlyctl` on a terminal of its own. Use as a context manager, or call `ends`.

    Args:
        shop: The site that it works on.
        words: What is typed after `readonlyctl`.
        size: Columns and rows.
        environment: Added to the shop's.
    """

    def __init__(
        self,
        shop: Shop,
        *words: str,
        size: tuple[int, int] = (100, 40),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.main, other = pty.openpty()
        fcntl.ioctl(other, termios.TIOCSWINSZ, struct.pack("HHHH", size[1], size[0], 0, 0))
        ours = children.without_ours(os.environ) | shop.environment
        for name in ("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR"):
            ours.pop(name, None)
        # Its controlling terminal: only then does Ctrl-C mean anything.
        self.process = forker().start(
            "readonlyctl",
            words,
            files=(other, other, other),
            environment=ours | {"TERM": "xterm"} | dict(environment or {}),
            terminal=True,
        )
        os.close(other)
        self.shown = ""
        # What is read ends anywhere, in the middle of a character as well.
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._screen = pyte.Screen(*size)
        self._stream = pyte.Stream(self._screen)

    @property
    def rows(self) -> list[str]:
        """What is on the screen now."""
        return [row.rstrip() for row in self._screen.display]

    @property
    def text(self) -> str:
        """What is on the screen now, without any white space: rows break where they must."""
        return squeezed("".join(self.rows))

    def _take(self, data: bytes) -> None:
        text = self._decoder.decode(data)
        self.shown += text
        self._stream.feed(text)

    def until(self, text: str) -> None:
        """Read until a text is on the screen, or was written in one piece."""
        deadline = time.monotonic() + 20 * PATIENCE
        while text not in self.shown and squeezed(text) not in self.text:
            left = max(0.0, deadline - time.monotonic())
            heard, _, _ = select.select([self.main], [], [], left)
            assert heard, f"{text!r} was not shown: {self.rows}"
            assert left, f"{text!r} was not shown in time: {self.rows}"
            self._take(os.read(self.main, 65536))

    def types(self, text: str) -> None:
        """Type something."""
        os.write(self.main, text.encode())

    def presses(self, key: str) -> None:
        """Press a key, as people do: again after a while if nothing happens.

        A signal that arrives just before Python blocks in a read is noticed at the next one only. It is a long while: a
        second one would be meant, and end what says farewell.
        """

        def ended() -> bool:
            self.types(key)
            try:
                self.process.wait(10.0)
            except subprocess.TimeoutExpired:
                return False
            return True

        eventually(ended)

    def ends(self) -> int:
        """Read to the end and return the exit code."""
        try:
            while data := os.read(self.main, 65536):
                self._take(data)
        except OSError:  # the other end is closed
            pass
        os.close(self.main)
        return self.process.wait(20 * PATIENCE)

    def __enter__(self) -> Terminal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.ends()


def squeezed(text: str) -> str:
    """Return a text without its white space."""
    return "".join(text.split())
