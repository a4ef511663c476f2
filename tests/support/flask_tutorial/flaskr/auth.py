"""Accounts: register, log in, log out."""

from __future__ import annotations

import sqlite3

from flask import Blueprint, redirect, render_template_string, request, session, url_for
from flask.typing import ResponseReturnValue

from . import db

bp = Blueprint("auth", __name__, url_prefix="/auth")

FORM = """<title>{{ what }}</title>
<form method="post">
<input name="username" required> <input name="password" type="password" required> <button>{{ what }}</button>
</form>
"""


@bp.route("/register", methods=["GET", "POST"])
def register() -> ResponseReturnValue:
    """Make an account."""
    if request.method == "POST":
        try:
            with db.get() as connection:
                account = (request.form["username"], request.form["password"])
                connection.execute("INSERT INTO person (name, password) VALUES (?, ?)", account)
        except sqlite3.IntegrityError:
            return "That name is taken.", 409
        return redirect(url_for("auth.login"))
    return render_template_string(FORM, what="Register")


@bp.route("/login", methods=["GET", "POST"])
def login() -> ResponseReturnValue:
    """Begin a session."""
    if request.method == "POST":
        account = (request.form["username"], request.form["password"])
        found = db.get().execute("SELECT id FROM person WHERE name = ? AND password = ?", account).fetchone()
        if found is None:
            return "Not so.", 403
        session.clear()
        session["username"] = request.form["username"]
        return redirect(url_for("index"))
    return render_template_string(FORM, what="Log In")


@bp.route("/logout")
def logout() -> ResponseReturnValue:
    """End the session."""
    session.clear()
    return redirect(url_for("index"))
