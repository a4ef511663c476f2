"""Commands on a Redis that is down, hangs, dies in the middle or was emptied: bounded, and honest about what stands."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest
import redis

from readonly import changes
from readonly.changes import Operator
from readonly.stores import store_from_url
from readonly.stores.redis_connection import explain
from support.operating import ANNA, BEN, Shop, json_lines, members
from support.redis_server import RedisServer
from support.waiting import eventually

# What `on`, `off` and `wait` wait for processes if nothing else is typed: none of that was needed to say what they say.
WAITS = 60.0


@pytest.fixture
def shop(redis_url: str, tmp_path: Path) -> Shop:
    """A site on the shared Redis, with a record."""
    found = Shop(redis_url, tmp_path)
    changes.initialise(found.store, ANNA)
    return found


def test_the_whole_way_on_redis(redis_url: str, tmp_path: Path) -> None:
    """init, on, off, with a process that follows; the password is never shown."""
    url = redis_url.replace("redis://", "redis://default:verysecret@")
    shop = Shop(url, tmp_path)
    shown = url.replace("verysecret", "***")
    said = [shop.ctl("init", shop.name)]
    with members(shop, interval=0.05):
        said += [shop.ctl("on"), shop.here("status"), shop.here("status", "--json"), shop.ctl("off")]
        said += [shop.here("--store", url, "on", "--no-wait"), shop.here("--store", url + "&nonsense=1", "status")]
    assert [done.returncode for done in said] == [0, 0, 0, 0, 0, 0, 2], said
    assert said[1].stdout.startswith(f"{shop.name} · {shown} · ")
    assert f"--store '{shown}' wait" in said[5].stdout
    for done in said:
        assert "verysecret" not in done.stdout + done.stderr


def test_a_store_that_is_down(tmp_path: Path) -> None:
    """Exit 4, not waited for, one line and what it means; with JSON as well."""
    shop = Shop("redis://user:verysecret@127.0.0.1:1/0?site=shop", tmp_path)
    started = time.monotonic()
    for command in (
        ["on"],
        ["off"],
        ["wait"],
        ["status"],
        ["status", "--expect", "safe"],
        ["members"],
        ["init", "shop"],
    ):
        done = shop.here(*command)
        assert done.returncode == 4
        assert "redis://user:***@127.0.0.1:1/0?site=shop" in done.stderr
        assert "verysecret" not in done.stderr
        assert "Traceback" not in done.stderr
    told = json_lines(shop.here("on", "--json").stdout)
    assert [(line["event"], line.get("error"), line.get("exit")) for line in told] == [
        ("error", "StoreUnreachable", None),
        ("result", None, 4),
    ]
    assert time.monotonic() - started < WAITS


def test_what_is_known_without_the_store_is_said(own_redis: RedisServer, tmp_path: Path) -> None:
    """What this host saw last, where else to look, and what to do if the store is lost; in every command, once."""
    shop = Shop(own_redis.url(), tmp_path)
    changes.initialise(shop.store, ANNA)
    assert shop.here("on", "--no-wait", "--reason", "UTF-8\x1b[31m").returncode == 0
    assert shop.here("status").returncode == 0
    own_redis.kill()
    for command in ("status", "members", "on", "off", "wait"):
        said = shop.here(command, "--timeout", "100ms") if command in ("on", "off", "wait") else shop.here(command)
        assert said.returncode == 4
        assert said.stdout == ""
        for text in (
            "can't be reached",
            "Processes keep what they last saw",
            "This host saw it change last at ",
            ": READ-ONLY, epoch 2",
            '"UTF-8\\x1b[31m"',
            "curl -sI",
            "If the store is lost for good: start an empty one",
        ):
            assert said.stderr.count(text) == 1, (text, said.stderr)
        assert ".." not in said.stderr


@pytest.mark.parametrize(
    "error",
    [
        redis.exceptions.ConnectionError("Error 111 connecting to 10.0.0.1:6379. Connection refused."),
        redis.exceptions.ResponseError("WRONGPASS invalid username-password pair or user is disabled."),
        redis.exceptions.ResponseError("something else."),
        TimeoutError("Timeout reading from socket. "),
    ],
)
def test_what_a_server_says_does_not_end_our_sentence(error: Exception) -> None:
    """Some texts end in a full stop; what stands behind them goes on."""
    said = explain(error, 1.0)
    assert "socket" in said or str(error).rstrip(". ").removeprefix("WRONGPASS ") in said
    assert not re.search(r"\.[ )]*$|\.\)|\.;", said)


def test_a_store_that_hangs(own_redis: RedisServer, tmp_path: Path) -> None:
    """A stopped server accepts connections and answers nothing: exit 4, at the command's own deadline."""
    shop = Shop(own_redis.url(), tmp_path)
    changes.initialise(shop.store, ANNA)
    own_redis.pause()
    started = time.monotonic()
    done = shop.ctl("on")
    assert done.returncode == 4
    assert time.monotonic() - started < WAITS
    assert "Nothing was changed." in done.stderr
    own_redis.resume()
    assert shop.here("status", "--expect", "writable").returncode == 0


def test_a_store_that_refuses_to_be_written(own_redis: RedisServer, tmp_path: Path) -> None:
    """Exit 4, and the state is read again and said."""
    shop = Shop(own_redis.url(), tmp_path)
    changes.initialise(shop.store, ANNA)
    own_redis.command("CONFIG", "SET", "min-replicas-to-write", "1")
    done = shop.here("on")
    assert done.returncode == 4
    assert "What stands now: WRITABLE, epoch 1" in done.stderr
    assert json_lines(shop.here("on", "--json").stdout)[-1]["mode"] == "writable"


def test_a_store_that_dies_while_it_waits(own_redis: RedisServer, tmp_path: Path) -> None:
    """Exit 4, not 3: how many had confirmed, and that it is not safe."""
    shop = Shop(own_redis.url(), tmp_path)
    changes.initialise(shop.store, ANNA)
    with members(shop, ["web", "worker"], interval=0.5) as (web, worker):
        web.begins()
        shop.on(ANNA)
        shop.reports(2)  # the time is for the store to go away in, not for them to hear of it
        with shop.start("on", "--timeout", "4s") as command:
            command.says("1 of 2 members there")
            own_redis.kill()
            command.says("waiting: ")
            assert command.ends() == 4
        assert "1 of 2 had confirmed when the store went away" in command.err
        assert "Not safe" in command.err
        assert "readonlyctl wait" in command.err
        for process in (web, worker):
            process.kill()  # saying goodbye to a store that is gone takes its time


def test_a_mode_for_a_site_that_the_store_does_not_know(redis_url: str, tmp_path: Path) -> None:
    """`on` is accepted, never safe, and says that it may be the wrong store; `off` waits, then names `init`."""
    shop = Shop(redis_url, tmp_path)
    done = shop.here("on", "--timeout", "200ms")
    assert done.returncode == 3
    assert f"The store held no record of {shop.name}" in done.stdout
    started = time.monotonic()
    done = shop.ctl("off", "--timeout", "300ms")
    assert done.returncode == 4
    assert time.monotonic() - started > 0.3
    assert f"readonlyctl init {shop.name}" in done.stderr
    assert shop.standing() == ["anna"]
    assert "the store was emptied" in shop.here("status").stdout


def test_the_command_remembers_what_this_host_saw(own_redis: RedisServer, tmp_path: Path) -> None:
    """Store and processes start empty together: `on` brings back what a command saw last, and that opens nothing."""
    shop = Shop(own_redis.url(), tmp_path)
    changes.initialise(shop.store, ANNA)
    shop.on(BEN, reason="index")
    assert shop.here("status").returncode == 0
    before = shop.look().state.epoch
    own_redis.flush()
    assert "UNKNOWN" in shop.here("status").stdout  # looking brings nothing back
    done = shop.here("on", "--no-wait")
    assert done.returncode == 0
    assert shop.standing() == ["anna", "ben"]
    assert '"index"' in done.stdout
    assert shop.look().state.epoch > before
    assert shop.here("--as", "ben", "off", "--timeout", "100ms").returncode == 4  # a partial record can't open
    own_redis.flush()
    nothing = {"READONLY_STATE_DIR": ""}
    assert shop.here("on", "--no-wait", environment=nothing).returncode == 0
    assert shop.standing() == ["anna"]


def test_off_waits_for_a_process_that_knew(own_redis: RedisServer, tmp_path: Path) -> None:
    """The store was emptied while read-only: a member writes the record back, and `off` lifts what it says."""
    shop = Shop(own_redis.url(), tmp_path)
    changes.initialise(shop.store, ANNA)
    with members(shop, interval=0.05) as (member,):
        member.begins()  # it has settled: what it knows is worth being written back whole
        member.tell("end")
        shop.on(ANNA)
        shop.reports()
        member.stop()
        own_redis.flush()
        with shop.start("off") as command:
            command.says("waiting: ")
            assert shop.store.read().record is None
            member.go_on()
            command.says("WRITABLE")
            assert command.ends() == 0, command.err
        member.begins()


def test_the_command_remembers_for_a_store_that_forgets(own_redis: RedisServer, tmp_path: Path) -> None:
    """The store is emptied while `on` waits, and no process had heard of it yet: the command writes its cause back."""
    shop = Shop(own_redis.url(), tmp_path)
    changes.initialise(shop.store, ANNA)
    with members(shop, interval=0.05) as (member,):
        member.begins()  # it has settled: what it knows makes the record whole again
        member.tell("end")
        shop.reports()
        member.stop()
        with shop.start("on", "--timeout", "30s") as command:
            command.says("READ-ONLY since")
            own_redis.flush()
            eventually(lambda: shop.standing() == ["anna"])
            member.go_on()
            assert command.ends() == 0, command.out + command.err
        assert member.tell("begin") == "refused"


def test_another_operators_store(shop: Shop) -> None:
    """Two people on two machines see the same record."""
    twin = store_from_url(shop.url, create=False)
    changes.turn_on(twin, Operator("eva", "laptop"), reason="from afar")
    twin.close()
    assert "eva @ laptop" in shop.here("status").stdout
