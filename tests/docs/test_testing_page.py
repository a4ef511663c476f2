"""docs/testing.md, typed from its first line to its last; its other samples find what they are meant to find."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from readonly.testing import Kind, walk
from support.typed_page import Page
from testing.flask_shop import site as flask_site
from testing.shop import opened

PAGE = Path(__file__).resolve().parents[2] / "docs" / "testing.md"
VARIABLE = [(r"in \d+\.\d\ds( \(.*\))?", "in SECONDS"), (r"tally\.py:\d+", "tally.py:LINE")]
TEXT = PAGE.read_text(encoding="utf-8")


# On a machine that does much else it takes minutes.
@pytest.mark.timeout(900)
def test_the_page_as_it_is_typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The mistake is found, in these words; mended, the walk passes and says how much it looked at."""
    # What else is installed beside pytest here has no part in what the page shows.
    monkeypatch.setenv("PYTEST_ADDOPTS", "-p no:randomly -p no:anyio -p no:cacheprovider")
    with Page(PAGE, tmp_path, variable=VARIABLE) as page:
        page.check()


def test_every_finding_is_explained() -> None:
    """The table has the words of all findings, and no others."""
    table = TEXT.partition("| it says | which means |")[2].partition("\n\n")[0]
    assert re.findall(r"^\| (?!-)([^|]+) \|", table, re.MULTILINE) == [str(kind) for kind in Kind]


def sample(name: str, given: dict[str, Any]) -> Any:
    """Return the test function that a sample defines."""
    found = re.search(rf"<!-- sample: {name} -->\n```python\n(.*?)```", TEXT, re.DOTALL)
    assert found is not None
    exec(compile(found[1], name, "exec"), given)
    return given["test_no_route_writes_while_read_only"]


@pytest.mark.parametrize("planted", ["", "cart"])
def test_the_flask_sample(planted: str, tmp_path: Path) -> None:
    """It finds what was planted, and asks for examples of bodies."""
    with opened(tmp_path, planted) as shop:
        app = flask_site(shop)
        found = sample("walk-flask", {"app": app, "engine": shop.engine})
        seen: list[Any] = []
        try:
            found(lambda *args, **kwargs: seen.append(walk(*args, **kwargs)))
        finally:
            app.extensions["readonly"].close()
    kinds = {finding.kind for finding in seen[0].findings}
    assert (Kind.WRITES_ON_READ in kinds) is bool(planted)
    assert kinds - {Kind.WRITES_ON_READ} == {Kind.NO_BODY}


@pytest.mark.parametrize("planted", ["", "cart"])
def test_the_django_sample(planted: str, tmp_path: Path) -> None:
    """On a project whose settings name a store that is not there: it is this process alone that is switched."""
    from django.test import override_settings

    from readonly_django import conf, databases
    from readonly_django.test import override_readonly
    from support.django_site.aliases import create_tables, settings_of
    from support.django_site.aliases import databases as aliases
    from support.django_site.models import Article
    from testing.django_shop import DISCARD, MIDDLEWARE, urls

    readonly = {"STORE": "redis://127.0.0.1:1/0?site=shop", "GUARD": False, "READS": ["POST /export"]}
    settings = override_settings(ROOT_URLCONF=urls(planted), MIDDLEWARE=MIDDLEWARE, READONLY=readonly)
    seen: list[Any] = []
    with aliases(default=settings_of(f"sqlite:///{tmp_path}/site.db")), settings:
        create_tables()
        Article.objects.create(title="boots")
        databases.install(conf.current_switch(), discard=DISCARD)
        try:
            found = sample("walk-django", {})
            # As in a project's CI, whose store is there, or is one of memory.
            with override_readonly(False):
                found(lambda *args, **kwargs: seen.append(walk(*args, **kwargs)), db=None)
        finally:
            databases.uninstall()
            conf.switch.close()
    kinds = {finding.kind for finding in seen[0].findings}
    assert (Kind.WRITES_ON_READ in kinds) is bool(planted)
    assert kinds <= {Kind.WRITES_ON_READ, Kind.NO_BODY, Kind.FAILED}
