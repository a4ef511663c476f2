"""The last record that this host saw, in a small file: memory of last resort (if store and members start empty).

What is recalled from it is worth as much as a lapsed process's knowledge: its causes close, its tombstones and its
epoch count, and it opens nothing. The file is a convenience of one host and never trusted over a store.
"""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from .errors import UnreadableRecord
from .record_format import load
from .stores import redacted
from .transitions import adds

logger = logging.getLogger("readonly")
# A record with a year of tombstones is a few kilobytes; what is larger is not ours.
LARGEST_BYTES = 4 * 1024 * 1024


def state_folder(environ: Mapping[str, str] | None = None) -> Path | None:
    """Return the folder for what a host remembers: READONLY_STATE_DIR, else the user's state folder; None if off.

    An empty READONLY_STATE_DIR switches it off.
    """
    environ = os.environ if environ is None else environ
    named = environ.get("READONLY_STATE_DIR")
    if named is not None:
        return Path(named) if named else None
    # XDG Base Directory Specification: state that should persist and is not important enough for data.
    base = environ.get("XDG_STATE_HOME")
    try:
        return (Path(base) if base else Path.home() / ".local" / "state") / "readonly"
    except RuntimeError:  # no home folder, as for many service users
        return None


class HostFile:
    """One site's last record, as seen from this host. Every failure to read or write it is logged once and survived.

    Args:
        url: The store's URL: two stores with a site of one name are two files.
        site: The site.
        folder: Where the file lies; None: nothing is remembered.
    """

    def __init__(self, url: str, site: str, folder: Path | None) -> None:
        key = hashlib.sha256(redacted(url).encode()).hexdigest()[:12]
        self.path = None if folder is None or url.startswith("memory:") else folder / f"{site}-{key}.json"
        self._kept: bytes | None = None
        self._complained = False

    def recall(self) -> tuple[bytes, datetime] | None:
        """Return the record as it was last seen, and when; None if nothing is remembered."""
        if self.path is None:
            return None
        try:
            with self.path.open("rb") as file:
                found = os.fstat(file.fileno())
                if found.st_size > LARGEST_BYTES or (hasattr(os, "getuid") and found.st_uid not in (os.getuid(), 0)):
                    return None  # somebody else's file must not close a site
                return file.read(), datetime.fromtimestamp(found.st_mtime, UTC)
        except FileNotFoundError:
            return None
        except OSError as error:
            self._complain(error)
            return None

    def remember(self, raw: bytes | None) -> None:
        """Keep a record, if it knows anything that the kept one does not. Atomic; costs nothing when unchanged."""
        if self.path is None or raw is None or raw == self._kept:
            return
        self._kept = raw
        try:
            known = self.recall()
            if known is not None and not _worth_keeping(raw, known[0]):
                return
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(dir=self.path.parent, prefix=self.path.name)
            try:
                with os.fdopen(handle, "wb") as file:
                    file.write(raw)
                Path(name).replace(self.path)
            except BaseException:
                Path(name).unlink(missing_ok=True)
                raise
        except OSError as error:
            self._complain(error)

    def _complain(self, error: OSError) -> None:
        if not self._complained:
            self._complained = True
            logger.info(
                "readonly: this host can't remember the last record in %s (%s); set READONLY_STATE_DIR to a folder "
                "that this user may write, or to nothing to do without",
                self.path,
                error.strerror or error,
            )


def _worth_keeping(raw: bytes, kept: bytes) -> bool:
    try:
        old = load(kept)
    except UnreadableRecord as error:
        return error.corrupt
    try:
        new = load(raw)
    except UnreadableRecord as error:
        return not error.corrupt
    return new.site == old.site and adds(new, old)
