"""The application, as Django starts it."""

from __future__ import annotations

from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class ReadonlyDjangoConfig(AppConfig):
    """`readonly_django` in INSTALLED_APPS."""

    name = "readonly_django"
    label = "readonly_django"
    verbose_name = _("Read-only mode")
    default_auto_field = "django.db.models.BigAutoField"
