"""Who changes something, and on which machine?"""

from __future__ import annotations

import getpass
import os
from collections.abc import Mapping
from dataclasses import dataclass

from ..processes import host_name


@dataclass(frozen=True, slots=True)
class Operator:
    """Who changes something.

    Attributes:
        name: The person, wherever they sit; a bare system user is qualified by its host, since `root` on two
            machines may be two people.
        host: The machine it was typed on.
    """

    name: str
    host: str

    @classmethod
    def here(cls, named: str | None = None, environ: Mapping[str, str] | None = None) -> Operator:
        """Return who is at work here: `named`, READONLY_OPERATOR, SUDO_USER, else the system's user and host."""
        environ = os.environ if environ is None else environ
        host = host_name()
        person = named or environ.get("READONLY_OPERATOR") or environ.get("SUDO_USER")
        if person:
            return cls(person, host)
        try:
            user = getpass.getuser()
        except (OSError, KeyError):  # a user id without a name, as in many containers
            user = f"uid-{os.getuid()}" if hasattr(os, "getuid") else "unknown"
        return cls(f"{user}@{host}", host)
