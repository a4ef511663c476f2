"""A Django project with Channels beside it, as its users write it; WRAPPED in the environment: as our page says to."""

from __future__ import annotations

import os

from support.django_site import SETTINGS, configure

SETTINGS["MIDDLEWARE"] = ["readonly_django.middleware.ReadOnlyMiddleware", *SETTINGS["MIDDLEWARE"]]
SETTINGS["ROOT_URLCONF"] = "support.django_site.views"
SETTINGS["READONLY"] = None
SETTINGS["DATABASES"] = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}
SETTINGS["ASGI_APPLICATION"] = "served_sockets.application"
configure()

from channels.auth import AuthMiddlewareStack  # noqa: E402 - settings come first
from channels.generic.websocket import WebsocketConsumer  # noqa: E402
from channels.routing import ProtocolTypeRouter, URLRouter  # noqa: E402
from django.core.asgi import get_asgi_application  # noqa: E402
from django.urls import path  # noqa: E402

from readonly.asgi import ReadOnlyMiddleware  # noqa: E402
from readonly_django.asgi import with_lifespan  # noqa: E402
from readonly_django.conf import policy, switch  # noqa: E402


class Chat(WebsocketConsumer):
    """Says what it hears."""

    def receive(self, text_data=None, bytes_data=None):  # type: ignore[no-untyped-def]
        """Say it."""
        self.send(text_data=text_data)


django = get_asgi_application()
consumers = AuthMiddlewareStack(URLRouter([path("chat", Chat.as_asgi())]))
if os.environ.get("WRAPPED"):
    sockets = ReadOnlyMiddleware(consumers, switch, policy=policy())
    application = with_lifespan(ProtocolTypeRouter({"http": django, "websocket": sockets}))
else:
    application = ProtocolTypeRouter({"http": django, "websocket": consumers})
