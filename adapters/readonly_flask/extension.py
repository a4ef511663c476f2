"""The extension: `ReadOnly(app)`, or `init_app` in a factory, and what it leaves in `app.extensions["readonly"]`."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from flask import Flask, appcontext_pushed, current_app
from flask.globals import app_ctx
from werkzeug.middleware.proxy_fix import ProxyFix

from readonly.doubts import WEBSOCKET
from readonly.errors import ConfigurationError, ReadOnlyError
from readonly.nested import mark
from readonly.policy import Policy
from readonly.rejection import rfc3339
from readonly.state import State
from readonly.stores import store_from_url
from readonly.switch import Switch
from readonly.wsgi import ReadOnlyMiddleware

from . import cli, databases, policies, refused_commands, templating
from .routes import Routes
from .settings import BindKey, Settings, read_settings
from .signals import changed

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

    from readonly.databases.sqlalchemy import Database


class ReadOnly:
    """Puts Flask applications into read-only mode.

    One object may serve several applications; what belongs to one of them is in its `app.extensions["readonly"]`.

    Args:
        app: An application that is configured; None to call `init_app` later.
        switch: The process's switch, where the site has one already; None: each application's own, by its settings.
        policy: What counts as a write, instead of the settings; what is found in the application is added.

    Raises:
        ConfigurationError: A setting can't be right; the message names it.
    """

    def __init__(self, app: Flask | None = None, *, switch: Switch | None = None, policy: Policy | None = None) -> None:
        self._switch = switch
        self._policy = policy
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask) -> None:
        """Read the application's settings, and wrap it. Extensions and routes may be added before or after.

        Raises:
            ConfigurationError: A setting can't be right, or it was called for this application before.
        """
        if databases.EXTENSION in app.extensions:
            raise ConfigurationError(
                f"{app!r} is wrapped already: call ReadOnly(app) or init_app(app) once for each application."
            )
        settings = read_settings(
            app.config, os.environ, switch=self._switch is not None, policy=self._policy is not None
        )
        templating.check(app)
        installed = Installed(app, settings, switch=self._switch, policy=self._policy)
        templating.install(app, installed.switch, settings.words)
        app.extensions[databases.EXTENSION] = installed
        app.cli.add_command(cli.group(installed.switch))
        refused_commands.explain_refusals(app)
        _wrap(app, installed)

    @property
    def switch(self) -> Switch:
        """The switch that was given, else the current application's.

        Raises:
            RuntimeError: There is neither; outside of a context use `app.extensions["readonly"].switch`.
        """
        if self._switch is not None:
            return self._switch
        found: Installed | None = current_app.extensions.get(databases.EXTENSION)
        if found is None:
            raise RuntimeError(f"{current_app.name} has no switch: call init_app for this application first.")
        return found.switch


class Installed:
    """What belongs to one application: its `app.extensions["readonly"]`.

    Attributes:
        switch: Its switch.
        databases: Its guarded databases by the keys of their binds, None for the default one; filled when the first
            context of the application is pushed, before anything could use them.
        session_class: The class of its database sessions, where reads go to replicas, else None.
    """

    def __init__(self, app: Flask, settings: Settings, *, switch: Switch | None, policy: Policy | None) -> None:
        self._app = weakref.ref(app)
        self._settings = settings
        self._given = policy
        self._lock = threading.RLock()
        self._guarded = not settings.guard
        self._middleware: WSGIApplication | None = None
        self.inner: WSGIApplication = app.wsgi_app
        self._databases: dict[BindKey, Database] = {}
        self.session_class: type[Any] | None = None
        policies.said(app, settings, policy)  # start-up stops where it can't be right
        self._owns_switch = switch is None
        self.switch = _switch(settings) if switch is None else switch
        if not self._guarded and "sqlalchemy" in app.extensions:
            with app.app_context():
                self._guard(app)
        # From here on nothing fails any more, so that what is left behind is never half of it.
        self._stop = self.switch.on_change(_teller(self._app))
        if self._owns_switch:
            _close_with(app, self.switch)
        # Kept here: signals hold their receivers weakly.
        self._on_context = self._context_pushed
        if not self._guarded:
            appcontext_pushed.connect(self._on_context, app)

    @property
    def databases(self) -> Mapping[BindKey, Database]:
        """The guarded databases by their keys."""
        return MappingProxyType(self._databases)

    @property
    def policy(self) -> Policy:
        """What counts as a write, a login, a session: as it was said, and as it is found in the application now."""
        return policies.complete(self._application(), self._settings, self._given)

    def start(self) -> None:
        """Start the switch now, as a web process: for server hooks, so that an idle worker is a member too."""
        self._complete()
        self.switch.start()

    def close(self) -> None:
        """Take the guards off the databases and stop the switch, if it is this application's own: for tests."""
        self._stop()
        appcontext_pushed.disconnect(self._on_context, self._app())
        with self._lock:
            databases.close(self._databases)
        if self._owns_switch:
            self.switch.close()

    # --- requests -----------------------------------------------------------------------------------------------------

    def application(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer a request; the first one finds the application set up, and looks at it."""
        return (self._middleware or self._complete())(environ, start_response)

    def _complete(self) -> WSGIApplication:
        with self._lock:
            if self._middleware is not None:
                return self._middleware
            app = self._application()
            if not self._guarded and "sqlalchemy" in app.extensions:
                with app.app_context():
                    self._guard(app)
            appcontext_pushed.disconnect(self._on_context, app)
            self._middleware = ReadOnlyMiddleware(
                self.inner,
                self.switch,
                policy=policies.complete(app, self._settings, self._given),
                page=templating.page(app, self._settings.page),
                words=self._settings.words,
                endpoint=Routes(app),
            )
            for what in _websockets(app):
                self.switch.doubts.add(WEBSOCKET, what)
            return self._middleware

    def _application(self) -> Flask:
        app = self._app()
        if app is None:
            raise RuntimeError("this belongs to an application that is gone")
        return app

    # --- databases ----------------------------------------------------------------------------------------------------

    def _context_pushed(self, app: Flask, **_more: Any) -> None:
        # Flask-SQLAlchemy works inside a context only: nothing was read or written before.
        if self._guarded or "sqlalchemy" not in app.extensions:
            return
        try:
            self._guard(app)
        except BaseException as error:
            app_ctx.pop(error)  # nobody pops a context whose push has failed
            raise

    def _guard(self, app: Flask) -> None:
        with self._lock:
            if self._guarded:
                return
            self._databases.update(databases.guard(app, self.switch, self._settings))
            self._guarded = True
            self.session_class = databases.route(app, self._databases, self._settings)


def _websockets(app: Flask) -> Iterator[str]:
    """Yield what serves websockets, which WSGI knows nothing of: Flask-Sock's routes, and Flask-SocketIO."""
    yield from (f"the route {rule.rule}" for rule in app.url_map.iter_rules() if rule.websocket)
    if "socketio" in app.extensions:
        yield "Flask-SocketIO"


def _switch(settings: Settings) -> Switch:
    if not settings.store:
        raise ConfigurationError(
            "READONLY_STORE is set neither in the application's config nor in the environment: give it the store's "
            "URL, such as redis://flag.internal/0?site=shop, or memory:// in tests."
        )
    try:
        store = store_from_url(settings.store)
    except ConfigurationError as error:
        raise ConfigurationError(f"READONLY_STORE: {error}") from error
    try:
        return Switch(
            store,
            lease=settings.lease,
            boot=settings.boot,
            runs=settings.runs,
            role=settings.role,
            inert=settings.disabled,
            announce_seconds=settings.announce_seconds,
        )
    except ConfigurationError as error:
        raise ConfigurationError(f"READONLY_LEASE: {error}") from error


# --- what is done to an application ---------------------------------------------------------------------------------


def _wrap(app: Flask, installed: Installed) -> None:
    """Put the middleware around the application: beneath ProxyFix, which says what host and scheme there are."""
    outer: Any = app
    name = "wsgi_app"
    while isinstance(found := getattr(outer, name), ProxyFix):
        outer, name = found, "app"
    installed.inner = found
    application = installed.application

    def wsgi_app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        return application(environ, start_response)

    mark(wsgi_app)
    setattr(outer, name, wsgi_app)
    # An error handler for everything (`@app.errorhandler(Exception)`) is not asked then, nor is each refusal logged
    # with its traceback. The middleware puts the whole answer into the place of this one.
    if not any(ReadOnlyError in handlers for handlers in app.error_handler_spec[None].values()):
        app.register_error_handler(ReadOnlyError, _refused)


def _refused(refusal: ReadOnlyError) -> tuple[str, int, Mapping[str, str]]:
    headers = {"Retry-After": "60", "Cache-Control": "no-store", "Content-Type": "text/plain; charset=utf-8"}
    if refusal.expected_end is not None:
        headers["X-Read-Only-Until"] = rfc3339(refusal.expected_end)
    return "The site is read-only at the moment. Nothing was saved; please try again later.", 503, headers


def _teller(known: weakref.ref[Flask]) -> Callable[[State], None]:
    """Return what sends the signal; it keeps no application alive."""

    def tell(state: State) -> None:
        app = known()
        if app is not None:
            changed.send(app, state=state)

    return tell


def _close_with(app: Flask, switch: Switch) -> None:
    """Close a switch when its application is gone: a test suite makes hundreds of them."""

    def close() -> None:
        # In a thread of its own: this may be called anywhere, the switch's own thread and its locks included.
        threading.Thread(target=switch.close, name="readonly-close", daemon=True).start()

    weakref.finalize(app, close).atexit = False
