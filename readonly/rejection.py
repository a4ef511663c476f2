"""The answer to a refused request: status, headers and body. Nothing here reads the request's body or does I/O."""

from __future__ import annotations

import json
import logging
import math
import random
import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final, NamedTuple

from .answers import Answering, Refusal, Worded
from .drafts import Draft, Offer
from .gate import ActKind, Outcome, Verdict
from .negotiation import Format, negotiate
from .pages import (
    CONTENT_SECURITY_POLICY,
    DRAFT_SECURITY_POLICY,
    ENGLISH,
    Catalog,
    Page,
    Refused,
    draft_html,
    render,
)
from .policy import RETRY_AFTER_SECONDS
from .rules import Facts
from .state import State

# Once an announced end has passed, nobody knows: look again soon, but not as if it were the next moment.
OVERDUE_SECONDS: Final = 120.0
# Clients that were refused together come back spread over a fifth of the wait, and over a minute at most.
JITTER_SHARE: Final = 0.2
JITTER_LIMIT_SECONDS: Final = 60.0

_EXPOSED = "Retry-After, X-Read-Only, X-Read-Only-Until"
logger = logging.getLogger("readonly")

HeaderList = list[tuple[str, str]]
# Which language a request is answered in, as HTML spells it, and what translates to it. Never raises; does no I/O.
Languages = Callable[[Facts], tuple[str, Catalog]]


class Answer(NamedTuple):
    """A complete response.

    Attributes:
        status: 503 or 403; or what an endpoint's own protocol wants.
        headers: Name and value pairs, ASCII; Content-Length is the length of the body that a GET would get.
        body: Empty for HEAD and gRPC.
    """

    status: int
    headers: HeaderList
    body: bytes


# --- Headers ------------------------------------------------------------------------------------------------


def retry_after_seconds(until: datetime | None, *, now: datetime, default_seconds: float, jitter: float) -> int:
    """Return the delay to advertise with a refused request.

    Args:
        until: Expected end, timezone-aware; None when none was announced.
        now: Current time, timezone-aware.
        default_seconds: Used when `until` is None.
        jitter: From 0 (none) to 1 (a fifth more, at most a minute): never earlier than the expected end.

    Returns:
        Whole seconds, rounded up, at least 1.

    Source: RFC 9110, section 10.2.3, delay-seconds form.
    """
    if until is None:
        base = default_seconds
    else:
        base = (until - now).total_seconds()
        if base <= 0:
            base = OVERDUE_SECONDS
    return max(1, math.ceil(base + jitter * min(JITTER_SHARE * base, JITTER_LIMIT_SECONDS)))


def rfc3339(instant: datetime) -> str:
    """Return an instant in UTC, to the second (RFC 3339)."""
    return f"{instant.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


def state_headers(state: State) -> HeaderList:
    """Return what every response carries while read-only; nothing while writable."""
    if not state.read_only:
        return []
    if state.expected_end is None:
        return [("X-Read-Only", "true")]
    return [("X-Read-Only", "true"), ("X-Read-Only-Until", rfc3339(state.expected_end))]


# An origin as browsers send it, or "null"; anything else is not echoed.
_ORIGIN = re.compile(r"[!-+\--~]+\Z")


def cors_headers(origin: str | None, *, exposed: str = _EXPOSED) -> HeaderList:
    """Return what lets a script of another origin read a refusal: it holds nothing that is not public."""
    if origin is None or not _ORIGIN.match(origin):
        return []
    return [
        ("Access-Control-Allow-Origin", origin),
        ("Access-Control-Allow-Credentials", "true"),
        ("Access-Control-Expose-Headers", exposed),
    ]


# --- Bodies -------------------------------------------------------------------------------------------------


def _detail(verdict: Verdict, state: State, catalog: Catalog) -> str:
    _ = catalog.gettext
    if verdict.outcome is Outcome.SESSION_ENDED:
        return _("Your session ended when the site became read-only. Nothing was saved; sign in again.")
    if state.message:
        return state.message
    if verdict.act.kind is ActKind.LOGIN:
        return _("The site is read-only at the moment: signing in is not possible. Please try again later.")
    return _("The site is read-only at the moment. Nothing was saved; please try again later.")


def problem(verdict: Verdict, state: State, *, retry_after: int | None, catalog: Catalog = ENGLISH) -> bytes:
    """Return problem details (RFC 9457); `code` is what a client should look at.

    Args:
        verdict: The refusal.
        state: The state it was decided by.
        retry_after: As in the header, None where there is none.
        catalog: Translates `detail`, the one member that people read.
    """
    ended = verdict.outcome is Outcome.SESSION_ENDED
    document: dict[str, object] = {
        "type": "about:blank",
        "title": "Forbidden" if ended else "Service Unavailable",
        "status": 403 if ended else 503,
        "detail": _detail(verdict, state, catalog),
        "code": str(verdict.outcome),
        "expected_end": rfc3339(state.expected_end) if state.expected_end is not None else None,
    }
    if retry_after is not None:
        document["retry_after"] = retry_after
    return json.dumps(document, ensure_ascii=False).encode("utf-8", "replace")


class Rejection:
    """Makes the answers of one application, and keeps what it rendered while the state stays the same.

    Any thread may call it. What threads race for is a dictionary's entry, which both would fill alike.
    """

    def __init__(
        self,
        *,
        page: Page | None = None,
        retry_after_seconds: float = RETRY_AFTER_SECONDS,
        jitter: Callable[[], float] = random.random,
        languages: Languages | None = None,
    ) -> None:
        """Prepare.

        Args:
            page: The site's own page; the built-in one if it fails.
            retry_after_seconds: What to advertise when no end was announced (`Policy.retry_after_seconds`).
            jitter: Returns a number from 0 to 1.
            languages: Says which language a request is answered in, and translates to it; None: always English.
        """
        self._page = page
        self._default_seconds = retry_after_seconds
        self._jitter = jitter
        self._languages = languages
        self._kept: tuple[State | None, dict[tuple[object, ...], tuple[bytes, HeaderList]]] = (None, {})

    def __call__(
        self,
        verdict: Verdict,
        facts: Facts,
        state: State,
        *,
        now: datetime,
        operator: bool = False,
        answering: Answering | None = None,
        form: Offer = Offer.NO,
        draft: Draft | None = None,
        script: str = "",
    ) -> Answer:
        """Return the answer to a request that did not pass.

        Args:
            verdict: What the gate said.
            facts: The request.
            state: The state that it was decided by.
            now: Current time by the store's clock, timezone-aware.
            operator: Whoever asks may see why the state is unknown, and what to type (a local address, say).
            answering: Words it, if the endpoint has clients of its own.
            form: What becomes of the form that was sent.
            draft: What was typed into it; the page with it is kept for nobody.
            script: The element that loads the script, for a page with a draft.
        """
        ended = verdict.outcome is Outcome.SESSION_ENDED
        status = 403 if ended else 503
        retry_after = self._retry_after(verdict, state, now)
        language, catalog = ("en", ENGLISH) if self._languages is None else self._languages(facts)
        if answering is not None:
            worded = _worded(answering, facts, _told(verdict, state, retry_after, catalog))
            if worded is not None:
                headers = [("Content-Type", worded.content_type), *self._common(worded.body, state, language)]
                if retry_after is not None:
                    headers.append(("Retry-After", str(retry_after)))
                headers += cors_headers(facts.headers.get("origin"))
                return Answer(worded.status, headers, b"" if facts.method == "HEAD" else worded.body)
        kind = negotiate(facts)
        login = verdict.act.kind is ActKind.LOGIN
        kept_for, kept = self._kept
        if kept_for is not state:
            kept = {}
            self._kept = (state, kept)
        operator = operator and bool(state.unknown_because)
        key: tuple[object, ...]
        if kind is Format.PAGE:
            # Within the very minute of the announced end, too, a page says at once that this takes longer.
            key = (language, ended, login, operator, form, now.timestamp() // 60, _overdue(state, now))
        else:
            key = (language, kind, ended, login, retry_after)
        typed = draft_html(draft, catalog, script=script) if draft is not None else ""
        made = kept.get(key) if draft is None else None
        if made is None:
            made = self._make(kind, verdict, state, retry_after, now, operator, language, catalog, form, typed)
            if draft is None:
                if len(kept) >= _KEPT_LIMIT:
                    kept.clear()
                kept[key] = made
        body, prepared = made
        headers = prepared.copy()
        if retry_after is not None:
            headers.append(("Retry-After", str(retry_after)))
        if kind is Format.GRPC:
            # Trailers-only: the status travels in the headers, and the type is the one that was asked for.
            headers.append(("Content-Type", _grpc_type(facts)))
        origin = facts.headers.get("origin")
        if origin is not None:
            exposed = _EXPOSED + ", grpc-status, grpc-message" if kind is Format.GRPC else _EXPOSED
            headers += cors_headers(origin, exposed=exposed)
        return Answer(status, headers, b"" if facts.method == "HEAD" else body)

    def told(self, verdict: Verdict, facts: Facts, state: State, *, now: datetime) -> Refusal:
        """Return what there is to say about a refusal, for whoever words it.

        Args:
            verdict: What the gate said.
            facts: The request.
            state: The state that it was decided by.
            now: Current time by the store's clock, timezone-aware.
        """
        catalog = ENGLISH if self._languages is None else self._languages(facts)[1]
        return _told(verdict, state, self._retry_after(verdict, state, now), catalog)

    def _retry_after(self, verdict: Verdict, state: State, now: datetime) -> int | None:
        if verdict.outcome is Outcome.SESSION_ENDED:
            return None
        return retry_after_seconds(
            state.expected_end, now=now, default_seconds=self._default_seconds, jitter=self._jitter()
        )

    def _make(
        self,
        kind: Format,
        verdict: Verdict,
        state: State,
        retry_after: int | None,
        now: datetime,
        operator: bool,
        language: str,
        catalog: Catalog,
        form: Offer,
        typed: str,
    ) -> tuple[bytes, HeaderList]:
        headers: HeaderList
        if kind is Format.GRPC:
            body = b""
            ended = verdict.outcome is Outcome.SESSION_ENDED
            # 14 UNAVAILABLE, which clients try again; 16 UNAUTHENTICATED.
            headers = [("grpc-status", "16" if ended else "14"), ("grpc-message", str(verdict.outcome))]
        elif kind is Format.PROBLEM:
            body = problem(verdict, state, retry_after=retry_after, catalog=catalog)
            headers = [("Content-Type", "application/problem+json")]
        else:
            minute = now.replace(second=0, microsecond=0)
            if state.expected_end is not None and _overdue(state, now):
                minute = max(minute, state.expected_end)
            body, headers = self._render(verdict, state, minute, operator, language, catalog, form, typed)
        return body, headers + self._common(body, state, language)

    def _common(self, body: bytes, state: State, language: str) -> HeaderList:
        headers = [("Content-Length", str(len(body))), ("Cache-Control", "no-store")]
        if self._languages is None:
            headers.append(("Vary", "Accept, Origin"))
        else:
            headers += [("Vary", "Accept, Accept-Language, Origin"), ("Content-Language", language)]
        return headers + state_headers(state)

    def _render(
        self,
        verdict: Verdict,
        state: State,
        minute: datetime,
        operator: bool,
        language: str,
        catalog: Catalog,
        form: Offer,
        typed: str,
    ) -> tuple[bytes, HeaderList]:
        ended = verdict.outcome is Outcome.SESSION_ENDED
        refused = Refused(
            status=403 if ended else 503,
            code=str(verdict.outcome),
            login=verdict.act.kind is ActKind.LOGIN,
            read_only=state.read_only,
            message=state.message,
            expected_end=state.expected_end,
            now=minute,
            operator=state.unknown_because if operator else "",
            language=language,
            form=form,
            draft=typed,
        )
        headers = [("Content-Type", "text/html; charset=utf-8")]
        if self._page is not None:
            try:
                made = self._page(refused)
                return made.encode("utf-8", "replace") if isinstance(made, str) else bytes(made), headers
            except Exception:
                # A page that fails would turn each refusal into a 500, on the worst night for it.
                logger.exception("the site's own page failed; the built-in one is shown instead")
        headers += [
            ("Content-Security-Policy", DRAFT_SECURITY_POLICY if typed else CONTENT_SECURITY_POLICY),
            ("X-Content-Type-Options", "nosniff"),
            ("Referrer-Policy", "same-origin"),
        ]
        try:
            return render(refused, catalog), headers
        except (IndexError, KeyError, ValueError):
            logger.exception("the page's translation to %r failed; it is shown in English instead", language)
            return render(refused), headers


def _overdue(state: State, now: datetime) -> bool:
    return state.expected_end is not None and state.expected_end <= now


def _told(verdict: Verdict, state: State, retry_after: int | None, catalog: Catalog) -> Refusal:
    status = 403 if verdict.outcome is Outcome.SESSION_ENDED else 503
    end = rfc3339(state.expected_end) if state.expected_end is not None else None
    return Refusal(status, str(verdict.outcome), _detail(verdict, state, catalog), end, retry_after)


def _worded(answering: Answering, facts: Facts, refusal: Refusal) -> Worded | None:
    try:
        return answering.answer(facts, refusal)
    except Exception:
        logger.exception("readonly: %r failed to word a refusal; problem details are sent instead", answering)
        return None


# Each wait that jitter can lead to, in each form, and some minutes of pages.
_KEPT_LIMIT = 512
_GRPC_TYPE = re.compile(r"application/grpc(?:-web)?(?:-text)?(?:\+[a-z0-9.-]+)?\Z")


def _grpc_type(facts: Facts) -> str:
    sent = (facts.headers.get("content-type") or "").partition(";")[0].strip().lower()
    return sent if _GRPC_TYPE.match(sent) else "application/grpc"
