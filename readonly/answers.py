"""How an endpoint with clients of its own wants to say that a request was refused: GraphQL clients read `errors`.

A predicate of a rule may know. Then the requests that the rule is about, by method and path, are answered in its words
whenever they are refused, whichever rule refused them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

from .rules import Facts


@dataclass(frozen=True, slots=True)
class Refusal:
    """What there is to say about a refused request. Nothing in it is private.

    Attributes:
        status: 503, or 403 for a session that ended.
        code: `READ_ONLY` or `SESSION_ENDED`.
        detail: One sentence for people: the operator's message, or what is the matter.
        expected_end: When it is expected to be over, RFC 3339, or None.
        retry_after: Seconds after which to try again, or None where that makes no sense.
    """

    status: int
    code: str
    detail: str
    expected_end: str | None
    retry_after: int | None

    @property
    def members(self) -> Mapping[str, Any]:
        """What code looks at, by the names that problem details have for it."""
        found = {"code": self.code, "expected_end": self.expected_end, "retry_after": self.retry_after}
        return {name: value for name, value in found.items() if value is not None}


class Worded(NamedTuple):
    """A refusal in an endpoint's own words.

    Attributes:
        status: Where the endpoint's protocol wants another one than the refusal's.
        content_type: Of the body.
        body: The whole of it.
    """

    status: int
    content_type: str
    body: bytes


@runtime_checkable
class Answering(Protocol):
    """A predicate that knows how its endpoint's clients want to be refused."""

    def answer(self, facts: Facts, refusal: Refusal) -> Worded:
        """Return the answer. `facts.body` is there if the rule was shown it, cut off like for the rule."""


class Dialogue(Protocol):
    """Follows one websocket, and knows which of its messages begin something that may write.

    Messages are what was sent, text or bytes. All methods are called in the order of the messages.
    """

    def asks(self, message: str | bytes) -> str | None:
        """Return a name for what a client's message begins if that may write; None if nothing in it does.

        Raises:
            ValueError: It can't be understood; the socket is closed.
        """

    def withdraws(self, message: str | bytes) -> str | None:
        """Return the name of what a client's message takes back, or None."""

    def refuses(self, operation: str, refusal: Refusal) -> Sequence[str]:
        """Return the messages by which a client learns that something was not begun."""

    def ends(self, message: str | bytes) -> str | None:
        """Return the name of what is over with a server's message, or None."""


@runtime_checkable
class Listening(Protocol):
    """A predicate that lets a websocket through because each of its messages is judged by itself."""

    def dialogue(self) -> Dialogue:
        """Return what follows a socket that is about to be opened."""
