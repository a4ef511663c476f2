"""The site on Flask, with Flask-SQLAlchemy and Flask-Login; `app` is where `readonly` comes in."""
