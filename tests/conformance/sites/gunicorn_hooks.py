"""What the documentation tells sites to put into gunicorn's configuration, so that an idle worker is a member too."""

from __future__ import annotations

from typing import Any


def post_worker_init(worker: Any) -> None:
    """Start the switch in each worker, after the fork and with the application loaded."""
    from conformance.sites.serve import start

    start()
