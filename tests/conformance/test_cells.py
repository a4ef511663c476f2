"""Every server once, and every framework: the same scenarios over sockets, in every state of the site."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from conformance.cell import Outcome, run_cell
from conformance.scenario import load
from conformance.servers import COVER, SERVERS
from support import children, missing
from support.missing import ServerMissing

# A cell waits for processes half of its time.
AT_ONCE = 2
# Each test waits for its cell, which may be the last to be run.
pytestmark = pytest.mark.timeout(1800)


@pytest.fixture(scope="module")
def cells(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Future[Outcome]]]:
    """What becomes of the cells whose tests were selected, by the server's name."""
    suite = load()
    here = [item for item in request.session.items if item.path == Path(__file__)]
    wanted = {item.callspec.params["name"] for item in here if isinstance(item, pytest.Function)}
    begun: dict[str, Future[Outcome]] = {}

    def stays() -> None:
        children.lasting_threads.add(threading.current_thread())

    with ThreadPoolExecutor(AT_ONCE, "cell", initializer=stays) as pool:
        for name, site, store in COVER:
            if name in wanted and not SERVERS[name].never_here:
                folder = tmp_path_factory.mktemp("cell")
                url = f"sqlite:///{folder}/store.db?site=conformance"
                if store == "redis":
                    url = request.getfixturevalue("redis_server").url()
                begun[name] = pool.submit(run_cell, SERVERS[name], site, suite, url=url, folder=folder)
        yield begun
        pool.shutdown(cancel_futures=True)


@pytest.mark.parametrize(
    ("name", "site"), [cell[:2] for cell in COVER], ids=[f"{cell[0]}, {cell[1]}" for cell in COVER]
)
def test_a_cell(name: str, site: str, cells: dict[str, Future[Outcome]]) -> None:
    """All is as expected with two workers, switched through the store."""
    if SERVERS[name].never_here:
        pytest.skip(SERVERS[name].never_here)
    error = cells[name].exception()
    if isinstance(error, ServerMissing):
        raise missing.outcome(error)
    outcome = cells[name].result()
    assert outcome.site == site
    assert outcome.ran
    assert not outcome.failures, "\n".join(outcome.failures)
