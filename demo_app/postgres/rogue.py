"""`python -m demo_app.postgres.rogue URL`: a program that nobody told of the switch writes to the database, directly.

It insists (`BEGIN READ WRITE`), it never gives up, and it writes down what the database acknowledged: one JSON object a
line, until it is ended.
"""

from __future__ import annotations

import json
import signal
import sys
import threading
import time
from collections.abc import Sequence
from typing import Final, TextIO

import psycopg

# Two write what the migration locks, two what it does not: those would go on all through it.
WRITERS: Final = ("comment", "comment", "view", "view")
PAUSE_SECONDS: Final = 0.02
_STATEMENTS: Final = {
    "comment": "INSERT INTO comment (article_id, account_id, body, created_at) VALUES (1, 1, %s, now())",
    "view": "UPDATE page_view SET views = views + 1 WHERE article_id = 1 + length(%s) %% 2",
}


class Rogue:
    """Several writers, each on a connection of its own.

    Args:
        url: Where they write.
        file: Where they write down what came of it.
    """

    def __init__(self, url: str, file: TextIO) -> None:
        self._url, self._file = url, file
        self._lock = threading.Lock()
        self.ending = threading.Event()

    def write(self, number: int, what: str) -> None:
        """Write until it is over."""
        connection: psycopg.Connection | None = None
        turn = 0
        while not self.ending.is_set():
            turn += 1
            text = f"rogue {number}-{turn}"
            begun = time.monotonic_ns()
            code = ""
            try:
                if connection is None or connection.closed:
                    connection = psycopg.connect(self._url, autocommit=True, application_name="rogue")
                connection.execute("BEGIN READ WRITE")
                connection.execute(_STATEMENTS[what], [text])
                connection.execute("COMMIT")
            except psycopg.Error as error:
                code = error.sqlstate or "lost"
                if connection is not None and not connection.closed:
                    connection.rollback()
            self.note(begun, what, text, code)
            self.ending.wait(PAUSE_SECONDS)
        if connection is not None:
            connection.close()

    def note(self, begun: int, what: str, text: str, code: str) -> None:
        """Write down one attempt."""
        line = json.dumps({"start": begun, "end": time.monotonic_ns(), "what": what, "text": text, "code": code})
        with self._lock:
            self._file.write(line + "\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Write until SIGTERM."""
    (url,) = sys.argv[1:] if arguments is None else arguments
    rogue = Rogue(url, sys.stdout)
    signal.signal(signal.SIGTERM, lambda *_: rogue.ending.set())
    threads = [threading.Thread(target=rogue.write, args=pair) for pair in enumerate(WRITERS, start=1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
