"""A rehearsal, and what a process doubts, through Django's own handlers."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.test import override_settings

from readonly import Switch, rehearsal
from readonly.changes import Operator
from readonly.rehearsal_counts import Numbers
from support.rehearsing import takes_part
from support.waiting import eventually

from .conftest import FIRST, OURS, Visitor

ANNA = Operator("anna", "bastion")


def begun(switch: Switch) -> None:
    """Have the site rehearse."""
    switch.start()
    switch.doubts._known.clear()  # one switch for all tests of a project
    rehearsal.begin(switch.store, ANNA, lasting=timedelta(hours=1))
    eventually(lambda: takes_part(switch), what="the rehearsal having begun here")


def numbers(switch: Switch) -> Numbers:
    """Return what was counted."""
    found = Numbers()
    found.add(switch.rehearsed.totals())
    return found


def test_nothing_is_refused_and_routes_are_counted_by_name(visitor: Visitor, switch: Switch) -> None:
    """What the URLconf and the marks say; a view that is marked to write on GET, found late, is counted once."""
    begun(switch)
    try:
        for method, path in (("GET", "/"), ("POST", "/"), ("GET", "/ping"), ("GET", "/aping"), ("POST", "/search")):
            assert visitor(method, path).status_code == 200
        found = numbers(switch)
        assert found.requests == 5
        refused = {rule: one.refused for rule, one in found.routes.items() if one.refused}
        assert sum(refused.values()) == 3
        assert all(" name:" in rule for rule in refused), refused
        assert not [one for one in switch.doubts.told() if one.startswith("position")]
    finally:
        rehearsal.stop(switch.store, ANNA)


@pytest.mark.parametrize("order", [[*FIRST[1:2], OURS, *FIRST[2:]]])
def test_middleware_outside_of_ours_is_doubted(switch: Switch, order: list[str]) -> None:
    """It has read the session before anybody could take it off."""
    begun(switch)
    try:
        with override_settings(MIDDLEWARE=order):
            assert Visitor("sync").get("/").status_code == 200
        assert "position what sets 'session'" in switch.doubts.told()
    finally:
        rehearsal.stop(switch.store, ANNA)
