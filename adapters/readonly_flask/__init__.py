"""Read-only mode for Flask: `ReadOnly(app)`, or `readonly.init_app(app)` in an application factory.

The core's WSGI middleware around `app.wsgi_app`, told what the URL map knows, what the extensions of the application do
about logins and sessions, and which databases it has. It speaks the framework and has no rule of its own.
"""

from __future__ import annotations

from .extension import Installed, ReadOnly
from .signals import changed

__all__ = ["Installed", "ReadOnly", "changed"]
