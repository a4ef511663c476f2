"""All members of a large site hear of a change at once: `python bare_members.py PORT SITE COUNT ROUNDS`.

What the server has to do for them, and nothing of what they do themselves: bare sockets, two for each member as in the
store, the store's own script, reports that were written beforehand, one loop for all. At a message each member sends
the report by which it reads, and at its answer the announced one by which it says that it obeys.

Prints one line of JSON for each round: seconds until the last member had both answers, the slowest single answer, and
how many took longer than the store's timeout, which would have been failures.
"""

from __future__ import annotations

import json
import secrets
import selectors
import socket
import sys
import time
from dataclasses import dataclass, replace

from readonly.follower.contact import KEEP_SECONDS
from readonly.members import Report
from readonly.stores import DEFAULT_ALIVE_SECONDS, DEFAULT_TIMEOUT_SECONDS
from readonly.stores.redis_scripts import REPORT


def words(*given: str | bytes | int) -> bytes:
    """Return a command as it is sent."""
    parts = [part if isinstance(part, bytes) else str(part).encode() for part in given]
    return b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts)


@dataclass(slots=True)
class Member:
    """One of them; its answers end with the neighbours, so that a whole one need not be parsed to be known."""

    commands: socket.socket
    listener: socket.socket
    first: bytes
    second: bytes
    sent: float = 0.0
    stage: int = 2


class Answer:
    """Counts the parts of one answer until it is whole."""

    def __init__(self) -> None:
        self.rest = b""

    def whole(self, data: bytes) -> bool:
        """Take in bytes; return whether the answer has ended."""
        self.rest += data
        position, missing = 0, 1
        while missing:
            end = self.rest.find(b"\r\n", position)
            if end < 0:
                return False
            kind, number = self.rest[position : position + 1], self.rest[position + 1 : end]
            position = end + 2
            missing -= 1
            if kind == b"-":
                raise RuntimeError(f"the server refused: {number.decode()}")
            if kind == b"*":
                missing += max(0, int(number))
            elif kind == b"$" and int(number) >= 0:
                position += int(number) + 2
        if position > len(self.rest):
            return False
        self.rest = b""
        return True


def main(port: int, site: str, count: int, rounds: int) -> None:
    """Connect, then play the change a few times."""
    prefix = f"readonly:{{{site}}}:"
    names = ("state", "members", "seen", "incarnation", "ring", "forgotten", "living", "new", "until")
    keys = [prefix + name for name in names]
    control = socket.create_connection(("127.0.0.1", port), timeout=30)
    control.sendall(words("SCRIPT", "LOAD", REPORT.text))
    control.recv(65536)
    selector = selectors.DefaultSelector()
    members: list[Member] = []
    answers = [Answer() for _ in range(count)]
    for number in range(count):
        name = secrets.token_hex(16)
        report = Report(name, "web-17.shop.example", 4242, "web", start="547481", namespace="95728e4c:pid:[4026531836]")
        report = replace(report, library="0.1.0", runs="news-site 2026.5", synced=True, causes=("op-1",), epoch=7)

        def call(channel: str, name: str = name, report: Report = report) -> bytes:
            keep, alive = round(KEEP_SECONDS * 1000), round(DEFAULT_ALIVE_SECONDS * 1000)
            said = ("run", name, report.dump(), keep, channel, "", alive, "", "")  # not new, and names nobody
            return words("EVALSHA", REPORT.sha, len(keys), *keys, *said)

        listener = socket.create_connection(("127.0.0.1", port), timeout=30)
        listener.sendall(words("SUBSCRIBE", prefix + "changes"))
        listener.recv(65536)
        commands = socket.create_connection(("127.0.0.1", port), timeout=30)
        members.append(Member(commands, listener, call(""), call(prefix + "reports")))
        selector.register(listener, selectors.EVENT_READ, (number, True))
        selector.register(commands, selectors.EVENT_READ, (number, False))
        commands.sendall(members[-1].first)
        while not answers[number].whole(commands.recv(65536)):
            pass
    for _ in range(rounds):
        slowest, late, missing = 0.0, 0, count
        begun = time.perf_counter()
        control.sendall(words("PUBLISH", prefix + "changes", ""))
        while missing:
            for key, _events in selector.select():
                number, listens = key.data
                member = members[number]
                if listens:
                    member.listener.recv(65536)
                    member.stage, member.sent = 0, time.perf_counter()
                    member.commands.sendall(member.first)
                elif answers[number].whole(member.commands.recv(65536)):
                    now = time.perf_counter()
                    took = now - member.sent
                    slowest, late = max(slowest, took), late + (took > DEFAULT_TIMEOUT_SECONDS)
                    member.stage += 1
                    if member.stage == 2:
                        missing -= 1
                    else:
                        member.sent = now
                        member.commands.sendall(member.second)
        control.recv(65536)
        print(json.dumps({"all": time.perf_counter() - begun, "slowest": slowest, "late": late}), flush=True)
        sys.stdin.readline()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
