"""What tests of replicas share: looks that come often, and that are given all the time that a busy machine needs.

Only the looks are hurried. How long one may take, how long what it found is worth something, and how long a replica
that failed is left out is decided in seconds: a test that stands still for so long would find another answer.
"""

from __future__ import annotations

import pytest

from readonly.databases.replicas import choice, mariadb, postgresql, reaching, watching
from readonly.databases.sqlalchemy import _replicas

# Longer than any test takes.
NEVER_SECONDS = 3600.0
A_LONG_TIME_SECONDS = 60


def look_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look often, at replicas and at the primary."""
    monkeypatch.setattr(watching, "LOOK_EVERY_SECONDS", 0.1)
    monkeypatch.setattr(watching, "IDENTITY_SECONDS", 0.2)


def nothing_is_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give each look its time, and believe what it found until the next one."""
    for module in (reaching, _replicas):
        monkeypatch.setattr(module, "LOOK_SECONDS", float(A_LONG_TIME_SECONDS))
    monkeypatch.setattr(postgresql, "STATEMENT_MILLISECONDS", A_LONG_TIME_SECONDS * 1000)
    monkeypatch.setattr(mariadb, "STATEMENT_SECONDS", A_LONG_TIME_SECONDS)
    monkeypatch.setattr(choice, "STALE_SECONDS", NEVER_SECONDS)


def left_out_for_good(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave a replica that failed out, until the test says that its time is over."""
    monkeypatch.setattr(choice, "LEFT_OUT_SECONDS", NEVER_SECONDS)
    monkeypatch.setattr(choice, "LEFT_OUT_CAP_SECONDS", NEVER_SECONDS)
