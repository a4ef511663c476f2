"""What benchmarks have in common: how large they are, what a server used, and how figures are shown."""

from __future__ import annotations

import json
import math
import os
import resource
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from support import children
from support.redis_server import RedisServer

HERE = Path(__file__).parent
# `make bench` measures at full size; as a part of `make test` a benchmark is small and its limits are generous.
FULL = os.environ.get("READONLY_TEST_BENCH") == "full"
# Where plots go: build output, never committed.
PLOTS = HERE.parents[1] / "build" / "measurements"


@dataclass(frozen=True)
class Used:
    """What a server has used since it started, or between two looks: seconds of CPU, and calls by command."""

    cpu: float
    calls: Mapping[str, int]

    def since(self, earlier: Used) -> Used:
        """Return what was used in between."""
        return Used(self.cpu - earlier.cpu, {name: n - earlier.calls.get(name, 0) for name, n in self.calls.items()})

    @property
    def reports(self) -> int:
        """Scripts that were run: of members that idle, reports."""
        return self.calls.get("evalsha", 0)

    @property
    def messages(self) -> int:
        """Reports and pings."""
        return self.reports + self.calls.get("ping", 0)


def used(server: RedisServer) -> Used:
    """Look at a server's own count of its CPU time, user and system, and of its commands."""
    fields = dict(
        line.split(":", 1)
        for section in ("cpu", "commandstats")
        for line in server.command("INFO", section).splitlines()
        if ":" in line
    )
    calls = {
        name.removeprefix("cmdstat_"): int(told.partition("calls=")[2].partition(",")[0])
        for name, told in fields.items()
        if name.startswith("cmdstat_")
    }
    return Used(float(fields["used_cpu_user"]) + float(fields["used_cpu_sys"]), calls)


def large_server() -> RedisServer:
    """Start a server that takes as many connections as the limit for open files allows."""
    return RedisServer("--maxclients", str(open_files() - 100)).start()


def open_files() -> int:
    """Raise the limit for open files as far as it goes, for this process and its children, and return it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = hard if hard != resource.RLIM_INFINITY else 65536
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return wanted


class Script:
    """A script of this folder as a process: a line to it is answered by a line of JSON."""

    def __init__(self, name: str, *arguments: object) -> None:
        root = HERE.parents[1]
        environment = children.without_ours(os.environ) | {"PYTHONPATH": os.pathsep.join(map(str, [root, HERE.parent]))}
        self.process = subprocess.Popen(
            [sys.executable, HERE / name, *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )

    def tell(self) -> None:
        """Send a line."""
        pipe: IO[str] | None = self.process.stdin
        assert pipe is not None
        pipe.write("\n")
        pipe.flush()

    def hear(self) -> Any:
        """Wait for a line."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"it ended with {self.process.wait(10)}")
        return json.loads(line)

    def close(self) -> None:
        """End it."""
        self.process.kill()
        self.process.communicate()


def quantile(values: Sequence[float], share: float) -> float:
    """Return the value that this share of all does not exceed."""
    ordered = sorted(values)
    return ordered[max(0, min(len(ordered) - 1, math.ceil(share * len(ordered)) - 1))]


def table(title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table."""
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]
    print(f"\n\n{title}")
    for row in [head, *rows]:
        print("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)))


def plot(
    name: str, title: str, points: Mapping[str, Sequence[tuple[float, float]]], *, across: str, limit: float
) -> None:
    """Print bars for the first series, and draw all of them, with a limit, as an SVG below build/."""
    highest = 1.1 * max(limit, *(y for series in points.values() for _, y in series))
    first = next(iter(points))
    print(f"\n{title}: {first}, by {across} (| is {limit:g})")
    mark = round(50 * limit / highest)
    for x, y in points[first]:
        bar = ("#" * round(50 * y / highest)).ljust(50)
        print(f"{x:8.0f} {bar[:mark]}|{bar[mark:]} {y:.2f}")
    PLOTS.mkdir(parents=True, exist_ok=True)
    (PLOTS / f"{name}.svg").write_text(_svg(title, points, across, limit, highest), encoding="utf-8")


def _svg(
    title: str, points: Mapping[str, Sequence[tuple[float, float]]], across: str, limit: float, highest: float
) -> str:
    everything = [x for series in points.values() for x, _ in series]
    low, high = math.log10(min(everything)), math.log10(max(everything))

    def at(x: float, y: float) -> tuple[float, float]:
        return 60 + 540 * (math.log10(x) - low) / ((high - low) or 1), 340 - 290 * y / highest

    parts = [f'<text x="60" y="25">{title}</text>', f'<text x="280" y="385">{across} (logarithmic)</text>']
    left, right = at(10**low, limit), at(10**high, limit)
    parts.append(
        f'<line x1="{left[0]:.0f}" y1="{left[1]:.0f}" x2="{right[0]:.0f}" y2="{right[1]:.0f}" '
        f'stroke="#999" stroke-dasharray="6"/><text x="{right[0] + 5:.0f}" y="{right[1]:.0f}">{limit:g}</text>'
    )
    for number, (label, series) in enumerate(points.items()):
        colour = ("#1464a0", "#b04a00", "#4a8a2a")[number % 3]
        line = " ".join(f"{x:.0f},{y:.0f}" for x, y in (at(*point) for point in series))
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"/>')
        for point in series:
            x, y = at(*point)
            parts.append(f'<circle cx="{x:.0f}" cy="{y:.0f}" r="3" fill="{colour}"/>')
            if number == 0:
                parts.append(f'<text x="{x:.0f}" y="360" text-anchor="middle">{point[0]:g}</text>')
                parts.append(f'<text x="{x:.0f}" y="{y - 8:.0f}" text-anchor="middle">{point[1]:.2f}</text>')
        parts.append(f'<text x="70" y="{45 + 18 * number}" fill="{colour}">{label}</text>')
    body = "\n".join(parts)
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 660 400" font-family="sans-serif" font-size="12">\n'
        f'<rect width="660" height="400" fill="white"/>\n{body}\n</svg>\n'
    )
