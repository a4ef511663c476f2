"""Letting somebody through a read-only site: the bypasses that a store's record holds."""

from __future__ import annotations

import hmac
import re
import secrets
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Final

from .changes import Change, Operator, rewrite
from .errors import ConfigurationError, NoRecord, NotYours
from .processes import host_name
from .record import Bypass, Record, new_token, token_hash
from .state import as_cause
from .stores import Store, redacted
from .transitions import with_bypass

# The record holds them, and each process reads all of it again and again: this many are some 30 kB.
MOST: Final = 100
# It stands in headers, log lines and the history.
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,39}\Z")


def give(
    store: Store, operator: Operator, name: str, *, lasting: timedelta, paths: Sequence[str] = ()
) -> tuple[Change, Bypass, str, str]:
    """Let somebody through until the read-only time is over, or for `lasting`.

    Args:
        store: Where the record is.
        operator: Who gives it.
        name: What the history calls its holder.
        lasting: How long it is good for.
        paths: Rules of paths that it is good for, checked by the caller; none: all.

    Returns:
        The change, the bypass, the token of its link, and the token for a header. Both are stored nowhere.

    Raises:
        ConfigurationError: The name can't be one; nothing was changed.
        NotYours: The site is not read-only, or somebody of that name is let through already, or too many are; nothing
            was changed.
        NoRecord: The store holds no record.
    """
    if not _NAME.match(name):
        raise ConfigurationError(
            f"{name!r} can't name a bypass: use up to 40 letters, digits, dots, hyphens and underscores, as in `ann`. "
            "Nothing was changed"
        )
    link, token = new_token(), new_token()
    mine = "b" + secrets.token_hex(4)

    def make(record: Record | None, at: datetime) -> tuple[Record | None, Sequence[str]]:
        if record is None:
            raise NoRecord(f"the store {redacted(store.url)} holds no record for {store.site}: nothing was changed")
        at = at.astimezone(UTC)
        causes = _in_force(record, at)
        if not causes:
            raise NotYours(
                f"{record.site} is writable: nobody needs a bypass, and one that was made now would end with nothing. "
                "Make it when the site is read-only. Nothing was changed",
                causes=(),
            )
        good = _good(record, at)
        if len(good) >= MOST:
            raise NotYours(
                f"{len(good)} bypasses let somebody through already, which every process reads each second: take back "
                "what nobody needs (bypass list, bypass revoke NAME), or give one to several. Nothing was changed",
                causes=(),
            )
        for one in good:
            if one.name == name:
                raise NotYours(
                    f"{name} is let through already, until {one.until:%H:%M} UTC, by {one.by}: take that back first "
                    f"(bypass revoke {name}), or use another name. Nothing was changed",
                    causes=(),
                )
        bypass = Bypass(
            id=mine, name=name, by=operator.name, since=at, until=at + lasting, causes=causes, paths=tuple(paths),
            link=token_hash(link), keys=(token_hash(token),), host=operator.host,
        )  # fmt: skip
        return with_bypass(record, bypass, at=at, by=operator.name), ()

    change = rewrite(store, make, closes=None, operator=operator, what="bypass", reason=name)
    return change, next(one for one in change.record.bypasses if one.id == mine), link, token


def _in_force(record: Record, at: datetime) -> tuple[str, ...]:
    return tuple(c.id for c in (*record.causes, *(as_cause(w) for w in record.windows if w.in_force(at))))


def _good(record: Record, at: datetime) -> list[Bypass]:
    causes = set(_in_force(record, at))
    return [one for one in record.bypasses if not one.revoked and at < one.until and not causes.isdisjoint(one.causes)]


def revoke(store: Store, operator: Operator, name: str | None) -> tuple[Change, tuple[Bypass, ...]]:
    """Take back the bypasses of a name, or all of them.

    Raises:
        NotYours: Nobody of that name is let through; nothing was changed.
        NoRecord: The store holds no record.
    """
    revoked: list[Bypass] = []

    def make(record: Record | None, at: datetime) -> tuple[Record | None, Sequence[str]]:
        if record is None:
            raise NoRecord(f"the store {redacted(store.url)} holds no record for {store.site}: nothing was changed")
        revoked[:] = [one for one in _good(record, at) if name is None or name in (one.name, one.id)]
        if not revoked and name is not None:
            live = ", ".join(one.name for one in _good(record, at)) or "nobody"
            raise NotYours(f"nobody is let through as {name}; let through: {live}. Nothing was changed", causes=())
        for one in revoked:
            record = with_bypass(record, replace(one, revoked=True), at=at, by=operator.name)
        return (record if revoked else None), ()

    change = rewrite(store, make, closes=None, operator=operator, what="bypass revoked", reason=name or "all")
    return change, tuple(revoked)


def redeem(store: Store, link: str, name: str = "") -> tuple[Change, str | None]:
    """Exchange a link's token for a cookie's, once.

    Args:
        store: Where the record is.
        link: The token.
        name: Whose it is, for the history.

    Returns:
        What changed, and the cookie's token; None if the link was used already, or does nothing any more.

    Raises:
        NoRecord: The store holds no record.
    """
    token, hashed = new_token(), token_hash(link)
    found: list[Bypass] = []

    def make(record: Record | None, at: datetime) -> tuple[Record | None, Sequence[str]]:
        if record is None:
            raise NoRecord(f"the store {redacted(store.url)} holds no record for {store.site}")
        found[:] = [one for one in _good(record, at) if hmac.compare_digest(one.link, hashed)]
        if not found:
            return None, ()
        used = replace(found[0], link="", keys=(*found[0].keys, token_hash(token)))
        return with_bypass(record, used, at=at, by=used.name), ()

    holder = Operator("a bypass's link", host_name())
    change = rewrite(store, make, closes=None, operator=holder, what="bypass used", reason=name)
    return change, token if found else None
