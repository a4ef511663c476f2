"""A GET that writes, on a real site: stopped by the database, answered, counted, logged, and shown to the operator."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import httpx
import psycopg

from support.operating import json_lines, made
from support.processes import uvicorn
from support.waiting import eventually

HERE = Path(__file__).parent


def test_a_get_that_writes_is_seen_from_end_to_end(postgres_url: str, tmp_path: Path) -> None:
    """One escape for each request, one line of the log for all of them, and its route everywhere."""
    shop = made(tmp_path / "shop.db")
    environment = {"READONLY_STORE": shop.url, "TEST_DATABASE": postgres_url}
    with psycopg.connect(postgres_url, autocommit=True) as database:
        database.execute("CREATE TABLE visit (story text)")
    with (
        psycopg.connect(postgres_url, autocommit=True) as database,
        closing(uvicorn("escaping_site:app", log=tmp_path / "log", environment=environment, folder=HERE)) as server,
        httpx.Client(base_url=server.url) as client,
    ):
        assert client.get("/stories/1").text == "a story"
        on = shop.here("on", "--reason", "migration", "--timeout", "60s")
        assert on.returncode == 0, on.stdout + on.stderr
        assert "escaped" not in shop.here("status").stdout

        for number in range(3):
            answer = client.get(f"/stories/{number}", headers={"Accept": "application/json"})
            assert answer.status_code == 503
            assert answer.json()["code"] == "READ_ONLY"
            assert answer.headers["Retry-After"]
        assert client.get("/").text == "1 visits"

        [line] = [line for line in server.output().splitlines() if "tried to write while read-only" in line]
        assert line.startswith(
            "ERROR readonly: story tried to write while read-only and was stopped by the guard of main"
        )
        eventually(
            lambda: "escaped   3   story (3)" in shop.here("status").stdout,
            10,
            what="the member has reported what escaped",
        )

        assert shop.here("off").returncode == 0
        assert "escaped" not in shop.here("status").stdout
        assert client.get("/stories/1").text == "a story"
        [epoch] = [
            entry["epoch"] for entry in json_lines(shop.here("history", "--json").stdout) if entry.get("what") == "on"
        ]
        shown = shop.here("history", "show", str(epoch)).stdout
        assert "escaped         3   story (3)" in shown
        assert database.execute("SELECT count(*) FROM visit").fetchone() == (2,)
    shop.store.close()
