"""What stands in the log for machines: one record a change, with all that its line says in fields of its own."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from readonly import Switch
from readonly.stores.memory import MemoryStore
from support.waiting import eventually

# Of these tests alone: what another test's switch has left to say is not theirs.
SITE = "logged"
FIELDS = ("event", "readonly_site", "readonly_mode", "readonly_was", "readonly_epoch", "readonly_reason")


@pytest.fixture
def switch() -> Iterator[Switch]:
    """A switch of a site that is writable, and has said so."""
    switch = Switch(MemoryStore(f"memory://?site={SITE}", site=SITE, timeout=20.0), interval=0.1)
    switch.start()
    eventually(lambda: not switch.look().read_only)
    yield switch
    switch.close()


def said(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    """Return what was logged of this site."""
    return [record for record in caplog.records if vars(record).get("readonly_site") == SITE]


def changes(caplog: pytest.LogCaptureFixture) -> list[tuple[object, ...]]:
    """Return the fields of each change that was logged."""
    records = [vars(record) for record in said(caplog)]
    return [tuple(r[name] for name in FIELDS) for r in records if r["event"] == "changed"]


def test_one_line_a_change(switch: Switch, caplog: pytest.LogCaptureFixture) -> None:
    """However often it is looked at: what is, what was, as of which epoch, and why."""
    with caplog.at_level(logging.INFO, "readonly"):
        on = switch.on(by="anna", reason="INC-441", message="moving")
        (cause,) = on.causes
        seen: list[object] = []
        stop = switch.on_heartbeat(lambda: seen.append(1))
        eventually(lambda: len(seen) > 2)
        stop()
        switch.look()
        off = switch.off(by="anna")
    reason = f"operator {cause.id} by anna: INC-441"
    assert changes(caplog) == [
        ("changed", SITE, "read-only", "writable", on.epoch, reason),
        ("changed", SITE, "writable", "read-only", off.epoch, ""),
    ]
    assert off.epoch > on.epoch
    assert {record.levelname for record in said(caplog)} == {"INFO"}
    assert f"{SITE} is read-only (epoch {on.epoch}): {reason}" in said(caplog)[0].getMessage()


def test_another_cause_is_a_change(switch: Switch, caplog: pytest.LogCaptureFixture) -> None:
    """The site was read-only before, and has one more reason to be."""
    switch.on(by="anna", reason="INC-441")
    with caplog.at_level(logging.INFO, "readonly"):
        switch.on(by="ben", reason="INC-442")
    ((*_, was, epoch, reason),) = changes(caplog)
    assert (was, epoch) == ("read-only", switch.state.epoch)
    assert isinstance(reason, str)
    assert "anna: INC-441" in reason
    assert "ben: INC-442" in reason


def test_what_one_process_sees_is_a_change(switch: Switch, caplog: pytest.LogCaptureFixture) -> None:
    """Though the record has none: a primary that takes no writes."""
    with caplog.at_level(logging.INFO, "readonly"):
        switch.detected("main", "in recovery")
        switch.detected("main", "in recovery")
        switch.detected("main", None)
    assert [(mode, was) for _, _, mode, was, _, _ in changes(caplog)] == [
        ("read-only", "writable"),
        ("writable", "read-only"),
    ]
