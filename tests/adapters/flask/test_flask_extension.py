"""How an application is wrapped: factories, several applications, mounts, tests, and what is left of them."""

from __future__ import annotations

import gc
import threading
import weakref
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from flask import Blueprint, Flask, appcontext_pushed, request
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.middleware.proxy_fix import ProxyFix
from werkzeug.test import Client

from readonly import Policy, Switch
from readonly.errors import ConfigurationError
from readonly_flask import ReadOnly
from support.flask_sites import MakeApp, installed, switch_of
from support.operating import made
from support.waiting import eventually


def with_routes(app: Flask) -> Flask:
    """Give an application something to read and to write."""

    @app.route("/", methods=["GET", "POST"])
    def home() -> str:
        return f"{request.method} {request.root_path}{request.path}"

    return app


def test_an_application_is_wrapped(make_app: MakeApp) -> None:
    """In five lines: reads go on and say so, writes are refused, and are back after `off`."""
    app = with_routes(make_app())
    client = app.test_client()
    assert client.post("/").status_code == 200
    switch_of(app).on(message="moving")
    refused = client.post("/")
    assert (refused.status_code, refused.get_json()["detail"]) == (503, "moving")
    read = client.get("/")
    assert (read.status_code, read.headers["X-Read-Only"]) == (200, "true")
    switch_of(app).off()
    assert client.post("/").status_code == 200


def test_the_factory_pattern() -> None:
    """One object at the module's level, an application for each call, and nothing of an application on the object."""
    readonly = ReadOnly()
    untouched = dict(vars(readonly))

    def create_app() -> Flask:
        app = Flask("site")
        app.config.update(SECRET_KEY="key", READONLY_STORE="memory://")
        readonly.init_app(app)
        return with_routes(app)

    first, second = create_app(), create_app()
    try:
        assert vars(readonly) == untouched
        switch_of(first).on()
        assert first.test_client().post("/").status_code == 503
        assert second.test_client().post("/").status_code == 200
        with first.app_context():
            assert readonly.switch is switch_of(first)
        with second.app_context():
            assert readonly.switch is switch_of(second)
        with pytest.raises(RuntimeError, match="application context"):
            _ = readonly.switch
        with Flask("other").app_context(), pytest.raises(RuntimeError, match="other has no switch"):
            _ = readonly.switch
    finally:
        installed(first).close()
        installed(second).close()


def test_a_switch_of_the_site(make_app: MakeApp) -> None:
    """Applications may share one; then one change holds for both, and neither closes it."""
    switch = Switch.from_url("memory://")
    try:
        readonly = ReadOnly(switch=switch)
        apps = [with_routes(make_app(name, wrap=False, switch=switch)) for name in ("shop", "admin")]
        for app in apps:
            readonly.init_app(app)
        assert readonly.switch is switch
        switch.on()
        assert [app.test_client().post("/").status_code for app in apps] == [503, 503]
        for app in apps:
            installed(app).close()
        assert switch.members()[0].gone is False
    finally:
        switch.close()


def test_twice_is_an_error(make_app: MakeApp) -> None:
    """Wrapped twice, each write would be counted twice; and which settings would hold?"""
    app = make_app()
    with pytest.raises(ConfigurationError, match="once for each application"):
        ReadOnly(app)
    with pytest.raises(ConfigurationError, match="once for each application"):
        ReadOnly().init_app(app)


def test_websockets_of_an_application_are_doubted(make_app: MakeApp) -> None:
    """Routes for them, as Flask-Sock makes them, and Flask-SocketIO: for `doctor`, before anybody opens one."""
    plain = with_routes(make_app())
    plain.extensions["readonly"].start()
    assert plain.extensions["readonly"].switch.doubts.told() == ()
    app = with_routes(make_app())
    app.add_url_rule("/chat", "chat", lambda: "", websocket=True)
    app.extensions["socketio"] = object()
    app.extensions["readonly"].start()
    told = app.extensions["readonly"].switch.doubts.told()
    assert told == ("websocket the route /chat", "websocket Flask-SocketIO")


def test_extensions_and_routes_may_come_later(make_app: MakeApp) -> None:
    """What is registered after `init_app` counts; the application is looked at by its first request."""
    app = make_app(READONLY_READS=["POST name:tools.search"])
    tools = Blueprint("tools", __name__)
    tools.add_url_rule("/search", "search", lambda: "found", methods=["POST"])
    app.register_blueprint(tools, url_prefix="/tools")
    switch_of(app).on()
    assert app.test_client().post("/tools/search").data == b"found"


def test_a_policy_as_an_object(make_app: MakeApp) -> None:
    """It takes the place of the rules in the config; Flask's session and its key are added."""
    app = with_routes(make_app(policy=Policy(reads=["POST /"], session_cookies=["sid"], secret="own")))
    found = installed(app).policy
    assert [cookie.name for cookie in found.cookies] == ["sid", "session"]
    assert found.secrets == ("own",)
    switch_of(app).on()
    assert app.test_client().post("/").status_code == 200
    assert installed(make_app(policy=Policy())).policy.secrets == ("a key of this site",)


# --- where it sits ----------------------------------------------------------------------------------------------------


def test_mounted_by_a_dispatcher(make_app: MakeApp) -> None:
    """Two applications below one server, each with a state and rules of its own, relative to its mount."""
    shop = with_routes(make_app("shop", READONLY_READS=["POST /"]))
    admin = with_routes(make_app("admin"))
    client = Client(DispatcherMiddleware(shop, {"/admin": admin}))
    switch_of(shop).on()
    assert client.post("/").get_data() == b"POST /"
    assert client.post("/elsewhere").status_code == 503
    assert client.post("/admin/").get_data() == b"POST /admin/"
    switch_of(admin).on()
    assert client.post("/admin/").status_code == 503
    assert client.get("/admin/").headers["X-Read-Only"] == "true"


def test_rules_are_relative_to_the_application_root(make_app: MakeApp) -> None:
    """SCRIPT_NAME is the server's, APPLICATION_ROOT the site's: neither is part of a rule, both of a cookie's path."""
    app = with_routes(make_app(APPLICATION_ROOT="/shop", READONLY_READS=["POST /"]))
    (cookie,) = installed(app).policy.cookies
    assert (cookie.name, cookie.path) == ("session", "/shop")
    switch_of(app).on()
    client = app.test_client()
    assert client.post("/", base_url="http://localhost/shop").get_data() == b"POST /shop/"
    assert client.post("/", base_url="http://localhost/elsewhere").get_data() == b"POST /elsewhere/"
    assert client.post("/shop", base_url="http://localhost/shop").status_code == 503


def test_beneath_proxy_fix(make_app: MakeApp) -> None:
    """The proxy's headers say which host it is, whether ProxyFix was put around the application before or after."""
    for first in (True, False):
        app = make_app(wrap=False, options={"host_matching": True, "static_host": "shop.example"})
        app.add_url_rule("/", "search", lambda: "found", host="shop.example", methods=["POST"])
        app.config["READONLY_READS"] = ["POST name:search"]
        for put in (first, not first):
            if put:
                app.wsgi_app = ProxyFix(app.wsgi_app, x_host=1)  # type: ignore[method-assign]
            else:
                ReadOnly(app)
        switch_of(app).on()
        answer = app.test_client().post(
            "/", base_url="http://10.0.0.7:8000", headers={"X-Forwarded-Host": "shop.example"}
        )
        assert answer.get_data() == b"found"
        assert isinstance(app.wsgi_app, ProxyFix)


def test_inside_another_middleware(make_app: MakeApp) -> None:
    """What was put around the application before stays, inside; what comes after stays outside."""
    app = with_routes(make_app(wrap=False))
    order: list[str] = []

    def noting(name: str, inner: Any) -> Any:
        def middleware(environ: Any, start_response: Any) -> Any:
            order.append(name)
            return inner(environ, start_response)

        return middleware

    app.wsgi_app = noting("before", app.wsgi_app)  # type: ignore[method-assign]
    ReadOnly(app)
    app.wsgi_app = noting("after", app.wsgi_app)  # type: ignore[method-assign]
    app.test_client().get("/")
    switch_of(app).on()
    app.test_client().post("/")
    assert order == ["after", "before", "after"]


# --- processes and tests ----------------------------------------------------------------------------------------------


def test_nothing_starts_by_itself(make_app: MakeApp, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wrapping starts no thread, and neither does a context: a command that imports the application is no member."""
    started: list[threading.Thread] = []
    start, here = threading.Thread.start, threading.current_thread()

    def noting(thread: threading.Thread) -> None:
        # What other tests have left behind has threads of its own; one ends what belonged to an application that
        # happens to be collected here.
        if threading.current_thread() is here and thread.name != "readonly-close":
            started.append(thread)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", noting)
    app = with_routes(make_app())
    with app.app_context():
        assert started == []
    app.test_client().post("/")
    (follower,) = switch_of(app)._followers.values()
    assert started == [follower._thread]


def test_contexts_cost_nothing_once_it_serves(make_app: MakeApp) -> None:
    """Until then each one may be the first with a database in it; afterwards nobody listens any more."""
    app = with_routes(make_app())
    assert appcontext_pushed.has_receivers_for(app)
    app.test_client().get("/")
    assert not list(appcontext_pushed.receivers_for(app))


def test_a_server_hook_starts_it(make_app: MakeApp) -> None:
    """Started by hand, a process is a member of the role `web` before its first request."""
    app = make_app()
    installed(app).start()
    assert [report.role for report in switch_of(app).members()] == ["web"]


def test_requests_that_come_at_once(make_app: MakeApp) -> None:
    """Of several first requests one looks at the application, and all are answered."""
    app = with_routes(make_app())
    answers: list[int] = []
    barrier = threading.Barrier(8)

    def ask() -> None:
        barrier.wait()
        answers.append(app.test_client().post("/").status_code)

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert answers == [200] * 8


def test_an_application_that_is_gone_takes_its_thread_along() -> None:
    """A test suite makes hundreds of applications: none is kept alive, and its switch ends with it."""

    def used() -> tuple[weakref.ref[Flask], Switch]:
        app = with_routes(Flask("site"))
        app.config.update(SECRET_KEY="key", READONLY_STORE="memory://", READONLY_PAGE="refused.html")
        ReadOnly(app)
        assert app.test_client().post("/").status_code == 200
        return weakref.ref(app), switch_of(app)

    app, switch = used()
    (follower,) = switch._followers.values()
    thread = follower._thread
    assert thread is not None
    assert thread.is_alive()
    eventually(lambda: gc.collect() >= 0 and app() is None, what="the application is collected")
    eventually(lambda: not thread.is_alive(), what="the switch of an application that is gone has ended")


def test_closed_by_hand(make_app: MakeApp) -> None:
    """A test may end what belongs to its application; the switch says goodbye."""
    app = with_routes(make_app())
    app.test_client().post("/")
    (follower,) = switch_of(app)._followers.values()
    thread = follower._thread
    assert thread is not None
    installed(app).close()
    eventually(lambda: not thread.is_alive(), what="it has ended, though whoever closes waits a while only")


@pytest.mark.parametrize(("boot", "status"), [("closed", 503), ("open", 200)])
def test_a_store_that_was_never_reached(make_app: MakeApp, boot: str, status: int) -> None:
    """The site says in writing what its processes do then; every page can be read in any case."""
    app = with_routes(make_app(READONLY_STORE="redis://127.0.0.1:1/0?site=shop", READONLY_BOOT=boot))
    client = app.test_client()
    assert (client.get("/").status_code, client.post("/").status_code) == (200, status)


def takes_writes(app: Flask) -> bool:
    """Tell whether a write is admitted."""
    return app.test_client().post("/").status_code == 200


def test_a_site_in_a_file(make_app: MakeApp, tmp_path: Path) -> None:
    """Two applications on one store are one site: what one process sets, the other one obeys."""
    store = made(tmp_path / "flag.db").url
    one, other = (with_routes(make_app(name, READONLY_STORE=store)) for name in ("one", "other"))
    # A process that has just begun takes writes as soon as the other one has said that it knows of it.
    for app in (one, other):
        eventually(partial(takes_writes, app), what="it takes writes")
    state = switch_of(one).on()
    assert switch_of(one).confirm(state.epoch, timeout=20).safe
    assert other.test_client().post("/").status_code == 503
