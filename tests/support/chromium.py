"""A browser that is installed: Playwright drives it, and downloads none of its own."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from support.missing import ServerMissing

# As Debian, others, and Google's own packages call it.
NAMES = ("chromium", "chromium-browser", "google-chrome")


def find_chromium() -> Path:
    """Return the browser's path: READONLY_TEST_CHROMIUM, or what is on PATH.

    Raises:
        ServerMissing: There is none.
    """
    named = os.environ.get("READONLY_TEST_CHROMIUM")
    for name in (named,) if named else NAMES:
        found = shutil.which(name)
        if found is not None:
            return Path(found)
    raise ServerMissing("chromium", f"READONLY_TEST_CHROMIUM, and {', '.join(NAMES)} on PATH")
