"""A small shop, as a real server loads it: its address names the store, its workers answer with their process ids."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from flask import Flask, Response, request, session
from flask_sqlalchemy import SQLAlchemy

from readonly import Switch, reads
from readonly_flask import ReadOnly

FOLDER = Path(os.environ["SERVED_FOLDER"])
db: Any = SQLAlchemy()
readonly = ReadOnly(switch=Switch.from_url(os.environ["READONLY_STORE"], interval=0.2))


class Order(db.Model):  # type: ignore[misc]
    """Something that is written."""

    id = db.Column(db.Integer, primary_key=True)


def create_app() -> Flask:
    """Make the application."""
    app = Flask("shop", root_path=str(FOLDER))
    app.config.update(SECRET_KEY="key", SQLALCHEMY_DATABASE_URI=f"sqlite:///{FOLDER}/shop.db")
    db.init_app(app)
    readonly.init_app(app)

    @app.route("/", methods=["GET", "POST"])
    def home() -> Response:
        if request.method == "POST":
            db.session.add(Order())
            db.session.commit()
        return Response(f"{os.getpid()} {session.get('user')}", mimetype="text/plain")

    @app.get("/sneaky")
    def sneaky() -> str:
        db.session.add(Order())
        db.session.commit()
        return "written"

    @app.post("/search")
    @reads
    def search() -> str:
        return "found"

    @app.post("/login")
    def login() -> str:
        session["user"] = "ann"
        return "hello"

    @app.post("/slow")
    def slow() -> Response:
        def parts() -> Iterator[str]:
            (FOLDER / "begun").touch()
            while not (FOLDER / "go").exists():
                time.sleep(0.01)  # a file is all that the test shares with a server's worker
            yield "done"

        return Response(parts())

    return app


def prepare() -> None:
    """Make the tables, once, before workers come up."""
    app = create_app()
    with app.app_context():
        db.create_all()
    app.extensions["readonly"].close()
