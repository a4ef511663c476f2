"""`make serve`: the site with two worker processes, and the commands to switch it with."""

from __future__ import annotations

import argparse
import os
import secrets
import sys
from collections.abc import Sequence
from pathlib import Path

from demo_app import story
from demo_app.data import make_folder, prepare
from demo_app.dresses import DRESSES, PROJECT, Dress, dress_named
from demo_app.servers import listening
from demo_app.settings import Settings


def secret_in(folder: Path) -> str:
    """Return the folder's secret, made on first use: sessions outlive a restart, and no secret is in the source."""
    file = folder / "secret"
    if not file.exists():
        make_folder(folder)
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as opened:
            opened.write(secrets.token_urlsafe(32))
    return file.read_text()


def settings_in(folder: Path) -> Settings:
    """Return the settings of the site that lives in a folder.

    Its tables may be on a server (DEMO_SERVER, DEMO_STANDBY), and so may the switch's store (DEMO_STORE).
    """
    found = {name: os.environ.get(f"DEMO_{name.upper()}", "") for name in ("server", "standby", "store")}
    return Settings.in_folder(folder, secret=secret_in(folder), **found)


def instructions(settings: Settings, dress: Dress) -> str:
    """Return what a second terminal types to operate this site."""
    names = " ".join(f"{name}='{value}'" for name, value in settings.as_env().items() if name != "SECRET")
    python = sys.executable
    control = Path(python).with_name("readonlyctl")
    ctl = control if control.exists() else f"{python} -m readonly"
    # The framework loads the site, which wants its secret; readonlyctl loads nothing of it.
    secret = f"SECRET=\"$(cat '{settings.database.parent / 'secret'}')\""
    own = f"  {secret} {python} {dress.command} status    # the same by its framework\n" if dress.command else ""
    return (
        "In a second terminal:\n\n"
        f"  cd {PROJECT} && export {names}\n"
        f"  {ctl} status\n"
        f"{own}"
        f'  {ctl} on --reason "trying it out" --for 10m --expect web=2\n'
        f"  {python} -m demo_app.replica    # readers move to a copy of the database\n"
        f"  {ctl} off\n"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Prepare the data, start the workers, and stay until stopped."""
    parser = argparse.ArgumentParser(prog="python -m demo_app.serve", description=__doc__)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("DEMO_DATA", PROJECT / "demo-data")))
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=int(os.environ.get("PORT", "8000")), help="0: any free one")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--framework", choices=list(DRESSES), default=os.environ.get("FRAMEWORK") or "starlette")
    parser.add_argument("--app", metavar="MODULE:FACTORY", help="another factory than the framework's own")
    parser.add_argument("--quiet", action="store_true", help="print the address and nothing else")
    options = parser.parse_args(arguments)

    dress = dress_named(options.framework)
    settings = settings_in(options.data)
    prepare(settings)
    # Worker processes are started afresh and read their settings from here.
    os.environ.update(settings.as_env())
    os.environ.setdefault("READONLY_ROLE", "web")
    dress.prepare(settings)
    listener = listening(options.host, options.port)
    print(f"{story.SITE_NAME} is at http://{options.host}:{listener.getsockname()[1]}", flush=True)
    if not options.quiet:
        print(instructions(settings, dress), flush=True)
    dress.serve(options.app or dress.app, listener, workers=options.workers, quiet=options.quiet)
    return 0


if __name__ == "__main__":
    sys.exit(main())
