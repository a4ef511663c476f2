"""The permission. No table is made."""

from __future__ import annotations

from django.db import migrations, models


class Migration(migrations.Migration):
    """Make it known."""

    initial = True
    dependencies = ()
    operations = (
        migrations.CreateModel(
            name="ReadOnlyMode",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
            ],
            options={
                "verbose_name": "read-only mode",
                "verbose_name_plural": "read-only mode",
                "permissions": (("switch_site", "Can make the site read-only and writable again"),),
                "managed": False,
                "default_permissions": (),
            },
        ),
    )
