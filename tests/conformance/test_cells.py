"""Every server once, and every framework: the same scenarios over sockets, in every state of the site."""

from __future__ import annotations

from pathlib import Path

import pytest

from conformance.cell import run_cell
from conformance.scenario import Suite, load
from conformance.servers import COVER, SERVERS
from support import missing
from support.missing import ServerMissing


@pytest.fixture(scope="module")
def suite() -> Suite:
    """The scenarios."""
    return load()


@pytest.mark.parametrize(("name", "site", "store"), COVER, ids=[f"{server}, {site}" for server, site, _ in COVER])
def test_a_cell(name: str, site: str, store: str, suite: Suite, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """All is as expected with two workers, switched through the store."""
    server = SERVERS[name]
    if server.never_here:
        pytest.skip(server.never_here)
    url = f"sqlite:///{tmp_path}/store.db?site=conformance"
    if store == "redis":
        url = request.getfixturevalue("redis_server").url()
    lacking: ServerMissing | None = None
    try:
        outcome = run_cell(server, site, suite, url=url, folder=tmp_path)
    except ServerMissing as error:
        lacking = error
    if lacking is not None:
        raise missing.outcome(lacking)  # outside of the handler, or the summary shows both as one failure
    assert not outcome.failures, "\n".join(outcome.failures)
