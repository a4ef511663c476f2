"""What was done to a site, by whom, and what it was worth: for the morning after. It never affects the state.

Entries stand in the store, apart from the record and bounded, and once more as one JSON line a call on the host that
typed it: a history that lies only in the store is gone with the store.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from .errors import StoreUnreachable
from .stores import Store
from .tally import OTHER

logger = logging.getLogger("readonly")
LOG = "history"
# Apart, since they are many: who works through a bypass all night must not push out who closed the site.
USES_LOG = "uses"
KEEP = 1000
LET_THROUGH = "let through"


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing that was done.

    Attributes:
        at: When, by the store's clock, RFC 3339.
        site: The site.
        what: `init`, `on`, `confirmed`, `not confirmed`, `off`, `undo`, `opened`, `not confirmed open`, `forgot`,
            `bypass`, `bypass used`, `bypass revoked`, `let through`.
        by: Who.
        host: Where it was typed.
        epoch: Epoch after it.
        causes: Ids of the causes it was about.
        reason: For colleagues.
        message: For visitors.
        seconds: How long it took, or (for `off`) how long the site was read-only; None where that means nothing.
        level: How strong a proof was; "" without one.
        members: How many members stood in which condition.
        missing: What was not there, one sentence each.
        accepted: What a person accepted instead of a proof, one sentence each.
        tally: Refused, escaped, bypassed and ended, as the members counted them up to then.
    """

    at: str
    site: str
    what: str
    by: str
    host: str
    epoch: int = 0
    causes: tuple[str, ...] = ()
    reason: str = ""
    message: str = ""
    seconds: float | None = None
    level: str = ""
    members: Mapping[str, int] = field(default_factory=dict)
    missing: tuple[str, ...] = ()
    accepted: tuple[str, ...] = ()
    tally: Mapping[str, Any] = field(default_factory=dict)

    def dump(self) -> bytes:
        """Return the entry as one line of JSON, without the line end."""
        document = {key: value for key, value in asdict(self).items() if value not in ("", (), {}, None)}
        return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode(
            errors="backslashreplace"  # what a terminal sent and is no text becomes \\udcxx, which is JSON for itself
        )

    @classmethod
    def load(cls, raw: bytes) -> Entry | None:
        """Read an entry; None if it can't be read. Fields of newer versions are ignored."""
        try:
            document = json.loads(raw)
            known = {f.name for f in fields(cls)}
            values = {key: value for key, value in document.items() if key in known}
            for name in ("causes", "missing", "accepted"):
                values[name] = tuple(str(item) for item in values.get(name, ()))
            return cls(**values)
        except (ValueError, TypeError, AttributeError):
            return None


def instant(at: datetime) -> str:
    """Return an instant as entries carry it: RFC 3339, UTC, milliseconds."""
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def write(store: Store, folder: Path | None, entry: Entry) -> None:
    """Keep an entry, in the store and on this host. What fails is logged: a change is not undone for its history."""
    raw = entry.dump()
    try:
        store.append(USES_LOG if entry.what == LET_THROUGH else LOG, raw, keep=KEEP)
    except StoreUnreachable as error:
        logger.warning("readonly: the history could not be kept in the store: %s", error)
    if folder is None:
        return
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        # One write of one line to a file opened for appending: lines of two commands do not mix (POSIX write(2)).
        handle = os.open(_file(folder, entry.site), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(handle, raw + b"\n")
        finally:
            os.close(handle)
    except OSError as error:
        logger.warning("readonly: the history could not be kept on this host: %s", error)


def read(store: Store, folder: Path | None, *, last: int) -> list[Entry]:
    """Return the last entries, oldest first: the store's, and what only this host remembers.

    Raises:
        StoreUnreachable: The store did not answer, and this host remembers nothing.
    """
    here = _on_this_host(folder, store.site)
    try:
        there = [entry for log in (LOG, USES_LOG) for entry in store.entries(log, last=KEEP)]
    except StoreUnreachable:
        if not here:
            raise
        logger.warning("readonly: the store did not answer; this is what this host remembers")
        there = []
    return _merged([*there, *here])[-last:]


def _on_this_host(folder: Path | None, site: str) -> Sequence[bytes]:
    if folder is None:
        return ()
    try:
        return _file(folder, site).read_bytes().splitlines()[-KEEP:]
    except OSError:
        return ()


def _merged(lines: Iterable[bytes]) -> list[Entry]:
    found = {line: entry for line in lines if (entry := Entry.load(line)) is not None}
    return sorted(found.values(), key=lambda entry: (entry.at, entry.epoch))


def _file(folder: Path, site: str) -> Path:
    return folder / f"{site}-history.jsonl"


def tally_since(now: Mapping[str, Any], then: Mapping[str, Any]) -> dict[str, Any]:
    """Return what was counted since `then`; labels that counted nothing are left out."""
    found: dict[str, Any] = {}
    for key, value in now.items():
        before = then.get(key)
        if isinstance(value, Mapping):
            inner = tally_since(value, before if isinstance(before, Mapping) else {})
            found[key] = {label: count for label, count in inner.items() if count}
        else:
            found[key] = value - before if isinstance(before, (int, float)) else value
    return found


def tally_shortened(tally: Mapping[str, Any], most: int) -> dict[str, Any]:
    """Return it with so many labels of each kind, the largest ones; the rest is one label, so that sums stay right."""
    found = dict(tally)
    for key, value in tally.items():
        if isinstance(value, Mapping) and len(value) > most:
            ordered = sorted(value.items(), key=lambda item: (-item[1], item[0]))
            found[key] = inner = dict(ordered[:most])
            inner[OTHER] = inner.get(OTHER, 0) + sum(count for _, count in ordered[most:])
    return found


def tally_of(totals: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the sum of several processes' counters."""
    found: dict[str, Any] = {}
    for one in totals:
        for key, value in one.items():
            if isinstance(value, Mapping):
                inner = found.setdefault(key, {})
                for label, count in value.items():
                    inner[label] = inner.get(label, 0) + count
            elif isinstance(value, (int, float)):
                found[key] = found.get(key, 0) + value
    return found
