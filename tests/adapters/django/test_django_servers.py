"""Under a real ASGI server: its lifespan makes members of idle workers, and requests are served without a thread."""

from __future__ import annotations

from pathlib import Path

import httpx

from readonly.errors import StoreUnreachable
from readonly.members import Report
from readonly.stores import store_from_url
from support.operating import Shop
from support.processes import uvicorn
from support.waiting import eventually

HERE = Path(__file__).parent


def test_under_uvicorn(tmp_path: Path) -> None:
    """Two workers: members before their first request, refusing when `on` is proven, and gone with the server."""
    url = f"sqlite:///{tmp_path}/flag.db?site=shop"
    store = store_from_url(url)

    def roles() -> list[str]:
        return sorted(Report.load(seen.member, seen.report).role for seen in store.census().reports)

    server = uvicorn(
        "served_project:application",
        "--app-dir",
        str(HERE),
        log=tmp_path / "server.log",
        workers=2,
        environment={"READONLY_STORE": url, "PYTHONPATH": str(HERE.parents[1])},
        ready_path="/a",
    )
    with server, httpx.Client(base_url=server.url, timeout=60) as client:
        eventually(lambda: roles() == ["web", "web"], what="both workers are members", ignoring=StoreUnreachable)
        shop = Shop(url, tmp_path)
        done = shop.ctl("on", "--reason", "INC-441")
        assert done.returncode == 0, done.stdout + done.stderr
        for _ in range(4):
            assert client.post("/a").status_code == 503
            read = client.get("/a")
            assert (read.status_code, read.headers["x-read-only"]) == (200, "true")
        assert shop.ctl("off").returncode == 0
    assert "Internal Server Error" not in server.output()
    assert "Traceback" not in server.output()
    store.close()
