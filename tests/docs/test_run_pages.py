"""docs/fence.md and docs/run.md: what they show is read and parsed by what they are about."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest

from readonly.cli import command_group
from readonly.config import operator_config
from readonly.run import Step

DOCS = Path(__file__).parents[2] / "docs"
PAGES = {name: (DOCS / name).read_text(encoding="utf-8") for name in ("fence.md", "run.md")}
FILES = [(name, text) for name, page in PAGES.items() for text in re.findall(r"```toml\n(.*?)```", page, re.DOTALL)]
_TYPED = re.compile(r"^readonlyctl (.*?)(?:  +#.*)?$", re.MULTILINE)
COMMANDS = sorted({line for page in PAGES.values() for line in _TYPED.findall(page)})


@pytest.mark.parametrize(("page", "text"), FILES)
def test_each_file_can_be_read(page: str, text: str, tmp_path: Path) -> None:
    """By the command, with a fence and its writers."""
    file = tmp_path / "readonly.toml"
    file.write_text(text, encoding="utf-8")
    [fence] = operator_config(config=file, environ={}).fences
    assert fence.writers
    assert fence.url.split(":")[0] in {"postgresql", "mysql"}


@pytest.mark.parametrize("line", COMMANDS)
def test_each_command_can_be_typed(line: str) -> None:
    """Its options and arguments are those that there are."""
    words = shlex.split(line)
    found: click.Command = command_group()
    while isinstance(found, click.Group):
        _, after, words = found.resolve_command(click.Context(found), words)
        assert after is not None
        found = after
    found.make_context(line, words)


def test_the_pages_name_every_step_and_every_code() -> None:
    """In their order."""
    page = PAGES["run.md"]
    assert re.findall(r"^\| `([a-z ]+)` \|", page, re.MULTILINE) == [str(step) for step in Step]
    assert {"123", "125", "126", "127"} <= set(re.findall(r"\b1\d\d\b", page.partition("| exit |")[2]))
    assert len(COMMANDS) >= 9
