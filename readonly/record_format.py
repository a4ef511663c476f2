"""How a record is stored: versioned JSON, which every version must be able to say something about.

A record that another version wrote is handled by four rules. Fields that this version does not know are kept when
the record is rewritten. A record of a higher version, or with a `needs` that this version does not know, raises
`UnreadableRecord`: nobody here may overwrite it, and it counts as read-only. A need that ends in a question mark is one
that a reader may do without (it keeps nobody from writing): who does not know it goes on, and says so. `epoch`, `id`
and `mode` stay where they are for ever, so that any version can say which record it could not read.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from .errors import UnreadableRecord
from .record import (
    FEATURES,
    MAY,
    SESSIONS,
    Bypass,
    Cause,
    FenceMark,
    Lift,
    Record,
    Rehearsal,
    Schedule,
    Window,
    ordered,
)

VERSION = 1


def _instant_out(value: datetime | None) -> str | None:
    if value is None:
        return None
    if value.tzinfo is None:
        # Python would take it for local time, silently.
        raise ValueError(f"{value!r} has no time zone")
    return value.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def _instant(value: Any) -> datetime:
    found = datetime.fromisoformat(value)
    if found.tzinfo is None:
        raise ValueError(f"{value!r} has no time zone")
    try:
        return found.astimezone(UTC)
    except OverflowError as error:
        raise ValueError(f"{value!r} is no instant") from error


def _maybe_instant(value: Any) -> datetime | None:
    return None if value is None else _instant(value)


def dump(record: Record) -> bytes:
    """Return the record as it is stored: JSON, UTF-8, keys sorted, so that equal records are equal bytes."""
    document: dict[str, Any] = {
        **record.extra,
        "v": VERSION,
        "epoch": record.epoch,
        "id": record.id,
        "mode": str(record.mode),
        "site": record.site,
        "lineage": record.lineage,
        "protected": record.protected,
        "changed_at": _instant_out(record.changed_at),
        "changed_by": record.changed_by,
        "causes": [_cause_out(c) for c in record.causes],
        "lifted": {key: _lift_out(lift) for key, lift in record.lifted.items()},
        "windows": [_window_out(w) for w in record.windows],
        "sessions_ended_before": _instant_out(record.sessions_ended_before()),
        "sessions_floor": _instant_out(record.sessions_floor),
        **({"schedules": [_schedule_out(one) for one in record.schedules]} if record.schedules else {}),
        **({"bypasses": [_bypass_out(one) for one in record.bypasses]} if record.bypasses else {}),
        **({"rehearsal": _rehearsal_out(record.rehearsal)} if record.rehearsal is not None else {}),
        **({"windows_floor": _instant_out(record.windows_floor)} if record.windows_floor is not None else {}),
        "needs": list(record.needs),
    }
    # A lone surrogate (a byte that a terminal sent and that is no text) becomes \udcxx, which is JSON for itself.
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode(
        errors="backslashreplace"
    )


def _cause_out(cause: Cause) -> dict[str, Any]:
    return {
        **cause.extra,
        "id": cause.id,
        "kind": cause.kind,
        "by": cause.by,
        "since": _instant_out(cause.since),
        "reason": cause.reason,
        "message": cause.message,
        "expected_end": _instant_out(cause.expected_end),
        "sessions": cause.sessions,
        "host": cause.host,
        "epoch": cause.epoch,
        "revision": cause.revision,
        **({} if cause.fence is None else {"fence": asdict(cause.fence)}),
    }


def _lift_out(lift: Lift) -> dict[str, Any]:
    return {
        **lift.extra,
        "at": _instant_out(lift.at),
        "by": lift.by,
        "since": _instant_out(lift.since),
        "sessions": lift.sessions,
        "undone": lift.undone,
        "epoch": lift.epoch,
    }


def _window_out(window: Window) -> dict[str, Any]:
    return {
        **window.extra,
        "id": window.id,
        "start": _instant_out(window.start),
        "end": _instant_out(window.end),
        "by": window.by,
        "reason": window.reason,
        "message": window.message,
        "sessions": window.sessions,
        "ended": window.ended,
        "ended_at": _instant_out(window.ended_at),
        "revision": window.revision,
        # Every report brings the record back: what few windows have is left out of the others.
        **({"expected_end": _instant_out(window.expected_end)} if window.expected_end is not None else {}),
        **{key: value for key in _WINDOW_TEXTS if (value := getattr(window, key))},
    }


def _schedule_out(schedule: Schedule) -> dict[str, Any]:
    return {
        **schedule.extra,
        "id": schedule.id,
        "rule": schedule.rule,
        "zone": schedule.zone,
        "seconds": schedule.seconds,
        "by": schedule.by,
        "through": schedule.through,
        "past": _instant_out(schedule.past),
        "reason": schedule.reason,
        "message": schedule.message,
        "sessions": schedule.sessions,
        "typed": schedule.typed,
        "cancelled_at": _instant_out(schedule.cancelled_at),
        "revision": schedule.revision,
    }


def _bypass_out(bypass: Bypass) -> dict[str, Any]:
    return {
        **bypass.extra,
        "id": bypass.id,
        "name": bypass.name,
        "by": bypass.by,
        "since": _instant_out(bypass.since),
        "until": _instant_out(bypass.until),
        "causes": list(bypass.causes),
        "paths": list(bypass.paths),
        "link": bypass.link,
        "keys": list(bypass.keys),
        "host": bypass.host,
        "revoked": bypass.revoked,
        "revision": bypass.revision,
    }


def _rehearsal_out(rehearsal: Rehearsal) -> dict[str, Any]:
    return {
        **rehearsal.extra,
        "id": rehearsal.id,
        "by": rehearsal.by,
        "since": _instant_out(rehearsal.since),
        "until": _instant_out(rehearsal.until),
        "host": rehearsal.host,
        "ended_at": _instant_out(rehearsal.ended_at),
        "revision": rehearsal.revision,
    }


_WINDOW_TEXTS = ("typed", "zone", "mark", "schedule")
_ANY = datetime.min.replace(tzinfo=UTC)
_CAUSE_FIELDS = frozenset(_cause_out(Cause("", "", "", _ANY, fence=FenceMark(""))))
_LIFT_FIELDS = frozenset(_lift_out(Lift("", _ANY, "")))
_WINDOW_FIELDS = frozenset([*_window_out(Window("", _ANY, _ANY, "", expected_end=_ANY)), *_WINDOW_TEXTS])
_SCHEDULE_FIELDS = frozenset(_schedule_out(Schedule("", "", "", 0.0, "")))
_BYPASS_FIELDS = frozenset(_bypass_out(Bypass("", "", "", _ANY, _ANY, ())))
_REHEARSAL_FIELDS = frozenset(_rehearsal_out(Rehearsal("", "", _ANY, _ANY)))
_RECORD_FIELDS = frozenset(
    [
        "v",
        "epoch",
        "id",
        "mode",
        "site",
        "lineage",
        "protected",
        "changed_at",
        "changed_by",
        "causes",
        "lifted",
        "windows",
        "schedules",
        "bypasses",
        "rehearsal",
        "sessions_ended_before",
        "sessions_floor",
        "windows_floor",
        "needs",
    ]
)


def load(raw: bytes) -> Record:
    """Read a stored record.

    Raises:
        UnreadableRecord: It is corrupt, of a higher version, or needs a feature that this version does not know.
    """
    try:
        document = json.loads(raw)
        if not isinstance(document, dict):
            raise TypeError(f"expected an object, found {type(document).__name__}")
        epoch = document.get("epoch")
        epoch = epoch if type(epoch) is int else None
        version = document["v"]
        if type(version) is not int or version < 1:
            raise ValueError(f"v={version!r} is no version")
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise UnreadableRecord(f"the record is corrupt ({_explain(error)}): {_excerpt(raw)}", corrupt=True) from error
    if version > VERSION:
        raise UnreadableRecord(
            f"the record has version {version}; this library reads up to version {VERSION}: upgrade readonly-mode",
            epoch=epoch,
        )
    needs = document.get("needs") or []
    unknown = sorted({str(n) for n in needs if not _is_soft(n)} - FEATURES) if isinstance(needs, list) else ["?"]
    if unknown:
        raise UnreadableRecord(
            f"the record needs {', '.join(unknown)}, which this library does not know: upgrade readonly-mode",
            epoch=epoch,
        )
    try:
        return _load_v1(document)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UnreadableRecord(
            f"the record is corrupt ({_explain(error)}): {_excerpt(raw)}", epoch=epoch, corrupt=True
        ) from error


def _is_soft(need: object) -> bool:
    return isinstance(need, str) and need.endswith(MAY)


def _load_v1(document: dict[str, Any]) -> Record:
    causes = [
        Cause(
            id=_text(item["id"]),
            kind=_text(item["kind"]),
            by=_text(item["by"]),
            since=_instant(item["since"]),
            reason=_text(item.get("reason", "")),
            message=_text(item.get("message", "")),
            expected_end=_maybe_instant(item.get("expected_end")),
            sessions=_sessions(item.get("sessions")),
            host=_text(item.get("host", "")),
            epoch=_number(item.get("epoch", 0)),
            revision=_number(item.get("revision", 1)),
            fence=_fence(item.get("fence")),
            extra=_rest(item, _CAUSE_FIELDS),
        )
        for item in _list(document["causes"])
    ]
    lifted = {
        key: Lift(
            id=key,
            at=_instant(item["at"]),
            by=_text(item.get("by", "")),
            since=_maybe_instant(item.get("since")),
            sessions=_sessions(item.get("sessions")),
            undone=_flag(item.get("undone", False)),
            epoch=_number(item.get("epoch", 0)),
            extra=_rest(item, _LIFT_FIELDS),
        )
        for key, item in document["lifted"].items()
    }
    windows = [
        Window(
            id=_text(item["id"]),
            start=_instant(item["start"]),
            end=_maybe_instant(item["end"]),
            by=_text(item.get("by", "")),
            reason=_text(item.get("reason", "")),
            message=_text(item.get("message", "")),
            sessions=_sessions(item.get("sessions")),
            ended=_flag(item.get("ended", False)),
            ended_at=_maybe_instant(item.get("ended_at")),
            revision=_number(item.get("revision", 1)),
            expected_end=_maybe_instant(item.get("expected_end")),
            **{key: _text(item.get(key, "")) for key in _WINDOW_TEXTS},
            extra=_rest(item, _WINDOW_FIELDS),
        )
        for item in _list(document.get("windows", []))
    ]
    schedules = [
        Schedule(
            id=_text(item["id"]),
            rule=_text(item["rule"]),
            zone=_text(item["zone"]),
            seconds=_seconds(item["seconds"]),
            by=_text(item.get("by", "")),
            through=_text(item.get("through", "")),
            past=_maybe_instant(item.get("past")),
            reason=_text(item.get("reason", "")),
            message=_text(item.get("message", "")),
            sessions=_sessions(item.get("sessions")),
            typed=_text(item.get("typed", "")),
            cancelled_at=_maybe_instant(item.get("cancelled_at")),
            revision=_number(item.get("revision", 1)),
            extra=_rest(item, _SCHEDULE_FIELDS),
        )
        for item in _list(document.get("schedules", []))
    ]
    bypasses = [
        Bypass(
            id=_text(item["id"]),
            name=_text(item["name"]),
            by=_text(item.get("by", "")),
            since=_instant(item["since"]),
            until=_instant(item["until"]),
            causes=_texts(item["causes"]),
            paths=_texts(item.get("paths", [])),
            link=_text(item.get("link", "")),
            keys=_texts(item.get("keys", [])),
            host=_text(item.get("host", "")),
            revoked=_flag(item.get("revoked", False)),
            revision=_number(item.get("revision", 1)),
            extra=_rest(item, _BYPASS_FIELDS),
        )
        for item in _list(document.get("bypasses", []))
    ]
    return ordered(
        Record(
            site=_text(document["site"]),
            epoch=_number(document["epoch"]),
            id=_text(document["id"]),
            lineage=_text(document.get("lineage", "")),
            protected=_flag(document.get("protected", False)),
            changed_at=_instant(document["changed_at"]),
            changed_by=_text(document.get("changed_by", "")),
            causes=tuple(causes),
            lifted=lifted,
            windows=tuple(windows),
            schedules=tuple(schedules),
            bypasses=tuple(bypasses),
            rehearsal=_rehearsal(document.get("rehearsal")),
            sessions_floor=_maybe_instant(document.get("sessions_floor")),
            windows_floor=_maybe_instant(document.get("windows_floor")),
            needs=tuple(document.get("needs") or ()),
            extra=_rest(document, _RECORD_FIELDS),
        )
    )


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"expected text, found {value!r}")
    return value


def _texts(value: Any) -> tuple[str, ...]:
    return tuple(_text(item) for item in _list(value))


def _sessions(value: Any) -> str | None:
    # What a reader must know and does not stands in `needs`: here there are no words to come.
    if value is not None and value not in SESSIONS:
        raise ValueError(f"sessions={value!r} is none of {', '.join(SESSIONS)}")
    return None if value is None else _text(value)


def _fence(value: Any) -> FenceMark | None:
    if value is None:
        return None
    # A newer version may say more of it; what it says more is lost to nobody, since it stands at the server.
    return FenceMark(**{name: _text(value.get(name, "")) for name in FenceMark.__dataclass_fields__})


def _rehearsal(value: Any) -> Rehearsal | None:
    if value is None:
        return None
    return Rehearsal(
        id=_text(value["id"]),
        by=_text(value.get("by", "")),
        since=_instant(value["since"]),
        until=_instant(value["until"]),
        host=_text(value.get("host", "")),
        ended_at=_maybe_instant(value.get("ended_at")),
        revision=_number(value.get("revision", 1)),
        extra=_rest(value, _REHEARSAL_FIELDS),
    )


def _number(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise ValueError(f"expected a whole number from 0, found {value!r}")
    return value


def _seconds(value: Any) -> float:
    if type(value) not in (int, float) or not 0 < value < float("inf"):
        raise ValueError(f"expected a number of seconds above 0, found {value!r}")
    return float(value)


def _flag(value: Any) -> bool:
    # By its type: "false" is a true string.
    if not isinstance(value, bool):
        raise TypeError(f"expected true or false, found {value!r}")
    return value


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise TypeError(f"expected a list, found {type(value).__name__}")
    return value


def _rest(item: Mapping[str, Any], known: Iterable[str]) -> dict[str, Any]:
    return {key: value for key, value in item.items() if key not in known}


def _explain(error: Exception) -> str:
    return f"no {error}" if isinstance(error, KeyError) else str(error)


def _excerpt(raw: bytes) -> str:
    shown = raw[:60].decode("utf-8", "replace")
    return repr(shown) + ("…" if len(raw) > 60 else "")
