"""The demonstration's verdict: what counts as a broken promise, and what as too little to tell."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from demo_app import verdict
from demo_app.seen import Seen
from demo_app.snapshot import Snapshot
from demo_app.verdict import Evidence, Moments, Phase

MOMENTS = Moments(on_typed=1000, on_returned=2000, off_typed=3000, off_returned=4000)
COLUMNS = {"comment": ("body",), "account": ("name", "display_name")}


def _seen(action: Any = "read", start: int = 100, *, took: int = 10, **more: Any) -> Seen:
    values: dict[str, Any] = {"client": "fan-00", "route": "GET /", "status": 200}
    return Seen(action=action, start=start, end=start + took, **{**values, **more})


def _comment(start: int, row: int | None, text: str, **more: Any) -> Seen:
    values: dict[str, Any] = {"status": 303, "accepted": True, "kind": "comment"}
    return _seen("write", start, row=row, text=text, **{**values, **more})


def _refusal(start: int, **more: Any) -> Seen:
    return _seen(
        more.pop("action", "write"),
        start,
        **{"status": 503, "retry_after": "60", "read_only": True, "kind": "comment", "text": "no", **more},
    )


def _database(comments: dict[int, str], accounts: dict[int, tuple[str, str]] | None = None) -> Snapshot:
    rows = {number: (text,) for number, text in comments.items()}
    return Snapshot(COLUMNS, {"comment": rows, "account": accounts or {1: ("fan-00", "Fan")}})


def good_run() -> Evidence:
    """Return just enough of everything, and nothing wrong with it."""
    before = [_comment(100, number, f"text {number}") for number in range(verdict.WRITES_ACCEPTED_BEFORE)]
    during = [_refusal(2100, text=f"never {number}") for number in range(verdict.WRITES_REFUSED_DURING)]
    # A member's second look is a read as well.
    reads = [_seen(start=2100) for _ in range(verdict.READS_DURING - verdict.SESSIONS_ENDED)]
    members = []
    for number in range(verdict.SESSIONS_ENDED):
        name = f"fan-{number:02d}"
        members.append(_seen(client=name, session=50, signed_in=name))
        members.append(_seen(client=name, start=2200, session=50, signed_in="", status=303))
    stored = _database({number: f"text {number}" for number in range(verdict.WRITES_ACCEPTED_BEFORE)})
    return Evidence([*before, *during, *reads, *members], MOMENTS, closed=stored, opening=stored, final=stored)


def broken(evidence: Evidence) -> list[str]:
    """Return the texts of the broken promises."""
    return [promise.text for promise in verdict.judge(evidence).promises if promise.broken]


def _plus(evidence: Evidence, *more: Seen) -> Evidence:
    return replace(evidence, seen=[*evidence.seen, *more])


def test_a_good_run_is_kept() -> None:
    """With just enough of everything and nothing broken, the exit code is 0."""
    result = verdict.judge(good_run())
    assert not broken(good_run())
    assert [minimum.met for minimum in result.minimums] == [True] * 4
    assert result.exit_code == verdict.KEPT


@pytest.mark.parametrize(
    ("start", "took", "phase"),
    [
        (900, 50, Phase.BEFORE),
        (900, 150, Phase.TURNING_ON),
        (900, 5000, Phase.TURNING_ON),
        (1999, 10, Phase.TURNING_ON),
        (2000, 10, Phase.READ_ONLY),
        (2990, 20, Phase.TURNING_OFF),
        (3500, 1000, Phase.TURNING_OFF),
        (4000, 10, Phase.AFTER),
    ],
)
def test_phases(start: int, took: int, phase: Phase) -> None:
    """A request that was under way while the mode changed belongs to the change."""
    assert MOMENTS.phase(_seen(start=start, took=took)) is phase


@pytest.mark.parametrize(
    "opening",
    [
        {**{n: f"text {n}" for n in range(verdict.WRITES_ACCEPTED_BEFORE)}, 900: "slipped in"},
        {n: f"text {n}" for n in range(1, verdict.WRITES_ACCEPTED_BEFORE)},
        {**{n: f"text {n}" for n in range(verdict.WRITES_ACCEPTED_BEFORE)}, 0: "edited"},
    ],
    ids=["added", "removed", "changed"],
)
def test_a_commit_while_read_only_is_found_in_the_database(opening: dict[int, str]) -> None:
    """A row that came, went or changed between `on` and `off` breaks the promise, whatever clients heard."""
    evidence = replace(good_run(), opening=_database(opening))
    assert broken(evidence) == ["writes committed between `on` and `off`, in the database"]
    assert verdict.judge(evidence).exit_code == verdict.BROKEN


def test_an_acknowledged_write_that_is_missing() -> None:
    """Whoever was told that a comment is stored finds it."""
    evidence = _plus(good_run(), _comment(150, 900, "gone"))
    assert broken(evidence) == ["acknowledged writes that are missing or doubled"]


def test_an_acknowledged_write_that_is_there_twice() -> None:
    """A write that was stored twice is as wrong as one that is missing."""
    evidence = good_run()
    rows = {number: body for number, (body,) in evidence.final.rows["comment"].items()}
    evidence = replace(evidence, final=_database({**rows, 901: "text 7"}))
    assert broken(evidence) == ["acknowledged writes that are missing or doubled"]


@pytest.mark.parametrize(
    ("final_name", "later", "is_broken"),
    [
        ("second", (), False),
        ("first", (), True),
        ("third", ({"status": 0, "error": "closed", "text": "third"},), True),
        ("second", ({"status": 503, "retry_after": "9", "read_only": True, "text": "third"},), False),
    ],
)
def test_names_are_judged_by_the_last_one_acknowledged(
    final_name: str, later: tuple[dict[str, Any], ...], is_broken: bool
) -> None:
    """Only the last acknowledged name can be looked for; one that was never answered may be there or not."""
    sent = [
        _seen("write", 100, status=303, accepted=True, kind="name", text="first"),
        _seen("write", 200, status=303, accepted=True, kind="name", text="second"),
        *(_seen("write", 300, kind="name", **more) for more in later),
    ]
    evidence = _plus(good_run(), *sent)
    rows = {number: body for number, (body,) in evidence.final.rows["comment"].items()}
    evidence = replace(evidence, final=_database(rows, {1: ("fan-00", final_name)}))
    assert bool(broken(evidence)) is is_broken
    # A request without an answer is an error of its own, but it may be stored: nothing is called lost.
    assert ("acknowledged writes that are missing or doubled" in broken(evidence)) is (final_name == "first")


def test_an_account_that_was_promised() -> None:
    """A registration that was answered with a session is in the database."""
    made = _seen("login", 100, status=303, entered=True, accepted=True, kind="account", text="new-one")
    assert broken(_plus(good_run(), made)) == ["acknowledged writes that are missing or doubled"]


def test_a_refused_write_that_is_stored_all_the_same() -> None:
    """A 503 means that nothing was stored."""
    assert broken(_plus(good_run(), _refusal(2100, text="text 7"))) == ["refused writes that are in the database"]


@pytest.mark.parametrize("start", [100, 1500, 2500, 3500, 5000])
def test_a_read_that_failed_in_any_phase(start: int) -> None:
    """Every page can be read the whole time."""
    assert broken(_plus(good_run(), _seen(start=start, status=500, error="status 500"))) == ["reads that failed"]


@pytest.mark.parametrize("status", [303, 200])
def test_a_write_that_was_let_through_while_read_only(status: int) -> None:
    """Also one that the application then sent to the login form: the gate had to stop it."""
    passed = _seen("write", 2100, status=status, kind="comment", text="hello")
    assert broken(_plus(good_run(), passed)) == ["writes not refused while read-only"]


def test_a_write_during_the_change_may_end_either_way() -> None:
    """Between typing `on` and its success, a write may still be accepted."""
    evidence = good_run()
    rows = {number: body for number, (body,) in evidence.final.rows["comment"].items()}
    now = _database({**rows, 900: "just in time"})
    evidence = _plus(
        replace(evidence, closed=now, opening=now, final=now), _comment(1400, 900, "just in time", took=100)
    )
    result = verdict.judge(evidence)
    assert not broken(evidence)
    assert result.seconds_to_last_commit == pytest.approx(500e-9)


@pytest.mark.parametrize(
    "answer", [{"status": 303, "entered": True}, {"status": 200}, {"status": 503, "entered": True}]
)
def test_a_login_that_got_in(answer: dict[str, Any]) -> None:
    """While read-only every login is refused, and a refusal begins no session."""
    attempt = _seen("login", 2100, **{"retry_after": "5", "read_only": True, **answer})
    assert broken(_plus(good_run(), attempt)) == ["logins not refused while read-only"]


@pytest.mark.parametrize("start", [2100, 3500, 5000])
def test_a_session_that_survived(start: int) -> None:
    """A session from before `on` greets nobody any more, after `off` neither."""
    evidence = _plus(good_run(), _seen(client="fan-01", start=start, session=50, signed_in="fan-01"))
    assert broken(evidence) == ["sessions that outlived `on`"]
    # The client whose session lives is not counted among those whose session ended.
    assert verdict.judge(evidence).minimums[3].found == verdict.SESSIONS_ENDED - 1


def test_a_session_begun_after_off_is_nobodys_survivor() -> None:
    """Logging in again is what the site was opened for."""
    assert not broken(_plus(good_run(), _seen(client="fan-01", start=5000, session=4500, signed_in="fan-01")))


@pytest.mark.parametrize(
    "answer",
    [
        {"status": 0, "error": "Broken: closed"},
        {"status": 500},
        {"status": 422},
        {"status": 503, "retry_after": ""},
        {"status": 503, "retry_after": "soon"},
        {"status": 503, "retry_after": "60", "read_only": False},
    ],
)
def test_an_answer_that_is_neither_yes_nor_a_proper_no(answer: dict[str, Any]) -> None:
    """No 5xx but the 503s, and those say when to come back."""
    odd = _seen("write", 100, **{"read_only": True, "kind": "comment", "text": "odd", **answer})
    assert broken(_plus(good_run(), odd)) == ["other errors (no answer, or one that says nothing of being read-only)"]


@pytest.mark.parametrize("missing", range(4))
def test_too_little_load_is_no_success(missing: int) -> None:
    """One less than the minimum of anything, and the run means nothing."""
    evidence = good_run()

    def is_of_kind(found: Seen) -> bool:
        return (
            (found.action == "write" and found.accepted),
            (found.action == "write" and found.refused),
            (found.action == "read" and found.session is None),
            (found.signed_in == ""),
        )[missing]

    victim = next(found for found in evidence.seen if is_of_kind(found))
    fewer = replace(evidence, seen=[found for found in evidence.seen if found is not victim])
    result = verdict.judge(fewer)
    assert not result.minimums[missing].met
    assert result.exit_code == verdict.TOO_SMALL


def test_a_share_of_the_smallest_load() -> None:
    """It is all that is wanted then, rounded up."""
    whole = good_run()
    few = replace(whole, seen=[seen for number, seen in enumerate(whole.seen) if number % 3])
    assert verdict.judge(few).exit_code == verdict.TOO_SMALL
    result = verdict.judge(few, share=0.2505)
    assert [minimum.wanted for minimum in result.minimums] == [51, 51, 251, 6]
    assert all(minimum.met for minimum in result.minimums)


def test_a_broken_promise_outweighs_a_small_load() -> None:
    """Exit code 1 means broken, also where there was little load."""
    evidence = replace(good_run(), seen=[_seen(start=2500, status=500, error="status 500")])
    assert verdict.judge(evidence).exit_code == verdict.BROKEN


def test_percentiles() -> None:
    """Nearest rank, and nothing for nothing."""
    values = [float(number) for number in range(100)]
    assert (verdict.percentile(values, 0.5), verdict.percentile(values, 0.99)) == (50.0, 99.0)
    assert verdict.percentile([], 0.5) is None
