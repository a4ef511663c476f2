"""Each fault that `doctor` knows is planted, and found; on a healthy site it finds nothing."""

from __future__ import annotations

import importlib.metadata
import os
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from readonly import Switch
from readonly.confirmation import Expected
from readonly.databases.fence import Fence
from readonly.databases.fence.values import Fenced, Level, Preflight, Strategy
from readonly.doctor import CHECKS, Finding, check
from readonly.errors import StoreUnreachable
from readonly.members import Guarded, Report
from readonly.processes import process_namespace, process_start
from readonly.site import Site
from readonly.stores.sqlite import SQLiteStore
from support.doctoring import faults, healthy, report_of
from support.operating import Shop, json_lines, made


class Planted(Fence):
    """A fence whose server says what a test wants."""

    name = "main"

    def __init__(self, *, standing: Fenced | None = None, missing: tuple[str, ...] = (), away: bool = False) -> None:
        self.standing, self.missing, self.away = standing, missing, away

    def status(self) -> Fenced | None:
        """Say what stands."""
        if self.away:
            raise StoreUnreachable("db1:5432 does not answer")
        return self.standing

    def preflight(self, *, strategy: Strategy | None = None) -> Preflight:
        """Say what could be done."""
        return Preflight(Strategy.REVOKE, Level.HARD, "the fencer owns the tables", missing=self.missing)

    open_tables = put_up = look_again = lift = sessions_of = mock.Mock()  # type: ignore[assignment]


def fence_of(site: str) -> Fenced:
    """Return a fence that stands."""
    raised = datetime(2026, 11, 21, tzinfo=UTC)
    return Fenced("main", "db1", site, Strategy.REVOKE, Level.HARD, None, raised, run="run-7f3c")


# --- healthy ---------------------------------------------------------------------------------------------------------


def test_nothing_is_found_on_a_healthy_site(shop: Shop) -> None:
    """Every check says so, the command ends with 0, and its JSON is by the schema."""
    assert faults(shop, Planted()) == {}
    found = check(Site(Switch(shop.store), fences=[Planted()]))
    assert {one.check for one in found} == {*CHECKS} - {"replicas"}
    done = shop.here("doctor")
    assert (done.returncode, "All is well." in done.stdout) == (0, True)
    assert "FAIL" not in done.stdout
    result = json_lines(shop.here("doctor", "--json").stdout)[-1]
    assert (result["exit"], result["healthy"]) == (0, True)


def test_looking_changes_nothing(shop: Shop, tmp_path: Path) -> None:
    """Not one byte of the store, though it is seen whether a write would be taken."""
    files = sorted(tmp_path.glob("shop.db*"))
    before = [file.read_bytes() for file in files]
    assert len(files) == 2
    shop.here("doctor")
    assert [file.read_bytes() for file in files] == before


def test_a_fault_is_printed_with_its_fix_and_ends_with_1(shop: Shop) -> None:
    """For a person and for a pipeline."""
    shop.reported(report_of(inert=True))
    done = shop.here("doctor")
    assert done.returncode == 1
    assert "FAIL  members" in done.stdout
    assert "fix: take that out" in done.stdout
    assert "1 fault." in done.stdout
    result = json_lines(shop.here("doctor", "--json").stdout)[-1]
    assert (result["exit"], result["healthy"]) == (1, False)


# --- one fault each --------------------------------------------------------------------------------------------------


def test_a_store_that_is_away(shop: Shop, tmp_path: Path) -> None:
    """What needs no store is checked all the same."""
    with mock.patch.object(SQLiteStore, "census", side_effect=StoreUnreachable("the disk is gone")):
        found = faults(shop, Planted(missing=("GRANT x",)))
    assert {*found} == {"store", "fences"}
    assert "the disk is gone" in found["store"].what
    away = f"sqlite:///{tmp_path}/none/away.db?site=shop"
    assert shop.here("--store", away, "doctor").returncode == 1


def test_a_store_that_may_lose_the_record(shop: Shop) -> None:
    """Its own warnings: an evicting policy, no persistence."""
    with mock.patch.object(SQLiteStore, "warnings", return_value=("maxmemory-policy is allkeys-lru: …",)):
        assert "allkeys-lru" in faults(shop)["store"].what


def test_a_server_that_does_not_speak_tls() -> None:
    """Or does, and is not asked to: neither says so by itself."""
    site = Site(Switch.from_url("rediss://127.0.0.1:1/0?site=shop"))
    (wrong,) = [one for one in site.check() if one.check == "store"]
    assert "can't be reached" in wrong.what
    assert "a server that speaks TLS is rediss" in wrong.fix


def test_a_store_that_can_be_read_and_not_changed(shop: Shop) -> None:
    """A replica, a full one, another user's file: `on` would fail on the night."""
    refused = StoreUnreachable("it is a replica and takes no writes: name the primary")
    with mock.patch.object(SQLiteStore, "try_write", side_effect=refused):
        found = faults(shop)
    assert {*found} == {"store"}
    assert found["store"].what == f"it can be read, and nothing can be changed: {refused}"


def test_a_store_without_a_record(tmp_path: Path) -> None:
    """Or with half of one, or with one that can't be read."""
    empty = made(tmp_path / "empty.db", initialised=False)
    healthy(empty)
    assert faults(empty)["record"].fix == "readonlyctl init shop"
    empty.on(_anna(), reason="over nothing")
    assert "emptied" in faults(empty)["record"].what
    empty.store.replace(b'{"v": 9}', was=empty.store.read().record)
    assert "version 9" in faults(empty)["record"].what
    empty.store.close()


def _anna() -> Any:
    from support.operating import ANNA

    return ANNA


def test_clocks_that_are_apart(shop: Shop) -> None:
    """By more than windows can bear."""
    assert "clock" not in faults(shop)
    for apart in (timedelta(minutes=3), -timedelta(minutes=3)):
        found = faults(shop, now=datetime.now(UTC) + apart)["clock"]
        seconds = re.search(r"are ([\d.]+) s apart", found.what)
        assert seconds is not None
        assert 150 < float(seconds[1]) < 210
        assert "NTP" in found.fix


def test_an_answer_that_takes_its_time_sets_no_clock_apart(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """The store's clock was read while it was under way, and everything else comes after that."""
    late, census = [timedelta(0)], SQLiteStore.census

    class Clock(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return datetime.now(tz) + late[0]

    def slow(store: SQLiteStore) -> Any:
        found = census(store)
        late[0] += timedelta(seconds=30)
        return found

    monkeypatch.setattr("readonly.doctor.datetime", Clock)
    monkeypatch.setattr(SQLiteStore, "census", slow)
    assert faults(shop) == {}
    assert late[0] > timedelta(0)


@pytest.mark.parametrize(
    ("plant", "named", "where"),
    [
        (lambda shop: shop.reported(report_of(inert=True)), "READONLY_DISABLED", "members"),
        (lambda shop: shop.silent_member(75), "is silent", "members"),
        (lambda shop: shop.reported(report_of(library="0.9")), "0.9 1, 1.0 2", "versions"),
        (lambda shop: shop.reported(report_of(lacks=("rehearsal",))), "rehearsal", "versions"),
        (lambda shop: shop.reported(report_of(doubts=("position what sets 'user'",))), "outside of", "middleware"),
        (lambda shop: shop.reported(report_of(doubts=("clock 9 s behind the store's",))), "3 is 9 s behind", "clock"),
        (lambda shop: shop.reported(report_of(doubts=("twins a.py:1 and b.py:2",))), "a.py:1 and b.py:2", "switches"),
        (lambda shop: shop.reported(report_of(doubts=("cookie sid",))), "the cookie sid", "cookies"),
        (lambda shop: shop.reported(report_of(doubts=("exempt /api/*",))), "exempt /api/*", "exemptions"),
        (lambda shop: shop.reported(report_of(doubts=("past shop.Chat",))), "come to shop.Chat past", "websockets"),
        (lambda shop: shop.reported(report_of(doubts=("twice in MIDDLEWARE",))), "twice, in", "middleware"),
        (lambda shop: shop.reported(report_of(doubts=("absent MIDDLEWARE",))), "is not in MIDDLEWARE", "middleware"),
        (lambda shop: shop.reported(report_of(doubts=("websocket a WSGI server",))), "not closed", "websockets"),
        (lambda shop: shop.reported(report_of(guards=(Guarded("main", "it wrote"),))), "it wrote", "guards"),
    ],
)  # fmt: skip
def test_what_members_report(shop: Shop, plant: Callable[[Shop], object], named: str, where: str) -> None:
    """One fault each, with who says so, and nothing else is found."""
    plant(shop)
    found = faults(shop)
    assert {*found} == {where}
    assert named in found[where].what


def _writes_to(**server: str) -> Report:
    return report_of(guards=(Guarded("main", "", {"server": "postgresql", "host": "db1", **server}),))


@pytest.mark.parametrize(
    ("reports", "said"),
    [
        ([{"system": "71", "database": "shop"}, {"system": "71", "database": "shop"}], ""),
        ([{"system": "71", "database": "shop"}, {"system": "72", "database": "shop"}], "to 2 servers as main"),
        ([{"system": "71", "database": "shop"}, {"system": "71", "database": "blog"}], "to 2 databases as main"),
        ([{"database": "shop"}, {"database": "blog"}, {"database": "blog"}], "shop by web web-3/7"),
    ],
)
def test_two_sites_under_one_name(tmp_path: Path, reports: list[dict[str, str]], said: str) -> None:
    """One store, one name: the one turns the other read-only. They are told apart by what they write to."""
    shop = made(tmp_path / "shared.db")
    shop.reported(*(_writes_to(**one) for one in reports))
    found = faults(shop)
    assert {*found} == ({"guards"} if said else set())
    if said:
        assert said in found["guards"].what
        assert "?site=NAME" in found["guards"].fix
    shop.store.close()


def test_roles_that_the_operators_file_expects(shop: Shop) -> None:
    """Fewer than those would keep `on` from being proven."""

    def members(**expect: int) -> list[Finding]:
        site = Site(Switch(shop.store), expect={role: Expected(count) for role, count in expect.items()})
        return [one for one in site.check() if one.check == "members" and not one.ok]

    assert members(web=2) == []
    assert [one.what for one in members(web=4, celery=1)] == [
        "web: 2 report, expected 4 or more", "celery: 0 report, expected 1 or more"
    ]  # fmt: skip


def test_a_process_of_this_machine_that_is_over_is_not_missed(shop: Shop) -> None:
    """It was killed, and no other one was there to say so; whoever asks can see it. One that stands still is."""
    here = {"host": "here", "pid": os.getpid(), "namespace": process_namespace()}
    shop.silent_member(75, **here, start="1")
    assert faults(shop) == {}
    shop.silent_member(75, **here, start=process_start(os.getpid()))
    assert "is silent" in faults(shop)["members"].what


def test_many_members_with_one_fault_are_one_finding(shop: Shop) -> None:
    """A screen full of the same line hides the others."""
    shop.reported(*(report_of(host=f"web-{n}", inert=True, guards=(Guarded("main", "it wrote"),)) for n in range(3, 9)))
    wrong = [one for one in check(Site(Switch(shop.store))) if not one.ok]
    assert [one.check for one in wrong] == ["members", "guards"]
    assert all("and 5 more" in one.what for one in wrong)


def test_nobody_reports(tmp_path: Path) -> None:
    """The middleware is not installed, or uses another store."""
    alone = made(tmp_path / "alone.db")
    assert {*faults(alone)} == {"members"}
    alone.store.close()


def test_no_guard_and_no_fence(tmp_path: Path) -> None:
    """Then a write that no rule names is stopped by nothing; one of the two is enough."""
    bare = made(tmp_path / "bare.db")
    bare.reported(report_of(guards=()))
    assert {*faults(bare)} == {"guards"}
    assert faults(bare, Planted()) == {}
    bare.store.close()


def test_a_replica_that_is_not_fit(shop: Shop) -> None:
    """And one that does not replay."""
    replica = {"name": "db2", "unfit": "is 40 s behind", "paused": True}
    shop.reported(report_of(guards=(Guarded("main", "", {"replicas": [replica]}),)))
    assert "replicas" in faults(shop)
    fit = {"name": "db3"}
    shop.reported(report_of(guards=(Guarded("main", "", {"replicas": [fit]}),)))
    assert any(one.ok is False and "40 s behind" in one.what for one in check(Site(Switch(shop.store))))


def test_rights_that_the_fencer_lacks(shop: Shop) -> None:
    """With the statements to be run."""
    assert "GRANT x" in faults(shop, Planted(missing=("GRANT x",)))["fences"].fix


def test_a_fence_that_came_with_a_copy_of_another_database(shop: Shop) -> None:
    """Its writers are refused, and nobody here knows why; the way out is named."""
    found = faults(shop, Planted(standing=fence_of("shop-production")))["fences"]
    assert "shop-production" in found.what
    assert "run-7f3c" in found.what
    assert found.fix == "readonlyctl fence lift main --orphan"
    unknown = faults(shop, Planted(standing=fence_of("shop")))["fences"]
    assert "does not know" in unknown.what
    assert unknown.fix == "readonlyctl fence lift main"


def test_a_database_that_can_t_be_asked(shop: Shop) -> None:
    """It is one finding, and the others are made."""
    assert "does not answer" in faults(shop, Planted(away=True))["fences"].what


def test_another_distribution_that_installs_readonly(shop: Shop) -> None:
    """Pip overwrites without asking."""
    both = {"readonly": ["readonly-mode", "django-readonly"]}
    with mock.patch.object(importlib.metadata, "packages_distributions", return_value=both):
        found = faults(shop)["package"]
    assert "django-readonly" in found.what
    assert "pip uninstall django-readonly" in found.fix
