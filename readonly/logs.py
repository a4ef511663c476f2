"""One line a record: what visitors and operators wrote can't begin another line, or move a terminal's cursor.

Everything here is logged by the one logger `readonly`; a filter on it makes visible what a log or a terminal would
obey, before any handler sees the record.
"""

from __future__ import annotations

import logging
import unicodedata
from typing import Any, Final

LOGGER: Final = "readonly"
# Control, formatting (bidirectional marks), lone surrogates, private use, line and paragraph separators.
_OBEYED: Final = ("Cc", "Cf", "Cs", "Co", "Zl", "Zp")
# Of `extra`: what is somebody's text.
_EXTRA: Final = ("route", "kind", "bypass", "database", "table", "readonly_reason")


def visible(text: str) -> str:
    """Return text with what a log or a terminal would obey written as an escape."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(c.encode("unicode_escape").decode() if unicodedata.category(c) in _OBEYED else c for c in text)


class Visible(logging.Filter):
    """Makes the arguments of each record visible; lets every record pass."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Edit a record."""
        if isinstance(record.args, tuple):
            record.args = tuple(_shown(arg) for arg in record.args)
        for name in _EXTRA:
            value = getattr(record, name, None)
            if isinstance(value, str):
                setattr(record, name, visible(value))
        return True


class _VisibleError:
    """An error, as a line says it by %s or by %r."""

    def __init__(self, error: BaseException) -> None:
        self._error = error

    def __str__(self) -> str:
        return visible(str(self._error))

    def __repr__(self) -> str:
        return visible(repr(self._error))


def _shown(arg: Any) -> Any:
    if isinstance(arg, BaseException):
        return _VisibleError(arg)
    return visible(arg) if isinstance(arg, str) else arg


def install() -> None:
    """Put the filter on the logger, once."""
    logger = logging.getLogger(LOGGER)
    if not any(isinstance(found, Visible) for found in logger.filters):
        logger.addFilter(Visible())
