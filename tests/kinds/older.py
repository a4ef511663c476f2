"""An earlier version of the library, made by copying this one and taking away what its reports did not say yet."""

from __future__ import annotations

import shutil
from pathlib import Path

import readonly

OLDER = "0.0.9"


def older(folder: Path) -> str:
    """Make the copy below `folder`; return what must stand in PYTHONPATH for it to be imported."""
    copy = folder / "older" / "readonly"
    shutil.copytree(Path(readonly.__file__).parent, copy, ignore=shutil.ignore_patterns("__pycache__"))
    _change(copy / "__init__.py", f'__version__ = "{readonly.__version__}"', f'__version__ = "{OLDER}"')
    _change(
        copy / "members.py",
        "json.dumps(asdict(self),",
        'json.dumps({key: value for key, value in asdict(self).items() if key != "registry"},',
    )
    return str(copy.parent)


def _change(path: Path, was: str, now: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.count(was) == 1, f"{path.name} is to be changed where it says {was!r}, {text.count(was)} times"
    path.write_text(text.replace(was, now), encoding="utf-8")
