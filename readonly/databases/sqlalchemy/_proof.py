"""Is a harmless write refused, and does the primary itself take writes: asked on a connection of its own?"""

from __future__ import annotations

from sqlalchemy import Engine, Pool

from readonly.databases import Server, is_accepted, look_anew, way_to

from ._hooks import AUTOCOMMIT, Hooks


def prove(engine: Engine, server: Server, hooks: Hooks) -> str:
    """Return why a harmless write was not refused, on a connection of its own; "" if it was."""
    look_anew(server)
    # The same creator and the same hooks, and no connection taken from the application.
    pool = engine.pool.recreate()
    try:
        problem = _prove_on(pool, engine, server, hooks, autocommit=False)
        # In autocommit the guard is another one. What was declared to be unguarded is said as such, and not tried.
        if problem or not hooks.autocommit or is_accepted(server):
            return problem
        problem = _prove_on(pool, engine, server, hooks, autocommit=True) or way_to(server).get("problem", "")
        return f"in autocommit: {problem}" if problem else ""
    finally:
        pool.dispose()


def _prove_on(pool: Pool, engine: Engine, server: Server, hooks: Hooks, *, autocommit: bool) -> str:
    proxied = pool.connect()
    try:
        dialect, connection = engine.dialect, proxied.dbapi_connection
        if hooks.autocommit and connection is not None:  # the engine's own level may be the one or the other
            dialect.set_isolation_level(connection, AUTOCOMMIT if autocommit else "SERIALIZABLE")
        held = hooks.begin(proxied)
        problem = ""
        # What the guard knows of itself comes first: it says what to do. An engine's own autocommit, in which this
        # connection was handed out, is the second proof's affair.
        if held is not None and autocommit is hooks.autocommit:
            problem = str(held.memory.get("problem", ""))
        problem = problem or server.prove(connection)
        dialect.do_rollback(proxied)
        return problem
    finally:
        proxied.close()


def takes_no_writes(engine: Engine, server: Server) -> str:
    """Return why the primary takes no writes, or "", on a connection of its own."""
    pool = engine.pool.recreate()
    try:
        proxied = pool.connect()
        try:
            return server.takes_no_writes(proxied.dbapi_connection)
        finally:
            proxied.close()
    finally:
        pool.dispose()
