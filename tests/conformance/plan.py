"""Which scenarios a cell runs, and why it leaves others out: known before anything is started."""

from __future__ import annotations

from typing import Final

from .scenario import Deviation, Scenario, Suite
from .servers import Server

# Why a server can't run what needs something.
_LACKING: Final = {
    "guard": "nothing guards a database here, so that requests go the shorter way",
    "kept connections": "this server ends each connection after one response",
    "websockets": "WSGI has no websockets",
}
# Why a framework can't.
_SITE_LACKING: Final = {("django_asgi", "websockets"): "Django has no websockets of its own"}


def deviation_for(suite: Suite, server: Server, site: str, scenario: Scenario, state: str) -> Deviation | None:
    """Return what is said about a scenario in a cell; None if all is as usual."""
    about = (scenario.name, server.name, site, state)
    return next((deviation for deviation in suite.deviations if deviation.concerns(*about)), None)


def why_left_out(suite: Suite, server: Server, site: str, scenario: Scenario, state: str) -> str:
    """Return why a cell can't run a scenario in a state, "" if it can."""
    has = server.can | ({"guard"} if server.guarded else set())
    for need in sorted(scenario.needs):
        if (site, need) in _SITE_LACKING:
            return _SITE_LACKING[site, need]
        if need not in has:
            return _LACKING[need]
    deviation = deviation_for(suite, server, site, scenario, state)
    return deviation.why if deviation is not None and deviation.expect is None else ""
