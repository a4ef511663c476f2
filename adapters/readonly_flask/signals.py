"""The signal that is sent when the state changes."""

from __future__ import annotations

from blinker import Namespace

# Sent with the application as its sender and `state`, in the switch's thread, outside of any context.
changed = Namespace().signal("readonly-changed")
