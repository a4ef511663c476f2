"""Windows of a site under test: typed, put into its record as they stand, and read back."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from readonly.record import Record, Schedule, Window
from readonly.record_format import dump
from support.operating import Shop, json_lines


def result(shop: Shop, *words: str, code: int = 0) -> dict[str, Any]:
    """Type a command and return its result."""
    done = shop.here("--json", *words)
    assert done.returncode == code, done.stdout + done.stderr
    return json_lines(done.stdout)[-1]


def record(shop: Shop) -> Record:
    """Return the record that stands."""
    found = shop.look().record
    assert found is not None
    return found


def with_windows(shop: Shop, *windows: Window, schedules: tuple[Schedule, ...] = ()) -> None:
    """Have these be planned, whatever the clock says."""
    reading = shop.store.read()
    stands = record(shop)
    new = replace(stands, epoch=stands.epoch + 1, id="test", windows=windows, schedules=schedules)
    assert shop.store.replace(dump(new), was=reading.record).record == dump(new)


def moved(shop: Shop, name: str, start: datetime, end: datetime) -> None:
    """Have a window be at another time than it was planned for, as if one had waited."""
    stands = record(shop)
    windows = (replace(w, start=start, end=end, revision=w.revision + 1) if w.id == name else w for w in stands.windows)
    with_windows(shop, *windows, schedules=stands.schedules)


def in_force(name: str = "w1", by: str = "anna", minutes: int = 30) -> Window:
    """Return a window that began five minutes ago."""
    now = datetime.now(UTC)
    return Window(name, now - timedelta(minutes=5), now + timedelta(minutes=minutes), by)
