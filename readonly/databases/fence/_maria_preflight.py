"""What a fence could do at a MariaDB server, and every way to write that it would leave: asked, nothing changed."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pymysql

from . import _maria_state as state
from . import _maria_writers as writers
from ._maria_server import DENIED, Session, account, number, quoted, version
from .values import FenceRefused, Level, Preflight, Strategy, Way

# How many names a sentence holds before it says "and N more".
_NAMED = 5
# From here on SUPER does not get past read_only any more (MariaDB Knowledge Base, "GRANT", READ ONLY ADMIN).
_SUPER_IS_BOUND = (10, 11)
_PAST = "READ ONLY ADMIN"
_EVERYBODY = "PUBLIC"
_TABLE_RIGHTS = ("SELECT", "INSERT", "UPDATE", "DELETE", "CREATE", "DROP")
_PROOF_RIGHTS = ("CREATE ROUTINE", "ALTER ROUTINE", "EXECUTE")
_GRANT = re.compile(
    r"GRANT (?P<rights>.+?) ON (?:TABLE )?(?P<schema>\*|`(?:[^`]|``)+`)\.(?P<table>\*|`(?:[^`]|``)+`) TO "
)
_SYSTEM = ("mysql", "sys", "information_schema", "performance_schema")
# Made by the installation, and used by nobody who logs in.
_INSTALLED = frozenset({"mariadb.sys@localhost"})


@dataclass(frozen=True, slots=True)
class Accounts:
    """Who may log in at the server.

    Attributes:
        known: False where the fencer may not see them.
        all: As `user@host`.
        past: Those that `read_only` does not stop, each with the account or role that has the right for it.
    """

    known: bool
    all: tuple[str, ...] = ()
    past: Mapping[str, str] = field(default_factory=dict)


def require_server(session: Session) -> None:
    """Refuse a server that this fence was not made for.

    Raises:
        FenceRefused: It is no MariaDB, or one that is too old.
    """
    found = version(session)
    if found == (0, 0):
        raise FenceRefused(
            f"{session.where} is MySQL {session.value('SELECT @@version')} and no MariaDB: its read_only works "
            "differently (super_read_only, other privileges, other GTIDs) and was not tried; nothing was changed. "
            "Leave the fence out and use `on --no-fence`"
        )
    if found < (10, 5):
        raise FenceRefused(f"{session.where} is MariaDB {found[0]}.{found[1]}: a fence needs 10.5; nothing was changed")


def require_primary(session: Session, standing: state.Standing | None) -> None:
    """Refuse a replica.

    Raises:
        FenceRefused: It replicates, and is read-only by itself.
    """
    ours = standing is not None and standing.server == session.identity
    if session.replicating and session.read_only and not ours:
        raise FenceRefused(
            f"{session.where} is a replica: a fence is raised at the primary, and its replicas follow. Nothing was "
            "changed; is the address from before a failover?"
        )


def preflight(session: Session, writing: Sequence[str], migrators: Sequence[str]) -> Preflight:
    """Return what `read_only` would do at this server."""
    people = accounts(session)
    missing, advised = _rights(session, people)
    for name in migrators:
        there = matching(people.all, [name])
        missing += [f"GRANT {_PAST} ON *.* TO {account(one)}" for one in there if one not in people.past]
    tables = _tables(session)
    mixed = _not_transactional(session)
    if mixed:
        advised.append(
            f"ALTER TABLE {quoted(mixed[0])} ENGINE=InnoDB  -- {_names(mixed)} can't be rolled back: what is ended "
            "half-way leaves half of its rows"
        )
    ways = ways_left(session, people, writing, migrators)
    bypassing = matching(people.past, writing)
    level = Level.HARD if all(way.insists for way in ways) else Level.COOPERATIVE
    why = "read_only makes the whole server refuse"
    if bypassing:
        level = Level.APP_ONLY
        why = f"{_names(bypassing)} has {_PAST}, so read_only does not stop the application"
    neighbours = sorted({schema for schema, _ in tables} - {session.database})
    if neighbours:
        why += f", the databases {_names(neighbours)} as well"
    return Preflight(
        Strategy.GLOBAL, level, why, ways, tuple(dict.fromkeys(missing)), tuple(advised),
        len([1 for schema, _ in tables if schema == session.database]), session.where,
    )  # fmt: skip


def ways_left(session: Session, people: Accounts, writing: Sequence[str], migrators: Sequence[str]) -> tuple[Way, ...]:
    """Return every way to write that `read_only` leaves, those that any client may take first."""
    found: list[Way] = []
    fencer = str(session.value("SELECT CURRENT_USER()"))
    bypassing = matching(people.past, writing)
    if bypassing:
        found.append(
            Way(f"{_names(bypassing)} has {_PAST}, which read_only does not stop", insists=False,
                remedy=f"REVOKE {_PAST} ON *.* FROM {_grantee(people.past[bypassing[0]])}", writers=True)
        )  # fmt: skip
    if not people.known:
        found.append(
            Way(f"accounts with {_PAST}: who has it, this account may not see", insists=False,
                remedy=f"GRANT SELECT ON mysql.* TO {account(fencer)}")
        )  # fmt: skip
    if session.replicating:
        found.append(Way("what the server replicates from another one", insists=False, remedy="STOP ALL SLAVES"))
    if session.value("SELECT @@global.wsrep_on"):
        found.append(
            Way("the other nodes of its Galera cluster", insists=False, remedy="name each node as a fence of its own")
        )
    found += _ways_of_definers(session, people)
    past = [one for one in people.past if one not in bypassing and one not in _INSTALLED]
    past = [one for one in past if one != fencer and not matching([one], migrators)]
    if past:
        there = _connected(session, past)
        now = f" ({there} connected now)" if there else ""
        found.append(Way(f"{_names(past)}, whom read_only does not stop{now}", insists=True))
    waiting = writers.prepared(session)
    if waiting:
        found.append(
            Way(f"an XA COMMIT of {_names([one.prepared for one in waiting])} by one of those", insists=True,
                remedy="XA ROLLBACK or XA COMMIT it before")
        )  # fmt: skip
    found.append(Way("temporary tables", insists=True))
    found.append(
        Way("a restart of the server, which forgets read_only", insists=True,
            remedy="read_only=ON in its configuration until `off`")
    )  # fmt: skip
    return tuple(sorted(found, key=lambda way: way.insists))


def _ways_of_definers(session: Session, people: Accounts) -> list[Way]:
    """Return what runs with the rights of somebody whom `read_only` does not stop."""
    if not people.known:
        return []
    marks = ", ".join(["%s"] * len(_SYSTEM))
    found = []
    routines = [
        (f"{schema}.{name}", schema)
        for schema, name, definer in session.rows(
            "SELECT db, name, definer FROM mysql.proc WHERE security_type = 'DEFINER'"  # noqa: S608 - marks alone
            f" AND type IN ('PROCEDURE', 'FUNCTION') AND db NOT IN ({marks}) ORDER BY db, name",
            _SYSTEM,
        )
        if definer in people.past
    ]
    for mine in (True, False):
        names = [name for name, schema in routines if (schema == session.database) is mine]
        if names:
            found.append(
                Way(f"{_names(names)} runs with its definer's rights (SQL SECURITY DEFINER), whom read_only does not "
                    "stop", insists=not mine, remedy=f"ALTER PROCEDURE {names[0]} SQL SECURITY INVOKER")
            )  # fmt: skip
    if str(session.value("SELECT @@global.event_scheduler")).upper() == "ON":
        events = [
            f"{schema}.{name}"
            for schema, name, definer in session.rows(
                "SELECT db, name, definer FROM mysql.event WHERE status = 'ENABLED' ORDER BY db, name"
            )
            if definer in people.past
        ]
        if events:
            found.append(
                Way(f"the event {_names(events)}, whose definer read_only does not stop", insists=False,
                    remedy=f"ALTER EVENT {events[0]} DISABLE")
            )  # fmt: skip
    return found


def accounts(session: Session) -> Accounts:
    """Return who may log in, and who of them writes on while the server is read-only, by themselves or by a role."""
    try:
        people = session.rows("SELECT User, Host, is_role FROM mysql.user ORDER BY User, Host")
        granted = session.rows("SELECT User, Host, Role FROM mysql.roles_mapping")
        privileges = session.rows("SELECT GRANTEE, PRIVILEGE_TYPE FROM information_schema.USER_PRIVILEGES")
    except pymysql.MySQLError as error:
        if number(error) not in DENIED:
            raise
        return Accounts(known=False)
    enough = _enough(session)
    holding = {_plain(grantee) for grantee, right in privileges if right.replace("_", " ") in enough}
    # A role stands there as an account without a host, and its rights in its own grants alone.
    for role in [user for user, _host, is_role in people if is_role == "Y"]:
        everywhere, _ = _granted(session, f"SHOW GRANTS FOR {role if role == _EVERYBODY else quoted(role)}")
        if everywhere & enough:
            holding.add(f"{role}@")
    reach: dict[str, list[str]] = {}
    for user, host, role in granted:
        reach.setdefault(f"{user}@{host}", []).append(f"{role}@")
    past = {}
    known = tuple(f"{user}@{host}" for user, host, is_role in people if is_role != "Y")
    for one in known:
        may = [name for name in _reached(one, reach) if name in holding]
        if may:
            past[one] = may[0]
    return Accounts(known=True, all=known, past=past)


def _reached(name: str, reach: Mapping[str, Sequence[str]]) -> list[str]:
    """Return an account with every role that it may take, and what everybody has."""
    found = [name, f"{_EVERYBODY}@"]
    for one in found:
        found += [role for role in reach.get(one, ()) if role not in found]
    return found


def matching(people: Collection[str], names: Sequence[str]) -> tuple[str, ...]:
    """Return those accounts that a configuration names, as `user` or as `user@host`."""
    return tuple(one for one in people if one in names or one.rpartition("@")[0] in names)


def users(names: Sequence[str]) -> frozenset[str]:
    """Return the names of accounts without their hosts."""
    return frozenset(name.rpartition("@")[0] or name for name in names)


def may_prove(session: Session) -> bool:
    """Tell whether the fencer may make and run a procedure that writes as somebody else."""
    everywhere, here = _own(session)
    return "SET USER" in everywhere and not set(_PROOF_RIGHTS) - everywhere - here


def require_writers(session: Session, people: Accounts, names: Sequence[str]) -> None:
    """Refuse a configuration that names an account which does not exist.

    Raises:
        FenceRefused: There is none of that name.
    """
    missing = [name for name in names if people.known and not matching(people.all, [name])]
    if missing:
        raise FenceRefused(
            f"writers={missing!r}: there is no such account at {session.where}; nothing was changed. Name the accounts "
            "that the application connects as"
        )


def _rights(session: Session, people: Accounts) -> tuple[list[str], list[str]]:
    """Return the grants that the fencer lacks, and those that would help."""
    fencer = account(str(session.value("SELECT CURRENT_USER()")))
    everywhere, here = _own(session)
    missing, advised = [], []
    if not _enough(session) & everywhere:
        missing.append(f"GRANT {_PAST} ON *.* TO {fencer}")
    if "PROCESS" not in everywhere:
        missing.append(f"GRANT PROCESS ON *.* TO {fencer}")
    if set(_TABLE_RIGHTS) - everywhere - here:
        table = f"{quoted(session.database)}.{state.TABLE}"
        missing.append(f"GRANT {', '.join(_TABLE_RIGHTS)} ON {table} TO {fencer}")
    if not {"CONNECTION ADMIN", "SUPER"} & everywhere:
        advised.append(f"GRANT CONNECTION ADMIN ON *.* TO {fencer}  -- to end what will not finish")
    if not people.known:
        advised.append(f"GRANT SELECT ON mysql.* TO {fencer}  -- to see whom read_only does not stop")
    if "SET USER" not in everywhere or set(_PROOF_RIGHTS) - everywhere - here:
        advised.append(
            f"GRANT SET USER ON *.* TO {fencer}; GRANT {', '.join(_PROOF_RIGHTS)} ON {quoted(session.database)}.* TO "
            f"{fencer}  -- to prove the fence by a write with the application's own account"
        )
    return missing, advised


def _own(session: Session) -> tuple[set[str], set[str]]:
    """Return this account's rights everywhere, and in the fenced database or on the fence's table."""
    return _granted(session, "SHOW GRANTS")


def _granted(session: Session, question: str) -> tuple[set[str], set[str]]:
    everywhere: set[str] = set()
    here: set[str] = set()
    for (line,) in session.rows(question):
        found = _GRANT.match(line)
        if found is None:
            continue
        rights = {right.strip().replace("_", " ") for right in found["rights"].split(",")}
        if "ALL PRIVILEGES" in rights:
            rights |= {_PAST, "PROCESS", "CONNECTION ADMIN", "SET USER", *_TABLE_RIGHTS, *_PROOF_RIGHTS}
        schema, table = _unquoted(found["schema"]), _unquoted(found["table"])
        if schema == "*":
            everywhere |= rights
        elif _like(schema, session.database) and table in ("*", state.TABLE):
            here |= rights
    return everywhere, here


def _tables(session: Session) -> list[tuple[str, str]]:
    """Return the InnoDB tables of every database, (schema, table), as whoever has PROCESS sees them."""
    if not session.allowed("SELECT 1 FROM information_schema.INNODB_SYS_TABLES LIMIT 1"):
        return []
    found = []
    for (name,) in session.rows("SELECT NAME FROM information_schema.INNODB_SYS_TABLES WHERE NAME LIKE '%/%'"):
        schema, _, table = str(name).partition("/")
        if schema not in _SYSTEM and table != state.TABLE and not table.startswith("#"):
            found.append((schema, table.partition("#")[0]))
    return sorted(set(found))


def _not_transactional(session: Session) -> list[str]:
    """Return the tables of the fenced database, as far as they may be seen, whose engine has no transactions."""
    rows = session.rows(
        "SELECT t.TABLE_NAME, t.ENGINE FROM information_schema.TABLES t JOIN information_schema.ENGINES e"
        " ON e.ENGINE = t.ENGINE WHERE t.TABLE_SCHEMA = %s AND t.TABLE_TYPE = 'BASE TABLE' AND e.TRANSACTIONS <> 'YES'"
        " ORDER BY t.TABLE_NAME",
        [session.database],
    )
    return [f"{name}" for name, _engine in rows]


def _connected(session: Session, people: Sequence[str]) -> int:
    if not session.allowed("SELECT 1 FROM information_schema.INNODB_TRX LIMIT 1"):  # PROCESS: else only our own show
        return 0
    return len(writers.sessions_of(session, users(people)))


def _enough(session: Session) -> set[str]:
    """Return the rights each of which gets past `read_only`."""
    return {_PAST} if version(session) >= _SUPER_IS_BOUND else {_PAST, "SUPER"}


def _grantee(name: str) -> str:
    """Return an account or a role as the statements want it."""
    role, _, host = name.rpartition("@")
    return account(name) if host else role


def _plain(grantee: Any) -> str:
    """Return `'user'@'host'` without the quotes."""
    user, _, host = str(grantee).rpartition("@")
    return f"{user.strip(chr(39))}@{host.strip(chr(39))}"


def _unquoted(name: str) -> str:
    return name if name == "*" else name[1:-1].replace("``", "`")


def _like(pattern: str, name: str) -> bool:
    """Match a database's name in a grant: `_` and `%` are wildcards there, unless escaped."""
    out, escaped = "", False
    for character in pattern:
        if escaped:
            out, escaped = out + re.escape(character), False
        elif character == "\\":
            escaped = True
        else:
            out += {"%": ".*", "_": "."}.get(character, re.escape(character))
    return re.fullmatch(out, name) is not None


def _names(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_NAMED])
    return shown + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")
