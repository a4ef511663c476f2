"""Seen: one request as a client saw it. The load writes these, one JSON object a line; the verdict reads them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import MISSING, dataclass, fields
from typing import Final, Literal

Action = Literal["read", "write", "login", "logout"]


@dataclass(frozen=True, slots=True)
class Seen:
    """One request.

    Attributes:
        client: Who sent it.
        action: What it was meant to be.
        route: Method and path, with names in place of what varies.
        start: When it was sent, in nanoseconds of CLOCK_MONOTONIC: one clock for every process of a machine.
        end: When its whole answer was there, by the same clock.
        status: The answer's status; 0 if there was none.
        error: Why there was none, or what was wrong with it.
        retry_after: The header, as it came.
        read_only: Whether the answer carried `X-Read-Only: true`.
        signed_in: The name the page greeted; empty if it greeted nobody; None where the answer does not tell.
        session: When the login that gave this request's session cookie was sent (as `start`); None without a cookie.
        entered: Whether the answer began a session.
        accepted: Whether a write was acknowledged.
        kind: What a write would have stored: comment, name, account.
        text: What it would have stored; unlike any other write's.
        row: The row that a comment became, as the answer says.
    """

    client: str
    action: Action
    route: str
    start: int
    end: int
    status: int
    error: str = ""
    retry_after: str = ""
    read_only: bool = False
    signed_in: str | None = None
    session: int | None = None
    entered: bool = False
    accepted: bool = False
    kind: str = ""
    text: str = ""
    row: int | None = None

    @property
    def refused(self) -> bool:
        """Whether the site said no as a read-only site does: 503, or 403 to an ended session."""
        return self.status == 503 or (self.status == 403 and self.action != "read")

    def as_line(self) -> str:
        """Return it as one line of JSON, without what is as by default."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return json.dumps({name: value for name, value in values.items() if value != DEFAULTS.get(name, MISSING)})


DEFAULTS: Final = {field.name: field.default for field in fields(Seen) if field.default is not MISSING}


def from_lines(lines: Iterable[str]) -> Iterator[Seen]:
    """Read what the load wrote. A last line that is still being written is left out."""
    for line in lines:
        if line.endswith("\n"):
            yield Seen(**json.loads(line))
