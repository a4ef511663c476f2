"""Flask applications under test: what the extension has left in them."""

from __future__ import annotations

from collections.abc import Callable

from flask import Flask

from readonly import Switch
from readonly_flask import Installed

MakeApp = Callable[..., Flask]


def installed(app: Flask) -> Installed:
    """Return what belongs to an application."""
    found: Installed = app.extensions["readonly"]
    return found


def switch_of(app: Flask) -> Switch:
    """Return an application's switch."""
    return installed(app).switch
