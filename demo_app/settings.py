"""What a process of the site must be told, and where it is told: the environment."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self
from urllib.parse import quote

SITE = "touchline"
"""The name of the site in the store's URL: what `readonlyctl` shows on its first line."""

DISCARD = ("page_view", "account.last_login_at")
"""Writes that come along with a page: who has looked, and who has come back. While read-only they are dropped."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings of one process.

    Attributes:
        database: The SQLite file that is written to.
        replica: The SQLite file that is its copy.
        store: URL of the read-only switch.
        secret: Signs the session cookies.
        server: URL of a PostgreSQL database (`postgresql://…`) that is used in place of the two files, if not empty.
        standby: URL of its standby, or empty.
    """

    database: Path
    replica: Path
    store: str
    secret: str
    server: str = ""
    standby: str = ""

    @classmethod
    def in_folder(cls, folder: Path, *, secret: str, server: str = "", standby: str = "", store: str = "") -> Self:
        """Return the settings of a site that keeps everything in one folder, the switch's store as well by default."""
        folder = folder.resolve()
        return cls(
            database=folder / "primary.sqlite",
            replica=folder / "replica.sqlite",
            store=store or f"sqlite:///{quote(str(folder / 'switch.sqlite'))}?site={SITE}",
            secret=secret,
            server=server,
            standby=standby,
        )

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> Self:
        """Read the settings.

        Raises:
            RuntimeError: If one is missing; `python -m demo_app.serve` sets them all.
        """
        environ = os.environ if environ is None else environ
        missing = [
            name for name in ("DEMO_DATABASE", "DEMO_REPLICA", "READONLY_STORE", "SECRET") if not environ.get(name)
        ]
        if missing:
            raise RuntimeError(
                f"{', '.join(missing)} not set: start the site by `python -m demo_app.serve`, which sets all of them."
            )
        return cls(
            database=Path(environ["DEMO_DATABASE"]),
            replica=Path(environ["DEMO_REPLICA"]),
            store=environ["READONLY_STORE"],
            secret=environ["SECRET"],
            server=environ.get("DEMO_SERVER", ""),
            standby=environ.get("DEMO_STANDBY", ""),
        )

    def server_url(self, driver: str, *, copy: bool = False) -> str:
        """Return the server's URL, or its standby's, as SQLAlchemy takes it, with a driver."""
        return (self.standby if copy else self.server).replace("postgresql://", f"postgresql+{driver}://", 1)

    def as_env(self) -> dict[str, str]:
        """Return the variables from which `from_env` reads these settings again."""
        return {
            "DEMO_DATABASE": str(self.database),
            "DEMO_REPLICA": str(self.replica),
            "DEMO_SERVER": self.server,
            "DEMO_STANDBY": self.standby,
            "READONLY_STORE": self.store,
            # What this host remembers of the switch goes with the folder: a site made anew was never closed.
            "READONLY_STATE_DIR": str(self.database.parent),
            "SECRET": self.secret,
        }
