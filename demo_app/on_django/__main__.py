"""`python -m demo_app.on_django …`: this project's manage.py."""

from __future__ import annotations

import os
import sys


def main() -> None:
    """Run a command; `prepare` makes the tables of Django's own applications, unless they are there."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "demo_app.on_django.settings")
    from django.core.management import execute_from_command_line

    if sys.argv[1:] == ["prepare"]:
        # Nobody reads or writes a site that is only being made: the switch has no say in that.
        os.environ["READONLY_DISABLED"] = "1"
        prepare()
    else:
        execute_from_command_line(sys.argv)


def prepare() -> None:
    """Migrate a new database; on one that is complete nothing is done, since while read-only nobody migrates."""
    import django
    from django.core.management import call_command
    from django.db import connection

    django.setup()
    # The last table that the migrations make.
    if "django_session" not in connection.introspection.table_names():
        call_command("migrate", verbosity=0)


if __name__ == "__main__":
    main()
