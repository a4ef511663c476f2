"""Processes of this host: which one is which, and whether one is over."""

from __future__ import annotations

import os
import platform
from pathlib import Path

from .members import Report


def process_start(pid: int) -> str:
    """Return the kernel's start time of a process, in clock ticks since boot, or "" (proc(5), /proc/[pid]/stat)."""
    try:
        # The second field is the command in parentheses and may hold anything, so count from its end.
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[19].decode()
    except (OSError, IndexError):
        return ""


def process_namespace() -> str:
    """Return what tells this machine boot and process-id namespace from others, or "" where it can't be known."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot}:{Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


def is_gone(report: Report) -> bool:
    """Return whether a member's process is proven to be over, seen from this process.

    Only its own host and process-id namespace can tell: there the pid is free, or belongs to another process.
    """
    if not report.namespace or not report.start or report.namespace != process_namespace():
        return False
    start = process_start(report.pid)
    if start:
        return start != report.start
    # /proc may hide the processes of others (hidepid=2); the kernel knows its pids all the same.
    try:
        os.kill(report.pid, 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):
        return False
    return False


def host_name() -> str:
    """Return this host's name, as people know it."""
    return platform.node() or "unknown-host"
