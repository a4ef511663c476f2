"""`readonlyctl off`: lifts one's own, says what still stands, and never opens by reflex what others closed."""

from __future__ import annotations

from datetime import timedelta

import pytest

from readonly import changes
from readonly.stores.sqlite import SQLiteStore
from support.operating import ANNA, BEN, Member, Past, Shop, json_lines, members


def test_it_lifts_what_one_has_set_and_waits_until_that_is_true(served: tuple[Shop, Member]) -> None:
    """Exit 0 once every process follows."""
    shop, member = served
    assert shop.here("on").returncode == 0
    done = shop.ctl("off")
    assert done.returncode == 0, done.stderr
    assert "Lifted   operator c" in done.stdout
    assert f"WRITABLE, epoch {shop.look().state.epoch}: 1 member follows." in done.stdout
    member.begins()


def test_nothing_to_lift_is_no_failure(served: tuple[Shop, Member]) -> None:
    """It says that the site was writable before."""
    shop, _ = served
    done = shop.here("off")
    assert done.returncode == 0
    assert "It was writable before; nothing was changed." in done.stdout


def test_it_does_not_lift_what_another_has_set(served: tuple[Shop, Member]) -> None:
    """Exit 6, nothing changed, whose it is, and what to type if one is sure."""
    shop, _ = served
    cause = shop.on(BEN, reason="UTF-8 conversion, ask me before touching", expected=timedelta(minutes=45))
    done = shop.ctl("off")
    assert done.returncode == 6
    assert "REFUSED: shop is read-only because of others, not you (anna):" in done.stdout
    assert f"operator {cause}   ben @ desk   since " in done.stdout
    assert '"UTF-8 conversion, ask me before touching"' in done.stdout
    assert "Nothing was changed." in done.stdout
    assert f"readonlyctl off --cause {cause}" in done.stdout
    assert shop.standing() == ["ben"]
    as_json = json_lines(shop.here("off", "--json").stdout)
    assert [line["event"] for line in as_json] == ["site", "error", "result"]
    assert as_json[-1]["exit"] == 6
    assert as_json[-1]["causes"][0]["id"] == cause


def test_one_cause_by_name_whosever_it_is(served: tuple[Shop, Member]) -> None:
    """--cause is the considered way to lift another's."""
    shop, _ = served
    cause = shop.on(BEN)
    done = shop.here("off", "--cause", cause)
    assert done.returncode == 0
    assert f"Lifted   operator {cause}   ben" in done.stdout
    again = shop.here("off", "--cause", cause)
    assert again.returncode == 0
    assert "It was writable before" in again.stdout


def test_a_cause_that_is_not_there(served: tuple[Shop, Member]) -> None:
    """Exit 6: a mistyped id opens nothing, and the right ones are named."""
    shop, _ = served
    cause = shop.on(BEN)
    done = shop.here("off", "--cause", "c0")
    assert done.returncode == 6
    assert "there is no cause c0" in done.stderr
    assert cause in done.stderr
    assert shop.standing() == ["ben"]


def test_still_read_only_for_another(served: tuple[Shop, Member]) -> None:
    """Exit 3, so that `off && tell everybody` does not lie."""
    shop, _ = served
    other = shop.on(BEN, reason="index")
    assert shop.here("on").returncode == 0
    done = shop.here("off")
    assert done.returncode == 3
    assert "Lifted   operator c" in done.stdout
    assert "Still READ-ONLY, epoch" in done.stdout
    assert "ben @ desk   since " in done.stdout
    assert f"readonlyctl off --cause {other}" in done.stdout
    assert "WRITABLE" not in done.stdout
    assert shop.standing() == ["ben"]


def test_all_lifts_what_operators_have_set(served: tuple[Shop, Member]) -> None:
    """--all and --cause exclude each other."""
    shop, _ = served
    shop.on(BEN)
    shop.on(ANNA)
    assert shop.here("off", "--all", "--cause", "c1").returncode == 2
    assert shop.standing() == ["anna", "ben"]
    assert shop.here("off", "--all").returncode == 0
    assert shop.standing() == []


def test_a_slip_is_taken_back_with_the_sessions_cut_off(served: tuple[Shop, Member]) -> None:
    """--undo within a minute leaves no cut-off; a plain `off` does."""
    shop, _ = served

    def cut_off() -> object:
        record = shop.look().record
        assert record is not None
        return record.sessions_ended_before()

    before = cut_off()
    shop.on(ANNA)
    assert cut_off() != before
    assert shop.here("off", "--undo").returncode == 0
    assert cut_off() == before
    shop.on(ANNA)
    assert shop.here("off").returncode == 0
    assert cut_off() != before


def test_a_slip_of_an_hour_ago_cannot_be_taken_back(shop: Shop) -> None:
    """Exit 6 says that a plain `off` opens the site, and what it does not give back."""
    past = SQLiteStore(shop.folder / "shop.db", site="shop", clock=Past(timedelta(minutes=30)))
    changes.turn_on(past, ANNA)
    past.close()
    done = shop.here("off", "--undo")
    assert done.returncode == 6
    assert "for 60 s only" in done.stderr
    assert "Nothing was changed" in done.stderr
    assert shop.standing() == ["anna"]


def test_somebody_closes_it_again_while_it_waits(served: tuple[Shop, Member]) -> None:
    """What is said last is true last: `off` must not end with "writable" on a site that is not."""
    shop, member = served
    assert shop.here("on").returncode == 0
    member.stop()
    with shop.start("off") as command:
        command.says("still holds")
        shop.on(BEN)
        member.go_on()
        assert command.ends() == 3
        assert "Still READ-ONLY" in command.out
        assert "ben @ desk" in command.out


def test_a_process_that_does_not_follow_is_named(served: tuple[Shop, Member]) -> None:
    """Exit 3: the record says writable, and this process may refuse on."""
    shop, member = served
    assert shop.here("on").returncode == 0
    member.stop()
    done = shop.here("off", "--timeout", "300ms")
    member.go_on()
    assert done.returncode == 3
    assert "NOT CONFIRMED" in done.stdout
    assert f"{member.name}: still holds" in done.stdout
    assert shop.here("wait").returncode == 0


def test_over_nobody_it_opens_the_record(shop: Shop) -> None:
    """No process reports: there is nobody whose following could be waited for, and that is said."""
    shop.on(ANNA)
    done = shop.here("off")
    assert done.returncode == 0
    assert "WRITABLE" in done.stdout
    assert "no process of the site reports" in done.stdout


def test_silent_members_do_not_keep_a_site_shut(shop: Shop) -> None:
    """They do not follow, and they are not counted as if they did."""
    shop.silent_member(75)
    shop.on(ANNA)
    with members(shop):
        done = shop.here("off")
        assert done.returncode == 0
        assert "1 member follows." in done.stdout
        assert "web       1 of 2 follow, 1 silent" in done.stdout


@pytest.mark.parametrize("command", ["on", "off", "wait", "status", "members"])
def test_every_command_answers_on_a_site_without_processes(shop: Shop, command: str) -> None:
    """The first line names site, store and how many report."""
    done = shop.here(command, *(["--timeout", "100ms"] if command in ("on", "off", "wait") else []))
    assert done.stdout.splitlines()[0] == f"shop · {shop.url} · 0 members"
