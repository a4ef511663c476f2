"""What is seen from outside: of a process, of processes that share one scrape, and of the whole site."""

from __future__ import annotations

import itertools
import os
import signal
import socket
import subprocess
import sys
import textwrap
import urllib.request
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from unittest import mock

import prometheus_client
import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from prometheus_client.parser import text_string_to_metric_families

from readonly import Policy, Switch, rehearsal
from readonly.changes import Operator, initialise, turn_off, turn_on
from readonly.errors import ConfigurationError
from readonly.handling import Handling
from readonly.members import Guarded, Report
from readonly.metrics import HELP, Drains, of_process, of_site
from readonly.metrics.opentelemetry import instrument
from readonly.metrics.prometheus import SiteCollector, expose, withdraw
from readonly.rules import Facts
from readonly.site import Site
from readonly.stores.memory import MemoryStore
from readonly.tally import MAX_LABELS
from support.let_through import closed_store
from support.operating import Member, Shop, json_lines, made, members
from support.waiting import eventually

ANN = Operator("ann", "desk-1")


@pytest.fixture
def switch() -> Iterator[Switch]:
    """A process of a writable site."""
    store = MemoryStore(site="shop")
    if store.read().record is None:
        initialise(store, ANN)
    made = Switch(store, interval=0.05, role="web")
    made.start()
    eventually(lambda: made.look().synced)
    yield made
    withdraw(made)
    made.close()


def value(registry: prometheus_client.CollectorRegistry, name: str, **labels: str) -> float | None:
    """Return what a registry says."""
    return registry.get_sample_value(name, labels)


def test_a_process_for_prometheus(switch: Switch) -> None:
    """Mode, epoch, in flight, refused, allowed, bypassed, escaped, drains: as they are now."""
    registry = prometheus_client.CollectorRegistry()
    expose(switch, registry)
    expose(switch, registry)  # twice does no harm
    assert value(registry, "readonly_mode", mode="writable") == 1
    handling: Handling[object] = Handling(switch, Policy(reads=["POST /search"], exempt=["/hook"]), None, None)
    with switch.writing():
        turn_on(switch.store, ANN)
        eventually(lambda: switch.state.read_only)
        eventually(lambda: value(registry, "readonly_writes_in_flight") == 1)
        assert value(registry, "readonly_drains_total") == 0
    eventually(lambda: value(registry, "readonly_drains_total") == 1)
    assert (value(registry, "readonly_drain_seconds_total") or 0) > 0
    for path in ("/articles", "/articles", "/search", "/hook"):
        facts = Facts("POST", path)
        judged = handling.judge(handling.gate.classify(facts), facts, (), switch.state)
        if not judged.verdict.passed:
            handling.refusal(judged, facts, secure=False, client=None)
    switch.tally.bypassed("ann", "POST /articles")
    switch.tally.ended(3)
    eventually(lambda: value(registry, "readonly_sessions_ended_total") == 3)
    assert value(registry, "readonly_refused_total", route="POST /articles", kind="undeclared") == 2
    assert value(registry, "readonly_allowed_total", route="POST /search", kind="declared read") == 1
    assert value(registry, "readonly_allowed_total", route="/hook", kind="exempt") == 1
    assert value(registry, "readonly_bypassed_total", route="POST /articles", bypass="ann") == 1
    assert value(registry, "readonly_mode", mode="read-only") == 1
    assert value(registry, "readonly_epoch") == switch.state.epoch
    assert value(registry, "readonly_store_reachable") == 1


def test_labels_are_bounded(switch: Switch) -> None:
    """Whoever asks for ever new addresses makes no new series."""
    registry = prometheus_client.CollectorRegistry()
    expose(switch, registry)
    for number in range(2 * MAX_LABELS):
        switch.tally.refused(f"POST /x/{number}", "undeclared")
    name = "readonly_refused_total"
    eventually(lambda: (value(registry, name, route="other", kind="undeclared") or 0) >= MAX_LABELS)
    series = [sample for metric in registry.collect() for sample in metric.samples if sample.name == name]
    assert len(series) == MAX_LABELS + 1


def test_every_number_is_explained(switch: Switch) -> None:
    """And none is explained that there is not."""
    switch.tally.refused("r", "k")
    switch.tally.allowed("r", "k")
    switch.tally.bypassed("n", "r")
    drains = Drains(switch)
    told = {s.name for s in of_process(switch, drains)} | {s.name for s in of_site(Site(switch))}
    drains.stop()
    of_replicas = {name for name in HELP if "_replica_" in name}  # which this site has none of
    assert told | {"readonly_escaped"} | of_replicas == set(HELP)


def test_processes_that_share_a_scrape(tmp_path: Path) -> None:
    """PROMETHEUS_MULTIPROC_DIR: counters of forked workers are added up, gauges are of those that live and work."""
    program = """
        import os, sys
        from prometheus_client import CollectorRegistry, generate_latest
        from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
        from readonly import Switch
        from readonly.metrics.prometheus import expose
        from readonly.stores import store_from_url

        def scrape():
            registry = CollectorRegistry()
            MultiProcessCollector(registry)
            return generate_latest(registry).decode()

        switch = Switch.from_url(sys.argv[1], interval=0.05)
        expose(switch)
        hands, workers = [], []
        for _ in range(2):
            works, goes = os.pipe(), os.pipe()
            pid = os.fork()
            if not pid:
                for number in (works[0], goes[1], *hands):
                    os.close(number)
                switch.start()
                for _ in range(3):
                    switch.tally.refused("POST /articles", "undeclared")
                switch.close()
                switch._observers.tell()
                os.write(works[1], b"!")
                os.read(goes[0], 1)
                os._exit(0)
            os.close(works[1])
            hands.append(goes[1])
            workers.append(pid)
            assert os.read(works[0], 1) == b"!"
        for hand, pid in zip(hands, workers):
            print(scrape(), "---")
            os.close(hand)
            assert os.waitpid(pid, 0)[1] == 0
            mark_process_dead(pid)
        print(scrape(), "---", switch.at_work)
    """
    shop = made(tmp_path / "shop.db")
    shop.store.close()
    folder = tmp_path / "metrics"
    folder.mkdir()
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(program), shop.url],
        env={"PROMETHEUS_MULTIPROC_DIR": str(folder), "READONLY_STATE_DIR": "", "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    both, one, none, at_work = done.stdout.split("---")
    for told in (both, one, none):
        families = {found.name: found for found in text_string_to_metric_families(told)}
        refused = {
            sample.labels["route"]: sample.value for sample in families["readonly_refused"].samples if sample.value
        }
        assert refused == {"POST /articles": 6}
        assert [sample.value for sample in families["readonly_drains"].samples] == [0]
    # What the first process would say, which only forks and follows nothing, is no part of it.
    for told, living in ((both, 2), (one, 1)):
        assert f'readonly_mode{{mode="writable"}} {living}.0' in told
        assert 'readonly_mode{mode="unknown"} 0.0' in told
    assert "readonly_mode" not in none
    assert at_work.strip() == "False"


def test_a_registry_has_the_numbers_of_one_switch(switch: Switch) -> None:
    """They have the same names: a second site's want a registry of their own."""
    registry = prometheus_client.CollectorRegistry()
    expose(switch, registry)
    other = Switch(MemoryStore(site="other"))
    with pytest.raises(ConfigurationError, match="CollectorRegistry\\(\\) of its own"):
        expose(other, registry)
    expose(other, prometheus_client.CollectorRegistry())
    withdraw(switch)
    withdraw(other)
    expose(other, registry)
    withdraw(other)
    assert not other.at_work  # nobody has asked it for anything


def test_what_is_not_at_work_yet_says_so(tmp_path: Path) -> None:
    """It knows nothing and has reached nobody; a store that answers and holds no record answers all the same."""
    switch = Switch.from_url(f"sqlite:///{tmp_path}/new.db?site=shop")
    registry = prometheus_client.CollectorRegistry()
    expose(switch, registry)
    assert value(registry, "readonly_mode", mode="unknown") == 1
    assert value(registry, "readonly_store_reachable") == 0
    switch.start()
    eventually(lambda: value(registry, "readonly_store_reachable") == 1)
    assert value(registry, "readonly_mode", mode="unknown") == 1
    withdraw(switch)
    switch.close()


def test_a_drain_is_one_of_a_process_that_wrote() -> None:
    """Not what it does when it begins, knowing nothing for a moment, or while the site is read-only already."""
    store = closed_store()
    switch = Switch(store, interval=0.05)
    drains = Drains(switch)

    def count() -> float:
        return next(sample.value for sample in drains.samples() if sample.name == "readonly_drains")

    switch.start()
    eventually(lambda: switch.state.causes != ())
    assert count() == 0
    turn_off(store, ANN)
    eventually(lambda: not switch.state.read_only)
    assert count() == 0
    turn_on(store, ANN)
    eventually(lambda: count() == 1)
    drains.stop()
    switch.close()


def test_a_process_for_opentelemetry(switch: Switch) -> None:
    """The same numbers, observed when they are collected."""
    reader = InMemoryMetricReader()
    provider = MeterProvider(metric_readers=[reader])
    instrument(switch, provider)
    instrument(switch, provider)  # twice does no harm
    switch.tally.refused("POST /articles", "undeclared")
    data = reader.get_metrics_data()
    assert data is not None
    metrics = {m.name: m for m in data.resource_metrics[0].scope_metrics[0].metrics}
    (point,) = metrics["readonly.refused"].data.data_points
    assert (dict(point.attributes or {}), getattr(point, "value", None)) == (
        {"route": "POST /articles", "kind": "undeclared"},
        1,
    )
    modes = {
        dict(p.attributes or {})["mode"]: getattr(p, "value", None) for p in metrics["readonly.mode"].data.data_points
    }
    assert modes == {"writable": 1, "read-only": 0, "unknown": 0}
    provider.shutdown()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Shop, Member]]:
    """A site that one process serves."""
    shop = made(tmp_path_factory.mktemp("metrics") / "shop.db")
    with members(shop) as (member,):
        yield shop, member
    shop.store.close()


def test_a_site_for_prometheus(served: tuple[Shop, Member]) -> None:
    """By one look at the store: mode, members by condition, safe; a store that is away is a number, too."""
    shop, _ = served
    registry = prometheus_client.CollectorRegistry()
    registry.register(SiteCollector(Site(Switch(shop.store))))
    eventually(lambda: value(registry, "readonly_site_members", role="web", condition="obeys") == 1)
    assert value(registry, "readonly_site_safe") == 0
    assert shop.here("on", "--for", "1h").returncode == 0
    assert value(registry, "readonly_site_mode", mode="read-only") == 1
    # It was, or `on` had not ended so; a member that stands still for seconds since is silent.
    eventually(lambda: value(registry, "readonly_site_safe") == 1)
    turn_off(shop.store, Operator("anna", "bastion"))
    assert value(registry, "readonly_site_read_only_seconds") == 0
    away = prometheus_client.CollectorRegistry()
    away.register(SiteCollector(Site(Switch.from_url(f"sqlite:///{shop.folder}/none/x.db?site=shop"))))
    assert value(away, "readonly_site_store_reachable") == 0
    assert value(away, "readonly_site_mode", mode="unknown") == 1


def test_the_exporter(served: tuple[Shop, Member]) -> None:
    """`readonlyctl metrics` prints once; with --listen it serves until it is ended."""
    shop, _ = served
    printed = shop.here("metrics")
    assert (printed.returncode, 'readonly_site_mode{mode="writable"} 1.0' in printed.stdout) == (0, True)
    for wrong in ("9109", "localhost", "localhost:x", ":1", "localhost:70000"):
        refused = shop.here("metrics", "--listen", wrong)
        assert (refused.returncode, "write HOST:PORT" in refused.stderr) == (2, True)
    as_json = shop.here("--json", "metrics")
    assert (as_json.returncode, "not JSON" in as_json.stderr) == (2, True)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        refused = shop.here("metrics", "--listen", f"127.0.0.1:{taken.getsockname()[1]}")
        assert (refused.returncode, "a port that is free" in refused.stderr) == (2, True)
    with shop.start("metrics", "--listen", "127.0.0.1:0") as running:
        running.says("/metrics")
        url = running.err.split("serving ", 1)[1].split()[0]
        with urllib.request.urlopen(url, timeout=10) as answer:
            assert b"readonly_site_members" in answer.read()
        os.kill(running.process.pid, signal.SIGTERM)
        assert running.ends() == 143


def test_watch_says_each_change_once(served: tuple[Shop, Member]) -> None:
    """A line each, until it is ended; a member that drains is named."""
    shop, member = served
    with shop.start("watch") as running:
        running.says("WRITABLE")
        member.begins()
        shop.on(ANN, reason="INC-441")
        running.says("missing: ")
        member.tell("end")
        running.says("1 of 1 member obey and have drained")
        shop.open()
        eventually(lambda: running.out.count("1 of 1 member follow") >= 2)
        os.kill(running.process.pid, signal.SIGTERM)
        assert running.ends() == 143
    told = running.out
    with shop.start("watch", "--json") as running:
        running.says('"counts": {"obeys": 1}')
        os.kill(running.process.pid, signal.SIGTERM)
        assert running.ends() == 143
    *shown, result = json_lines(running.out)
    assert {one["mode"] for one in shown} == {"writable"}
    assert result["exit"] == 143
    lines = [line.split("   ", 1)[1] for line in told.splitlines()]
    assert all(one != other for one, other in itertools.pairwise(lines))


# --- replicas, and a rehearsal ---------------------------------------------------------------------------------------


def test_replicas_of_a_process(switch: Switch) -> None:
    """Fit or not, and how far behind; one that does not tell has no number for that."""
    replicas = [{"name": "db2", "lag": 1.5}, {"name": "db3", "unfit": "is paused"}]
    guard = mock.Mock(**{"describe.return_value": {"replicas": replicas}})
    guard.name = "main"
    switch.add_guard(guard)
    registry = prometheus_client.CollectorRegistry()
    expose(switch, registry)
    for name, fit, lag in (("db2", 1.0, 1.5), ("db3", 0.0, None)):
        assert value(registry, "readonly_replica_fit", database="main", replica=name) == fit
        assert value(registry, "readonly_replica_lag_seconds", database="main", replica=name) == lag
    withdraw(switch)
    switch.remove_guard(guard)


def test_replicas_and_a_rehearsal_of_a_site(tmp_path: Path) -> None:
    """For how many members each is fit, the most that any of them is behind, and that one rehearses."""
    shop = made(tmp_path / "shop.db")
    for number, replica in enumerate(
        ({"name": "db2", "lag": 1.0}, {"name": "db2", "lag": 3.0, "unfit": "is 3 s behind"})
    ):
        shop.reported(
            Report(
                id=f"{number:032}", host="web", pid=number, role="web", interval=300.0, synced=True, closed=False,
                guards=(Guarded("main", "", {"replicas": [replica]}),),
            )
        )  # fmt: skip
    rehearsal.begin(shop.store, ANN, lasting=timedelta(hours=1))
    found = {(s.name, s.labels.get("replica")): s.value for s in of_site(Site(Switch(shop.store)))}
    assert found["readonly_site_replica_fit", "db2"] == 1
    assert found["readonly_site_replica_unfit", "db2"] == 1
    assert found["readonly_site_replica_lag_seconds", "db2"] == 3.0
    assert found["readonly_site_rehearsing", None] == 1
    rehearsal.stop(shop.store, ANN)
    again = {s.name: s.value for s in of_site(Site(Switch(shop.store)))}
    assert again["readonly_site_rehearsing"] == 0
    shop.store.close()
