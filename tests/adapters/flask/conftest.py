"""Applications behind the extension, and what ends them after a test."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from flask import Flask

from readonly import Policy, Switch
from readonly_flask import ReadOnly
from support.flask_sites import MakeApp, installed


@pytest.fixture
def make_app() -> Iterator[MakeApp]:
    """Make applications: `make_app(READONLY_…=…)`, in memory unless a store is named; closed at the end."""
    made: list[Flask] = []

    def make(
        name: str = "site",
        *,
        switch: Switch | None = None,
        policy: Policy | None = None,
        wrap: bool = True,
        options: dict[str, Any] | None = None,
        **config: Any,
    ) -> Flask:
        app = Flask(name, root_path=".", **(options or {}))
        app.config.update(SECRET_KEY="a key of this site", **config)
        if switch is None:
            app.config.setdefault("READONLY_STORE", "memory://")
        if wrap:
            ReadOnly(app, switch=switch, policy=policy)
        made.append(app)
        return app

    yield make
    for app in made:
        if "readonly" in app.extensions:
            installed(app).close()
