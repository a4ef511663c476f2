"""How commands speak: first line, JSON, pipes, hostile text, wrong usage, a protected site's name on a terminal."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

import readonly
from readonly.cli import main
from support import children, missing, processes
from support.missing import ServerMissing
from support.operating import ANNA, BEN, Member, Shop, json_lines, made
from support.terminal import Terminal

HOSTILE = "a\x1b[31mred\x1b]0;title\x07\nREAD-ONLY\r\u202egnp\u2066\x9b2Jend [bold]x[/bold]"


def test_both_programs_are_the_same() -> None:
    """`python -m readonly` and `readonlyctl`, with their version and their help."""
    script = Path(sys.executable).with_name("readonlyctl")
    if not script.exists():
        raise missing.outcome(ServerMissing("readonlyctl", f"{script}, which an installation makes"))
    version = processes.run(script, "--version")
    assert (version.returncode, version.stdout) == (0, f"readonlyctl, version {readonly.__version__}\n")
    told = processes.run(script, "--help")
    assert told.returncode == 0
    assert told.stdout == processes.run(sys.executable, "-m", "readonly", "-h").stdout
    assert told.stdout.startswith("Usage: readonlyctl ")
    assert "Before the night    init" in told.stdout
    assert max(map(len, told.stdout.splitlines())) <= 80


def test_what_most_commands_do_not_need_is_not_loaded() -> None:
    """An operator at night waits for no import: rich, redis, web frameworks."""
    code = (
        "import sys, readonly.cli; print(*({'rich', 'redis', 'sqlalchemy', 'starlette', 'jinja2'} & set(sys.modules)))"
    )
    assert processes.run(sys.executable, "-c", code).stdout.strip() == ""


@pytest.mark.parametrize(
    "words",
    [
        ["onn"],
        ["on", "--reasons", "x"],
        ["off", "c1"],
        ["status", "--expect", "fine"],
        ["init"],
        ["--store", "http://shop.example/", "status"],
        ["--store", "redis://[bad:pw@x?site=shop", "status"],
        ["--store", "redis://127.0.0.1:1/0", "status"],
        ["--config", "/nowhere/readonly.toml", "status"],
        ["--site", "blog", "on"],
    ],
)
def test_typed_wrongly(shop: Shop, words: list[str]) -> None:
    """Exit 2, one clear word on stderr, nothing on stdout; as JSON an error and a result."""
    done = shop.here(*words)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr
    assert "Traceback" not in done.stderr
    told = json_lines(shop.here(*words, "--json").stdout)
    assert [line["event"] for line in told] == ["error", "result"]
    assert (told[-1]["exit"], told[-1]["changed"]) == (2, False)
    assert shop.standing() == []


def test_no_store_is_named(tmp_path: Path) -> None:
    """Exit 2 lists the ways to name one."""
    done = processes.readonlyctl("on", folder=tmp_path)
    assert done.returncode == 2
    for way in ("--store", "READONLY_STORE", "readonly.toml", "sudo"):
        assert way in done.stderr


def test_a_config_file_names_the_store(shop: Shop, tmp_path: Path) -> None:
    """Beside where one stands, or by --config, which then stands in what may be typed next."""
    (shop.folder / "readonly.toml").write_text(f'store = "{shop.url}"\nexpect = "web=3"\n')
    done = processes.readonlyctl("on", "--timeout", "100ms", folder=shop.folder)
    assert done.returncode == 3
    assert "web: 0 report, expected 3" in done.stdout
    path = str(shop.folder / "readonly.toml")
    done = shop.here("--config", path, "on", "--timeout", "100ms", environment={"READONLY_STORE": ""})
    assert f"readonlyctl --config {path} wait" in done.stdout


def test_the_site_is_an_assertion(shop: Shop) -> None:
    """--site never chooses: another one is exit 2, and nothing was changed."""
    done = shop.here("--site", "blog", "on", "--no-wait")
    assert done.returncode == 2
    assert "you said --site blog. Nothing was changed" in done.stderr
    assert shop.standing() == []
    done = shop.here("--site", "shop", "on", "--timeout", "100ms")
    assert done.returncode == 3
    assert "readonlyctl --site shop off" in done.stdout


def test_json_is_all_there_is_on_stdout(served: tuple[Shop, Member]) -> None:
    """One object a line, each with schema and site, the last a result with the exit code."""
    shop, member = served
    member.begins()
    shop.on(ANNA)
    shop.reports()  # by now it drains
    failed = shop.ctl("on", "--json", "--timeout", "300ms", "--reason", HOSTILE)
    assert failed.returncode == 3
    told = json_lines(failed.stdout)
    assert [line["event"] for line in told][:2] == ["site", "set"]
    assert {line["event"] for line in told[2:-1]} <= {"progress"}
    assert all(line["schema"] == 1 and line["site"] == "shop" for line in told)
    assert told[1]["causes"][0]["reason"] == HOSTILE
    assert told[-1]["event"] == "result"
    assert told[-1]["exit"] == 3
    assert told[-1]["safe"] is False
    assert "in flight" in told[-1]["missing"][0]
    assert failed.stdout.isascii()
    assert failed.stderr == ""
    member.tell("end")
    safe = json_lines(shop.here("wait", "--json").stdout)[-1]
    assert {key: safe[key] for key in ("exit", "safe", "level", "mode", "missing")} == {
        "exit": 0,
        "safe": True,
        "level": "app only",
        "mode": "read-only",
        "missing": [],
    }
    (state,) = json_lines(shop.here("--json", "status").stdout)
    assert (state["exit"], state["mode"], state["safe"], state["causes"][0]["by"]) == (0, "read-only", True, "anna")
    assert state["since"].endswith("Z")
    opened = json_lines(shop.here("off", "--json").stdout)
    assert opened[-1]["mode"] == "writable"
    assert opened[-1]["lifted"] == [state["causes"][0]["id"]]
    again = json_lines(shop.here("init", "shop", "--json").stdout)
    assert [line["event"] for line in again] == ["error", "result"]
    assert (again[0]["error"], again[1]["exit"]) == ("NotYours", 6)


def test_lines_in_a_pipe_are_never_cut(shop: Shop) -> None:
    """COLUMNS=40, as everywhere in these tests: the one thing needed, the host, is there whole."""
    host = "web-1.eu-central-1.compute.internal.a-long-name-as-clouds-give-them.example"
    reason = "x" * 300
    done = shop.here("on", "--no-wait", "--reason", reason, "--message", host)
    assert f'"{reason}"' in done.stdout
    assert f'visitors read: "{host}"' in done.stdout


def test_hostile_text_is_harmless(served: tuple[Shop, Member]) -> None:
    """What operators and members wrote is shown, not obeyed: no escape sequence, no new line, no turned text."""
    shop, _ = served
    shop.on(BEN, reason=HOSTILE, message=HOSTILE)
    for done in (
        shop.ctl("status"),
        shop.here("on"),
        shop.here("--as", HOSTILE, "off"),
        shop.here("off", "--cause", HOSTILE),
        shop.here("members", "--expect", HOSTILE),
    ):
        shown = done.stdout + done.stderr
        assert not set("\x1b\x07\r\x9b\u202e\u2066") & set(shown)
        assert "\nREAD-ONLY\\r" not in shown
    told = shop.here("status").stdout
    assert '"a\\x1b[31mred\\x1b]0;title\\x07\\nREAD-ONLY\\r\\u202egnp\\u2066\\x9b2Jend [bold]x[/bold]"' in told


def test_bytes_that_are_no_text(shop: Shop) -> None:
    """A reason in Latin-1 is replaced, not refused."""
    done = subprocess.run(
        [sys.executable, "-m", "readonly", "on", "--no-wait", "--reason", b"Gr\xf6\xdfe"],
        env=children.without_ours(os.environ) | shop.environment,
        capture_output=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    record = shop.look().record
    assert record is not None
    assert record.causes[0].reason == "Gr\ufffd\ufffde"


def test_a_terminal_that_knows_ascii_only(shop: Shop) -> None:
    """No command fails for a character."""
    done = processes.readonlyctl("status", environment=shop.environment | {"PYTHONIOENCODING": "ascii"})
    assert done.returncode == 0
    assert done.stdout.startswith("shop \\xb7 sqlite:////")


def test_nobody_reads_on(served: tuple[Shop, Member]) -> None:
    """`on | head -1` changes neither what is done nor the exit code."""
    shop, member = served
    member.begins()
    reading, writing = os.pipe()
    with shop.start("on", stdout=writing) as command:
        os.close(writing)
        command.says("in flight")
        os.close(reading)
        member.tell("end")
        assert command.ends() == 0
        assert "Traceback" not in command.err
    assert shop.standing() == ["anna"]


@pytest.mark.parametrize(
    ("typed", "code", "said"),
    [
        ("shop\n", 3, "NOT CONFIRMED"),
        ("shop-staging\n", 2, "that is not its name. Nothing was changed"),
        ("\n", 2, "that is not its name. Nothing was changed"),
        ("\x04", 6, "no name was typed. Nothing was changed"),
        ("\x03", 130, "Nothing was changed"),
    ],
)
def test_a_protected_site_wants_its_name_typed(tmp_path: Path, typed: str, code: int, said: str) -> None:
    """On a terminal it is asked for; without one, --site says it."""
    shop = made(tmp_path / "shop.db", protected=True)
    terminal = Terminal(shop, "on", "--timeout", "100ms")
    terminal.until("Turn shop read-only? Type its name to go on: ")
    terminal.presses(typed) if typed == "\x03" else terminal.types(typed)
    assert terminal.ends() == code
    assert said in terminal.shown
    assert shop.standing() == (["anna"] if code == 3 else [])


def test_a_protected_site_without_a_terminal(tmp_path: Path) -> None:
    """Exit 6 until --site names it; the JSON says so, too."""
    shop = made(tmp_path / "shop.db", protected=True)
    done = shop.here("on", "--json", "--no-wait")
    assert done.returncode == 6
    assert json_lines(done.stdout)[-1]["exit"] == 6
    assert shop.here("on", "--no-wait", "--yes").returncode == 6
    assert shop.here("--site", "shop", "on", "--no-wait").returncode == 0
    assert shop.here("off", "--timeout", "100ms").returncode == 6
    assert shop.here("--site", "shop", "off").returncode == 0


def test_json_of_what_went_wrong_inside(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fault of ours is exit 1 with a result, not silence."""
    monkeypatch.setattr("readonly.cli.show.other_owners", lambda: 1 / 0)
    out = io.StringIO()
    with contextlib.redirect_stdout(out), pytest.raises(ZeroDivisionError):
        main(["--store", shop.url, "status", "--json"])
    assert [line["event"] for line in json_lines(out.getvalue())] == ["error", "result"]
    assert json_lines(out.getvalue())[-1]["exit"] == 1
