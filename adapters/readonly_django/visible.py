"""What visitors may see of the state."""

from __future__ import annotations

from typing import Any, Final

from . import conf

# A request whose page carries the banner has this attribute.
BANNER: Final = "_readonly_banner"


def shown() -> dict[str, Any]:
    """Return the state for templates: instants in UTC, or None."""
    state = conf.current_switch().state
    return {
        "read_only": state.read_only,
        "message": state.message,
        "since": state.since,
        "expected_end": state.expected_end,
    }
