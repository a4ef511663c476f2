"""What a project's own tests use: the site read-only for a function, a class, a block, a fixture."""

from __future__ import annotations

import unittest
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.db import connection
from django.test import Client, SimpleTestCase, TestCase, TransactionTestCase

from readonly import ReadOnlyError, Switch
from readonly_django import conf, databases
from readonly_django.pytest_plugin import read_only_site
from readonly_django.test import override_readonly
from support.django_site.models import Article

from .conftest import Visitor

__all__ = ["read_only_site"]


@pytest.fixture
def guarded(switch: Switch) -> Iterator[None]:
    """The databases are guarded, as in a project that has changed nothing."""
    connection.close()
    databases.install(switch)
    yield
    databases.uninstall()


def outcome(case: type[SimpleTestCase]) -> unittest.TestResult:
    """Run a class of tests as Django's runner does."""
    result = unittest.TestResult()
    unittest.defaultTestLoader.loadTestsFromTestCase(case).run(result)
    assert result.testsRun
    problems = "\n".join(text for _, text in (*result.errors, *result.failures))
    assert not problems, problems
    return result


def is_read_only() -> bool:
    """Return whether the process is."""
    return conf.current_switch().state.read_only


def test_blocks_end_where_they_began(switch: Switch) -> None:
    """Nested, and also when they fail; the project's store is never touched."""
    before = switch.store, switch.state.read_only
    epoch = switch.state.epoch
    with override_readonly(message="moving", expected=timedelta(minutes=5)) as given:
        assert given is switch  # type: ignore[comparison-overlap]  # decorators and blocks share a type
        assert switch.state.message == "moving"
        assert switch.state.expected_end is not None
        with override_readonly(False):
            assert not is_read_only()
            with pytest.raises(ValueError, match="x"), override_readonly():
                raise ValueError("x")
            assert not is_read_only()
        assert switch.state.message == "moving"
    assert (switch.store, switch.state.read_only) == before
    assert switch.state.epoch == epoch


@override_readonly()
def test_a_function() -> None:
    """Decorated."""
    assert is_read_only()


@pytest.mark.anyio
@override_readonly()
async def test_a_coroutine_function() -> None:
    """Decorated."""
    assert is_read_only()


def test_the_fixture(project: None, read_only_site: Switch) -> None:
    """Its value is the switch."""
    assert read_only_site.state.read_only
    assert Visitor().post("/").status_code == 503


def test_classes_and_methods_of_test_cases(project: None, guarded: None) -> None:
    """In the transaction that `TestCase` began while the site was writable, too."""

    @override_readonly()
    class ReadOnly(TestCase):
        @classmethod
        def setUpTestData(cls) -> None:
            Article.objects.create(title="made before")

        def test_reads(self) -> None:
            assert Article.objects.count() == 1
            assert self.client.get("/api/articles/").status_code == 200
            assert self.client.post("/").status_code == 503

        def test_the_guard_refuses(self) -> None:
            with pytest.raises(ReadOnlyError):
                Article.objects.create(title="x")

        @override_readonly(False)
        def test_writable_again(self) -> None:
            assert self.client.post("/").status_code == 200

    class Writable(TestCase):
        def test_before(self) -> None:
            Article.objects.create(title="x")

        @override_readonly()
        def test_one_method(self) -> None:
            with pytest.raises(ReadOnlyError):
                Article.objects.create(title="x")

        def test_a_block(self) -> None:
            Article.objects.create(title="x")
            with override_readonly(), pytest.raises(ReadOnlyError):
                Article.objects.create(title="y")
            Article.objects.create(title="z")
            assert Article.objects.count() == 2

    assert outcome(ReadOnly).testsRun == 3
    assert outcome(Writable).testsRun == 3
    assert not is_read_only()


def test_transactional_tests(project: None, guarded: None) -> None:
    """Each statement is a transaction of its own, and the tables are emptied afterwards."""

    @override_readonly()
    class ReadOnly(TransactionTestCase):
        available_apps = ("support.django_site",)

        def test_reads(self) -> None:
            assert Article.objects.count() == 0

        def test_the_guard_refuses(self) -> None:
            with pytest.raises(ReadOnlyError):
                Article.objects.create(title="x")

    class Writable(TransactionTestCase):
        available_apps = ("support.django_site",)

        def test_a_block(self) -> None:
            Article.objects.create(title="x")
            with override_readonly(), pytest.raises(ReadOnlyError):
                Article.objects.create(title="y")
            Article.objects.create(title="z")
            assert Article.objects.count() == 2

    outcome(ReadOnly)
    outcome(Writable)


def test_only_classes_of_tests_are_decorated() -> None:
    """As with Django's own."""
    decorate: Any = override_readonly()
    with pytest.raises(TypeError):
        decorate(Path)


def test_a_client_of_before_sees_it(project: None) -> None:
    """A handler that was made while the site was writable obeys as well."""
    client = Client()
    assert client.post("/").status_code == 200
    with override_readonly():
        assert client.post("/").status_code == 503
    assert client.post("/").status_code == 200
