"""What visitors type, checked: pure functions from form values to clean values or a sentence about what is wrong."""

from __future__ import annotations

import re
from typing import Final

LONGEST_COMMENT: Final = 2000
LONGEST_NAME: Final = 60
ACCOUNT_NAME: Final = re.compile(r"[a-z0-9][a-z0-9-]{2,39}")
PROVIDERS: Final = ("lighthouse", "harbour")
"""The sign-in services that this site pretends to know."""


class Problem(ValueError):
    """What was typed can't be taken; the message is for the visitor."""


def comment(text: str) -> str:
    """Return the comment, trimmed.

    Raises:
        Problem: If nothing is left, or too much.
    """
    text = text.strip()
    if not text:
        raise Problem("There is nothing in your comment yet.")
    if len(text) > LONGEST_COMMENT:
        raise Problem(f"Your comment has {len(text)} characters; {LONGEST_COMMENT} is the most we take.")
    return text


def comment_sent(document: object) -> str:
    """Return the comment that a program has sent as `{"body": "..."}`.

    Raises:
        ValueError: It is something else; as a `Problem`, if the comment itself can't be taken.
    """
    if not isinstance(document, dict) or "body" not in document:
        raise ValueError("no body")
    return comment(str(document["body"]))


def search_words(text: str) -> str:
    """Return what to search for."""
    return text.strip()[:100]


def new_account(name: str, shown: str, secret: str) -> dict[str, str]:
    """Return the fields of a new account, under the names of its columns.

    Raises:
        Problem: If one of them can't be taken.
    """
    return {
        "name": account_name(name),
        "display_name": display_name(shown or name),
        "password": password(secret),
    }


def display_name(text: str) -> str:
    """Return the name to be shown, with single spaces.

    Raises:
        Problem: If it is empty or too long.
    """
    text = " ".join(text.split())
    if not 1 <= len(text) <= LONGEST_NAME:
        raise Problem(f"A name has between 1 and {LONGEST_NAME} characters.")
    return text


def account_name(text: str) -> str:
    """Return the name to log in with, in lower case.

    Raises:
        Problem: If it is not 3 to 40 letters, digits and hyphens.
    """
    text = text.strip().lower()
    if not ACCOUNT_NAME.fullmatch(text):
        raise Problem("An account's name is 3 to 40 letters, digits or hyphens, and starts with no hyphen.")
    return text


def password(text: str) -> str:
    """Return the password.

    Raises:
        Problem: If it is too short to be one.
    """
    if len(text) < 3:
        raise Problem("That password is too short.")
    return text


def local_path(text: str, *, default: str = "/") -> str:
    """Return the path to go on to after logging in, if it is one of this site, else the default."""
    # "//host" and "/\host" are other sites to a browser.
    if text.startswith("/") and not text.startswith(("//", "/\\")) and text.isprintable():
        return text
    return default
