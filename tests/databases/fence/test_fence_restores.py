"""What a fence took is given back by name: the same dump and the same grants as before, but for the migration's own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest

from readonly.databases.fence import FenceError, Pass, Strategy
from support.fence_layouts import REFUSED_READ_ONLY, REFUSED_RIGHT, Shop, one_role, two_roles

WRITE = "INSERT INTO story (title) VALUES ('x')"


def test_nothing_is_left_of_it(site: Shop) -> None:
    """`pg_dump --schema-only`, grants and default privileges included, before and after."""
    before = site.schema()
    fenced = site.up()
    during = site.schema()
    assert during != before
    # A copy made that night says whose fence it carries; and everybody can make one.
    assert site.sql("SELECT site || ' ' || raised_by FROM readonly_fence.fence") == "shop ada"
    assert site.tried(site.app, "SELECT * FROM readonly_fence.taken") == [""]
    lifted = site.fence().lift(site="shop")
    assert lifted.down
    assert lifted.given_back >= 4
    assert not lifted.lost
    assert site.schema() == before
    assert fenced.strategy in {Strategy.REVOKE, Strategy.EACH, Strategy.GATE}


# Creates, drops, renames, and grants anew: what both layouts have.
MIGRATION = """
CREATE TABLE tag (id serial PRIMARY KEY, story int REFERENCES story);
CREATE VIEW tagged AS SELECT story FROM tag;
GRANT DELETE ON tag TO app_rw;
ALTER TABLE score RENAME TO result;
ALTER TABLE comment RENAME COLUMN likes TO hearts;
ALTER TABLE story ADD COLUMN words int;
GRANT SELECT (words), UPDATE (words) ON story TO rogue;
REVOKE SELECT ON story FROM app_rw; GRANT REFERENCES ON story TO app_rw WITH GRANT OPTION;
DROP TABLE score_2026;
CREATE TABLE result_2027 PARTITION OF result FOR VALUES FROM ('2027-01-01') TO ('2028-01-01');
"""
# Every privilege that anybody has on anything here, whatever the order in which it was given; and what a role is told.
GRANTS = """
WITH granted(what, acl) AS (
    SELECT 'relation ' || relname, relacl FROM pg_class
     UNION ALL SELECT 'column ' || attrelid::regclass || '.' || attname, attacl FROM pg_attribute
     UNION ALL SELECT 'schema ' || nspname, nspacl FROM pg_namespace
     UNION ALL SELECT 'function ' || proname, proacl FROM pg_proc
     UNION ALL SELECT 'type ' || typname, typacl FROM pg_type
     UNION ALL SELECT 'default ' || defaclrole::regrole || ' ' || defaclobjtype::text, defaclacl FROM pg_default_acl
     UNION ALL SELECT 'database', datacl FROM pg_database WHERE datname = current_database())
SELECT what || ': ' || privilege_type || ' to ' || grantee::regrole || ' by ' || grantor::regrole || ' ' || is_grantable
  FROM granted, aclexplode(acl)
UNION ALL
SELECT 'member: ' || member::regrole || ' of ' || roleid::regrole || ' ' || admin_option FROM pg_auth_members
UNION ALL
SELECT 'setting: ' || setrole::regrole || ' ' || setconfig::text FROM pg_db_role_setting
 WHERE setdatabase = (SELECT oid FROM pg_database WHERE datname = current_database())
UNION ALL
SELECT 'owner: ' || relname || ' ' || relowner::regrole FROM pg_class WHERE relnamespace = 'public'::regnamespace
ORDER BY 1
"""


@pytest.fixture
def twin(site: Shop) -> Iterator[Shop]:
    """A database like the one that is fenced, which is migrated without a fence."""
    with (two_roles if site.app != site.owner else one_role)(site.server) as made:
        if "readonly_fence" in site.schema():
            made.fence().install(site="shop", by="ada")
        yield made


def test_all_is_as_without_a_fence_but_for_the_migration(site: Shop, twin: Shop) -> None:
    """`pg_dump --schema-only` and all grants after the lift: those of a twin that was migrated without a fence."""
    assert site.sql(GRANTS) == twin.sql(GRANTS)
    site.up(run=Pass("7f3c", "token"))
    fenced = site.sql(GRANTS) + site.schema()
    assert fenced != twin.sql(GRANTS) + twin.schema()
    site.as_owner(MIGRATION, options="-c readonly.run=token")
    site.fence().look_again(site="shop", timeout=10)
    site.fence().lift(site="shop")
    twin.as_owner(MIGRATION)
    if "readonly_fence" in twin.schema():
        # What was adopted is so whole: under the fence the look has put the gate on new tables, too.
        twin.fence().install(site="shop", by="ada")
    # Who was granted what first is nobody's business: the lines of each, in any order.
    for found, wanted in ((site.sql(GRANTS), twin.sql(GRANTS)), (site.schema(), twin.schema())):
        there, without = Counter(found.splitlines()), Counter(wanted.splitlines())
        assert (there - without, without - there) == (Counter(), Counter())


def test_the_migration_changes_what_it_changes(shop: Shop) -> None:
    """Created, dropped, renamed, swapped, re-granted under the fence: as if there had been none."""
    migration = """
        CREATE TABLE tag (id int);
        DROP TABLE comment;
        ALTER TABLE score RENAME TO result;
        CREATE TABLE story_new (LIKE story INCLUDING ALL);
        DROP TABLE story CASCADE; ALTER TABLE story_new RENAME TO story;
        GRANT DELETE ON tag TO app_rw;
        REVOKE SELECT ON score_2026 FROM app;
    """
    shop.up()
    shop.as_owner(migration)
    again = shop.fence().look_again(site="shop", timeout=10)
    assert again.found == ("DELETE on public.tag for app_rw",)
    assert shop.tried("app", "INSERT INTO tag VALUES (1)", "DELETE FROM tag", WRITE, "DELETE FROM result") == [
        REFUSED_RIGHT, REFUSED_RIGHT, REFUSED_RIGHT, REFUSED_RIGHT,
    ]  # fmt: skip
    lifted = shop.fence().lift(site="shop")
    gone = {sentence.partition(":")[0] for sentence in lifted.lost}
    assert gone == {
        "INSERT on public.comment for public", "UPDATE on public.comment (likes) for app",
        "INSERT on public.headline for app",
        "USAGE on public.story_id_seq for app_rw",
    }  # fmt: skip
    assert shop.tried("app", "INSERT INTO tag VALUES (1)", "DELETE FROM tag", "DELETE FROM result") == ["", "", ""]
    # The swapped table has what its namesake had; its sequence went with the old one, as it would have without a fence.
    assert shop.tried("app", "INSERT INTO story (id, title) VALUES (7, 'x')", "DELETE FROM story") == ["", ""]
    assert "readonly_fence" not in shop.schema()


def test_what_was_granted_meanwhile_stays(shop: Shop) -> None:
    """An access list is never overwritten."""
    shop.up()
    shop.as_owner("GRANT REFERENCES ON story TO app; GRANT SELECT ON story TO rogue; REVOKE SELECT ON comment FROM app")
    shop.fence().lift(site="shop")
    acl = shop.sql("SELECT relacl FROM pg_class WHERE relname = 'story'")
    assert "app=x/owner_" in acl
    assert "rogue=r/owner_" in acl
    assert "app=r" not in shop.sql("SELECT relacl FROM pg_class WHERE relname = 'comment'")
    assert shop.tried("app", "UPDATE comment SET likes = 2") == [""]


def test_grant_options_and_their_grantors_come_back(shop: Shop) -> None:
    """A privilege that was granted on by a writer: given back as it was, by whom it was."""
    shop.as_owner("GRANT UPDATE ON story TO app WITH GRANT OPTION")
    shop.session("app").execute("GRANT UPDATE (title) ON story TO app_rw")
    shop.sql("GRANT app TO fencer")
    try:
        before = shop.sql("SELECT relacl FROM pg_class WHERE relname = 'story'")
        columns = shop.sql("SELECT attacl FROM pg_attribute WHERE attrelid = 'story'::regclass AND attname = 'title'")
        shop.up()
        assert shop.tried("app", "UPDATE story SET title = 'y'") == [REFUSED_RIGHT]
        shop.fence().lift(site="shop")
        assert sorted(shop.sql("SELECT relacl FROM pg_class WHERE relname = 'story'")) == sorted(before)
        now = shop.sql("SELECT attacl FROM pg_attribute WHERE attrelid = 'story'::regclass AND attname = 'title'")
        assert now == columns
    finally:
        shop.sql("REVOKE app FROM fencer")


def test_a_dead_lifter_is_followed_by_the_next(solo: Shop) -> None:
    """Lifting in two steps: the gate is opened, the triggers come off; another machine does the rest."""
    solo.up(run=Pass("r", "t"))
    assert solo.tried("solo", WRITE) == [REFUSED_READ_ONLY]
    # As a lifter leaves it that died after the first step: open, no holder, all triggers there.
    solo.sql(
        "CREATE OR REPLACE FUNCTION readonly_fence.gate() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';"
        "DELETE FROM readonly_fence.holder"
    )
    assert solo.tried("solo", WRITE) == [""]
    lifted = solo.fence().lift(site="shop")
    assert (lifted.down, lifted.given_back) == (True, 4)
    assert "readonly_fence" not in solo.schema()


def test_the_gate_is_taken_out_again(solo: Shop) -> None:
    """`uninstall` leaves nothing; not while a fence stands."""
    before = solo.schema()
    solo.fence().install(site="shop", by="ada")
    solo.fence().install(site="shop", by="ada")
    assert solo.tried("solo", WRITE) == [""]
    solo.up()
    with pytest.raises(FenceError, match="the fence stands; lift it first"):
        solo.fence().uninstall(site="shop")
    solo.fence().lift(site="shop")
    assert solo.fence().uninstall(site="shop") == 4
    assert solo.schema() == before


def test_defaults_come_back_as_they_were(shop: Shop) -> None:
    """The cooperative fence: the role's own setting for this database is put back, or taken away."""
    shop.sql("GRANT CREATE ON SCHEMA public TO bare")
    shop.sql("ALTER ROLE fencer CREATEROLE; GRANT pg_read_all_stats TO fencer")
    try:
        shop.sql(f"ALTER ROLE app IN DATABASE {shop.name} SET default_transaction_read_only = off")
        old = shop.session("app", application_name="old")
        fenced = shop.up(strategy=Strategy.DEFAULTS, end_after=0.0)
        assert fenced.level == "cooperative"
        assert [holdup.application for holdup in fenced.ended] == ["old"]
        assert old.closed or shop.tried("app", WRITE) == [REFUSED_READ_ONLY]
        assert shop.tried("app", f"BEGIN READ WRITE; {WRITE}") == [""]
        assert "every client that asks for READ WRITE" in [way.what for way in fenced.ways]
        shop.fence().lift(site="shop")
        found = shop.sql("SELECT setconfig FROM pg_db_role_setting s JOIN pg_database d ON d.oid = setdatabase "
                         f"WHERE datname = '{shop.name}'")  # fmt: skip
        assert found == "{default_transaction_read_only=off}"
        assert shop.tried("app", WRITE) == [""]
    finally:
        shop.sql("ALTER ROLE fencer NOCREATEROLE; REVOKE pg_read_all_stats FROM fencer")
