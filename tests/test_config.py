"""Which store the operator works on: what was typed, the environment, a file; and what is said when none will do."""

from __future__ import annotations

from pathlib import Path

import pytest

from readonly.config import operator_config
from readonly.confirmation import Expected
from readonly.errors import ConfigurationError

URL, OTHER = "redis://flag.internal/0?site=shop", "sqlite:////srv/flag.db?site=shop"


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in a folder of the test's own."""
    monkeypatch.chdir(tmp_path)


def write(text: str, name: str = "readonly.toml") -> Path:
    """Write a file into the folder we are in."""
    path = Path(name)
    path.write_text(text, encoding="utf-8")
    return path


def test_what_was_typed_wins() -> None:
    """Then the environment, then a file; the source is told."""
    path = write(f'store = "{OTHER}"\n')
    found = operator_config(store=URL, config=path, environ={"READONLY_STORE": OTHER})
    assert (found.store, found.source) == (URL, "--store")
    found = operator_config(config=path, environ={"READONLY_STORE": URL})
    assert (found.store, found.source) == (URL, "READONLY_STORE")
    found = operator_config(config=path, environ={})
    assert (found.store, found.source) == (OTHER, "readonly.toml")


def test_the_file_is_the_one_named_or_the_one_here() -> None:
    """`--config`, READONLY_CONFIG, ./readonly.toml."""
    write(f'store = "{OTHER}?here"\n')
    write(f'store = "{OTHER}?named"\n', "named.toml")
    write(f'store = "{OTHER}?environment"\n', "environment.toml")
    environ = {"READONLY_CONFIG": "environment.toml"}
    assert operator_config(config="named.toml", environ=environ).store.endswith("named")
    assert operator_config(environ=environ).store.endswith("environment")
    assert operator_config(environ={}).store.endswith("here")


def test_nothing_named_says_how_to_name_it() -> None:
    """With all three ways, and the trap of sudo."""
    with pytest.raises(ConfigurationError, match=r"--store.*READONLY_STORE.*readonly\.toml.*sudo"):
        operator_config(environ={"READONLY_STORE": ""})


def test_who_must_be_there_comes_from_the_same_places() -> None:
    """The environment before the file, as for the store."""
    write(f'store = "{URL}"\nexpect = "web=4"\n')
    assert operator_config(environ={}).expect == {"web": Expected(4, at_least=False)}
    found = operator_config(environ={"READONLY_EXPECT": "web=2,celery>=1"})
    assert found.expect == {"web": Expected(2, at_least=False), "celery": Expected(1)}
    with pytest.raises(ConfigurationError, match="expect="):
        operator_config(environ={"READONLY_EXPECT": "web"})


def test_no_password_need_stand_in_the_file() -> None:
    """${VARIABLE} is filled in, any number of times; one that is not set is named."""
    write('store = "rediss://ops:${FLAG_PASSWORD}@flag/${N}?site=shop"\n')
    found = operator_config(environ={"FLAG_PASSWORD": "a}b${N}", "N": "0"})
    assert found.store == "rediss://ops:a}b${N}@flag/0?site=shop"
    with pytest.raises(ConfigurationError, match=r"store names \$\{N\}"):
        operator_config(environ={"FLAG_PASSWORD": "x"})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("store = ", "is no TOML"),
        ("store = 5\n", "store=5 must be text"),
        ('stroe = "x"\n', "stroe is no setting"),
        ('store = "x"\n[fence.main]\nurl = "x"\nwriter = ["a"]\n', "fence.main.writer is no setting"),
        ('store = "x"\n[fence.main]\nurl = "x"\nwriters = "a"\n', "fence.main.writers='a' must be a list"),
        ('store = "x"\n[fence.main]\nurl = 5\n', "fence.main.url must be text"),
        ('store = "x"\n[fence.main]\nwriters = ["a"]\n', "fence.main names no database"),
        ('store = "x"\nfence = "main"\n', "fence must be a table"),
        ('store = "${OPEN"\n', "OPEN"),
        ('expect = "web"\nstore = "x"\n', "expect="),
    ],
)
def test_a_file_that_cannot_be_right_is_named(text: str, said: str) -> None:
    """With what is wrong in it; nothing is guessed."""
    write(text)
    with pytest.raises(ConfigurationError, match="expect=" if said == "expect=" else rf"readonly\.toml: .*{said}"):
        operator_config(environ={})


def test_a_file_that_is_not_there_is_named() -> None:
    """One that was named must be there; a folder is no file; text must be UTF-8."""
    with pytest.raises(ConfigurationError, match=r"gone\.toml: can't be read"):
        operator_config(config="gone.toml", environ={})
    with pytest.raises(ConfigurationError, match=r"gone\.toml"):
        operator_config(environ={"READONLY_CONFIG": "gone.toml"})
    Path("folder").mkdir()
    with pytest.raises(ConfigurationError, match="folder: can't be read"):
        operator_config(config="folder", environ={})
    Path("latin.toml").write_bytes(b'store = "\xe4"')
    with pytest.raises(ConfigurationError, match="is no TOML"):
        operator_config(config="latin.toml", environ={})


def test_a_fence_is_read_with_its_secrets_from_the_environment() -> None:
    """Nothing of its URL is shown, and a file with a password in it is not everybody's to read."""
    path = write(
        'store = "x"\n[fence.main]\nurl = "postgresql://fencer:${PW}@db1/shop"\nwriters = ["app"]\n'
        'migrators = ["owner"]\nstrategy = "gate"\n'
    )
    (found,) = operator_config(environ={"PW": "geheim"}).fences
    assert (found.name, found.url, found.writers, found.migrators, found.strategy) == (
        "main", "postgresql://fencer:geheim@db1/shop", ("app",), ("owner",), "gate",
    )  # fmt: skip
    assert "geheim" not in repr(found)
    path.write_text('store = "x"\n[fence.main]\nurl = "postgresql://fencer:geheim@db1/shop"\n', encoding="utf-8")
    path.chmod(0o644)
    with pytest.raises(ConfigurationError, match="chmod 600 it") as caught:
        operator_config(environ={})
    assert "geheim" not in str(caught.value)
    path.chmod(0o600)
    assert operator_config(environ={}).fences[0].name == "main"
