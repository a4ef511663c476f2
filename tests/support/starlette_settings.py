"""The table of settings in docs/starlette.md: `python -m tests.support.starlette_settings` writes it anew.

There settings are arguments: names and defaults are those of the signatures, and what is said of each is what its
docstring says.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from readonly import Policy, Switch
from readonly_starlette import ReadOnlyMiddleware

PAGE = Path(__file__).parents[2] / "docs" / "starlette.md"
BEGIN, END = "<!-- settings -->\n", "<!-- /settings -->"
# Of whom: what holds the docstring, and the variables of the environment that `from_env` reads.
_OF: dict[str, tuple[Callable[..., Any], object, frozenset[str]]] = {
    "Switch.from_url": (Switch.from_url, Switch, frozenset(re.findall(r"_([A-Z_]+)", Switch.from_env.__doc__ or ""))),
    "Policy": (Policy, Policy, frozenset[str]()),
    "ReadOnlyMiddleware": (ReadOnlyMiddleware, ReadOnlyMiddleware, frozenset[str]()),
}
_NEEDED = {"url": "the store: `redis://host/0?site=shop`, `sqlite:////absolute/path?site=shop`, `memory://` in tests"}


def table() -> str:
    """Return the table."""
    return "".join(["| of | argument | default | what it says |\n|---|---|---|---|\n", *_rows()])


def _rows() -> Iterator[str]:
    for of, (call, documented, variables) in _OF.items():
        said = _said(documented)
        for name, parameter in inspect.signature(call).parameters.items():
            if name in ("app", "switch"):
                continue
            default = "needed" if parameter.default is parameter.empty else f"`{parameter.default!r}`"
            text = _NEEDED.get(name) or said[name]
            variable = "STORE" if name == "url" else name.upper()
            if variable in variables:
                text += f" (`READONLY_{variable}`)"
            yield f"| `{of}` | `{name}` | {default} | {text} |\n"


def _said(documented: object) -> dict[str, str]:
    """Return what a docstring of Google's form says of each argument or attribute."""
    text = inspect.getdoc(documented) or ""
    part = re.search(r"^(?:Args|Attributes):\n((?:    .*\n?|\n)+)", text, re.MULTILINE)
    assert part is not None, documented
    items = re.findall(r"^    (\w+): (.*(?:\n        .*)*)", part[1], re.MULTILINE)
    return {name: " ".join(said.split()).rstrip(".").replace("|", "\\|") for name, said in items}


def with_table(page: str) -> str:
    """Return the page with the table as it is by now."""
    before, _, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    assert end, "the page has no place for the table"
    return f"{before}{BEGIN}{table()}{END}{after}"


if __name__ == "__main__":
    PAGE.write_text(with_table(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
