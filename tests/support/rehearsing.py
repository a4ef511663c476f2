"""When a rehearsal goes on in a process under test."""

from __future__ import annotations

from readonly import Switch
from readonly.rehearsal_counts import WHOLE


def takes_part(switch: Switch) -> bool:
    """Tell whether everything that this process does is looked at by now, as it reports; its state says so earlier."""
    going_on, found = switch.state.rehearsal, switch.rehearsed.totals()
    return going_on is not None and found.get("id") == going_on.id and WHOLE in found
