"""A pytest plugin: names the slowest tests and the time that each folder took, at the end of the run."""

from __future__ import annotations

from collections import defaultdict

import pytest

SLOWEST = 15


class Timing:
    """Adds up set-up, call and tear-down of each test."""

    def __init__(self) -> None:
        self._seconds: defaultdict[str, float] = defaultdict(float)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Count one phase of one test."""
        self._seconds[report.nodeid] += report.duration

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Print both tables."""
        if not self._seconds or terminalreporter.verbosity < 0:
            return
        terminalreporter.section(f"slowest {SLOWEST} tests (with their set-up)")
        slowest = sorted(self._seconds.items(), key=lambda item: item[1], reverse=True)[:SLOWEST]
        for nodeid, seconds in slowest:
            terminalreporter.write_line(f"{seconds:8.2f} s  {nodeid}")
        folders: defaultdict[str, list[float]] = defaultdict(list)
        for nodeid, seconds in self._seconds.items():
            folders[folder_of(nodeid)].append(seconds)
        terminalreporter.section("time by folder")
        for folder, times in sorted(folders.items(), key=lambda item: sum(item[1]), reverse=True):
            terminalreporter.write_line(f"{sum(times):8.2f} s  {folder}  ({len(times)} tests)")
        everything = sum(self._seconds.values())
        terminalreporter.write_line(f"{everything:8.2f} s  in all  ({len(self._seconds)} tests)")


def folder_of(nodeid: str) -> str:
    """Return the folder directly below tests/ that a test is in, or tests/ itself.

    A node id starts with the file's path from the project's root, with slashes.
    """
    parts = nodeid.split("::")[0].split("/")
    return "/".join(parts[:2]) + "/" if len(parts) > 2 else f"{parts[0]}/" if len(parts) > 1 else "./"
