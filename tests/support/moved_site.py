"""A site whose database moves to another server while it is read-only and fenced, and the operator's file for it."""

from __future__ import annotations

import secrets
import subprocess
from typing import Any, Generic, Protocol, TypeVar

from readonly.databases.fence import Fence
from readonly.fencing import standing_fences
from readonly.members import Guarded, Report
from readonly.record import FenceMark
from support.operating import Shop

WRITE = "INSERT INTO story (title) VALUES ('x')"


class Database(Protocol):
    """What is needed of a database's layout: `support.fence_layouts.Shop`, `support.mariadb_layouts.MariaShop`."""

    server: Any
    name: str

    def fence(self) -> Fence:
        """Return its fence."""
        ...


D = TypeVar("D", bound=Database)


class MovedSite(Generic[D]):
    """A site in an SQLite store, its database at an old and a new server, and the file that leads to one of them."""

    # What members report of the server, beside its host and the system that it is.
    kind: str
    told: tuple[str, ...] = ("system",)

    def __init__(self, shop: Shop, old: D, new: D) -> None:
        self.shop, self.old, self.new = shop, old, new
        self.file = shop.folder / "readonly.toml"
        self.leads_to(old)

    def fence_of(self, database: D) -> str:
        """Return what the operator's file says of the fence there."""
        raise NotImplementedError

    def leads_to(self, database: D) -> None:
        """Have the operator's file lead there."""
        self.file.write_text(f'store = "{self.shop.url}"\n[fence.main]\n{self.fence_of(database)}\n', encoding="utf-8")

    def ctl(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Type a command, with that file."""
        return self.shop.here("--config", str(self.file), *words)

    def turned_on(self) -> str:
        """Turn it read-only, with the fence where the file leads; return the cause that holds it."""
        assert self.ctl("on", "--no-wait").returncode == 0
        raised = self.ctl("fence", "raise")
        assert raised.returncode == 0, raised.stdout + raised.stderr
        return next(c for c in self.shop.look().state.causes if c.kind == "operator").id

    def members(self, *at: D) -> None:
        """Have processes on other machines report that they write there."""
        for member in self.shop.look().census.reports:
            self.shop.store.forget(member.member)
        for number, database in enumerate(at):
            found = database.fence().look()
            server = {"server": self.kind, "host": f"db-{database.server.port}", "database": database.name}
            server |= {name: getattr(found, name) for name in self.told}
            self.shop.reported(
                Report(
                    id=secrets.token_hex(16), host=f"web-{number}", namespace="elsewhere", pid=4711, role="web",
                    interval=300, guards=(Guarded("main", "", server),),
                )
            )  # fmt: skip

    @property
    def read_only(self) -> bool:
        """Whether it is."""
        return self.shop.look().state.read_only

    @property
    def mark(self) -> FenceMark | None:
        """What the record holds of the fence."""
        found = [cause.fence for cause in standing_fences(self.shop.look().record)]
        return found[0] if found else None

    def is_told_to_stay_from(self, elsewhere: D) -> None:
        """Where the file leads to a server that was not fenced, nothing opens, and what to write there is said."""
        self.members(elsewhere)
        self.leads_to(elsewhere)
        told = self.ctl("off", "--stay", "main", "--timeout", "100ms")
        assert told.returncode == 3
        assert "write the old server's address there" in told.stdout
        assert self.read_only
        assert "Not lifted: the fence main stands at" in self.ctl("fence", "lift", "main").stdout
        assert self.mark is not None
        self.leads_to(self.old)
        self.ctl("off", "--stay", "main", "--timeout", "100ms")
        assert not self.read_only
