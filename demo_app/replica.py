"""`python -m demo_app.replica`: copies the primary to the replica, once the site is proven read-only."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from readonly.databases.sqlite import copy_to_replica


def safe_epoch(environ: Mapping[str, str]) -> int | None:
    """Return the epoch of the read-only time that stands, or None if no such time is proven."""
    asked = subprocess.run(
        [sys.executable, "-m", "readonly", "status", "--expect", "safe", "--json"],
        env=dict(environ),
        stdout=subprocess.PIPE,
        check=False,
        text=True,
    )
    if asked.returncode != 0:
        return None
    return int(json.loads(asked.stdout.splitlines()[-1])["epoch"])


def main() -> int:
    """Copy, or say why not. Reads DEMO_DATABASE, DEMO_REPLICA and READONLY_STORE, and no secret."""
    epoch = safe_epoch(os.environ)
    if epoch is None:
        print("The site is not proven read-only: a copy could miss a write. First: readonlyctl on", file=sys.stderr)
        return 3
    copy_to_replica(Path(os.environ["DEMO_DATABASE"]), Path(os.environ["DEMO_REPLICA"]), epoch=epoch)
    print(f"Copied at epoch {epoch}. While the site is read-only, pages are read from the copy.")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
