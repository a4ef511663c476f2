"""What a Redis server can lose: whether replicas and disk have the last write, and which settings make it forget."""

from __future__ import annotations

from collections.abc import Mapping

from .redis_connection import Connection, NoAnswer, Refused, ask, info

# WAIT and WAITAOF take whole milliseconds, and 0 means for ever.
SHORTEST_WAIT_MS = 1


def lacking(connection: Connection, *, known_replicas: int, wait: float, timeout: float) -> str:
    """Say which replicas, or which disk, have not confirmed the last write of this connection; "" if all have.

    Args:
        connection: The one that wrote.
        known_replicas: How many replicas there are by those who watch over the server; it may have lost touch.
        wait: Seconds to wait for them.
        timeout: Seconds for an answer, beside that.
    """
    replicas = int(info(connection, "replication").get("connected_slaves", 0))
    if not replicas and known_replicas:
        noun = "its replica is" if known_replicas == 1 else f"its {known_replicas} replicas are"
        return f"the store can lose it: {noun} not connected to it, and after a failover would not have it"
    if replicas:
        have = _wait(connection, "WAIT", replicas, wait=wait, timeout=timeout)
        if have < replicas:
            return f"the store can lose it: {have} of its {replicas} replicas {'has' if have == 1 else 'have'} it"
    if _appends(connection):
        try:
            have = _wait(connection, "WAITAOF", 1, 0, wait=wait, timeout=timeout)
        except Refused:
            return ""  # older than 7.2, or not allowed: nothing more can be known
        if not have:
            return "the store can lose it: the server has not written it to its disk yet"
    return ""


def _wait(connection: Connection, *words: str | int, wait: float, timeout: float) -> int:
    """Ask for a blocking answer; it may take longer than others."""
    connection.send_command(*words, max(SHORTEST_WAIT_MS, round(wait * 1000)))
    if not connection.can_read(wait + timeout):
        raise NoAnswer(f"no answer to {words[0]}")
    answer = connection.read_response()
    return int(answer[0] if isinstance(answer, list) else answer)


def _appends(connection: Connection) -> bool:
    """Return whether the server appends to a file and forces that to its disk."""
    if info(connection, "persistence").get("aof_enabled") != "1":
        return False
    # With `no` the operating system decides when, and WAITAOF would wait for a write that nobody forces. (With
    # `everysec` some servers answer up to a second early, redis/redis#13793: the kernel has it by then, so that only a
    # machine that loses power loses it.)
    return _setting(connection, "appendfsync") != "no"


def _setting(connection: Connection, name: str) -> str | None:
    """Return a setting; None where CONFIG is not to be had, as on many a managed server."""
    try:
        found = ask(connection, "CONFIG", "GET", name)
    except Refused:
        return None
    return bytes(found[1]).decode(errors="replace") if found else None


def warnings(connection: Connection, *, known_replicas: int) -> tuple[str, ...]:
    """Return one sentence for each setting that can lose the record, or lets two servers take writes at once.

    What INFO does not say and CONFIG may not be asked for is not warned of.
    """
    memory, disk, copies = (info(connection, section) for section in ("memory", "persistence", "replication"))
    found = [_eviction(memory), _forgetting(connection, disk), _split(copies, known_replicas)]
    return tuple(sentence for sentence in found if sentence)


def _eviction(memory: Mapping[str, str]) -> str:
    policy = memory.get("maxmemory_policy", "noeviction")
    # The `volatile-…` ones take only keys that expire, and no key of this store does.
    if int(memory.get("maxmemory") or 0) == 0 or not policy.startswith("allkeys-"):
        return ""
    return (
        f"the store's server may evict the record when its memory is full (maxmemory-policy {policy}): set noeviction, "
        "or give this store a server of its own"
    )


def _forgetting(connection: Connection, disk: Mapping[str, str]) -> str:
    if disk.get("aof_enabled") != "0" or _setting(connection, "save") != "":
        return ""
    return (
        "the store's server keeps nothing on its disk (appendonly no, no save): a restart forgets the state, and only "
        "processes that live on can bring it back; set appendonly yes"
    )


def _split(copies: Mapping[str, str], known_replicas: int) -> str:
    # INFO has this field only where both settings of the pair are above zero.
    if "min_slaves_good_slaves" in copies or not max(known_replicas, int(copies.get("connected_slaves", 0))):
        return ""
    return (
        "the store's server takes writes without a replica: after a failover an old primary that is cut off goes on "
        "taking reports, and renews leases; set min-replicas-to-write 1 and min-replicas-max-lag 1"
    )
