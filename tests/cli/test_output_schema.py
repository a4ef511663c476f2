"""What `--json` prints is what the schema says, and the page says the same; every other test's JSON is held to it, too.

With READONLY_TEST_REWRITE=1 the page's tables are written anew.
"""

from __future__ import annotations

import os
import re
import secrets
from pathlib import Path
from unittest import mock

import jsonschema
import pytest

from readonly.errors import StoreUnreachable
from readonly.members import Guarded, Report
from readonly.stores.sqlite import SQLiteStore
from support import output_schema
from support.operating import Member, Shop, json_lines, made

PAGE = Path(__file__).parents[2] / "docs" / "commands.md"
_TABLES = re.compile(r"(<!-- fields: begin -->\n).*?(<!-- fields: end -->)", re.DOTALL)
COMMANDS = (
    ["init", "shop"],
    ["on", "--timeout", "60s"],
    ["off", "--timeout", "60s"],
    ["wait", "--timeout", "60s"],
    ["job", "true"],
    ["status"],
    ["members"],
    ["members", "forget", "nobody", "--reason", "x"],
    ["history"],
    ["history", "show", "1"],
    ["bypass", "ann"],
    ["bypass", "list"],
    ["bypass", "revoke", "ann"],
    ["schedule", "add", "--every", "day 02:30", "--tz", "Europe/Berlin", "--for", "1h", "--yes"],
    ["schedule", "list"],
    ["schedule", "cancel", "w0"],
    ["schedule", "skip", "w0"],
    ["extend", "30m"],
    ["doctor"],
    ["rehearse", "--for", "1h"],
    ["rehearse", "report"],
    ["rehearse", "stop"],
)


def test_the_schema_is_one() -> None:
    """It is valid by its own draft, and takes a field that it does not know: programs are to let new ones pass."""
    jsonschema.Draft202012Validator.check_schema(output_schema.schema())
    newer = {"schema": 1, "event": "error", "command": None, "site": "", "error": "X", "message": "y", "new": 1}
    jsonschema.Draft202012Validator(output_schema.schema()).validate(newer)
    for wrong in (newer, {**newer, "event": "waiting"}, {k: v for k, v in newer.items() if k not in ("new", "error")}):
        with pytest.raises(AssertionError, match=r"new|error"):
            output_schema.check(wrong)


def test_the_page_has_every_field() -> None:
    """Its tables are made from the schema: a field that is not there is missing from the page."""
    page = PAGE.read_text(encoding="utf-8")
    told = _TABLES.sub(lambda found: found[1] + output_schema.tables() + "\n" + found[2], page)
    if os.environ.get("READONLY_TEST_REWRITE"):
        PAGE.write_text(told, encoding="utf-8")
    assert told == page
    assert output_schema.tables() in page


def _split(shop: Shop) -> None:
    """Have two processes on other machines report that they write to two servers, one of which has a replica."""
    replica = {"name": "db2:5432/shop", "at": "0/3A00F10", "unfit": "is paused"}
    for number, replicas in enumerate(([replica], [])):
        server = {"server": "postgresql", "host": f"db{number}", "system": str(number), "replicas": replicas}
        guards = (Guarded("main", "", server),)
        shop.reported(
            Report(id=secrets.token_hex(16), host="web-9", pid=number, role="web", interval=300, guards=guards)
        )


def test_every_field_is_shown_by_a_real_command(served: tuple[Shop, Member], tmp_path: Path) -> None:
    """Each command as it does well, as it is refused, and on a store that is away: nothing in the schema is made up."""
    shop, member = served
    seen: set[tuple[str, str]] = set()

    def typed(*words: str, where: Shop = shop) -> None:
        for document in json_lines(where.here(*words, "--json").stdout):
            seen.update(output_schema.fields_in(document))

    shop.silent_member(75, guards=(Guarded("main", "pending", {"user": "shop"}),))
    member.begins()
    typed("on", "--timeout", "300ms")
    typed("members", "forget", "web-2", "--reason", "powered off")
    member.tell("end")
    for words in COMMANDS:
        typed(*words)
    typed("rehearse", "--for", "1h")
    typed("on", "--in", "1ms", "--timeout", "60s")
    typed("extend", "30m")
    typed("off", "--timeout", "60s")
    record = shop.look().record
    assert record is not None
    name = record.schedules[0].id
    typed("schedule", "skip", name)
    typed("schedule", "list")
    with mock.patch.object(SQLiteStore, "replace", side_effect=StoreUnreachable("it went away")):
        typed("schedule", "add", "--every", "day 04:30", "--tz", "UTC", "--for", "1h", "--yes")
        typed("schedule", "skip", name)
        typed("schedule", "cancel", name)
    typed("schedule", "cancel", name)
    typed("on", "--no-wait")
    for words in (["bypass", "ann"], ["bypass", "list"], ["bypass", "revoke", "ann"]):
        typed(*words)
    typed("wait", "--timeout", "60s")
    typed("members", "forget", secrets.token_hex(16), "--reason", "of a registry that was lost")
    record = shop.look().record
    assert record is not None
    typed("history", "show", str(record.epoch))
    typed("off", "--timeout", "1s")
    typed("init", "new", where=Shop(f"sqlite:///{tmp_path}/new.db?site=new", tmp_path))
    typed("off", "--timeout", "100ms", where=made(tmp_path / "empty.db", initialised=False))
    for words in COMMANDS:
        typed("--site", "blog", *words)
        if words[0] != "job":  # which waits for the store to come up
            typed("--store", f"sqlite:///{tmp_path}/none/away.db?site=shop", *words)
    _split(shop)
    typed("on", "--no-wait")
    typed("status")
    typed("off", "--timeout", "1s")
    typed("onn")
    defined = {
        (name, field)
        for name, definition in output_schema.schema()["$defs"].items()
        if "properties" in definition and not (output_schema.is_of_fences(name) or output_schema.is_of_runs(name))
        for field in definition["properties"]
    }
    assert defined - seen == set()
