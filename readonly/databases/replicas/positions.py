"""Which of two positions in one server's log comes first: PostgreSQL's LSNs and MariaDB's GTID sets."""

from __future__ import annotations

from readonly.errors import Error

# A page of the log begins with a header, short or long; no record ever begins inside of it.
_PAGE_BYTES, _HEADER_BYTES = 8192, (24, 40)


def reached(at: str, wanted: str) -> bool:
    """Tell whether a server that is at one position has everything that lies before another of the same system.

    Raises:
        Error: One of them is no position, or they are of two kinds of servers.
    """
    if "/" in wanted or "/" in at:
        return lsn(at) >= lsn(wanted)
    here, there = gtids(at), gtids(wanted)
    return all(domain in here and here[domain] >= number for domain, number in there.items())


def lsn(text: str) -> int:
    """Return an LSN (`16/B374D848`) as a number that orders.

    Raises:
        Error: It is none.

    Source: PostgreSQL manual, pg_lsn.
    """
    high, _, low = text.partition("/")
    try:
        return (int(high, 16) << 32) | int(low, 16)
    except ValueError as error:
        raise Error(f"position={text!r} is no LSN: it looks like 16/B374D848") from error


def behind_header(text: str) -> str:
    """Return where a record that ends at a page's end leaves a replica, for a position just behind the next header.

    `pg_current_wal_insert_lsn()` skips the header of a page that nobody has written to yet; what a replica has
    replayed ends before it, and would never reach that position on a primary at rest.
    """
    found = lsn(text)
    inside = found % _PAGE_BYTES
    return f"{found >> 32:X}/{(found & 0xFFFFFFFF) - inside:X}" if inside in _HEADER_BYTES else text


def gtids(text: str) -> dict[int, int]:
    """Return the highest sequence number of each domain of a GTID set (`0-1-270,1-2-5`).

    Raises:
        Error: It is none.

    Source: MariaDB manual, Global Transaction ID: domain, server, sequence.
    """
    found: dict[int, int] = {}
    for part in filter(None, (one.strip() for one in text.split(","))):
        try:
            domain, _server, number = (int(field) for field in part.split("-"))
        except ValueError as error:
            raise Error(f"position={text!r} is no GTID set: it looks like 0-1-270") from error
        found[domain] = max(number, found.get(domain, 0))
    return found
