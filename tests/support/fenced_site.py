"""A site with one process, its database, and the operator's file that names both."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

from readonly import changes
from support.fence_layouts import Shop as Database
from support.operating import ANNA, Member, Shop

WRITE = "INSERT INTO story (title) VALUES ('x')"


class Fenced:
    """A site with one process, its database, and the operator's file that names both."""

    def __init__(self, shop: Shop, member: Member | None, database: Database, folder: Path) -> None:
        self.shop, self.member, self.database = shop, member, database
        self.file = folder / "readonly.toml"
        self.configure()

    def configure(self, *, fencer: str = "", port: int | None = None, name: str = "main", more: str = "") -> None:
        url = self.database.server.url(self.database.name, user=fencer or self.database.fencer)
        if port is not None:
            url = url.replace(f":{self.database.server.port}/", f":{port}/")
        migrators = ["owner_", "fencer"] if self.database.owner != self.database.app else []
        self.file.write_text(
            f'store = "{self.shop.url}"\n[fence.{name}]\nurl = "{url}"\nwriters = ["{self.database.app}"]\n'
            f"migrators = {json.dumps(migrators)}\n{more}",
            encoding="utf-8",
        )

    def ctl(self, *words: str) -> subprocess.CompletedProcess[str]:
        return self.shop.here("--config", str(self.file), *words)

    def writes(self) -> str:
        """Return the SQLSTATE that the application's role gets for a write, or ""."""
        return self.database.tried(self.database.app, WRITE)[0]


def fenced_site(one_process: tuple[Shop, Member], database: Database, folder: Path) -> Iterator[Fenced]:
    """Make one, and leave the site writable and without a fence."""
    shop, member = one_process
    yield Fenced(shop, member, database, folder)
    member.tell("end")
    for cause in shop.look().state.causes:
        if cause.kind in ("fence", "run"):
            changes.lift_exactly(shop.store, ANNA, cause.id)
    shop.open()
    shop.reports()
