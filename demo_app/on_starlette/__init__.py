"""The site on Starlette, with SQLAlchemy's asynchronous sessions; `app` is where `readonly` comes in."""
