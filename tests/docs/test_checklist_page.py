"""docs/checklist.md: what it says to type can be typed, and its settings and pages are there."""

from __future__ import annotations

import re
import shlex
from dataclasses import fields
from pathlib import Path

import click
import pytest

from readonly import Policy
from readonly.cli import command_group

DOCS = Path(__file__).resolve().parents[2] / "docs"
TEXT = (DOCS / "checklist.md").read_text(encoding="utf-8")
TYPED = list(
    dict.fromkeys(
        [
            *re.findall(r"^(readonlyctl .+)$", TEXT, re.MULTILINE),
            *(" ".join(found.split()) for found in re.findall(r"`(readonlyctl [^`]+)`", TEXT)),
        ]
    )
)


def test_there_is_something_to_type() -> None:
    """Commands in blocks and in sentences are found."""
    assert len(TYPED) >= 12


@pytest.mark.parametrize("typed", TYPED)
def test_a_command_can_be_typed(typed: str) -> None:
    """Its name, its options and their values are known; nothing is run."""
    words = ["7" if word in ("ID", "EPOCH") else word for word in shlex.split(typed)[1:]]
    command: click.Command = command_group()
    context = click.Context(command, info_name="readonlyctl")
    # A group that is a command as well (`members`) takes options of its own.
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        _, found, words = command.resolve_command(context, words)
        assert found is not None
        command = found
        context = click.Context(command, context, command.name)
    # Parses, and raises what the command line would be told.
    command.make_context(command.name, words, parent=context.parent)


def test_what_it_calls_settings_are_settings() -> None:
    """Of the policy, or of a guarded database."""
    named = set(re.findall(r"`(\w+)=\[…\]`", TEXT))
    assert named == {"login", "writes", "discard"}
    assert named - {field.name for field in fields(Policy)} == {"discard"}


def test_the_pages_it_points_to_are_there() -> None:
    """Every link leads to a page of these docs."""
    linked = set(re.findall(r"\]\((\w+\.md)\)", TEXT))
    assert linked == {"doctor.md", "rehearsal.md", "testing.md", "users.md"}
    assert all((DOCS / name).is_file() for name in linked)
