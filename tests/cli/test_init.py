"""`readonlyctl init`: the one command that may make a store, and the one that never runs over what is there."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.operating import ANNA, BEN, Shop, made


@pytest.fixture
def empty(tmp_path: Path) -> Shop:
    """A site whose store does not exist yet."""
    return Shop(f"sqlite:///{tmp_path}/new.db?site=shop", tmp_path)


def test_it_makes_store_and_record(empty: Shop) -> None:
    """Writable, epoch 1, and the line that every machine needs."""
    done = empty.here("init", "shop")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        f"shop · {empty.url}",
        "Created: WRITABLE, epoch 1.",
        "On every machine that runs or operates the site:",
        f"  READONLY_STORE='{empty.url}'",
    ]
    record = empty.look().record
    assert record is not None
    assert (record.site, record.epoch, record.changed_by, record.protected) == ("shop", 1, "anna", False)
    # Made by a person: it overrules any record that a store makes by itself.
    assert record.lineage > "0"


def test_it_refuses_where_there_is_a_record(shop: Shop) -> None:
    """Exit 6: nothing is wrong with the command, and nothing was changed."""
    shop.on(BEN)
    before = shop.store.read().record
    done = shop.here("init", "shop")
    assert done.returncode == 6
    assert "has a record already" in done.stderr
    assert "nothing was changed" in done.stderr
    assert shop.store.read().record == before


def test_the_name_may_come_from_either_place(empty: Shop) -> None:
    """A URL without a site is completed; one with another site is refused, and makes no file."""
    url, _, _ = empty.url.partition("?")
    wrong = empty.here("--store", f"{url}?site=blog", "init", "shop")
    assert wrong.returncode == 2
    assert "names the site blog" in wrong.stderr
    assert empty.here("--site", "blog", "init", "shop").returncode == 2
    assert list(empty.folder.glob("*.db*")) == []
    assert empty.here("--store", url, "init", "shop").returncode == 0
    assert empty.here("status").returncode == 0


@pytest.mark.parametrize("name", ["sh op", "a&b=c", "", "x" * 65, "site=shop"])
def test_a_name_that_is_none(empty: Shop, name: str) -> None:
    """Exit 2, and nothing is made."""
    url, _, _ = empty.url.partition("?")
    done = empty.here("--store", url, "init", name)
    assert done.returncode == 2
    assert list(empty.folder.glob("*.db*")) == []


def test_stores_that_no_command_can_operate(empty: Shop) -> None:
    """memory:// lives in one process, and a relative path means another file in each folder."""
    for command in (["init", "shop"], ["on"], ["status"]):
        done = empty.here("--store", "memory://?site=shop", *command)
        assert done.returncode == 2
        assert "can't be operated from outside" in done.stderr
        done = empty.here("--store", "sqlite:///new.db?site=shop", *command)
        assert done.returncode == 2
        assert "is relative" in done.stderr
        assert f"{empty.folder}/new.db" in done.stderr
    assert list(empty.folder.glob("*.db*")) == []


def test_a_folder_that_is_not_there(empty: Shop) -> None:
    """Exit 4 with one line, not a traceback."""
    done = empty.here("--store", f"sqlite:///{empty.folder}/none/new.db?site=shop", "init", "shop")
    assert done.returncode == 4
    assert "the folder" in done.stderr
    assert "does not exist" in done.stderr


def test_a_protected_site_is_asked_about(empty: Shop) -> None:
    """Its record says so, and from then on commands want its name."""
    assert empty.here("init", "shop", "--protected").returncode == 0
    assert empty.here("status").stdout.startswith("shop (protected) · ")
    refused = empty.here("on", "--no-wait")
    assert refused.returncode == 6
    assert "say --site shop" in refused.stderr
    assert empty.here("init", "shop", "--replace").returncode == 6
    assert empty.here("--site", "shop", "init", "shop", "--replace", "--protected").returncode == 0


def test_replacing_lifts_everything_on_purpose(shop: Shop) -> None:
    """--replace starts anew above the old epoch; what stood is lifted for everybody."""
    cause = shop.on(BEN)
    done = shop.here("init", "shop", "--replace", "--end-sessions")
    assert done.returncode == 0
    assert "Made anew: WRITABLE, epoch 4." in done.stdout
    record = shop.look().record
    assert record is not None
    assert cause in record.lifted
    assert record.sessions_ended_before() == record.changed_at


def test_a_partial_record_is_made_whole(tmp_path: Path) -> None:
    """`on` over an empty store stands through `init`, which then lets it be lifted."""
    shop = made(tmp_path / "shop.db", initialised=False)
    shop.on(ANNA)
    assert shop.here("off", "--timeout", "100ms").returncode == 4
    done = shop.here("init", "shop")
    assert done.returncode == 0
    assert "Created: READ-ONLY" in done.stdout
    assert shop.standing() == ["anna"]
    assert shop.here("off").returncode == 0


def test_epochs_go_on_where_this_host_remembers_them(shop: Shop) -> None:
    """A store that was lost with all that knew it: the new record is above what stood in it."""
    assert shop.here("on", "--no-wait").returncode == 0
    epoch = shop.look().state.epoch
    assert shop.here("status").returncode == 0
    shop.store.close()
    for path in shop.folder.glob("shop.db*"):
        path.unlink()
    done = shop.here("init", "shop")
    assert done.returncode == 0
    assert f"Created: WRITABLE, epoch {epoch + 1}." in done.stdout
    assert shop.standing() == []
