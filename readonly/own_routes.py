"""What the library itself serves below `/-/readonly`, whatever the framework: probes, status, links, a script."""

from __future__ import annotations

import html
import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import quote

from .bypass import LINK_PATH, Bypasses, begins_at, exchanged_for
from .clock import boottime
from .errors import Error
from .notices import Kind, Notices, sentences
from .record import Bypass, Mode, token_hash
from .rejection import Answer, HeaderList, rfc3339
from .rules import Facts
from .script import SCRIPT, SCRIPT_NAME, script_words
from .state import State
from .switch import Switch
from .words import Languages, Words

PREFIX: Final = "/-/readonly"
READY_PATH: Final = f"{PREFIX}/ready"
STATUS_PATH: Final = f"{PREFIX}/status"
# How long a process that never reached the store is kept out of a load balancer, before it serves as a reader.
READY_SECONDS: Final = 30.0

_GO: Final = "go=1"
_PAGE: Final = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<h1>{title}</h1>
<p>{text}</p>
{more}</html>
"""
_BUTTON: Final = '<form><input type="hidden" name="go" value="1"><button>Use it in this browser</button></form>\n'


class OwnRoutes:
    """Answers requests below `/-/readonly`. Any thread may use it."""

    def __init__(self, switch: Switch, languages: Languages | None = None) -> None:
        """Prepare.

        Args:
            switch: The process's switch.
            languages: As the middleware's, for what the script says.
        """
        self._switch = switch
        self._languages = languages or Words()
        self._began = boottime()
        self._synced = False
        self._bypasses = Bypasses(switch.latest)
        self._notices = Notices(switch)

    def answer(self, facts: Facts, *, cookies: tuple[str, ...] = (), mount: str = "") -> Answer:
        """Answer a request. May block for the store's timeout.

        Args:
            facts: The request; its path with the prefix or below it.
            cookies: Each value of its Cookie header.
            mount: Path of the application that this is a part of, with the prefix or without.
        """
        state = self._switch.look()
        answer = self._at_once(facts, cookies, state)
        if answer is not None:
            return answer
        bypass, token = self._link(facts, state)
        if bypass is None:
            return _page(404, facts, "This link does nothing", _USED)
        try:
            cookie = self._switch.redeem_bypass(token, bypass.name)
        except Error:
            return _page(503, facts, "Not now", _LATER)
        return self._exchanged(facts, bypass, cookie, mount)

    async def aanswer(self, facts: Facts, *, cookies: tuple[str, ...] = (), mount: str = "") -> Answer:
        """Do what `answer` does without blocking the event loop."""
        state = await self._switch.alook()
        answer = self._at_once(facts, cookies, state)
        if answer is not None:
            return answer
        bypass, token = self._link(facts, state)
        if bypass is None:
            return _page(404, facts, "This link does nothing", _USED)
        try:
            cookie = await self._switch.aredeem_bypass(token, bypass.name)
        except Error:
            return _page(503, facts, "Not now", _LATER)
        return self._exchanged(facts, bypass, cookie, mount)

    # --- inside ------------------------------------------------------------------------------------------------------

    def _at_once(self, facts: Facts, cookies: tuple[str, ...], state: State) -> Answer | None:
        """Return the answer to all but the use of a link."""
        path = _below(facts.path)
        if path.startswith("/script-") and path.endswith(".js") and facts.method in ("GET", "HEAD"):
            return _script(path, facts)
        found = self._document(path, facts, cookies, state)
        is_link = path.startswith(LINK_PATH.removeprefix(PREFIX))
        if found is None and not is_link:
            return _json(404, {"error": "not found"}, facts)
        if facts.method not in ("GET", "HEAD"):
            return _json(405, {"error": "method not allowed"}, facts, [("Allow", "GET, HEAD")])
        if found is not None:
            return _json(*found, facts, _SPOKEN if path == "/status" else None)
        if facts.method == "GET" and _meant(facts):
            return None
        return _page(200, facts, "Let through while the site is read-only", _OFFER, _BUTTON)

    def _document(
        self, path: str, facts: Facts, cookies: tuple[str, ...], state: State
    ) -> tuple[int, dict[str, Any]] | None:
        self._synced = self._synced or state.synced
        if path == "/ready":
            # Read-only is no illness: probes that failed for it would take down the hosts that serve the reads.
            ready = self._synced or boottime() - self._began >= READY_SECONDS
            document: dict[str, Any] = {"ready": ready, "mode": str(state.mode)}
            if state.mode is Mode.UNKNOWN:
                document["because"] = state.unknown_because
            return (200 if ready else 503), document
        if path == "/live":
            # A process that answers is alive, whatever it knows: to start it again would help nobody.
            return 200, {"live": True}
        if path == "/status":
            document = {
                "mode": str(state.mode),
                "read_only": state.read_only,
                "expected_end": rfc3339(state.expected_end) if state.expected_end is not None else None,
                "message": state.message,
            }
            notice = self._notices.of()
            if notice is not None and notice.begins is not None:
                document["announced"] = {
                    "begins": rfc3339(notice.begins),
                    "ends": rfc3339(notice.ends) if notice.ends is not None else None,
                    "message": notice.message,
                }
            held = self._bypasses.held(facts, cookies, state)
            if held:
                holder = held[0].bypass
                document["bypass"] = {"name": holder.name, "until": rfc3339(holder.until)}
            asked = facts.query.split("&")
            if "says" in asked:
                document.update(self._says(facts, cookies, words="words" in asked))
            return 200, document
        return None

    def _says(self, facts: Facts, cookies: tuple[str, ...], *, words: bool) -> dict[str, Any]:
        """Return what the script needs besides: the time, and what to say in the page's language."""
        _, catalog = self._languages(facts)
        notice = self._notices.of(facts, cookies)
        found: dict[str, Any] = {"now": datetime.now(UTC).isoformat(timespec="milliseconds")}
        if notice is not None:
            found["says"] = sentences(notice, catalog)
            closed = replace(notice, kind=Kind.READ_ONLY, begins=None)
            if notice.kind is Kind.ANNOUNCED:
                found["then"] = sentences(closed, catalog)
            if notice.kind is not Kind.BYPASS and notice.ends is not None:
                # By then the site may be unreachable, and an open page must not go on with a time that has passed.
                found["overdue"] = sentences(closed, catalog, now=notice.ends)
        if words:
            found["words"] = dict(script_words(catalog))
        return found

    def _link(self, facts: Facts, state: State) -> tuple[Bypass | None, str]:
        """Return the bypass whose link this is, by what this process knows: a guess never reaches the store."""
        token = _below(facts.path).removeprefix(LINK_PATH.removeprefix(PREFIX))
        return self._bypasses.linked(token_hash(token), state), token

    def _exchanged(self, facts: Facts, bypass: Bypass, cookie: str | None, mount: str) -> Answer:
        if cookie is None:  # another browser was faster
            return _page(404, facts, "This link does nothing", _USED)
        headers = [
            ("Location", quote(mount.removesuffix(PREFIX).rstrip("/") + begins_at(bypass))),
            ("Set-Cookie", exchanged_for(bypass, cookie, self._switch.latest())),
            ("Cache-Control", "no-store"),
            ("Referrer-Policy", "no-referrer"),
        ]
        return _answer(303, headers, b"", facts)


_USED: Final = (
    "It was used already, it has run out, or the read-only time that it was made for is over. "
    "Whoever sent it can make another one."
)
_LATER: Final = (
    "What knows of this link did not answer. Try again in a moment; if it does nothing then, it was used up by this, "
    "and whoever sent it can make another one."
)
_OFFER: Final = (
    "This link is good once. Whoever uses it can make changes in this browser while the site is read-only for "
    "everybody else."
)


def _below(path: str) -> str:
    return path.removeprefix(PREFIX).rstrip("/")


def _meant(facts: Facts) -> bool:
    """Return whether a person follows the link: what shows a preview of it in a chat must not use it up."""
    get = facts.headers.get
    if get("sec-purpose") or get("purpose"):
        return False
    return get("sec-fetch-mode") == "navigate" or facts.query == _GO


# What `?says` adds is in a language, and knows who asks.
_SPOKEN: Final = [("Vary", "Accept-Language, Cookie")]
_YEAR: Final = 31_536_000


def _script(path: str, facts: Facts) -> Answer:
    # A page may come from a process of another version than this one: it is served what there is, and keeps nothing.
    known = path == f"/{SCRIPT_NAME}"
    headers = [
        ("Content-Type", "text/javascript; charset=utf-8"),
        ("Cache-Control", f"public, max-age={_YEAR}, immutable" if known else "no-store"),
        ("X-Content-Type-Options", "nosniff"),
    ]
    return _answer(200, headers, SCRIPT, facts)


def _json(status: int, document: dict[str, Any], facts: Facts, more: HeaderList | None = None) -> Answer:
    body = json.dumps(document).encode()
    headers = [("Content-Type", "application/json"), ("Cache-Control", "no-store"), *(more or [])]
    return _answer(status, headers, body, facts)


def _page(status: int, facts: Facts, title: str, text: str, more: str = "") -> Answer:
    body = _PAGE.format(title=html.escape(title), text=html.escape(text), more=more).encode()
    headers = [
        ("Content-Type", "text/html; charset=utf-8"),
        ("Cache-Control", "no-store"),
        ("Content-Security-Policy", "default-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"),
        ("Referrer-Policy", "no-referrer"),
        ("X-Robots-Tag", "noindex"),
    ]
    return _answer(status, headers, body, facts)


def _answer(status: int, headers: HeaderList, body: bytes, facts: Facts) -> Answer:
    headers = [*headers, ("Content-Length", str(len(body)))]
    return Answer(status, headers, b"" if facts.method == "HEAD" else body)
