"""Django behind a real PgBouncer: transactions are guarded, and the sessions of other clients are left alone."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack, closing
from typing import Any

import psycopg
import pytest
from django.db import connection, transaction

from readonly import ReadOnlyError, Switch
from readonly.errors import ConfigurationError
from readonly_django.databases import install
from support.django_site.models import Article
from support.pgbouncer import PgBouncer
from support.waiting import eventually

from .conftest import INSERT, POSTGRESQL, SQLITE, Site, execute, guards_prove

UNGUARDED = "autocommit, behind a pooler in transaction mode"


@pytest.fixture
def pooled(make_site: Callable[..., Site], pgbouncer: PgBouncer) -> Site:
    """`default`, through the pooler."""
    return make_site(POSTGRESQL, PORT=pgbouncer.port)


def others_are_writable(site: Site, pooler: PgBouncer) -> bool:
    """Tell whether strangers find nothing set, on both of the server's connections at once."""
    url = pooler.url(site.url.rpartition("/")[2])
    with ExitStack() as stack:
        strangers = [stack.enter_context(closing(psycopg.connect(url, prepare_threshold=None))) for _ in range(2)]
        found = {
            s.execute("SELECT pg_backend_pid(), current_setting('transaction_read_only')").fetchone() for s in strangers
        }
        assert len(found) == 2
        return all(row is not None and row[1] == "off" for row in found)


@pytest.mark.parametrize("declared", [{}, {"default": "transaction"}])
def test_nothing_is_set_in_a_shared_session(
    pooled: Site, pgbouncer: PgBouncer, switch: Switch, declared: dict[str, Any]
) -> None:
    """Reads in autocommit go on, a transaction can't write, and no other client notices."""
    install(switch, poolers=declared)
    state = switch.on()
    assert pooled.count() == 1
    assert others_are_writable(pooled, pgbouncer)
    with pytest.raises(ReadOnlyError), transaction.atomic():
        Article.objects.create(title="x")
    [guard] = switch.guards
    # The proof forgets what was found before, and finds it again.
    eventually(lambda: guard.describe().get("unguarded") == UNGUARDED, what="the pooler is found")
    # Only who has said that he knows is told "safe".
    assert switch.confirm(state.epoch, timeout=10 if declared else 1).safe is bool(declared)
    [proof] = guards_prove(switch)
    assert ("in autocommit: it can't be guarded" in proof) is not bool(declared)
    switch.off()
    connection.close()
    execute(INSERT)
    assert others_are_writable(pooled, pgbouncer)
    assert pooled.count() == 2


def test_a_session_pool_that_is_declared(
    make_site: Callable[..., Site], pgbouncer_in_sessions: PgBouncer, switch: Switch
) -> None:
    """There autocommit is guarded, too."""
    site = make_site(POSTGRESQL, PORT=pgbouncer_in_sessions.port)
    install(switch, poolers={"default": "session"})
    switch.on()
    with pytest.raises(ReadOnlyError):
        execute(INSERT)
    assert guards_prove(switch) == [""]
    switch.off()
    execute(INSERT)
    assert site.count() == 2


def test_what_can_not_be_declared(make_site: Callable[..., Site], switch: Switch) -> None:
    """An alias that is not there, and a database that knows no poolers."""
    make_site(SQLITE)
    with pytest.raises(ConfigurationError, match="poolers='elsewhere' is no alias"):
        install(switch, poolers={"elsewhere": "session"})
    with pytest.raises(ConfigurationError, match="is about PostgreSQL, and this is sqlite"):
        install(switch, poolers={"default": "session"})
    assert not switch.guarded
