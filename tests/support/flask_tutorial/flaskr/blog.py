"""Posts: a list that everybody reads, and a form for those who are logged in."""

from __future__ import annotations

from flask import Blueprint, redirect, render_template_string, request, session, url_for
from flask.typing import ResponseReturnValue

from . import db

bp = Blueprint("blog", __name__)

LIST = """<title>Posts</title>
{% if session.username %}<p>{{ session.username }} <a href="{{ url_for('auth.logout') }}">Log Out</a></p>
{% else %}<p><a href="{{ url_for('auth.login') }}">Log In</a></p>
{% endif %}{% for title, author in posts %}<h1>{{ title }}</h1> by {{ author }}
{% endfor %}"""


@bp.route("/")
def index() -> str:
    """Show all posts."""
    posts = db.get().execute("SELECT title, author FROM post ORDER BY id DESC").fetchall()
    return render_template_string(LIST, posts=posts)


@bp.route("/create", methods=["GET", "POST"])
def create() -> ResponseReturnValue:
    """Write one."""
    if "username" not in session:
        return redirect(url_for("auth.login"))
    if request.method == "POST":
        post = (session["username"], request.form["title"], request.form["body"])
        with db.get() as connection:
            connection.execute("INSERT INTO post (author, title, body) VALUES (?, ?, ?)", post)
        return redirect(url_for("blog.index"))
    return '<form method="post"><input name="title"><textarea name="body"></textarea><button>Save</button></form>'
