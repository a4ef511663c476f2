"""A Django project as an ASGI server loads it; the store is named in the environment."""

from __future__ import annotations

from support.django_site import SETTINGS, configure

SETTINGS["MIDDLEWARE"] = ["readonly_django.middleware.ReadOnlyMiddleware", *SETTINGS["MIDDLEWARE"]]
SETTINGS["ROOT_URLCONF"] = "support.django_site.views"
SETTINGS["READONLY"] = None
SETTINGS["DATABASES"] = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}
configure()

from readonly_django.asgi import get_asgi_application  # noqa: E402 - settings come first

application = get_asgi_application()
