"""Every kind of member, made by real processes, signals and leases; what the terminal and `--json` say of each.

The play is given once, and what was said in its scenes is looked at by many tests. A process's role is its kind.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

import readonly
from kinds.older import OLDER, older
from readonly import changes
from support.operating import ANNA, Member, Shop, json_lines, made
from support.waiting import eventually

# Silent after three of these and a second; a lease is over for others after its length and a second.
SHORT_INTERVAL, LEASE = 0.1, 0.4
# Not silent for a while, on a busy machine either.
INTERVAL = 2.0
# So long, that a process which is stopped is not silent before the play is over.
LONG_INTERVAL = 30.0
BLOCKING = {
    "draining": "drains",
    "behind": "late",
    "older": "late",
    "unproven": "unproven",
    "inert": "inert",
    "lost": "lost",
    "expired": "expired",
    "gone": "gone",
}


@dataclass
class Play:
    """What was said, and by whom.

    Attributes:
        shop: The site.
        members: The processes, by role.
        said: Exit code, output and errors of what was typed, by scene.
        told: The objects of the same with --json.
    """

    shop: Shop
    members: dict[str, Member] = field(default_factory=dict)
    said: dict[str, subprocess.CompletedProcess[str]] = field(default_factory=dict)
    told: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    def types(self, scene: str, *words: str) -> None:
        """Type something, as it is and with --json."""
        self.said[scene] = self.shop.here(*words)
        done = self.shop.here(*words, "--json")
        self.told[scene] = json_lines(done.stdout)
        assert self.told[scene][-1]["exit"] == done.returncode

    def one(self, scene: str, role: str) -> dict[str, Any]:
        """Return what --json said of one process."""
        (found,) = [m for m in self.told[scene][-1]["members"] if m["role"] == role]
        return dict(found)

    def conditions(self) -> dict[str, str]:
        """Return where everybody stands now."""
        found = json.loads(self.shop.here("status", "--json").stdout)
        return {m["role"]: m["condition"] for m in found["members"]}


@pytest.fixture(scope="module")
def play(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Play]:
    """Give the play."""
    folder = tmp_path_factory.mktemp("kinds")
    shop = made(folder / "shop.db")
    found = Play(shop)
    with ExitStack() as stack:
        settings: dict[str, dict[str, Any]] = {
            "obeying": {},
            "draining": {},
            "behind": {"interval": LONG_INTERVAL},
            "older": {"environment": {"PYTHONPATH": older(folder)}},
            "unproven": {"database": f"sqlite:////{folder}/nowhere/away.db"},
            "inert": {"environment": {"READONLY_DISABLED": "1"}},
            "lost": {"interval": SHORT_INTERVAL},
            "expired": {"interval": SHORT_INTERVAL, "lease": LEASE},
            "gone": {"interval": SHORT_INTERVAL, "runs": "shop 1.41"},
            "left": {},
        }
        for role, given in settings.items():
            found.members[role] = stack.enter_context(Member(shop.url, role, **{"interval": INTERVAL, **given}))
        for member in found.members.values():
            member.starts()
        shop.reports(len(settings))
        for role in ("draining", "lost", "expired", "gone"):
            found.members[role].begins()
        eventually(
            lambda: json.loads(shop.here("members", "--json").stdout)["members"] and _in_flight(shop) == 4,
            what="four writes are reported",
        )
        _perform(found)
        yield found
    shop.store.close()


def _in_flight(shop: Shop) -> int:
    return sum(m["in_flight"] for m in json.loads(shop.here("members", "--json").stdout)["members"])


def _perform(play: Play) -> None:
    shop, members = play.shop, play.members
    with members["left"]:
        pass  # its input ends, and it says goodbye
    for role in ("behind", "lost", "expired"):
        members[role].stop()
    members["gone"].kill()
    play.types("on", "on", "--timeout", "100ms", "--reason", "every kind")
    eventually(lambda: play.conditions() == {"obeying": "obeys"} | BLOCKING, what="everybody stands where they should")
    play.types("everybody", "wait", "--timeout", "100ms")
    play.types("members", "members")
    play.types("status", "status", "--expect", "safe")
    play.types("not for all", "status", "--expect", "safe", "--accept", "lease")
    play.types("fenced", "wait", "--accept-fenced")
    # One after the other is seen to, as an operator would.
    members["draining"].tell("end")
    members["behind"].go_on()
    for role in ("inert", "unproven", "older"):
        with members[role]:
            pass
    play.types("refused", "members", "forget", play.one("everybody", "obeying")["id"], "--reason", "no")
    members["lost"].kill()
    lost = play.one("everybody", "lost")["id"]
    play.said["forgotten"] = shop.here("members", "forget", lost[:12], "--reason", "pulled its plug")
    eventually(
        lambda: (
            set(play.conditions().items())
            == {
                ("obeying", "obeys"),
                ("draining", "obeys"),
                ("behind", "obeys"),
                ("expired", "expired"),
                ("gone", "gone"),
            }
        ),
        what="only those are left whose writes nobody knows of",
    )
    play.types("ended", "wait", "--timeout", "100ms")
    play.types("too soon", "wait", "--timeout", "1ms", "--accept", "lease")  # one look, and no time between two
    play.types("accepted", "wait", "--timeout", "60s", "--accept", "lease")
    play.types("status without", "status", "--expect", "safe")
    play.types("status with", "status", "--expect", "safe", "--accept", "lease")
    play.types("history", "history", "--last", "50")
    record = shop.look().record
    assert record is not None
    play.types("show", "history", "show", str(record.epoch))


def test_everybody_is_there(play: Play) -> None:
    """Who said goodbye with nothing in flight is not: nobody waits for it, and it is remembered that it was there."""
    told = play.told["everybody"][-1]
    assert {m["role"]: m["condition"] for m in told["members"]} == {"obeying": "obeys"} | BLOCKING
    assert (told["exit"], told["safe"], told["confirmed"], told["level"]) == (3, False, False, None)
    assert told["counts"] == {
        "obeys": 1,
        "drains": 1,
        "late": 2,
        "unproven": 1,
        "inert": 1,
        "lost": 1,
        "expired": 1,
        "gone": 1,
    }
    assert re.search(r"^  left +0 now, last seen \d+ (s|min) ago$", play.said["everybody"].stdout, re.MULTILINE)


def test_on_is_not_safe_and_says_so(play: Play) -> None:
    """Exit 3 at once; the site is read-only all the same."""
    said = play.said["on"]
    assert said.returncode == 3
    assert re.search(
        r"^NOT CONFIRMED after \d+ s\. The site is read-only; start nothing irreversible\.", said.stdout, re.MULTILINE
    )
    assert "SAFE" not in said.stdout


WHY = {
    "draining": r"1 write in flight, the oldest for [\d.]+ s or more",
    "behind": "has not taken the change in yet",
    "older": rf"does not say which list of members it reports to: .*\({re.escape(OLDER)}\): start it again with .*",
    "unproven": r"its database guard has not proven itself \(main: the guard could not be tried: .*unable to open .*\)",
    "inert": r"inert \(READONLY_DISABLED is set there\): it refuses nothing",
    "lost": r"silent for \d+ s and may still accept writes; 1 write in flight then",
    "expired": "its lease is over, it admits nothing; 1 write in flight then",
    "gone": "its process has ended; 1 write in flight then",
}


@pytest.mark.parametrize("role", WHY)
def test_who_holds_it_up_is_named_and_why(play: Play, role: str) -> None:
    """In the lines of `wait` and `status`, on `members`, and as a member of the JSON."""
    one = play.one("everybody", role)
    name = f"{role} {one['host']}/{one['pid']}"
    assert one["pid"] == play.members[role].process.pid
    assert one["condition"] == BLOCKING[role]
    assert re.fullmatch(WHY[role], one["why"])
    line = re.compile(rf"^  {re.escape(name)}: {WHY[role]}$", re.MULTILINE)
    assert line.search(play.said["everybody"].stdout)
    assert re.search(rf"^  missing   {re.escape(name)}: {WHY[role]}$", play.said["status"].stdout, re.MULTILINE)
    assert re.search(
        rf"^{role:<8}  .*/{one['pid']}   {BLOCKING[role]}   .*\({WHY[role]}\)", play.said["members"].stdout, re.M
    )
    assert any(re.fullmatch(f"{re.escape(name)}: {WHY[role]}", why) for why in play.told["everybody"][-1]["missing"])


def test_what_each_tells_of_itself(play: Play) -> None:
    """Lease, version, what it runs, what it has in flight, its guards: in the JSON, and where it matters in lines."""
    assert play.one("everybody", "expired")["lease"] == LEASE
    assert (play.one("everybody", "older")["library"], play.one("everybody", "lost")["library"]) == (
        OLDER,
        readonly.__version__,
    )
    assert play.one("everybody", "gone")["runs"] == "shop 1.41"
    assert play.one("everybody", "inert")["inert"] is True
    (guard,) = play.one("everybody", "unproven")["guards"]
    assert "unable to open" in guard["proof"]
    assert [play.one("everybody", role)["in_flight"] for role in ("draining", "obeying")] == [1, 0]
    assert f"readonly-mode {OLDER}" in play.said["everybody"].stdout
    assert play.one("everybody", "lost")["silent_seconds"] > SHORT_INTERVAL


def test_silent_ones_come_first(play: Play) -> None:
    """On `members`, one by one, with since when nothing was heard of them; the one that obeys is last."""
    roles = [line.split()[0] for line in play.said["members"].stdout.splitlines()[1:]]
    assert set(roles[:3]) == {"lost", "expired", "gone"}
    assert roles[-1] == "obeying"


def test_status_is_not_safe(play: Play) -> None:
    """Exit 3, and it says so."""
    said = play.said["status"]
    assert said.returncode == 3
    assert said.stdout.splitlines()[-1] == "not safe, see missing"


def test_an_accepted_lease_is_no_cure_for_the_others(play: Play) -> None:
    """Only what has ended is accepted: whoever may still write holds it up as before."""
    told = play.told["not for all"][-1]
    assert (told["exit"], told["safe"], told["level"]) == (3, False, None)
    assert {what.split()[0] for what in told["accepted"]} == {"expired", "gone"}
    assert {what.split()[0] for what in told["missing"]} == set(BLOCKING) - {"expired", "gone"}


def test_without_a_fence_nothing_is_fenced(play: Play) -> None:
    """Exit 2, no pretence, and what there is instead."""
    said = play.said["fenced"]
    assert (said.returncode, said.stdout) == (2, "")
    assert "no fence is configured for shop" in said.stderr
    assert "members forget" in said.stderr
    assert [line["event"] for line in play.told["fenced"]] == ["error", "result"]


def test_a_process_at_work_is_not_forgotten(play: Play) -> None:
    """On nobody's word."""
    assert play.said["refused"].returncode == 2
    assert "it is at work, and is not forgotten. Nothing was changed" in play.said["refused"].stderr


def test_a_lost_one_is_forgotten_on_somebodys_word(play: Play) -> None:
    """It is gone from the list, and the history has who said so, and why."""
    assert play.said["forgotten"].returncode == 0
    assert re.match(r"Forgotten: lost .*/\d+\. On your word; it is in the history\.", _last(play.said["forgotten"]))
    assert not [m for m in play.told["ended"][-1]["members"] if m["role"] == "lost"]
    assert re.search(r'forgot .*anna.*"pulled its plug"', play.said["history"].stdout)


def test_what_has_ended_holds_it_up_and_it_is_said_what_would_help(play: Play) -> None:
    """Exit 3 names both, says that a fence would tell, and what to type to do without one."""
    said = play.said["ended"]
    assert said.returncode == 3
    assert {what.split()[0] for what in play.told["ended"][-1]["missing"]} == {"expired", "gone"}
    assert "a fence there would close that gap" in said.stdout
    assert re.search(r"what they had begun may commit: +readonlyctl wait --accept lease", said.stdout)
    assert "--accept" not in play.said["everybody"].stdout  # of no use while others may still write


def test_accepted_it_is_safe_at_the_level_of_a_lease(play: Play) -> None:
    """Exit 0; the words say what was accepted and of whom, and never that nothing can commit."""
    said = play.said["accepted"]
    assert said.returncode == 0
    assert re.search(r"^SAFE \(lease\) after [\d.]+ s: none of 5 members admits a write any more", said.stdout, re.M)
    assert "can commit any more" not in said.stdout
    assert "you accepted that what these had begun may still commit" in said.stdout
    for role in ("expired", "gone"):
        assert re.search(rf"^    {role} .*/\d+: {WHY[role]}$", said.stdout, re.MULTILINE)
    told = play.told["accepted"][-1]
    assert (told["safe"], told["confirmed"], told["level"], told["missing"]) == (True, True, "lease", [])
    assert {what.split()[0] for what in told["accepted"]} == {"expired", "gone"}
    assert {m["role"] for m in told["members"] if m["accepted"]} == {"expired", "gone"}


def test_a_lease_is_over_when_the_command_itself_has_waited_for_it(play: Play) -> None:
    """The store's wall clock says who is expired, and a wall clock may be set: `wait` measures with its own."""
    assert play.said["too soon"].returncode == 3
    (missing,) = play.told["too soon"][-1]["missing"]
    assert missing.startswith("expired ")
    assert play.told["accepted"][-1]["seconds"] > LEASE


def test_status_is_told_again_each_time(play: Play) -> None:
    """What was accepted once is not for ever: the line before the next step of a script says it again."""
    assert (play.said["status without"].returncode, play.said["status with"].returncode) == (3, 0)
    assert re.search(r"^  accepted   gone .*: its process has ended", play.said["status with"].stdout, re.MULTILINE)
    assert play.told["status with"][-1]["level"] == "lease"


def test_the_history_keeps_what_was_accepted(play: Play) -> None:
    """Who, at which level, and of whom: for the morning after."""
    assert re.search(r"confirmed +anna.*SAFE \(lease\)", play.said["history"].stdout)
    assert re.search(r"^ +accepted +expired .*its lease is over", play.said["show"].stdout, re.MULTILINE)
    kept = [entry for entry in play.told["history"] if entry.get("level") == "lease"]
    assert kept
    assert {what.split()[0] for what in kept[-1]["accepted"]} == {"expired", "gone"}


def _last(done: subprocess.CompletedProcess[str]) -> str:
    return done.stdout.splitlines()[-1]


def test_on_probation(tmp_path: Path) -> None:
    """On a store that is young a process takes no write, and does not follow an `off`; it may close at once."""
    shop = Shop(f"sqlite:///{tmp_path}/young.db?site=shop", tmp_path)
    assert shop.here("init", "shop").returncode == 0
    with Member(shop.url, "probation", interval=LONG_INTERVAL) as member:
        member.starts()
        shop.reports()
        assert member.tell("begin") == "refused"
        done = shop.here("wait", "--timeout", "100ms")
        assert done.returncode == 3
        name = f"probation .*/{member.process.pid}"
        assert re.search(
            rf"^  {name}: still refuses writes: it has not read a state yet that it may trust$", done.stdout, re.M
        )
        changes.turn_on(shop.store, ANNA)
        shop.reports()
        done = shop.here("wait", "--timeout", "100ms")
        assert done.returncode == 3
        assert "probation  1 of 1 obey and have drained" in done.stdout
        assert re.search(r"^  the store is known for [\d.]+ s only: who was there before has until ", done.stdout, re.M)
    shop.store.close()
