"""`readonlyctl status` and `members`: what the site is, for people and for scripts."""

from __future__ import annotations

import json
import re
from datetime import timedelta
from pathlib import Path

import pytest

from readonly import changes
from readonly.stores.sqlite import SQLiteStore
from support.operating import ANNA, BEN, Member, Past, Shop, json_lines, made, members
from support.waiting import eventually


def test_it_exits_0_whenever_it_could_answer(served: tuple[Shop, Member]) -> None:
    """Scripts under `set -e` live; --expect asks for more."""
    shop, member = served
    done = shop.ctl("status")
    assert done.returncode == 0
    first, second, third = done.stdout.splitlines()
    assert first == f"shop · {shop.url} · 1 member"
    assert second.startswith("WRITABLE, epoch ")
    assert "1 of 1 follow" in third
    assert [shop.here("status", "--expect", e).returncode for e in ("writable", "read-only", "safe")] == [0, 3, 3]
    member.begins()
    shop.on(BEN, reason="index", expected=timedelta(hours=2))
    shop.reports()
    done = shop.here("status")
    assert done.returncode == 0
    assert "READ-ONLY for " in done.stdout
    assert "in 1 h 59 min" in done.stdout or "in 2 h" in done.stdout
    assert '"index"' in done.stdout
    assert f"missing   web {member.name[1:]}" not in done.stdout
    assert "1 write in flight" in done.stdout
    assert [shop.here("status", "--expect", e).returncode for e in ("writable", "read-only", "safe")] == [3, 0, 3]
    member.tell("end")
    assert shop.here("wait").returncode == 0
    assert [shop.here("status", "--expect", e).returncode for e in ("writable", "read-only", "safe")] == [3, 0, 0]
    assert shop.here("status", "--expect", "closed").returncode == 2


def test_a_record_that_is_not_there(tmp_path: Path) -> None:
    """0 for the answer "unknown", 4 where a state was expected; `init` is named."""
    shop = made(tmp_path / "shop.db", initialised=False)
    done = shop.here("status")
    assert done.returncode == 0
    assert "UNKNOWN: " in done.stdout
    assert "readonlyctl init shop" in done.stdout
    assert [shop.here("status", "--expect", e).returncode for e in ("writable", "read-only", "safe")] == [4, 4, 4]
    assert shop.here("wait").returncode == 4


def test_the_announced_end_has_passed(shop: Shop) -> None:
    """It says for how long, and opens nothing."""
    past = SQLiteStore(shop.folder / "shop.db", site="shop", clock=Past(timedelta(minutes=40)))
    changes.turn_on(past, BEN, expected=timedelta(minutes=30))
    past.close()
    done = shop.here("status")
    assert "READ-ONLY for 40 min, expected until " in done.stdout
    assert ", overdue 10 min, epoch 2" in done.stdout


def test_an_instant_of_another_day_carries_its_date(shop: Shop) -> None:
    """At night, "since 23:50" may be yesterday's."""
    past = SQLiteStore(shop.folder / "shop.db", site="shop", clock=Past(timedelta(days=3)))
    changes.turn_on(past, BEN)
    past.close()
    done = shop.here("status")
    assert "READ-ONLY for 3 d 0 h" in done.stdout
    record = shop.look().record
    assert record is not None
    assert f"since {record.causes[0].since:%Y-%m-%d %H:%M:%S} UTC" in done.stdout


def test_the_operators_own_time_is_said_as_well(shop: Shop) -> None:
    """Where the machine is not on UTC."""
    shop.on(ANNA, expected=timedelta(minutes=45))
    record = shop.look().record
    assert record is not None
    assert record.causes[0].expected_end is not None
    end = record.causes[0].expected_end + timedelta(hours=9)
    done = shop.ctl("status", environment={"TZ": "JST-9"})
    assert f"({end:%H:%M} JST)" in done.stdout


def _plant(shop: Shop, raw: bytes) -> None:
    stored = shop.store.read().record
    assert shop.store.replace(raw, was=stored).record == raw


def test_a_record_of_a_newer_version(shop: Shop) -> None:
    """It is told which version is needed, and nobody here overwrites it."""
    newer = json.dumps({"v": 2, "epoch": 9, "id": "x", "mode": "writable", "site": "shop"}).encode()
    _plant(shop, newer)
    done = shop.here("status")
    assert done.returncode == 0
    assert "UNKNOWN, epoch 9: the record has version 2; this library reads up to version 1: upgrade" in done.stdout
    assert shop.here("status", "--expect", "read-only").returncode == 4
    for command in (["on"], ["off"], ["off", "--all"], ["wait"], ["init", "shop"], ["init", "shop", "--replace"]):
        done = shop.here(*command)
        assert done.returncode == 4, command
        assert "upgrade readonly-mode" in done.stderr
    assert shop.here("members").returncode == 0
    assert shop.store.read().record == newer


def test_a_corrupt_record(shop: Shop) -> None:
    """Only `init --replace` gets over it, and `status` says so."""
    _plant(shop, b'{"v": 1, \x1b[31m')
    done = shop.here("status")
    assert done.returncode == 0
    assert "the record is corrupt" in done.stdout
    assert "\x1b" not in done.stdout
    assert "readonlyctl init --replace shop" in done.stdout
    assert shop.here("on").returncode == 4
    assert shop.here("init", "shop").returncode == 4
    assert shop.here("init", "shop", "--replace").returncode == 0
    assert shop.here("status", "--expect", "writable").returncode == 0


def test_another_sites_record(shop: Shop) -> None:
    """The URL names another site than the file holds: exit 2, and which."""
    done = shop.here("--store", shop.url.replace("site=shop", "site=blog"), "on")
    assert done.returncode == 2
    assert "'shop'" in done.stderr
    assert "'blog'" in done.stderr
    assert shop.standing() == []


def test_two_owners_of_the_package(shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pip overwrites silently: the warning names the other distribution."""
    metadata = tmp_path / "django_readonly-9.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: django-readonly\nVersion: 9\n")
    (metadata / "top_level.txt").write_text("readonly\n")
    assert "warning" not in shop.here("status").stdout
    monkeypatch.syspath_prepend(tmp_path)
    done = shop.here("status")
    assert done.returncode == 0
    assert "warning: django-readonly also install a top-level `readonly` package" in done.stdout


def test_members_by_role_and_host(served: tuple[Shop, Member]) -> None:
    """One line a role, host and condition; ids with --all; JSON has everything."""
    shop, member = served
    done = shop.ctl("members")
    assert done.returncode == 0
    _, line = done.stdout.splitlines()
    assert line.startswith("web ")
    assert "1 obeys" in line
    assert "0 writes in flight" in line
    (told,) = json_lines(shop.here("members", "--json").stdout)
    (one,) = told["members"]
    assert one["pid"] == member.process.pid
    everything = shop.here("members", "--all").stdout
    assert one["id"] in everything
    assert member.name in everything
    assert one["id"] not in done.stdout


def test_silent_members_come_first(shop: Shop) -> None:
    """With how long nothing was heard of them."""
    shop.silent_member(75, role="worker")
    with members(shop):
        lines = shop.here("members").stdout.splitlines()
        assert lines[0].endswith("· 1 member")
        assert lines[1].startswith("worker    web-2/4711   lost")
        heard = re.search(r"heard (\d+\.\d) s ago$", lines[1])
        assert heard is not None
        assert float(heard[1]) >= 75  # and as much as this machine took until it was asked
        assert lines[2].startswith("web ")


def test_members_that_are_expected(served: tuple[Shop, Member]) -> None:
    """Exit 3 names the role that lacks some; a wrong word is exit 2."""
    shop, _ = served
    assert shop.here("members", "--expect", "web=1").returncode == 0
    done = shop.here("members", "--expect", "web=1,celery>=2")
    assert done.returncode == 3
    assert "missing   celery: 0 report, expected 2 or more" in done.stdout
    wrong = shop.here("members", "--expect", "web=lots")
    assert wrong.returncode == 2
    assert "role=number" in wrong.stderr


@pytest.mark.parametrize("command", ["status", "members"])
def test_looking_changes_nothing(served: tuple[Shop, Member], command: str) -> None:
    """The record is the same afterwards, byte for byte."""
    shop, _ = served
    before = shop.store.read().record
    assert shop.here(command).returncode == 0
    assert shop.store.read().record == before


def test_a_role_that_is_gone_is_remembered(tmp_path: Path) -> None:
    """Nobody expected it by name, but it was there: `on` and `status` say that it is not now."""
    shop = made(tmp_path / "shop.db")
    with members(shop, ["web"]):
        with members(shop, ["celery", "celery"]):
            pass
        eventually(lambda: "0 now, last seen" in shop.here("status").stdout, what="celery said goodbye")
        line = next(line for line in shop.here("on").stdout.splitlines() if "0 now" in line)
        assert line.split()[0] == "celery"
        assert line.endswith(" ago, 2 then")
    shop.store.close()
