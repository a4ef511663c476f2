"""Session cookies: which are taken off, expired, kept, stamped; signed formats and opaque ids."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from itsdangerous import TimestampSigner, URLSafeTimedSerializer

from readonly.policy import Policy, SessionCookie
from readonly.record import Cause, Lift, Record
from readonly.sessions import EPOCH, Sessions, Stamps, expiry, issued_at, unquoted
from readonly.state import UNKNOWN, State

START = datetime(2026, 3, 1, 2, 0, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
SECRET = "a key of the site's own"
RECORD = Record(site="news", epoch=1, id="r", lineage="l", changed_at=START)


def closed(since: datetime = START, sessions: str | None = None) -> State:
    """Return the state during a read-only time."""
    cause = Cause(id="c1", kind="operator", by="ann", since=since, sessions=sessions)
    return State.at(since, replace(RECORD, causes=(cause,)))


def opened(since: datetime = START, sessions: str | None = None, *, undone: bool = False) -> State:
    """Return the state after a read-only time of a minute."""
    lift = Lift(id="c1", at=since + MINUTE, by="ann", since=since, sessions=sessions, undone=undone)
    return State.at(since + MINUTE, replace(RECORD, lifted={"c1": lift}))


def signed(at: datetime, payload: str = "eyJ1c2VyIjo3fQ") -> str:
    """Return a value as itsdangerous signs it at an instant."""

    class Then(TimestampSigner):
        def get_timestamp(self) -> int:
            return int(at.timestamp())

    return Then("the application's key").sign(payload).decode()


BEFORE, DURING, AFTER = START - MINUTE, START + 5 * MINUTE, START + 20 * MINUTE
SIGNED = Policy(session_cookies=[SessionCookie("session", signed=True)])
OPAQUE = Policy(session_cookies=["sid"], secret=SECRET)


def names(cookies: Sequence[SessionCookie]) -> list[str]:
    """Return what the cookies are called."""
    return [cookie.name for cookie in cookies]


# --- when a session was issued -------------------------------------------------------------------------------------


def test_reads_flask_s_time() -> None:
    """URLSafeTimedSerializer, also compressed (it starts with a dot then)."""
    now = datetime.now(UTC)
    for payload in ({"user": 7}, {"text": 500 * "x"}):
        value = URLSafeTimedSerializer("key").dumps(payload)
        assert isinstance(value, str)
        found = issued_at(value)
        assert found is not None
        assert abs(found - now) < timedelta(minutes=5)
    assert value.startswith(".")


def test_reads_starlette_s_time() -> None:
    """TimestampSigner over standard base64 with padding."""
    found = issued_at(TimestampSigner("key").sign(b"eyJhIjogMX0=").decode())
    assert found is not None
    assert abs(found - datetime.now(UTC)) < timedelta(minutes=5)


def test_reads_django_s_time() -> None:
    """signing.dumps and set_signed_cookie; the value may hold the separator itself."""
    signing = pytest.importorskip("django.core.signing")
    now = datetime.now(UTC)
    signer = signing.TimestampSigner(key="k", fallback_keys=[], salt="s")
    for value in (
        signer.sign_object({"user": 7}),
        signer.sign_object({"text": 500 * "x"}, compress=True),
        signer.sign("a:b:c"),
    ):
        found = issued_at(value)
        assert found is not None
        assert abs(found - now) < timedelta(minutes=5)


@pytest.mark.parametrize(
    "value",
    [
        "",
        "...",
        "a.b",
        "f3b1c9d2e8a04b7c9d1e2f3a4b5c6d7e",
        "s:f3b1c9d2e8a04b7c9d1e2f3a4b5c6d7e.abc",
        # A JSON web token: header, payload, signature.
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIiwiaWF0IjoxfQ.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U",
        # The right shape with a time in 1970, and one that no clock shows.
        "x.AAAAAQ." + 27 * "a",
        "x._________w." + 27 * "a",
        "x:1:" + 27 * "a",
        "x:zzzzzzzz:" + 27 * "a",
        "x:Ünïcod:" + 27 * "a",
        "x.!!!!!!." + 27 * "a",
        "x.aaaaaa." + 26 * "a",
    ],
)
def test_anything_else_says_no_time(value: str) -> None:
    """An opaque id is not taken for a signed value because it has dots in it."""
    assert issued_at(value) is None


@given(st.text())
def test_no_value_makes_it_fail(value: str) -> None:
    """A cookie holds what a client sends."""
    issued_at(value)
    unquoted(value)
    Stamps(["k"]).read("sid", "id", value)


@pytest.mark.parametrize(
    ("raw", "value"),
    [("abc", "abc"), (' "abc" ', "abc"), (r'"a\"b\\c\073d"', 'a"b\\c;d'), ('"', '"'), ('""', ""), ('"a', '"a')],
)
def test_quotes_are_taken_off(raw: str, value: str) -> None:
    """A quoted value means the same."""
    assert unquoted(raw) == value


# --- requests ------------------------------------------------------------------------------------------------------


def test_a_writable_site_that_was_never_closed_takes_nothing() -> None:
    """Nothing is looked at without a cut-off."""
    state = State.at(START, RECORD)
    sessions = Sessions(SIGNED)
    assert not sessions.applies(state, START)
    taken = sessions.look([f"session={signed(BEFORE)}"], state, START)
    assert taken.cookies is None
    assert not taken.edits


def test_a_process_that_knows_nothing_ends_no_session() -> None:
    """It refuses writes; sessions are none of its business."""
    assert not Sessions(SIGNED).look([f"session={signed(BEFORE)}"], UNKNOWN, START).edits


def test_while_read_only_the_session_is_taken_off_and_expired() -> None:
    """The rest of the header stays byte for byte, in its order."""
    taken = Sessions(SIGNED).look([f'a="1; x";session={signed(BEFORE)};  b=2 ;c'], closed(), DURING)
    assert taken.cookies == ('a="1; x";  b=2 ;c',)
    assert (taken.lost, taken.ended, taken.drop) == (1, True, True)
    assert names(taken.expire) == ["session"]


def test_nothing_remains_of_a_header_that_held_nothing_else() -> None:
    """Then there is no Cookie header at all."""
    assert Sessions(SIGNED).look(["session=1"], closed(), DURING).cookies == ()


def test_the_first_header_stays_as_it_is_when_the_second_holds_the_session() -> None:
    """HTTP/2 sends several Cookie headers."""
    taken = Sessions(SIGNED).look(["a=1; b=2", "session=x; c=3"], closed(), DURING)
    assert taken.cookies == ("a=1; b=2", "c=3")


def test_in_the_first_minute_no_cookie_is_expired() -> None:
    """A slip that is undone costs nobody a session; a write gets the 503 meanwhile, not "your session ended"."""
    sessions = Sessions(SIGNED)
    early = sessions.look([f"session={signed(BEFORE)}"], closed(), START + timedelta(seconds=59))
    assert (early.lost, early.expire, early.ended) == (1, (), False)
    late = sessions.look([f"session={signed(BEFORE)}"], closed(), START + timedelta(seconds=61))
    assert (late.lost, names(late.expire), late.ended) == (1, ["session"], True)


def test_after_an_undone_slip_the_session_is_there_again() -> None:
    """`off --undo` withdraws the cut-off."""
    taken = Sessions(SIGNED).look([f"session={signed(BEFORE)}"], opened(undone=True), AFTER)
    assert not taken.edits
    assert not taken.lost


def test_a_session_from_before_first_seen_after_off_has_ended() -> None:
    """Its owner slept through the read-only time."""
    taken = Sessions(SIGNED).look([f"session={signed(BEFORE)}"], opened(), AFTER)
    assert (taken.lost, names(taken.expire), taken.ended, taken.drop) == (1, ["session"], True, False)


def test_a_session_that_was_issued_after_off_lives() -> None:
    """And so does one that the exempt part of the site has issued in between."""
    for at in (AFTER, DURING):
        assert not Sessions(SIGNED).look([f"session={signed(at)}"], opened(), AFTER).edits


def test_two_read_only_times_in_a_row() -> None:
    """The later cut-off counts: what was issued between the two has ended, too."""
    sessions = Sessions(SIGNED)
    between = f"session={signed(AFTER)}"
    assert not sessions.look([between], opened(), AFTER).lost
    second = opened(START + timedelta(hours=1))
    assert sessions.look([between], second, START + timedelta(hours=2)).lost == 1


def test_suspended_sessions_come_back() -> None:
    """They are taken off, never expired, and count as not ended."""
    sessions = Sessions(replace(SIGNED, sessions="suspend"))
    cookie = f"session={signed(BEFORE)}"
    taken = sessions.look([cookie], closed(), DURING)
    assert (taken.lost, taken.expire, taken.ended, taken.drop) == (1, (), False, True)
    assert not sessions.look([cookie], opened(), AFTER).edits


def test_kept_sessions_are_left_alone() -> None:
    """On request, by the policy or for this one time."""
    cookie = f"session={signed(BEFORE)}"
    assert not Sessions(replace(SIGNED, sessions="keep")).look([cookie], closed(), DURING).edits
    assert not Sessions(SIGNED).look([cookie], closed(sessions="keep"), DURING).edits
    assert Sessions(replace(SIGNED, sessions="keep")).look([cookie], closed(sessions="end"), DURING).lost == 1


def test_a_suspended_session_that_an_earlier_time_ended_is_expired() -> None:
    """The older cut-off still counts during a milder read-only time."""
    lift = Lift(id="c0", at=START, by="ann", since=START - timedelta(hours=1))
    cause = Cause(id="c1", kind="operator", by="ann", since=START, sessions="suspend")
    state = State.at(START, replace(RECORD, causes=(cause,), lifted={"c0": lift}))
    old = Sessions(SIGNED).look([f"session={signed(START - timedelta(hours=2))}"], state, DURING)
    young = Sessions(SIGNED).look([f"session={signed(BEFORE)}"], state, DURING)
    assert (names(old.expire), old.ended) == (["session"], True)
    assert (young.lost, young.expire, young.ended) == (1, (), False)


def test_every_copy_of_a_cookie_is_judged_by_itself() -> None:
    """An old and a new cookie of one name: the old one goes, and the request is not an ended one."""
    old, new = signed(BEFORE), signed(AFTER)
    taken = Sessions(SIGNED).look([f"session={old}; a=1; session={new}"], opened(), AFTER)
    assert taken.cookies == (f"a=1; session={new}",)
    assert taken.ended is False


def test_a_live_session_beside_an_ended_helper() -> None:
    """Who has signed in again is not told to, because an old remember-me cookie is still there."""
    policy = Policy(session_cookies=[SessionCookie("session", signed=True), "remember_token"], secret=SECRET)
    taken = Sessions(policy).look([f"session={signed(AFTER)}; remember_token=7|abc"], opened(), AFTER)
    assert taken.cookies == (f"session={signed(AFTER)}",)
    assert taken.ended is False
    assert names(taken.expire) == ["remember_token"]


def test_remember_me_goes_with_the_session() -> None:
    """Or it would quietly make a new session of an old one."""
    policy = Policy(session_cookies=[SessionCookie("session", signed=True), "remember_token"], secret=SECRET)
    taken = Sessions(policy).look([f"remember_token=7|abc; session={signed(BEFORE)}; theme=dark"], closed(), DURING)
    assert taken.cookies == ("theme=dark",)
    assert sorted(names(taken.expire)) == ["remember_token", "session"]


@pytest.mark.parametrize(
    "header",
    [
        "a=1 session={}",
        'a="b" session={}',
        "a=1,session={}",
        "a=1;session = {}",
        'a="x; session={}',
        "a=1;\tsession={}",
        "session=1; session={}",
    ],
)
def test_no_spelling_hides_a_session(header: str) -> None:
    """What some parser would find as a session cookie is taken off."""
    taken = Sessions(SIGNED).look([header.format(signed(BEFORE))], closed(), DURING)
    assert "session" not in ";".join(taken.cookies or ())
    after = Sessions(SIGNED).look([header.format(signed(BEFORE))], opened(), AFTER)
    assert "session" not in ";".join(after.cookies or ())


def test_similar_names_are_other_cookies() -> None:
    """`session_id` and `mysession` are not `session`."""
    taken = Sessions(SIGNED).look(["session_id=1; mysession=2; session-x=3; Session=4"], closed(), DURING)
    assert taken.lost == 0


def test_quoted_values_are_read() -> None:
    """A quoted value tells its time as well."""
    assert not Sessions(SIGNED).look([f'session="{signed(AFTER)}"'], opened(), AFTER).lost


def test_after_its_max_age_no_cookie_is_looked_at() -> None:
    """What was set before the cut-off has gone from every browser by then."""
    policy = Policy(session_cookies=[SessionCookie("session", signed=True, max_age_seconds=3600)])
    sessions = Sessions(policy)
    cookie = f"session={signed(BEFORE)}"
    assert sessions.look([cookie], opened(), START + timedelta(minutes=59)).lost == 1
    later = START + timedelta(minutes=61)
    assert not sessions.look([cookie], opened(), later).edits
    assert not sessions.applies(opened(), later)


def test_the_site_s_own_reading_of_a_value() -> None:
    """`issued_at` says when, None is older than anything, and so is a failure."""

    def read(value: str) -> datetime | None:
        return {"old": BEFORE, "new": AFTER}.get(value) if value != "broken" else datetime.fromisoformat(value)

    sessions = Sessions(Policy(session_cookies=[SessionCookie("sid", issued_at=read)]))
    lost = [sessions.look([f"sid={v}"], opened(), AFTER).lost for v in ("old", "new", "other", "broken")]
    assert lost == [1, 0, 1, 1]


def test_bearer_tokens() -> None:
    """They go on reading unless they are to be treated like sessions, and come back after `off`."""
    assert not Sessions(SIGNED).look([], closed(), DURING).bearer
    ending = Sessions(Policy(bearer="end"))
    assert ending.any
    assert ending.look([], closed(), DURING).bearer
    assert not ending.look([], opened(), AFTER).bearer


def test_logout_takes_every_session_and_expires_it() -> None:
    """At once, suspended or kept ones too: the visitor has asked for it."""
    for how in ("end", "suspend", "keep"):
        taken = Sessions(SIGNED).logout([f"a=1; session={signed(BEFORE)}"], closed(sessions=how), START)
        assert taken.cookies == ("a=1",)
        assert names(taken.expire) == ["session"]


# --- opaque ids ----------------------------------------------------------------------------------------------------


def stamped(sessions: Sessions, value: str, now: datetime, state: State) -> str:
    """Return the Cookie header of a browser that was handed an opaque id."""
    taken = sessions.look([], state, now)
    sent = sessions.answer([("Set-Cookie", f"sid={value}; Path=/")], taken, now, secure=False)
    return "; ".join(cookie.partition(";")[0] for name, cookie in sent if name.lower() == "set-cookie")


def test_no_stamp_is_given_before_the_first_off() -> None:
    """A site that was never read-only has one cookie less."""
    assert stamped(Sessions(OPAQUE), "f3b1", START, State.at(START, RECORD)) == "sid=f3b1"


def test_an_id_without_a_stamp_is_older_than_any_cut_off() -> None:
    """It may be from before."""
    taken = Sessions(OPAQUE).look(["sid=f3b1"], opened(), AFTER)
    assert (taken.lost, taken.ended) == (1, True)


def test_a_stamped_id_lives_until_the_next_read_only_time() -> None:
    """The stamp says since when the id is known."""
    sessions = Sessions(OPAQUE)
    header = stamped(sessions, "f3b1", AFTER, opened())
    assert header.startswith("sid=f3b1; sid-since=")
    assert not sessions.look([header], opened(), AFTER).lost
    second = opened(AFTER + MINUTE)
    ended = sessions.look([header], second, AFTER + 5 * MINUTE)
    assert (ended.lost, ended.cookies, ended.ended) == (1, (), True)


def test_who_signs_in_right_after_off_is_not_signed_out_for_the_rounding() -> None:
    """Stamps are finer than a second."""
    sessions = Sessions(OPAQUE)
    state = opened(START + timedelta(milliseconds=300))
    now = START + timedelta(milliseconds=800)
    assert not sessions.look([stamped(sessions, "f3b1", now, state)], state, now).lost


@pytest.mark.parametrize(
    "forged",
    [
        "sid=other; {stamp}",
        "sid=f3b1; sid-since=99999999999999999.abc",
        "sid=f3b1; sid-since=",
        "sid=f3b1; sid-since=1",
        "sid=f3b1; other-since={value}",
        "sid=f3b1; sid-since=9{value}",
    ],
)
def test_a_stamp_is_bound_to_its_id(forged: str) -> None:
    """Neither another id, nor another time, nor another cookie."""
    sessions = Sessions(Policy(session_cookies=["sid", "other"], secret=SECRET))
    stamp = stamped(sessions, "f3b1", AFTER, opened()).partition("; ")[2]
    header = forged.format(stamp=stamp, value=stamp.partition("=")[2])
    assert sessions.look([header], opened(), AFTER).lost == 1


def test_keys_can_be_rotated() -> None:
    """The first key signs, all of them verify, a dropped one does not."""
    header = stamped(Sessions(OPAQUE), "f3b1", AFTER, opened())
    rotated = Sessions(replace(OPAQUE, secret=["new", SECRET]))
    assert not rotated.look([header], opened(), AFTER).lost
    newer = stamped(rotated, "f3b1", AFTER, opened())
    dropped = Sessions(replace(OPAQUE, secret="new"))
    assert not dropped.look([newer], opened(), AFTER).lost
    assert dropped.look([header], opened(), AFTER).lost == 1


def test_without_a_key_opaque_sessions_come_back(caplog: pytest.LogCaptureFixture) -> None:
    """Else nobody could ever sign in again after an operator's `--sessions end`; it is said, once."""
    sessions = Sessions(Policy(session_cookies=["sid"], sessions="keep"))
    assert sessions.look(["sid=f3b1"], closed(sessions="end"), DURING).lost == 1
    with caplog.at_level(logging.WARNING, "readonly"):
        for _ in range(3):
            assert not sessions.look(["sid=f3b1"], opened(sessions="end"), AFTER).lost
    assert len([one for one in caplog.messages if "'sid'" in one]) == 1


def test_a_stamp_has_the_attributes_of_its_session() -> None:
    """Both come and go together; no script reads the stamp."""
    sessions = Sessions(OPAQUE)
    taken = sessions.look([], opened(), AFTER)
    sent = sessions.answer(
        [("set-cookie", "sid=f3b1; Path=/app; Domain=example.org; Max-Age=99; Secure; SameSite=None; Partitioned")],
        taken,
        AFTER,
        secure=True,
    )
    value = sent[1][1]
    assert value.startswith("sid-since=")
    assert value.endswith("; Path=/app; Domain=example.org; Max-Age=99; Secure; SameSite=None; Partitioned; HttpOnly")


def test_a_deleted_session_takes_its_stamp_along() -> None:
    """The stamp is deleted with the same attributes."""
    sessions = Sessions(OPAQUE)
    taken = sessions.look([], opened(), AFTER)
    sent = sessions.answer([("set-cookie", "sid=x; Max-Age=0; HttpOnly")], taken, AFTER, secure=True)
    assert sent[1] == ("set-cookie", "sid-since=; Max-Age=0; HttpOnly")


def test_a_signed_value_gets_no_stamp() -> None:
    """It says its time itself."""
    sessions = Sessions(OPAQUE)
    value = f"sid={signed(AFTER)}; Path=/"
    assert sessions.answer([("set-cookie", value)], sessions.look([], opened(), AFTER), AFTER, secure=False) == [
        ("set-cookie", value)
    ]


def test_ids_handed_out_by_exempt_routes_are_stamped() -> None:
    """An operator who signs in while read-only is signed in after it."""
    sessions = Sessions(OPAQUE)
    taken = sessions.away(closed(), DURING)
    sent = sessions.answer([("set-cookie", "sid=f3b1; Path=/")], taken, DURING, secure=False)
    header = "; ".join(value.partition(";")[0] for _, value in sent)
    assert not sessions.look([header], opened(), AFTER).lost


# --- responses -----------------------------------------------------------------------------------------------------


def test_no_session_is_born_while_read_only() -> None:
    """A response sets none; other cookies and the order stay; what was personal is nobody else's."""
    sessions = Sessions(SIGNED)
    taken = sessions.look([], closed(), DURING)
    headers = [
        ("Content-Type", "text/html"),
        ("Set-Cookie", "theme=dark; Path=/"),
        ("Set-Cookie", "session=new; Path=/"),
        ("Cache-Control", "public, max-age=60"),
        ("set-cookie", " session =; Max-Age=0"),
        ("X-Last", "1"),
    ]
    assert sessions.answer(headers, taken, DURING, secure=False) == [
        ("Content-Type", "text/html"),
        ("Set-Cookie", "theme=dark; Path=/"),
        ("X-Last", "1"),
        ("cache-control", "no-store"),
    ]


def test_a_page_without_session_keeps_its_caching() -> None:
    """Only who lost a session gets `no-store`."""
    sessions = Sessions(SIGNED)
    headers = [("cache-control", "public, max-age=60")]
    assert sessions.answer(headers, sessions.look([], closed(), DURING), DURING, secure=False) == headers


@pytest.mark.parametrize(
    ("deletion", "passes"),
    [
        ("session=; Path=/", True),
        ('session=""; Path=/', True),
        ("session=x; Max-Age=0", True),
        ("session=x; max-age=-1; Expires=Fri, 01 Jan 2100 00:00:00 GMT", True),
        ("session=x; Expires=Thu, 01 Jan 1970 00:00:00 GMT", True),
        ("session=x; Expires=Thu, 01-Jan-1970 00:00:00 GMT", True),
        ("session=x; Expires=Fri, 01 Jan 2100 00:00:00 GMT", False),
        ("session=x; Expires=never", False),
        ("session=x; Max-Age=never", False),
        ("session=x", False),
    ],
)
def test_a_logout_may_delete_and_not_set(deletion: str, passes: bool) -> None:
    """The application's own deletion knows its attributes best."""
    sessions = Sessions(SIGNED)
    taken = sessions.logout([], closed(), DURING)
    sent = sessions.answer([("Set-Cookie", deletion)], taken, DURING, secure=False)
    assert (("Set-Cookie", deletion) in sent) is passes


@pytest.mark.parametrize(
    ("cookie", "secure", "header"),
    [
        (
            SessionCookie("session"),
            False,
            f"session=; Path=/; Expires={EPOCH}; Max-Age=0; HttpOnly; SameSite=Lax",
        ),
        (
            SessionCookie("session", path="/app", domain="example.org"),
            True,
            f"session=; Path=/app; Domain=example.org; Expires={EPOCH}; Max-Age=0; HttpOnly; Secure; SameSite=None",
        ),
        (
            SessionCookie("__Host-session"),
            False,
            f"__Host-session=; Path=/; Expires={EPOCH}; Max-Age=0; HttpOnly; Secure; SameSite=None",
        ),
        (
            SessionCookie("__Secure-session", domain="example.org"),
            False,
            f"__Secure-session=; Path=/; Domain=example.org; Expires={EPOCH}; Max-Age=0; HttpOnly; Secure;"
            " SameSite=None",
        ),
        (
            SessionCookie("session", partitioned=True),
            False,
            f"session=; Path=/; Expires={EPOCH}; Max-Age=0; HttpOnly; Secure; SameSite=None; Partitioned",
        ),
    ],
)
def test_a_cookie_is_expired_as_it_was_set(cookie: SessionCookie, secure: bool, header: str) -> None:
    """Path, domain, prefix and partition, or the browser keeps it."""
    assert expiry(cookie, secure=secure) == header


def test_an_opaque_session_s_stamp_is_expired_with_it() -> None:
    """Both cookies go."""
    sessions = Sessions(OPAQUE)
    taken = sessions.look(["sid=f3b1; sid-since=1.x; a=1"], closed(), DURING)
    assert taken.cookies == ("a=1",)
    sent = sessions.answer([], taken, DURING, secure=False)
    assert [value.partition("=")[0] for _, value in sent if value != "no-store"] == ["sid", "sid-since", "sid-ended"]


def test_who_signs_in_with_an_ended_session_has_the_new_one() -> None:
    """The login's own cookie is not forgotten in the same breath; one that the page deletes is."""
    rules = Sessions(OPAQUE)
    taken = rules.look(("sid=old",), opened(), AFTER)
    assert names(taken.expire) == ["sid"]
    sent = rules.answer([("Set-Cookie", "sid=new; Path=/")], taken, AFTER, secure=True)
    values = [value for name, value in sent if name.lower() == "set-cookie"]
    assert [value.partition("=")[0] for value in values] == ["sid", "sid-since"]
    assert values[0] == "sid=new; Path=/"
    assert "Max-Age=0" not in values[1]
    gone = rules.answer([("Set-Cookie", "sid=; Max-Age=0; Path=/")], taken, AFTER, secure=True)
    assert [value for name, value in gone if value.startswith("sid=;")][-1].endswith("SameSite=None")
    # A sign from before goes with that, too.
    signed_out = rules.look(("sid-ended=1",), opened(), AFTER)
    sent = rules.answer([("Set-Cookie", "sid=new; Path=/")], signed_out, AFTER, secure=True)
    assert [value for _, value in sent if value.startswith("sid-ended=;") and "Max-Age=0" in value]


def test_a_sign_is_left_as_the_session_was_set() -> None:
    """Same path, domain and prefix, so that it comes along wherever the session would have."""
    cookie = SessionCookie("__Secure-sid", signed=True, path="/shop", domain="example.com")
    rules = Sessions(Policy(session_cookies=[cookie]))
    taken = rules.look(("__Secure-sid=1",), closed(), DURING)
    (_, left) = [value for name, value in rules.answer([], taken, DURING, secure=True) if name == "set-cookie"]
    assert left == (
        "__Secure-sid-ended=1; Path=/shop; Domain=example.com; Max-Age=86400; HttpOnly; Secure; SameSite=None"
    )
    assert rules.look(("__Secure-sid-ended=1",), opened(), AFTER).ended
    assert not rules.look(("xsid-ended=1; sid-ended-ended=1; other=-ended",), opened(), AFTER).edits


def test_no_sign_is_left_where_it_says_nothing() -> None:
    """By a logout, by an answer that says it itself, and in the first minute."""
    rules = Sessions(SIGNED)
    left = rules.logout(["session=1"], closed(), DURING)
    assert not [value for _, value in rules.answer([], left, DURING, secure=False) if "-ended=1" in value]
    taken = rules.look(["session=1"], closed(), DURING)
    assert not [value for _, value in rules.answer([], taken, DURING, secure=False, told=True) if "-ended=1" in value]
    assert not rules.look(["session=1"], closed(), START + timedelta(seconds=59)).expire


def test_a_policy_without_session_cookies_has_nothing_to_do() -> None:
    """And says so, so that the middlewares need not ask."""
    assert not Sessions(Policy()).any
    assert not Sessions(Policy()).look(["session=x"], closed(), DURING).lost
    assert not Sessions(Policy()).carried(["session=x"])
    assert Sessions(SIGNED).carried(["a=1; session=x"])
