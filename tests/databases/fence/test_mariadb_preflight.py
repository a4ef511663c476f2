"""What preflight says of a MariaDB server: each missing right as its statement, each way that read_only leaves open."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest

from readonly.databases.fence import FenceRefused, Level, Preflight
from readonly.databases.fence import _maria_server as servers
from support.mariadb_layouts import REFUSED, MariaShop, maria_shop


@contextmanager
def changed(maria: MariaShop, there: str, back: str) -> Iterator[None]:
    """Change the server, and put it back."""
    maria.sql(there)
    try:
        yield
    finally:
        maria.sql("SET GLOBAL read_only = 0")
        maria.sql(back)


def left_open(found: Preflight, *, insists: bool = False) -> Sequence[str]:
    """Return the ways that any client may take, or those for which it has to insist."""
    return [way.what for way in found.ways if way.insists is insists]


def test_an_account_without_rights_gets_the_statements_that_give_them(maria: MariaShop) -> None:
    """Run as they were printed they are enough, the advised ones too; before that nothing is changed."""
    bare = maria.fence(fencer="bare")
    with pytest.raises(Exception, match="Access denied"):
        bare.preflight()
    maria.sql(f"GRANT SHOW VIEW ON {maria.name}.* TO bare@'%'")
    found = bare.preflight()
    table = f"`{maria.name}`.readonly_fence"
    assert found.missing == (
        "GRANT READ ONLY ADMIN ON *.* TO 'bare'@'%'",
        "GRANT PROCESS ON *.* TO 'bare'@'%'",
        f"GRANT SELECT, INSERT, UPDATE, DELETE, CREATE, DROP ON {table} TO 'bare'@'%'",
    )
    assert not found.possible
    with pytest.raises(FenceRefused, match="nothing was changed") as refused:
        maria.up(bare)
    assert refused.value.missing == found.missing
    assert not maria.read_only
    assert bare.status() is None
    try:
        maria.sql(";".join(found.missing))
        half = bare.preflight()
        assert (half.missing, half.level) == ((), Level.COOPERATIVE)
        assert left_open(half) == ["accounts with READ ONLY ADMIN: who has it, this account may not see"]
        assert maria.up(bare).level is Level.COOPERATIVE
        bare.lift(site="shop")
        assert [statement.partition("  -- ")[2].split(" by ")[0] for statement in half.advised] == [
            "to end what will not finish", "to see whom read_only does not stop", "to prove the fence",
        ]  # fmt: skip
        maria.sql(";".join(statement.partition("  -- ")[0] for statement in half.advised))
        assert (bare.preflight().advised, bare.preflight().level) == ((), Level.HARD)
        assert maria.up(bare).level is Level.HARD
        bare.lift(site="shop")
    finally:
        maria.sql("REVOKE ALL, GRANT OPTION FROM bare@'%'")


def test_an_application_that_read_only_does_not_stop_is_app_only(maria: MariaShop) -> None:
    """By its own right or by a role's: named, with the statement that takes it."""
    role = "CREATE ROLE mighty; GRANT READ ONLY ADMIN ON *.* TO mighty; GRANT mighty TO app@'%'"
    everybody = "GRANT READ ONLY ADMIN ON *.* TO PUBLIC", "REVOKE READ ONLY ADMIN ON *.* FROM PUBLIC"
    for there, back, who in (
        ("GRANT READ ONLY ADMIN ON *.* TO app@'%'", "REVOKE READ ONLY ADMIN ON *.* FROM app@'%'", "'app'@'%'"),
        (role, "DROP ROLE mighty", "mighty"),
        (*everybody, "PUBLIC"),
    ):
        with changed(maria, there, back):
            found = maria.fence().preflight()
            assert found.level is Level.APP_ONLY
            assert "app@% has READ ONLY ADMIN" in found.why
            assert found.ways[0].remedy == f"REVOKE READ ONLY ADMIN ON *.* FROM {who}"
            assert maria.up().level is Level.APP_ONLY
            maria.fence().lift(site="shop")
    assert maria.fence().preflight().level is Level.HARD


def test_a_proof_finds_what_the_grants_did_not_tell(maria: MariaShop, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write with the application's own account is tried: one that goes through is no hard fence."""
    from readonly.databases.fence import _maria_preflight

    honest = _maria_preflight.accounts

    def blind(session: servers.Session) -> _maria_preflight.Accounts:
        found = honest(session)
        return _maria_preflight.Accounts(True, found.all, {one: by for one, by in found.past.items() if one != "app@%"})

    monkeypatch.setattr(_maria_preflight, "accounts", blind)
    with changed(maria, "GRANT READ ONLY ADMIN ON *.* TO app@'%'", "REVOKE READ ONLY ADMIN ON *.* FROM app@'%'"):
        fenced = maria.up()
        assert fenced.level is Level.COOPERATIVE
        assert fenced.ways[0].what.startswith("app@%: a write with this account, tried as a proof, went through")
        maria.fence().lift(site="shop")
    assert maria.up().level is Level.HARD


def test_other_accounts_that_are_not_stopped_are_named(maria: MariaShop) -> None:
    """Who insists is named beside the level; how many of them are connected, too. The migrator is expected to."""
    maria.session("boss")
    (others,) = [what for what in left_open(maria.fence().preflight(), insists=True) if "boss@%" in what]
    assert "root@localhost" in others
    assert "migrator" not in others
    assert "fencer" not in others
    assert "connected now" in others
    assert maria.tried("boss", "SET GLOBAL read_only = 1", "INSERT INTO story (title) VALUES ('x')") == [0, 0]


def test_a_migrator_without_the_right_is_missing_it(maria: MariaShop) -> None:
    """It was named as one that must go on writing, and would be refused."""
    with changed(maria, "REVOKE READ ONLY ADMIN ON *.* FROM migrator@'%'", "GRANT READ ONLY ADMIN ON *.* TO migrator"):
        assert maria.fence().preflight().missing == ("GRANT READ ONLY ADMIN ON *.* TO 'migrator'@'%'",)
        with pytest.raises(FenceRefused, match="READ ONLY ADMIN"):
            maria.up()


def test_a_routine_of_somebody_who_is_not_stopped_is_a_way(maria: MariaShop) -> None:
    """SQL SECURITY DEFINER with a privileged definer writes on; an INVOKER's and an ordinary definer's do not."""
    maria.sql(
        "CREATE DEFINER=boss@'%' PROCEDURE open_() SQL SECURITY DEFINER INSERT INTO story (title) VALUES ('x');"
        "CREATE DEFINER=boss@'%' PROCEDURE shut() SQL SECURITY INVOKER INSERT INTO story (title) VALUES ('x');"
        "CREATE DEFINER=rogue@'%' PROCEDURE plain() SQL SECURITY DEFINER INSERT INTO story (title) VALUES ('x')"
    )
    found = maria.fence().preflight()
    assert found.level is Level.COOPERATIVE
    assert left_open(found) == [
        f"{maria.name}.open_ runs with its definer's rights (SQL SECURITY DEFINER), whom read_only does not stop"
    ]
    assert maria.up().level is Level.COOPERATIVE
    assert maria.tried("app", "CALL open_()", "CALL shut()", "CALL plain()") == [0, REFUSED, REFUSED]
    maria.fence().lift(site="shop")
    maria.sql(found.ways[0].remedy)
    assert maria.fence().preflight().level is Level.HARD


def test_an_event_of_somebody_who_is_not_stopped_is_a_way(maria: MariaShop) -> None:
    """While the scheduler runs; it is named with what disables it."""
    maria.sql(
        "CREATE DEFINER=boss@'%' EVENT nightly ON SCHEDULE EVERY 1 DAY DO DELETE FROM comment;"
        "CREATE DEFINER=rogue@'%' EVENT plain ON SCHEDULE EVERY 1 DAY DO DELETE FROM comment"
    )
    assert maria.fence().preflight().level is Level.HARD
    with changed(maria, "SET GLOBAL event_scheduler = ON", "SET GLOBAL event_scheduler = OFF"):
        found = maria.fence().preflight()
        assert left_open(found) == [f"the event {maria.name}.nightly, whose definer read_only does not stop"]
        assert found.ways[0].remedy == f"ALTER EVENT {maria.name}.nightly DISABLE"
        maria.sql(found.ways[0].remedy)
        assert maria.fence().preflight().level is Level.HARD


def test_what_the_whole_server_means_is_said(maria: MariaShop) -> None:
    """Other databases stop as well; tables without transactions are named with what changes that."""
    with maria_shop(maria.server) as other:
        maria.sql(f"CREATE TABLE log (n int) ENGINE=MyISAM; GRANT SHOW VIEW ON {maria.name}.* TO fencer@'%'")
        found = maria.fence().preflight()
        assert found.tables == 2
        assert f"the databases {other.name} as well" in found.why
        (advice,) = found.advised
        assert advice.startswith("ALTER TABLE `log` ENGINE=InnoDB  -- log can't be rolled back")
        maria.up()
        assert maria.tried("app", "INSERT INTO log VALUES (1)") == [REFUSED]
        assert other.tried("app", "INSERT INTO story (title) VALUES ('x')") == [REFUSED]


def test_an_account_that_does_not_exist_is_refused(maria: MariaShop) -> None:
    """A misspelled writer would make the level a lie."""
    with pytest.raises(FenceRefused, match=r"writers=\['ap'\]: there is no such account"):
        maria.fence(writers=["ap"]).preflight()
    assert maria.fence(writers=["app@%"]).preflight().possible


@pytest.mark.parametrize(
    ("told", "complaint"),
    [("8.0.36", "is MySQL 8.0.36 and no MariaDB"), ("10.4.32-MariaDB-log", "is MariaDB 10.4: a fence needs 10.5")],
)
def test_a_server_that_was_not_tried_is_refused(
    maria: MariaShop, monkeypatch: pytest.MonkeyPatch, told: str, complaint: str
) -> None:
    """MySQL's read_only works differently, and so does that of old MariaDBs."""
    honest = servers.Session.value
    monkeypatch.setattr(
        servers.Session,
        "value",
        lambda self, query, *more: told if "@@version" in query else honest(self, query, *more),
    )
    with pytest.raises(FenceRefused, match=complaint):
        maria.up()


def test_before_10_11_super_is_not_stopped_either(maria: MariaShop, monkeypatch: pytest.MonkeyPatch) -> None:
    """The right was a part of SUPER."""
    from readonly.databases.fence import _maria_preflight

    with changed(maria, "GRANT SUPER ON *.* TO app@'%'", "REVOKE SUPER ON *.* FROM app@'%'"):
        assert maria.fence().preflight().level is Level.HARD
        maria.up()
        assert maria.tried("app", "INSERT INTO story (title) VALUES ('x')") == [REFUSED]
        maria.fence().lift(site="shop")
        monkeypatch.setattr(_maria_preflight, "version", lambda session: (10, 6))
        assert maria.fence().preflight().level is Level.APP_ONLY
