"""`manage.py migrate` is refused while the site is read-only, but inside the run that the site is read-only for.

It is counted like any write, from before its first step until its last receiver has run: `on` waits for it.
"""

from __future__ import annotations

import os
import weakref
from typing import Any, Final

from django.apps import apps
from django.core.management.base import CommandError
from django.db.models.signals import post_migrate, pre_migrate

from readonly.context import Work, enter, leave
from readonly.record import RUN
from readonly.state import State
from readonly.switch import Switch

from . import conf

# Names the run that stands; set by `run` for the command that it runs.
RUN_VARIABLE: Final = "READONLY_RUN"
# EX_TEMPFAIL of sysexits.h, as a job that was skipped.
REFUSED: Final = 75
# Longer than the time for which a process takes no write from a store that is young.
SETTLING_SECONDS: Final = 4.0
_UID: Final = "readonly_django.migrating"


def connect() -> None:
    """Be asked before each migration."""
    pre_migrate.connect(_before, dispatch_uid=_UID)
    post_migrate.connect(_after, dispatch_uid=_UID)


def is_inside_run(state: State) -> bool:
    """Return whether this process was started by the run that the site is read-only for."""
    named = os.environ.get(RUN_VARIABLE)
    return bool(named) and any(cause.kind == RUN and cause.id == named for cause in state.causes)


class _Migration:
    """One migration under way: counted, or let through by its run.

    Attributes:
        of: The state of the applications that it begins with; it lives as long as the command works on it.
    """

    def __init__(self, switch: Switch, of: Any) -> None:
        key, closed = _begin(switch)
        if closed is not None and not closed.causes and switch.wait_writable(SETTLING_SECONDS):
            # A store that has just come up may not know all yet; a moment later it does, or holds nothing.
            key, closed = _begin(switch)
        bypass = closed is not None and is_inside_run(closed)
        if closed is not None and not bypass:
            raise CommandError(_refusal(switch, closed), returncode=REFUSED)
        self.work = Work(switch, key=key, bypass=bypass, name="migrate")
        self._key = key
        self._switch = switch
        self._token = enter(self.work)
        self.of = weakref.ref(of)
        # One that fails tells nobody.
        weakref.finalize(of, self._stop)

    def end(self) -> None:
        """Say that it is over."""
        self._stop()
        leave(self._token)

    def _stop(self) -> None:
        self.work.end()
        self._switch.inflight.end(self._key)


def _begin(switch: Switch) -> tuple[object, State | None]:
    """Count it, and then ask whether it may begin."""
    key = switch.inflight.begin()
    try:
        closed = switch.admit()
    except BaseException:
        switch.inflight.end(key)
        raise
    if closed is None:
        # What it does is part of it, and drained with it.
        return key, None
    switch.inflight.end(key)
    return None, closed


_running: _Migration | None = None


def _before(*, using: str, apps: Any, **_: Any) -> None:
    """Begin: called once for each application, before anything was done."""
    global _running
    if using in conf.settings().unguarded or (_running is not None and _running.of() is apps):
        return
    _running = _Migration(conf.current_switch(), apps)


def _after(sender: Any, **_: Any) -> None:
    """End: called once for each application, when all is done; the last one counts."""
    global _running
    last = [config for config in apps.get_app_configs() if config.models_module is not None][-1:]
    if _running is not None and last == [sender]:
        running, _running = _running, None
        running.end()


def _refusal(switch: Switch, closed: State) -> str:
    stands = closed.reason or "the state is unknown"
    return (
        f"{switch.site} is read-only ({stands}): the migration was not begun. "
        f"Run it inside of `readonlyctl run`, or by hand with {RUN_VARIABLE} set to the run that stands; "
        "`manage.py readonly status` says what does."
    )
