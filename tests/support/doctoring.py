"""A site that is healthy, and what `doctor` says is wrong with it once something was planted."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from readonly import Switch
from readonly.databases.fence import Fence
from readonly.doctor import CHECKS, Finding, check
from readonly.following import Followers
from readonly.members import Guarded, Report
from readonly.site import Site
from support.operating import Shop


def healthy(shop: Shop) -> None:
    """Have two processes report that all is well."""
    shop.reported(report_of(host="web-1"), report_of(host="web-2"))


def report_of(**said: Any) -> Report:
    """Return the report of a process on another machine."""
    told: dict[str, Any] = {
        "id": secrets.token_hex(16), "host": "web-3", "pid": 7, "role": "web", "interval": 300.0, "library": "1.0",
        "synced": True, "closed": False, "guards": (Guarded("main", "", {"server": "sqlite"}),),
    }  # fmt: skip
    return Report(**(told | said))


def found(
    shop: Shop, *fences: Fence, followers: Sequence[Followers] = (), now: datetime | None = None
) -> tuple[Finding, ...]:
    """Return every finding."""
    site = Site(Switch(shop.store), fences=fences, followers=followers)
    said = site.check() if now is None else check(site, now=now)
    assert [CHECKS.index(one.check) for one in said] == sorted(CHECKS.index(one.check) for one in said)
    assert all(bool(one.fix) is not one.ok for one in said), "a fault has a fix, and nothing else has"
    return said


def faults(
    shop: Shop, *fences: Fence, followers: Sequence[Followers] = (), now: datetime | None = None
) -> dict[str, Finding]:
    """Return what is wrong, by check."""
    return {one.check: one for one in found(shop, *fences, followers=followers, now=now) if not one.ok}
