"""What the admin shows a page for, and what its permission belongs to. There is no table: the state is in the store."""

from __future__ import annotations

from django.db import models
from django.utils.translation import gettext_lazy as _


class ReadOnlyMode(models.Model):
    """The read-only mode."""

    class Meta:
        """Nothing is kept in the database but the permission."""

        managed = False
        default_permissions = ()
        permissions = (("switch_site", _("Can make the site read-only and writable again")),)
        verbose_name = _("read-only mode")
        verbose_name_plural = _("read-only mode")
