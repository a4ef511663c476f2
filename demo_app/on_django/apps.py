"""The site as a Django application."""

from __future__ import annotations

from django.apps import AppConfig


class Touchline(AppConfig):
    """Its label is the site's name, not the folder's."""

    name = "demo_app.on_django"
    label = "touchline"
    default_auto_field = "django.db.models.AutoField"
