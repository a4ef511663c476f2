"""What a visitor is told when something is not there or may not be: the same words from every framework's version."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

NOTHING_HERE: Final = "There is nothing at this address."
NO_SUCH_METHOD: Final = "That can't be done at this address."
NAME_TAKEN: Final = "Somebody else has that name already."
WRONG_PASSWORD: Final = "Name and password do not fit together."  # noqa: S105  no password
LOG_IN_FIRST: Final = "Log in to see your account."
"""Left for the next page when somebody asks for theirs without a session: a message that a GET stores."""


class Trouble(Exception):
    """The request can't be answered as it was meant.

    Attributes:
        status: The answer's status.
        detail: The sentence for the visitor.
        headers: More headers of the answer.
    """

    def __init__(self, status: int, detail: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.headers = dict(headers or {})


def no_article() -> Trouble:
    """There is no such article."""
    return Trouble(404, "There is no such article.")


def no_section() -> Trouble:
    """There is no such section."""
    return Trouble(404, "There is no such section.")


def no_service() -> Trouble:
    """There is no such sign-in service."""
    return Trouble(404, "There is no such sign-in service.")


def unknown_caller() -> Trouble:
    """Somebody calls the API, and we don't know who."""
    return Trouble(401, "Log in, or send the token from your account page.", {"WWW-Authenticate": "Bearer"})


def no_comment() -> Trouble:
    """What was sent as a comment is none."""
    return Trouble(422, 'Send {"body": "..."}.')


def of_status(status: int) -> Trouble:
    """Return what to say about an answer that a framework gives by itself."""
    return Trouble(status, {404: NOTHING_HERE, 405: NO_SUCH_METHOD}.get(status, "That did not work."))
