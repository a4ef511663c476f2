"""Throwaway environments that hold chosen distributions only, in a moment: linked, not installed.

"No framework installed" is a claim about what is *not* there, so a test of it needs a place where nothing else is.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement


class ThinEnvironment:
    """A virtual environment without pip, whose packages are links to those of the running one."""

    def __init__(self, folder: Path, requirements: Iterable[str]) -> None:
        """Make it in `folder`, with `requirements` and all that those need in turn.

        Raises:
            metadata.PackageNotFoundError: If one of them is not installed here.
        """
        venv.EnvBuilder(with_pip=False, symlinks=True).create(folder)
        self.folder = folder
        self.python = folder / "bin" / "python"
        self.packages = Path(sysconfig.get_path("purelib", vars={"base": os.fspath(folder)}))
        for distribution in closure(requirements):
            self._link(distribution)

    def _link(self, distribution: metadata.Distribution) -> None:
        for file in distribution.files or ():
            top = file.parts[0]
            # Scripts lie outside ("../../bin/x"); compiled single modules share one __pycache__.
            if top in {"..", "__pycache__"} or top.endswith(".pth"):
                continue
            link = self.packages / top
            if not link.is_symlink():
                link.symlink_to(Path(str(distribution.locate_file(top))))

    def install(self, wheel: Path) -> None:
        """Install a wheel as pip does, with its scripts and without its dependencies."""
        subprocess.run(
            [
                *(sys.executable, "-m", "pip", "--python", os.fspath(self.python), "install", "--quiet"),
                *("--no-deps", "--no-index", "--no-compile", "--disable-pip-version-check", os.fspath(wheel)),
            ],
            check=True,
            capture_output=True,
            text=True,
        )


def closure(requirements: Iterable[str]) -> list[metadata.Distribution]:
    """Return the installed distributions that meet `requirements`, and those that they require, once each."""
    found: dict[str, metadata.Distribution] = {}
    seen: set[tuple[str, frozenset[str]]] = set()
    waiting = [Requirement(each) for each in requirements]
    while waiting:
        wanted = waiting.pop()
        name = re.sub(r"[-_.]+", "-", wanted.name).lower()
        if (name, frozenset(wanted.extras)) in seen:
            continue
        seen.add((name, frozenset(wanted.extras)))
        found[name] = metadata.distribution(wanted.name)
        for text in found[name].requires or ():
            needed = Requirement(text)
            # Without a marker always; with one, as it is judged for one of the extras that were asked for.
            if needed.marker is None or any(needed.marker.evaluate({"extra": extra}) for extra in ("", *wanted.extras)):
                waiting.append(needed)
    return list(found.values())
