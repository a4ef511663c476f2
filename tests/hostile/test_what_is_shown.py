"""The corpus of hostile texts, wherever a visitor's or an operator's text is shown: it stays text."""

from __future__ import annotations

import json
import logging
import secrets
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from readonly import Policy, Switch, changes, history
from readonly.changes import Operator
from readonly.errors import ReadOnlyError
from readonly.exchange import Exchange
from readonly.handling import Handling
from readonly.logs import visible
from readonly.members import Guarded, Report
from readonly.metrics import prometheus
from readonly.notices import Kind, Notice, banner, script_tag, sentences
from readonly.own_routes import OwnRoutes
from readonly.record import Bypass, Cause, Rehearsal, Schedule, Window
from readonly.record_format import dump
from readonly.rejection import Answer
from readonly.rules import Endpoint, Facts
from readonly.stores.memory import MemoryStore
from readonly.tally import Tally
from support.apps import HandSwitch
from support.hostile import HOSTILE, assert_harmless_header, assert_harmless_html, assert_harmless_line, elements
from support.operating import Shop, made
from support.waiting import eventually

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
each = pytest.mark.parametrize("hostile", HOSTILE, ids=range(len(HOSTILE)))


def refused(hostile: str, accept: str, *, message: str = "") -> Answer:
    """Return the refusal of a hostile request on a site whose operator wrote a hostile message."""
    switch = HandSwitch()
    switch.read_only(message=message or hostile, expected=timedelta(minutes=5))
    handling: Handling[Any] = Handling(switch.as_switch(), Policy(), None, None)
    headers = {"accept": accept, "accept-language": hostile, "origin": hostile, "user-agent": hostile}
    facts = Facts("POST", "/" + hostile, "/" + hostile, hostile, headers, endpoint=Endpoint(hostile))
    answer = Exchange(handling, facts, cookies=(hostile,)).begin()
    assert answer is not None
    assert answer.status == 503
    return answer


def tags(page: str) -> list[str]:
    """Return what a page consists of."""
    return [tag for tag, _ in elements(page)]


@each
def test_the_page(hostile: str) -> None:
    """What the operator wrote for visitors is text in it, and nothing of the request is in it at all."""
    answer = refused(hostile, "text/html")
    page = answer.body.decode()
    if hostile.strip():
        assert tags(page) == tags(refused("plain", "text/html").body.decode())
    found = {name.lower(): value for name, value in answer.headers}
    assert_harmless_html(page, own=("script", "svg"))
    assert found["content-type"].startswith("text/html")
    for value in found.values():
        assert_harmless_header(value)


@each
def test_problem_details(hostile: str) -> None:
    """One JSON document, in which the message is one text."""
    answer = refused(hostile, "application/json")
    document = json.loads(answer.body)
    assert document["code"] == "READ_ONLY"
    assert all(isinstance(value, (str, int, float, bool, type(None))) for value in document.values())
    for _, value in answer.headers:
        assert_harmless_header(value)


@each
@pytest.mark.parametrize("kind", Kind)
def test_the_banner(hostile: str, kind: Kind) -> None:
    """As HTML, and as sentences for a template that escapes them itself."""
    notice = Notice(kind, hostile, NOW, NOW + timedelta(hours=1))
    assert_harmless_html(banner(notice))
    assert all("<script" not in one or hostile in one for one in sentences(notice))


@each
def test_the_script_element(hostile: str) -> None:
    """It loads from this very host, whatever the path is that the application is mounted at."""
    for mount in (hostile, "/" + hostile, "//" + hostile, "//evil.example", "/\\evil.example"):
        page = script_tag(mount)
        assert_harmless_html(page, own=("script",))
        ((tag, attributes),) = elements(page)
        path = dict(attributes)["src"]
        assert tag == "script"
        assert path is not None
        assert urlsplit(urljoin("https://shop.example/page", path)).netloc == "shop.example"


@each
def test_the_status_route(hostile: str) -> None:
    """JSON, whatever stands in it, and no word of what is for colleagues alone."""
    switch = HandSwitch()
    switch.read_only(message=hostile)
    routes = OwnRoutes(switch.as_switch())
    answer = routes.answer(Facts("GET", "/status", headers={"accept-language": hostile}), cookies=(hostile,))
    document = json.loads(answer.body)
    assert isinstance(document, dict)
    for _, value in answer.headers:
        assert_harmless_header(value)


# --- the terminal ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """A site whose record, registry and history hold all that is hostile: nobody checks what another host wrote."""
    found = made(tmp_path_factory.mktemp("hostile") / "shop.db")
    now = datetime.now(UTC)
    soon = now + timedelta(hours=2)
    causes, windows, schedules, bypasses = [], [], [], []
    for number, text in enumerate(HOSTILE):
        causes.append(Cause(f"c{number}", "operator", text or "x", now, text, text, host=text))
        windows.append(Window(f"w{number}", soon, soon + timedelta(hours=1), text, text, text, typed=text))
        schedules.append(
            Schedule(f"s{number}", "0 2 * * SUN", "UTC", 60.0, text, typed=text, reason=text, message=text)
        )
        bypasses.append(Bypass(f"b{number}", text, text, now, soon, (f"c{number}",), (text,), host=text))
        history.write(
            found.store, None,
            history.Entry(
                at=history.instant(now), site="shop", what=text, by=text, host=text, reason=text, message=text,
                missing=(text,), accepted=(text,), tally={"refused": 1, "refused_by_route": {text: 1}},
                members={text: 1},
            ),
        )  # fmt: skip
        found.reported(
            Report(
                id=secrets.token_hex(16), host=text, pid=number, role=text or "web", library=text, runs=text,
                local=(text,), guards=(Guarded(text, text, {"host": text, "user": text}),), interval=300.0,
                lacks=(text,), doubts=(f"cookie {text}", f"exempt {text}"),
            )
        )  # fmt: skip
    reading = found.store.read()
    record = found.look().record
    assert record is not None
    hostile = replace(
        record, epoch=9, id="hostile", changed_by=HOSTILE[20], causes=tuple(causes), windows=tuple(windows),
        schedules=tuple(schedules), bypasses=tuple(bypasses),
        rehearsal=Rehearsal("r1", HOSTILE[20], now, soon, host=HOSTILE[18]),
    )  # fmt: skip
    assert found.store.replace(dump(hostile), was=reading.record).record == dump(hostile)
    yield found
    found.store.close()


COMMANDS = (
    "status", "members", "members --all", "history", "history show 9", "schedule list", "bypass list", "doctor",
    "rehearse report", "wait --timeout 100ms", "off --timeout 100ms", "on --no-wait", "extend 5m", "fence status",
    "metrics",
)  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("as_json", [False, True], ids=["", "json"])
def test_commands(shop: Shop, command: str, as_json: bool) -> None:
    """Each line is one line, of which no terminal obeys anything; as JSON, one object a line."""
    done = shop.here(*(["--json"] if as_json else []), *command.split())
    assert done.stdout or done.stderr
    for line in done.stdout.split("\n"):
        assert_harmless_line(line)
        if as_json and line and command != "metrics":
            assert isinstance(json.loads(line), dict)
    for line in done.stderr.split("\n"):
        if not line.startswith(("Usage:", "Try ", "Error:")):
            assert_harmless_line(line)


@each
def test_what_is_typed(hostile: str, tmp_path: Path) -> None:
    """A reason, a message and a name: shown on one line, stored as they were, or refused as what they are not."""
    typed = hostile.encode("utf-8", "surrogateescape" if "\udcff" in hostile and "\ud800" not in hostile else "replace")
    text = typed.decode("utf-8", "surrogateescape").replace("\x00", "")
    one = made(tmp_path / "shop.db")
    done = one.here("--as", text or "anna", "on", "--no-wait", "--reason", text, "--message", text)
    for line in (done.stdout + done.stderr).split("\n"):
        if done.returncode != 2:
            assert_harmless_line(line)
    assert done.returncode in (0, 2, 3), done.stderr
    one.store.close()


# --- the log and the metrics -----------------------------------------------------------------------------------------


@each
def test_log_lines(hostile: str, caplog: pytest.LogCaptureFixture) -> None:
    """One line a record: of routes, bypasses, reasons and errors."""
    caplog.set_level(logging.DEBUG, logger="readonly")
    tally = Tally()
    tally.refused(hostile, hostile)
    tally.bypassed(hostile, hostile)
    tally.escaped(hostile, ReadOnlyError(hostile, database=hostile, table=hostile))
    store = MemoryStore("memory://?site=shop", site="shop")
    switch = Switch(store, interval=0.1)
    switch.start()
    changes.turn_on(store, Operator(hostile or "x", hostile), reason=hostile.encode("utf-8", "replace").decode())
    eventually(lambda: switch.look().read_only)
    switch.close()
    assert any(getattr(record, "event", "") == "changed" for record in caplog.records)
    logging.getLogger("readonly").warning("readonly: %s", RuntimeError(hostile))
    assert len(caplog.records) >= 4
    for record in caplog.records:
        if record.name == "readonly":
            assert_harmless_line(record.getMessage())
            for name in ("route", "kind", "bypass", "database", "table", "readonly_reason"):
                value = getattr(record, name, "")
                assert value is None or visible(value) == value


def test_metrics() -> None:
    """Labels: a scraper reads back exactly as many samples as there are, whatever routes are called."""
    switch = Switch(MemoryStore("memory://?site=shop", site="shop"), interval=0.1)
    for hostile in HOSTILE:
        switch.tally.refused(hostile, hostile)
    registry = CollectorRegistry()
    prometheus.expose(switch, registry)
    text = generate_latest(registry).decode()
    families = list(text_string_to_metric_families(text))
    assert families
    names = {sample.name for family in families for sample in family.samples}
    assert all(name.startswith("readonly_") for name in names), names
    for line in text.split("\n"):
        assert not line or line.startswith(("#", "readonly_")), line
    prometheus.withdraw(switch)
    switch.close()


@pytest.mark.parametrize("shown", [visible], ids=["visible"])
def test_what_is_plain_stays_as_it_is(shown: Callable[[str], str]) -> None:
    """German, Arabic and a flag are text, and no attack."""
    for plain in ("Wartung für 45 min", "الصيانة", "é ﷽", "$(reboot)"):
        assert shown(plain) == plain
