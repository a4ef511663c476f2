"""docs/replicas.md: its configuration is one, and what it shows is what commands print."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from readonly.cli.moving import split_lines
from readonly.cli.replicated import replica_lines
from readonly.config import operator_config
from readonly.record import FENCE, Cause, FenceMark
from readonly.replicating import Reported
from readonly.switchover import Identity, Seen, Split

PAGE = (Path(__file__).parents[2] / "docs" / "replicas.md").read_text(encoding="utf-8")
NOW = datetime(2026, 11, 21, 1, 2, 11, tzinfo=UTC)


def test_the_configuration(tmp_path: Path) -> None:
    """It is read as the page says."""
    (text,) = re.findall(r"<!-- sample: replicas toml -->\n```toml\n(.*?)```", PAGE, re.DOTALL)
    file = tmp_path / "readonly.toml"
    file.write_text(text, encoding="utf-8")
    found = operator_config(config=file, environ={})
    (fence,) = found.fences
    assert fence.replicas == ("postgresql://fencer@db2/shop",)
    assert fence.schema == "SELECT num FROM version"


def test_a_refusal() -> None:
    """Who is where, as the command says it."""
    old, new = Identity("7301188", "1"), Identity("7388402", "1")
    mark = FenceMark("main", server="old-db:5432/shop", system="7301188", timeline="1", level="hard")
    seen = (
        Seen(new, "new-db:5432/shop", tuple(f"web web-1/{number}" for number in range(40))),
        Seen(old, "old-db:5432/shop", ("web web-2/4711",)),
    )
    split = Split("main", Cause("f", FENCE, "ada", NOW, fence=mark), seen, old, "")
    look: Any = SimpleNamespace(census=SimpleNamespace(reading=SimpleNamespace(at=NOW)))
    assert "\n".join(split_lines(split, look)) in PAGE


def test_what_status_shows() -> None:
    """A frozen replica that is read, and one that was promoted."""
    why = "takes writes: it is a primary (was it promoted?)"
    replicas = [
        Reported("main", "db2:5432/shop", None, "0/3A00F10", True, "0041", "", (), 8),
        Reported("main", "db3:5432/shop", None, "", False, "", "", ((why, 8),), 8),
    ]
    assert "\n".join(replica_lines(replicas)) in PAGE
