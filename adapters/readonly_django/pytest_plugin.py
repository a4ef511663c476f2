"""For pytest: `pytest_plugins = ["readonly_django.pytest_plugin"]` in a project's top `conftest.py`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from readonly.switch import Switch

from . import conf
from .test import override_readonly


@pytest.fixture
def read_only_site() -> Iterator[Switch]:
    """The site is read-only while the test runs; the value is the process's switch."""
    with override_readonly():
        yield conf.current_switch()
