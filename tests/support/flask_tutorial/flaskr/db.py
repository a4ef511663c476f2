"""The database: a file of SQLite, opened for each request."""

from __future__ import annotations

import sqlite3

import click
from flask import Flask, current_app, g

SCHEMA = """
CREATE TABLE IF NOT EXISTS person (id INTEGER PRIMARY KEY, name TEXT UNIQUE NOT NULL, password TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS post (id INTEGER PRIMARY KEY, author TEXT NOT NULL, title TEXT NOT NULL, body TEXT NOT NULL);
"""


def get() -> sqlite3.Connection:
    """Return this request's connection."""
    if "connection" not in g:
        g.connection = sqlite3.connect(current_app.config["DATABASE"])
    connection: sqlite3.Connection = g.connection
    return connection


def close(_error: BaseException | None = None) -> None:
    """Close it, if there is one."""
    connection = g.pop("connection", None)
    if connection is not None:
        connection.close()


@click.command("init-db")
def init_db() -> None:
    """Make the tables."""
    get().executescript(SCHEMA)
    click.echo("Initialized the database.")


def init_app(app: Flask) -> None:
    """Take part in an application."""
    app.teardown_appcontext(close)
    app.cli.add_command(init_db)
