"""Websockets beside Django: whether they come to the middleware, or go past it, and what `doctor` says of that."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import pytest
from channels.auth import AuthMiddlewareStack
from channels.generic.http import AsyncHttpConsumer
from channels.generic.websocket import AsyncWebsocketConsumer
from channels.routing import ProtocolTypeRouter, URLRouter
from channels.security.websocket import AllowedHostsOriginValidator
from channels.testing import WebsocketCommunicator
from django.core.asgi import get_asgi_application
from django.test import override_settings
from django.urls import path
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from readonly import Switch
from readonly.asgi import ReadOnlyMiddleware
from readonly.doubts import PAST
from readonly.members import Report
from readonly.site import Site
from readonly_django.asgi import with_lifespan
from readonly_django.sockets import application_path, loaded_past, past
from support.operating import Shop, made
from support.processes import uvicorn
from support.waiting import eventually

HERE = Path(__file__).parent
SWITCH = Switch.from_url("memory://?site=sockets")
CHAT = f"{__name__}.Chat"
# Waited for what does happen, on any machine.
PATIENT_SECONDS = 60.0


class Chat(AsyncWebsocketConsumer):  # type: ignore[misc]
    """Takes everybody."""


class Page(AsyncHttpConsumer):  # type: ignore[misc]
    """No websocket."""


class Timed:
    """Middleware of a site's own."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Hand on."""
        await self._inner(scope, receive, send)


def ours(application: Any) -> Any:
    """Put the middleware around it."""
    return ReadOnlyMiddleware(application, SWITCH)


def chat() -> Any:
    """Return a site's websockets."""
    return URLRouter([path("chat", Chat.as_asgi())])


def router(sockets: Any) -> Any:
    """Return a project's application."""
    return ProtocolTypeRouter({"http": get_asgi_application(), "websocket": sockets})


async def handed_on(application: Any, scope: Any, receive: Any, send: Any) -> None:
    """Hand on."""
    await application(scope, receive, send)


@pytest.mark.parametrize(
    ("build", "found"),
    [
        (lambda: router(chat()), (CHAT,)),
        (lambda: router(AllowedHostsOriginValidator(AuthMiddlewareStack(chat()))), (CHAT,)),
        (lambda: router(URLRouter([path("ws/", chat())])), (CHAT,)),
        (lambda: router(Timed(chat())), (CHAT,)),
        (lambda: router(partial(handed_on, chat())), (CHAT,)),
        (lambda: with_lifespan(router(chat()), SWITCH), (CHAT,)),
        (lambda: Timed(router(chat())), (CHAT,)),
        (lambda: router(URLRouter([path("a", ours(Chat.as_asgi())), path("b", Chat.as_asgi())])), (CHAT,)),
        (lambda: router(ours(AuthMiddlewareStack(chat()))), ()),
        (lambda: router(AuthMiddlewareStack(ours(chat()))), ()),
        (lambda: router(URLRouter([path("a", ours(Chat.as_asgi()))])), ()),
        (lambda: with_lifespan(ours(router(chat())), SWITCH), ()),
        (lambda: ProtocolTypeRouter({"http": URLRouter([path("page", Page.as_asgi())])}), ()),
        (get_asgi_application, ()),
    ],
)
def test_consumers_that_websockets_reach_without_the_middleware(
    build: Callable[[], Any], found: tuple[str, ...]
) -> None:
    """By name, whatever stands around them; none of those that are behind ours, and none that are no websockets'."""
    assert past(build()) == found


def test_what_leads_back_to_itself_is_looked_at_once() -> None:
    """A chain of applications may be none."""
    loop = Timed(None)
    loop._inner = Timed(loop)
    assert past(router(loop)) == ()


def test_the_projects_application_is_looked_at_when_a_server_has_loaded_it() -> None:
    """Where the setting says, else beside the URLconf; nothing is imported for that."""
    with override_settings(ROOT_URLCONF="shop.urls"):
        assert application_path() == "shop.asgi.application"
    module = ModuleType("shop_asgi")
    with override_settings(ASGI_APPLICATION="shop_asgi.application"), pytest.MonkeyPatch.context() as patch:
        assert loaded_past() is None
        patch.setitem(sys.modules, "shop_asgi", module)
        assert loaded_past() is None, "its first lines are being run"
        module.application = router(chat())  # type: ignore[attr-defined]
        assert loaded_past() == (CHAT,)


# --- what is seen of those that come --------------------------------------------------------------------------------


async def accepts(scope: Any, receive: Any, send: Any) -> None:
    """Accept a websocket."""
    await receive()
    await send({"type": "websocket.accept"})
    await send({"type": "websocket.close", "code": 1000})


async def refuses(scope: Any, receive: Any, send: Any) -> None:
    """Refuse it."""
    await receive()
    await send({"type": "websocket.close", "code": 1000})


@pytest.mark.parametrize(
    ("inner", "found"),
    [
        (accepts, ("past what accepts /live/scores",)),
        (refuses, ()),
        (ReadOnlyMiddleware(accepts, SWITCH), ()),
        (AuthMiddlewareStack(ReadOnlyMiddleware(accepts, SWITCH)), ()),
    ],
)
def test_a_websocket_that_is_accepted_without_the_middleware(inner: Any, found: tuple[str, ...]) -> None:
    """Whatever serves it: seen where the server's lifespan is answered, outside of everything."""
    SWITCH.start()
    # Open or not: after a while the next request is looked at closely, and nobody else makes one.
    eventually(lambda: SWITCH.view.writable, what="writes being admitted")
    switch = Switch.from_url("memory://?site=past")
    application = with_lifespan(inner, switch)

    async def visit() -> None:
        visitor = WebsocketCommunicator(application, "/live/scores/17")
        await visitor.connect(timeout=PATIENT_SECONDS)
        await visitor.wait(timeout=PATIENT_SECONDS)

    asyncio.run(visit())
    assert switch.doubts.told() == found
    switch.close()


def test_what_was_found_by_name_is_not_said_again_by_path() -> None:
    """It is one fault."""
    switch = Switch.from_url("memory://?site=once")
    switch.doubts.add(PAST, CHAT)

    async def visit() -> None:
        visitor = WebsocketCommunicator(with_lifespan(accepts, switch), "/chat")
        await visitor.connect(timeout=PATIENT_SECONDS)
        await visitor.wait(timeout=PATIENT_SECONDS)

    asyncio.run(visit())
    assert switch.doubts.told() == (f"past {CHAT}",)
    switch.close()


# --- a whole site ----------------------------------------------------------------------------------------------------


def served(shop: Shop, folder: Path, **environment: str) -> Any:
    """Serve the project, and Channels beside it."""
    return uvicorn(
        "served_sockets:application",
        "--app-dir",
        str(HERE),
        log=folder / "server.log",
        environment={"READONLY_STORE": shop.url, "PYTHONPATH": str(HERE.parents[1]), **environment},
        ready_path="/a",
    )


def reports(shop: Shop) -> list[Report]:
    """Return what its processes said last."""
    return [Report.load(seen.member, seen.report) for seen in shop.store.census().reports]


def test_doctor_finds_channels_beside_django(tmp_path: Path) -> None:
    """Before anybody has opened a websocket, with what to write in asgi.py."""
    shop = made(tmp_path / "shop.db")
    with served(shop, tmp_path) as server:
        httpx.get(server.url + "/a", timeout=PATIENT_SECONDS)
        eventually(lambda: any(report.doubts for report in reports(shop)), what="a report")
        done = shop.here("doctor")
    assert done.returncode == 1
    assert "FAIL  websockets  websockets come to served_sockets.Chat past ReadOnlyMiddleware" in done.stdout
    assert "ReadOnlyMiddleware(…, switch, policy=policy())" in done.stdout
    shop.store.close()


def test_channels_behind_the_middleware(tmp_path: Path) -> None:
    """As the page says: `doctor` finds nothing, an open websocket is closed at the switch, and a new one is refused."""
    shop = made(tmp_path / "shop.db")
    with served(shop, tmp_path, WRAPPED="1") as server:
        httpx.get(server.url + "/a", timeout=PATIENT_SECONDS)
        address = server.url.replace("http", "ws") + "/chat"
        with connect(address, open_timeout=PATIENT_SECONDS) as visitor:
            visitor.send("hello")
            assert visitor.recv(timeout=PATIENT_SECONDS) == "hello"
            found = {one.check: one for one in Site(Switch(shop.store)).check()}
            assert found["websockets"].ok
            done = shop.here("on", "--reason", "INC-441")
            assert done.returncode == 0, done.stdout + done.stderr
            with pytest.raises(ConnectionClosed) as closed:
                visitor.recv(timeout=PATIENT_SECONDS)
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 1012
        with pytest.raises(Exception, match="HTTP 503"):
            connect(address, open_timeout=PATIENT_SECONDS)
    shop.store.close()
