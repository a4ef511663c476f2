"""The site on Django, as web servers want it."""

from __future__ import annotations

import os
from typing import Any


def app() -> Any:
    """Return the site as the environment describes it: `gunicorn 'demo_app.on_django.app:app()'`."""
    application = _application("demo_app.on_django.settings")

    from readonly.wsgi import status_app
    from readonly_django.conf import switch

    # Each worker makes its own: it is a member from now on, and not only from its first request.
    switch.start()
    status = status_app(switch)

    def site(environ: dict[str, Any], start_response: Any) -> Any:
        """Answer a load balancer's questions beside the application: they need no session and no database."""
        asked = environ.get("PATH_INFO", "").startswith("/-/readonly/")
        return (status if asked else application)(environ, start_response)

    return site


def plain() -> Any:
    """Return the site without `readonly`."""
    return _application("demo_app.on_django.plain_settings")


def _application(settings: str) -> Any:
    os.environ["DJANGO_SETTINGS_MODULE"] = settings
    from django.core.wsgi import get_wsgi_application

    return get_wsgi_application()
