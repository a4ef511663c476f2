"""`manage.py migrate` is refused while the site is read-only, but inside the run that the site is read-only for.

It is counted like any write, from before its first step until its last receiver has run: `on` waits for it.
"""

from __future__ import annotations

import weakref
from typing import Any, Final

from django.apps import apps
from django.core.management.base import CommandError
from django.db.models.signals import post_migrate, pre_migrate

from readonly.errors import ReadOnlyError
from readonly.refused_commands import REFUSED
from readonly.switch import Switch

from . import conf

# Longer than the time for which a process takes no write from a store that is young.
SETTLING_SECONDS: Final = 4.0
_UID: Final = "readonly_django.migrating"


def connect() -> None:
    """Be asked before each migration."""
    pre_migrate.connect(_before, dispatch_uid=_UID)
    post_migrate.connect(_after, dispatch_uid=_UID)


class _Migration:
    """One migration under way: counted, or let through since its run stands.

    Attributes:
        of: The state of the applications that it begins with; it lives as long as the command works on it.
    """

    def __init__(self, switch: Switch, of: Any) -> None:
        # A store that has just come up may not know all yet; a moment later it does, or holds nothing.
        writing = switch.writing(wait=0.0 if switch.look().causes else SETTLING_SECONDS)
        try:
            writing.__enter__()
        except ReadOnlyError as refusal:
            raise CommandError(_refused(switch), returncode=REFUSED) from refusal
        self.of = weakref.ref(of)
        # One that fails tells nobody.
        self.end = weakref.finalize(of, writing.__exit__, None, None, None)


_running: _Migration | None = None


def _before(*, using: str, apps: Any, **_: Any) -> None:
    """Begin: called once for each application, before anything was done."""
    global _running
    if _running is not None:
        if _running.of() is apps:
            return
        # It failed, and is not forgotten yet: what comes after it is no part of it.
        _running.end()
        _running = None
    if using not in conf.settings().unguarded:
        _running = _Migration(conf.current_switch(), apps)


def _after(sender: Any, **_: Any) -> None:
    """End: called once for each application, when all is done; the last one counts."""
    global _running
    last = [config for config in apps.get_app_configs() if config.models_module is not None][-1:]
    if _running is not None and last == [sender]:
        running, _running = _running, None
        running.end()


def _refused(switch: Switch) -> str:
    return (
        f"{switch.site} is read-only ({switch.state.reason}): the migration was not begun. "
        "Run it inside of `readonlyctl run`, or by hand with READONLY_RUN set to the run that stands; "
        "`manage.py readonly status` says what does."
    )
