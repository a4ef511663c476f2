"""What would run: the operations in a document. The only module that needs graphql-core."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Final

try:
    from graphql import GraphQLError, OperationDefinitionNode, OperationType, parse
except ModuleNotFoundError as error:
    if error.name != "graphql":
        raise
    raise ModuleNotFoundError(
        "readonly.graphql needs graphql-core: pip install 'readonly-mode[graphql]'", name="graphql"
    ) from error

# The largest documents of real clients have some thousand tokens. A body may hold thirty thousand, which would keep an
# event loop busy for a tenth of a second.
TOKENS: Final = 5_000
# Clients send the same few documents again and again; longer ones are parsed each time, so that nobody fills memory.
_REMEMBERED: Final = 512
_REMEMBERED_LENGTH: Final = 4096


def mutates(text: str, names: Sequence[str]) -> bool:
    """Return whether a server might run a mutation, given a document and the operation names that were sent."""
    # A keyword can't be written in another way: without it no operation is a mutation, whatever else the text is.
    if "mutation" not in text:
        return False
    operations = (_operations_kept if len(text) <= _REMEMBERED_LENGTH else _operations)(text)
    if operations is None:
        return True
    chosen = [writes for name, writes in operations if name in names]
    # Without a name, or with one that is not there, there is an error to be answered and nothing to be run; but then
    # it must not matter which one a server runs that sees it otherwise.
    if not names or not all(any(name == found for found, _ in operations) for name in names):
        chosen = [writes for _, writes in operations]
    return any(chosen)


def _operations(text: str) -> tuple[tuple[str | None, bool], ...] | None:
    """Return name and kind of each operation in a document, None if it can't be parsed."""
    try:
        document = parse(text, no_location=True, max_tokens=TOKENS)
    except (GraphQLError, RecursionError):
        return None
    return tuple(
        (node.name.value if node.name else None, node.operation is OperationType.MUTATION)
        for node in document.definitions
        if isinstance(node, OperationDefinitionNode)
    )


_operations_kept = lru_cache(maxsize=_REMEMBERED)(_operations)
