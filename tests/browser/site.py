"""A small site with a form, as its visitors' browsers see it: in this process, behind a real server."""

from __future__ import annotations

import base64
import html
import json
import secrets
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.sessions import SessionMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Mount, Route

from readonly import Policy, Switch
from readonly_starlette import ReadOnlyMiddleware, status_app, template_context

# As strict as a site can be that has a script at all.
STRICT = (
    "default-src 'none'; script-src 'self'; connect-src 'self'; style-src 'self'; base-uri 'none'; form-action 'self'"
)
PAGE = """<!doctype html>
<html lang="{language}">
<head><meta charset="utf-8"><title>Shop</title><meta name="viewport" content="width=device-width">
<link rel="stylesheet" href="/style.css">{script}</head>
<body>{banner}<main><h1>Shop</h1>{body}</main></body>
</html>
"""
STYLE = """
body { font: 1rem/1.5 system-ui, sans-serif; max-width: 40rem; margin: 0 auto; padding: 1rem; }
.readonly-banner:not(:empty) { background: #fff6df; color: #1c2430; border: 1px solid #f0c75e; border-radius: .5rem;
  padding: .5rem 1rem; }
.readonly-banner p { margin: .25rem 0; }
textarea { width: 100%; }
"""
FORM = """
<form method="post" action="/comments"><input type="hidden" name="csrf_token" value="{token}">
<p><label>Comment <textarea name="text" rows="5"></textarea></label></p>
<p><label>Tag <input name="tag"></label> <label>Another <input name="tag"></label></p>
<p><label>Password <input type="password" name="password" autocomplete="current-password"></label></p>
<p><label>Number <input name="number" autocomplete="cc-number"></label>
<label>Code <input name="digits" autocomplete="cc-csc"></label></p>
<button data-readonly-disable>Send</button> <button name="how" value="plain">Post</button>
</form>
<ul>{list}</ul>
"""


@dataclass
class Shop:
    """The site.

    Attributes:
        switch: Its switch.
        login: Comments need an account.
        words: Its own catalogues.
        comments: What arrived, each a list of fields.
        keys: The Idempotency-Key of each.
        form: The form that its page has.
        gone: The page is not there any more.
        answer: Called when a comment was taken, before it is answered.
        asked: How often the status route was asked.
        url: Where it is.
    """

    switch: Switch
    login: bool = False
    words: Path | None = None
    comments: list[list[tuple[str, str]]] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)
    form: str = FORM
    gone: bool = False
    answer: Callable[[Request], Response | None] = lambda _request: None
    asked: int = 0
    url: str = ""

    def texts(self) -> list[str]:
        """Return the texts of the comments that arrived."""
        return [dict(fields)["text"] for fields in self.comments]

    def app(self, policy: Policy) -> Starlette:
        """Return the application."""
        context = template_context(self.switch)

        def page(request: Request, body: str, status: int = 200) -> Response:
            shown = context(request)["readonly"]
            text = PAGE.format(
                language=html.escape(request.query_params.get("lang", "en")),
                script=shown["script"].__html__(),
                banner=shown["banner"].__html__(),
                body=body,
            )
            return HTMLResponse(text, status, headers={"Content-Security-Policy": STRICT})

        async def home(request: Request) -> Response:
            if self.login and "user" not in request.session:
                return RedirectResponse("/login", 303)
            if self.gone:
                return page(request, "<p>Not here.</p>", 404)
            # As Django does: the form's token has to be the cookie's.
            token = secrets.token_hex(8)
            listed = "".join(f"<li>{html.escape(text)}</li>" for text in self.texts())
            response = page(request, self.form.format(token=token, list=listed))
            response.set_cookie("csrf", token, httponly=True)
            return response

        async def comment(request: Request) -> Response:
            form = await request.form()
            if self.login and "user" not in request.session:
                return RedirectResponse("/login", 303)
            if form.get("csrf_token") != request.cookies.get("csrf"):
                return page(request, "<p>The form is too old.</p>", 403)
            # What a test waits for comes last.
            self.keys.append(request.headers.get("idempotency-key"))
            self.comments.append([(name, str(value)) for name, value in form.multi_items() if name != "csrf_token"])
            return self.answer(request) or RedirectResponse("/", 303)

        async def login(request: Request) -> Response:
            if request.method == "POST":
                request.session.update(user="ann", since=time.time())
                return RedirectResponse("/", 303)
            return page(
                request,
                '<form method="post"><label>Password <input type="password" name="password"></label>'
                "<button>Log in</button></form>",
            )

        async def style(_request: Request) -> Response:
            return Response(STYLE, media_type="text/css")

        own = status_app(self.switch)

        async def counted(scope: Any, receive: Any, send: Any) -> None:
            self.asked += scope["path"].endswith("/status")
            await own(scope, receive, send)

        return Starlette(
            routes=[
                Route("/", home),
                Route("/", comment, methods=["POST"]),
                Route("/comments", comment, methods=["POST"]),
                Route("/login", login, methods=["GET", "POST"]),
                Route("/style.css", style),
                Mount("/-/readonly", app=counted),
            ],
            middleware=[
                Middleware(ReadOnlyMiddleware, switch=self.switch, policy=policy, words=self.words),
                Middleware(SessionMiddleware, secret_key="a key"),
            ],
        )


def signed_in_at(value: str) -> datetime:
    """Return when a session's owner signed in; its signature tells whole seconds, and a test lasts no longer."""
    return datetime.fromtimestamp(json.loads(base64.b64decode(value.partition(".")[0]))["since"], UTC)


class Host:
    """One server for many sites, one after the other: to start and stop one takes longer than most tests."""

    def __init__(self) -> None:
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._app: Starlette | None = None
        config = uvicorn.Config(self._answer, log_level="error", lifespan="off", interface="asgi3")
        self._server = uvicorn.Server(config)
        sockets = {"sockets": [self._listening]}
        self._thread = threading.Thread(target=self._server.run, kwargs=sockets, daemon=True)
        self._thread.start()

    def shows(self, shop: Shop, policy: Policy) -> None:
        """Serve a site, and no other one any more."""
        shop.url = f"http://localhost:{self._listening.getsockname()[1]}"
        shop.switch.start()
        self._app = shop.app(policy)

    def close(self) -> None:
        """End the server."""
        self._server.should_exit = True
        self._thread.join(10)
        self._listening.close()

    async def _answer(self, scope: Any, receive: Any, send: Any) -> None:
        assert self._app is not None
        await self._app(scope, receive, send)
