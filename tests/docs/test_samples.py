"""Every sample of README.md and docs/ runs as it stands."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from channels.generic.websocket import AsyncWebsocketConsumer
from django.utils.module_loading import import_string
from flask import Flask
from sqlalchemy import create_engine
from sqlalchemy.orm import Session, sessionmaker
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
_SAMPLE = re.compile(r"<!-- sample: (?P<name>[\w-]+) -->\n```python\n(?P<code>.*?)```", re.DOTALL)
SAMPLES = {
    f"{page.name}: {match['name']}": match["code"]
    for page in PAGES
    for match in _SAMPLE.finditer(page.read_text(encoding="utf-8"))
}


async def _asgi(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"hello"})


def _wsgi(environ: Any, start_response: Any) -> list[bytes]:
    start_response("200 OK", [])
    return [b"hello"]


def test_every_python_block_is_a_sample() -> None:
    """No block of Python in the docs escapes this test, but for the files of pages that are typed as a whole."""
    texts = [page.read_text(encoding="utf-8") for page in PAGES]
    files = sum(len(re.findall(r"<!-- file: [\w./-]+ -->\n```python", text)) for text in texts)
    assert sum(text.count("```python") for text in texts) == len(SAMPLES) + files
    assert len(SAMPLES) >= 5


@pytest.mark.parametrize("name", SAMPLES)
def test_a_sample_runs(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is pasted into a module that has what its text takes for granted."""
    store = f"sqlite:///{tmp_path}/flag.db?site=shop"
    monkeypatch.setenv("READONLY_STORE", store)
    engine = create_engine(f"sqlite:///{tmp_path}/data.db")
    replica = create_engine(f"sqlite:///{tmp_path}/replica.db")
    from readonly import Switch

    consumers = SimpleNamespace(Chat=AsyncWebsocketConsumer)
    monkeypatch.setitem(sys.modules, "shop", SimpleNamespace(consumers=consumers))
    monkeypatch.setitem(sys.modules, "shop.consumers", consumers)
    # It can only be imported inside of that server.
    monkeypatch.setitem(sys.modules, "uwsgidecorators", SimpleNamespace(postfork=lambda function: function))
    given: dict[str, Any] = {
        "__name__": "sample",
        "app": _asgi,
        "application": _wsgi,
        "routes": [Route("/", lambda request: PlainTextResponse("hello"))],
        "engine": engine,
        "replica": replica,
        "INSTALLED_APPS": [],
        "MIDDLEWARE": [],
        "Session": Session,
        "sessionmaker": sessionmaker,
        "switch": Switch.from_url("memory://"),
    }
    if name == "README.md: starlette":
        given["app"] = Starlette(routes=given["routes"])
    elif name == "README.md: flask":
        given["app"] = Flask("sample", static_folder=None)
        given["app"].add_url_rule("/", view_func=lambda: "hello")
    code = SAMPLES[name].replace("sqlite:////srv/shop/flag.db", f"sqlite:///{tmp_path}/flag.db")
    exec(compile(code, name, "exec"), given)
    switch = given["switch"]
    try:
        if name in ("starlette.md: starlette", "README.md: starlette"):
            with TestClient(given["app"]) as client:
                assert client.get("/").status_code == 200
                switch.on()
                assert client.post("/").status_code == 503
        elif name == "README.md: flask":
            visitor, switched = given["app"].test_client(), given["app"].extensions["readonly"].switch
            assert visitor.get("/").status_code == 200
            switched.on()
            assert visitor.post("/").get_json()["code"] == "READ_ONLY"
            given["app"].extensions["readonly"].close()
        elif name == "README.md: django":
            from readonly_django.conf import read_settings

            assert read_settings(given["READONLY"], {}).discard == ("stats.PageView",)
            assert callable(import_string(given["MIDDLEWARE"][0]))
    finally:
        switch.close()
        if "database" in given:
            given["database"].close()
        engine.dispose()
        replica.dispose()
