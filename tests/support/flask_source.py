"""The tutorial's application as Flask itself ships it: in its source package, which `.ci/venv` has fetched."""

from __future__ import annotations

import sys
import tarfile
from importlib.metadata import version
from pathlib import Path

SOURCES = Path(sys.prefix) / "flask-source"


def tutorial(folder: Path) -> Path | None:
    """Unpack the tutorial of the installed Flask into a folder.

    Returns:
        Its package, `flaskr`; None if the source package is not here.
    """
    source = f"flask-{version('flask')}"
    archive = SOURCES / f"{source}.tar.gz"
    if not archive.exists():
        return None
    wanted = f"{source}/examples/tutorial/flaskr/"
    with tarfile.open(archive) as files:
        members = [member for member in files.getmembers() if member.name.startswith(wanted)]
        files.extractall(folder, members, filter="data")
    return folder / wanted
