"""The site on Flask, put together. `create_app` is where `readonly` comes in; the rest is an ordinary site."""

from __future__ import annotations

from typing import Any

from flask import Flask
from sqlalchemy import event
from werkzeug.middleware.dispatcher import DispatcherMiddleware

from demo_app import pages
from demo_app.on_flask.accounts import accounts
from demo_app.on_flask.api import api
from demo_app.on_flask.news import news
from demo_app.on_flask.parts import db, install
from demo_app.settings import DISCARD, Settings
from demo_app.sqlite_setup import on_connect
from readonly import Switch
from readonly.wsgi import status_app
from readonly_flask import ReadOnly

# --- the site becomes switchable --------------------------------------------------------------------------------------


def create_app(settings: Settings, *, switch: Switch | None = None) -> Flask:
    """Return the site, with its switch.

    Args:
        settings: Where the data is, and the store.
        switch: Another switch than the store's own: a test keeps it, to turn it.
    """
    app = plain_app(settings)
    app.config.from_mapping(
        READONLY_EXEMPT=["/healthz"],
        READONLY_LOGIN=["/login", "/register", "GET /oauth/{provider}/callback"],
        READONLY_LOGOUT=["/logout"],
        READONLY_READS=["POST /search"],
        READONLY_DISCARD=DISCARD,
        READONLY_REPLICAS={} if settings.server else {None: ["replica"]},
    )
    if switch is None:
        app.config["READONLY_STORE"] = settings.store
    ReadOnly(app, switch=switch)
    # Beside the application, like the middleware: a load balancer's questions need no session and no database.
    app.wsgi_app = DispatcherMiddleware(  # type: ignore[method-assign]  # as Flask's documentation has it
        app.wsgi_app, {"/-/readonly": status_app(app.extensions["readonly"].switch)}
    )
    return app


def app() -> Flask:
    """Return the site as the environment describes it: for `flask --app demo_app.on_flask.app:app …`."""
    return create_app(Settings.from_env())


def served() -> Flask:
    """Return it for a worker of a web server: `gunicorn 'demo_app.on_flask.app:served()'`."""
    site = app()
    # Each worker makes its own: it is a member from now on, and not only from its first request.
    site.extensions["readonly"].start()
    return site


def plain() -> Flask:
    """Return the site without `readonly`, as the environment describes it."""
    return plain_app(Settings.from_env())


# --- an ordinary site -------------------------------------------------------------------------------------------------


def plain_app(settings: Settings) -> Flask:
    """Return the site without `readonly`: what a measurement is compared with."""
    app = Flask("demo_app", template_folder=str(pages.TEMPLATES), static_folder=str(pages.STATIC))
    app.config.from_mapping(
        SECRET_KEY=settings.secret,
        SESSION_COOKIE_SAMESITE="Lax",
        REMEMBER_COOKIE_SAMESITE="Lax",
        **_databases(settings),
    )
    app.jinja_options = pages.OPTIONS
    pages.furnish(app.jinja_env).globals["readonly"] = pages.NOT_SWITCHABLE
    for blueprint in (news, accounts, api):
        app.register_blueprint(blueprint)
    install(app)
    if not settings.server:
        with app.app_context():
            for engine in db.engines.values():
                event.listen(engine, "connect", on_connect)
    return app


def _databases(settings: Settings) -> dict[str, Any]:
    if settings.server:
        return {"SQLALCHEMY_DATABASE_URI": settings.server_url("psycopg")}
    return {
        "SQLALCHEMY_DATABASE_URI": f"sqlite:///{settings.database}",
        "SQLALCHEMY_BINDS": {"replica": f"sqlite:///{settings.replica}"},
    }
