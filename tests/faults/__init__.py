"""Faults: real servers are killed, paused, cut off and emptied under load, and a checker reads what happened."""
