"""The settings of the site: those of an ordinary one, and what makes it switchable."""

from __future__ import annotations

from demo_app.on_django.plain_settings import *  # noqa: F403
from demo_app.on_django.plain_settings import DATABASES, HERE, INSTALLED_APPS, MIDDLEWARE, TEMPLATES, sqlite
from demo_app.tokens import REMEMBER_COOKIE

INSTALLED_APPS = ["readonly_django", *INSTALLED_APPS]
# First: it answers before sessions and authentication, and takes the ended cookie off a request before they see it.
MIDDLEWARE = ["readonly_django.middleware.ReadOnlyMiddleware", *MIDDLEWARE]
TEMPLATES[0]["OPTIONS"]["context_processors"] = ["readonly_django.context_processors.readonly"]

READONLY = {
    "STORE": HERE.store,
    "EXEMPT": ["/healthz"],
    "LOGIN": ["/login", "/register", "GET /oauth/{provider}/callback"],
    "LOGOUT": ["/logout"],
    "READS": ["POST /search"],
    "SESSION_COOKIES": [REMEMBER_COOKIE],
    "DISCARD": ["touchline.PageView", "touchline.Account.last_login"],
}

if not HERE.server:
    DATABASES["replica"] = sqlite(HERE.replica)
    DATABASE_ROUTERS = ["readonly_django.routers.ReplicaRouter"]
    READONLY["REPLICAS"] = ["replica"]
