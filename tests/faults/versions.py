"""A later version of the library, made by copying this one and changing it: two that are installed side by side."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import readonly

FIELD, CAUSE_FIELD, REPORT_FIELD = "x_future", "x_weight", "x_mood"
NEWER = "99.0.0"


def newer(folder: Path, *, record_version: int = 1) -> str:
    """Make the copy below `folder`; return what must stand in PYTHONPATH for it to be imported.

    It writes fields into records, causes and reports that this version does not know.

    Args:
        folder: Where it is made.
        record_version: The version of the records that it writes; above 1, this version can't read them.
    """
    source = Path(readonly.__file__).parent
    copy = folder / f"newer-{record_version}" / "readonly"
    shutil.copytree(source, copy, ignore=shutil.ignore_patterns("__pycache__"))
    _change(copy / "__init__.py", f'__version__ = "{readonly.__version__}"', f'__version__ = "{NEWER}"')
    record = copy / "record_format.py"
    _change(record, "VERSION = 1\n", f"VERSION = {record_version}\n")
    _change(record, '        "v": VERSION,\n', f'        "v": VERSION,\n        "{FIELD}": [1, 2],\n')
    _change(record, "        **cause.extra,\n", f'        **cause.extra,\n        "{CAUSE_FIELD}": 3,\n')
    _change(
        copy / "members.py", "json.dumps(asdict(self),", f'json.dumps({{**asdict(self), "{REPORT_FIELD}": "fine"}},'
    )
    return str(copy.parent)


def _change(path: Path, was: str, now: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.count(was) == 1, f"{path.name} is to be changed where it says {was!r}, {text.count(was)} times"
    path.write_text(text.replace(was, now), encoding="utf-8")


def knows_the_field(record: bytes | None) -> bool:
    """Return whether what only the newer version understands is in a record."""
    return record is not None and FIELD in json.loads(record)
