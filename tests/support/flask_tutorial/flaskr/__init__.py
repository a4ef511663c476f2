"""A blog in the shape of the one in Flask's tutorial: a factory, blueprints for accounts and posts, SQLite, a session.

The documentation is typed at it. Where the page shows lines of the factory between which others are put, they stand
here as they stand in the tutorial's.
"""

import os

from flask import Flask


def create_app(test_config=None):  # type: ignore[no-untyped-def]
    """Make the application."""
    app = Flask(__name__, instance_relative_config=True)
    app.config.from_mapping(
        SECRET_KEY="dev",
        DATABASE=os.path.join(app.instance_path, "flaskr.sqlite"),  # noqa: PTH118 - as it stands there
    )
    if test_config is not None:
        app.config.update(test_config)
    os.makedirs(app.instance_path, exist_ok=True)  # noqa: PTH103

    from . import auth, blog, db

    db.init_app(app)
    app.register_blueprint(auth.bp)
    app.register_blueprint(blog.bp)
    app.add_url_rule("/", endpoint="index")

    return app
