"""`readonlyctl bypass`: somebody is let through, is shown wherever one looks, and is taken off again."""

from __future__ import annotations

import json
import re
from typing import Any

from readonly.bypass import HEADER, LINK_PATH
from support import output_schema
from support.operating import Member, Shop, json_lines

Served = tuple[Shop, Member]


def result(shop: Shop, *words: str) -> dict[str, Any]:
    """Type a command and return its result as JSON."""
    return json_lines(shop.here(*words, "--json").stdout)[-1]


def test_somebody_is_let_through_and_taken_off_again(served: Served) -> None:
    """The words name the holder, until when, both tokens, and how it is taken back; `status` and `wait` name them."""
    shop, _ = served
    shop.here("on")
    given = shop.here("bypass", "ann", "--for", "20m", "--path", "/admin/*", "--url", "https://shop.example/")
    assert given.returncode == 0
    link, header = re.search(r"https://shop\.example\S+", given.stdout), re.search(rf"{HEADER}: (\S+)", given.stdout)
    assert link is not None
    assert header is not None
    assert LINK_PATH in link[0]
    for text in ("ann is let through until", "/admin/*", "bypass revoke ann", "whoever has them"):
        assert text in given.stdout
    shown = shop.here("status").stdout + shop.here("wait").stdout + shop.here("bypass", "list").stdout
    assert shown.count("bypass ann   /admin/*   until") == 3
    assert "But who is let through still writes: bypass ann" in shown
    for words in (("on",), ("wait",), ("status", "--expect", "safe")):
        said = result(shop, *words)
        assert (said["safe"], said["let_through"]) == (True, ["ann"])
    stored = shop.store.read().record or b""
    history = shop.here("history", "--json").stdout
    for secret in (header[1], link[0].rpartition("/")[2]):
        assert secret.encode() not in stored
        assert secret not in shown + history
    assert shop.here("bypass", "revoke", "ann").returncode == 0
    assert "let through" not in shop.here("status").stdout
    assert result(shop, "wait")["let_through"] == result(shop, "status")["let_through"] == []
    assert "taken back" in shop.here("bypass", "list").stdout
    assert [e["what"] for e in map(json.loads, history.splitlines()) if e.get("what", "").startswith("bypass")]


def test_a_link_that_no_browser_could_use_says_so(served: Served) -> None:
    """The cookie is for https, and for this machine."""
    shop, _ = served
    shop.here("on")
    for number, (url, plain) in enumerate(
        {"http://shop.example/a": True, "https://shop.example": False, "http://localhost:8000": False}.items()
    ):
        given = shop.here("bypass", f"n{number}", "--url", url)
        assert (given.returncode, "no browser keeps the cookie there" in given.stdout) == (0, plain)


def test_what_is_typed_wrongly_changes_nothing(served: Served) -> None:
    """Each is refused with what to do."""
    shop, _ = served
    before = shop.store.read().record
    writable = shop.here("bypass", "ann")
    assert (writable.returncode, "nobody needs a bypass" in writable.stderr) == (6, True)
    for words, said in (
        (("ann", "--for", "25h"), "a day at most"),
        (("ann", "--path", "admin"), "must start with '/'"),
        (("ann", "--url", "shop"), "write the site's address"),
        (("a b",), "can't name a bypass"),
        (("revoke",), "Name one, or say --all"),
        (("revoke", "ann", "--all"), "Name one, or say --all"),
    ):
        refused = shop.here("bypass", *words)
        assert (refused.returncode, said in refused.stderr) == (2, True), refused.stderr
    assert shop.store.read().record == before
    shop.here("on")
    unknown = shop.here("bypass", "revoke", "ben")
    assert (unknown.returncode, "nobody is let through as ben" in unknown.stderr) == (6, True)


def test_as_json(served: Served) -> None:
    """Every field of the schema is shown by a real command."""
    shop, _ = served
    shop.here("on")
    seen: set[tuple[str, str]] = set()
    for words in (["bypass", "ann"], ["bypass", "ann"], ["bypass", "list"], ["bypass", "revoke", "ann"]):
        seen.update(output_schema.fields_in(result(shop, *words)))
    names = ("bypass", "result_bypass", "result_bypass_list", "result_bypass_revoke")
    wanted = {(name, key) for name in names for key in output_schema.schema()["$defs"][name]["properties"]}
    assert {key for name, key in wanted - seen if key != "changed"} == set()
