"""A refused write, as Django's own code and Django's users handle it."""

from __future__ import annotations

from django.db import DatabaseError, InternalError, OperationalError

from readonly.errors import ReadOnlyError

__all__ = ["RefusedWrite", "kind_of"]


class RefusedWrite(ReadOnlyError, DatabaseError):
    """A `ReadOnlyError` that is a `DatabaseError`, too.

    Code that handles a database which refuses (`except DatabaseError`, and `transaction.atomic` itself, which rolls
    back for nothing else) goes on doing so. It is also of the class that Django gave the driver's error before:
    `InternalError` on PostgreSQL, `OperationalError` on SQLite and MySQL. Whoever swallows it has answered the
    request; only an answer of 500 or above is replaced by the 503.
    """


class _RefusedInternal(RefusedWrite, InternalError):
    pass


class _RefusedOperational(RefusedWrite, OperationalError):
    pass


def kind_of(error: BaseException) -> type[RefusedWrite]:
    """Return the class of a refusal that a driver's error becomes; all drivers name theirs as PEP 249 does."""
    names = {kind.__name__ for kind in type(error).__mro__}
    if "InternalError" in names:
        return _RefusedInternal
    return _RefusedOperational if "OperationalError" in names else RefusedWrite
