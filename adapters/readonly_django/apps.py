"""The application, as Django starts it."""

from __future__ import annotations

import sys

from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class ReadonlyDjangoConfig(AppConfig):
    """`readonly_django` in INSTALLED_APPS.

    Raises:
        SettingsError: A setting can't be right: the process does not start.
    """

    name = "readonly_django"
    label = "readonly_django"
    verbose_name = _("Read-only mode")
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Check the settings, guard the databases, and register the checks."""
        from . import checks, migrating, refused_commands

        checks.register()
        migrating.connect()
        refused_commands.explain_refusals()
        # `manage.py readonly off` needs the store's URL and nothing else that may be wrong tonight.
        if sys.argv[1:2] == ["readonly"]:
            return
        from . import conf, databases

        said = conf.settings()
        # Without a store there is nothing to go by: the middleware stops the server, and the checks say why. What
        # needs neither, such as `collectstatic` while an image is built, goes on.
        if said.guard and said.store:
            databases.install(
                conf.current_switch(),
                unguarded=said.unguarded,
                replicas=said.replicas,
                discard=said.discard,
                always=said.replicas_always,
                schema=said.replicas_schema,
                max_lag=said.replicas_max_lag,
                none_fit=said.replicas_none_fit,
                poolers=said.poolers,
            )
