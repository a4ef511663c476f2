"""A member that was killed: another one of its host proves that its process is over, and says so to everybody."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

from readonly.confirmation import Condition, confirm
from readonly.members import Report
from readonly.stores import Seen
from support.operating import made, members
from support.waiting import eventually


def test_a_killed_member_is_found_by_another_of_its_host(tmp_path: Path) -> None:
    """What is found stands in its own report: an operator on another machine reads it, and it blocks for a while."""
    shop = made(tmp_path / "shop.db")
    with members(shop, ["web", "web"], interval=0.2) as (dead, _alive):
        dead.kill()

        def found() -> Seen | None:
            reports = shop.store.census().reports
            return next((s for s in reports if json.loads(s.report)["found_gone"]), None)

        seen = eventually(found, 30, what="the other one finds it")
        assert seen is not None
        report = Report.load(seen.member, seen.report)
        assert report.pid == dead.process.pid
    shop.store.close()
    look = shop.look()
    elsewhere = Report.load(seen.member, seen.report.replace(report.namespace.encode(), b"another host"))
    judged = confirm(
        look.record,
        [Seen(seen.member, elsewhere.dump(), seen.at)],
        causes=["c1"],
        closing=True,
        at=seen.at,
    )
    (member,) = judged.members
    assert member.condition is Condition.GONE
    assert "its process has ended" in member.why


def test_what_was_found_gone_no_longer_counts_after_the_longest_transaction(tmp_path: Path) -> None:
    """Ordinary recycling of workers does not block an operator; how long is the site's to say."""
    shop = made(tmp_path / "shop.db")
    record = shop.look().record
    shop.store.close()
    report = Report(id="a" * 32, host="web-2", pid=1, role="web", found_gone=True, closed=False)
    at = record.changed_at if record is not None else None
    assert at is not None
    seen = [Seen(report.id, report.dump(), at)]
    later = at + timedelta(days=365)
    assert confirm(record, seen, causes=["c1"], closing=True, at=at, longest_transaction=30.0).members != ()
    assert confirm(record, seen, causes=["c1"], closing=True, at=later, longest_transaction=30.0).members == ()
