"""docs/rehearsal.md and docs/doctor.md: what they say to type can be typed, and their tables are of the code."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest

from readonly.cli import command_group
from readonly.doctor import CHECKS

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGES = {name: (DOCS / f"{name}.md").read_text(encoding="utf-8") for name in ("rehearsal", "doctor")}
TYPED = [
    line.partition("  ")[0] for text in PAGES.values() for line in re.findall(r"^(readonlyctl .+)$", text, re.MULTILINE)
]


@pytest.mark.parametrize("typed", TYPED)
def test_a_command_can_be_typed(typed: str) -> None:
    """Its name and its options are known; nothing is run."""
    words = shlex.split(typed)[1:]
    command: click.Command = command_group()
    context = click.Context(command, info_name="readonlyctl")
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        _, found, words = command.resolve_command(context, words)
        assert found is not None
        command, context = found, click.Context(found, context, found.name)
    command.make_context(command.name, words, parent=context.parent)


def test_every_check_is_explained() -> None:
    """In the order in which they are made."""
    assert tuple(re.findall(r"^\| `(\w+)` \|", PAGES["doctor"], re.MULTILINE)) == CHECKS
