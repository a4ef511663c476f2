"""Numbers for Prometheus (`pip install 'readonly-mode[prometheus]'`).

    from readonly.metrics.prometheus import expose

    expose(switch)    # once in each process, as soon as there is a switch

Where several processes of a site share one scrape (PROMETHEUS_MULTIPROC_DIR), its counters are added up and its gauges
combined, as the client library does for any other. What all members together are, and who is silent, is told by one
exporter: `readonlyctl metrics`.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from ..errors import ConfigurationError
from ..site import Site
from ..switch import Switch
from . import HELP, Drains, Sample, of_process, of_site

__all__ = ["SiteCollector", "expose"]

# What one number stands for all processes that share a scrape: whoever was heard last, the worst, or the sum.
_COMBINED = {
    "readonly_mode": "livesum",  # how many processes are in which mode
    "readonly_epoch": "livemin",
    "readonly_store_reachable": "livemin",
    "readonly_writes_in_flight": "livesum",
    "readonly_last_drain_seconds": "livemax",
    "readonly_replica_fit": "livemin",
    "readonly_replica_lag_seconds": "livemax",
}


class _Told:
    """What the client library was told of the counters of one process."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.values: dict[tuple[str, tuple[str, ...]], float] = {}


def _shared() -> bool:
    # The client library's own question; it asks it when it is imported.
    return "PROMETHEUS_MULTIPROC_DIR" in os.environ or "prometheus_multiproc_dir" in os.environ


class _Exposed:
    """The metrics of one switch; brought up to date by its thread."""

    def __init__(self, switch: Switch, registry: CollectorRegistry) -> None:
        self.switch = switch
        self.registry = registry
        self._drains = Drains(switch)
        self._metrics: dict[str, Gauge | Counter] = {}
        # By process id: a child counts from nothing, its values are its own, and so is the lock.
        self._told: dict[int, _Told] = {}
        # What a server's first process leaves in the folder that all share would be the worst of them for ever.
        if switch.at_work or not _shared():
            self.update()
        self._stop = switch.on_heartbeat(self.update)

    def update(self) -> None:
        """Take over what the process counts. Any thread."""
        told = self._told.setdefault(os.getpid(), _Told())
        with told.lock:
            for sample in of_process(self.switch, self._drains):
                self._take(sample, told.values)

    def stop(self) -> None:
        """Take everything back."""
        self._stop()
        self._drains.stop()
        for metric in self._metrics.values():
            self.registry.unregister(metric)

    def _take(self, sample: Sample, told: dict[tuple[str, tuple[str, ...]], float]) -> None:
        metric = self._metrics.get(sample.name)
        names = tuple(sample.labels)
        if metric is None:
            metric = self._metrics[sample.name] = self._made(sample, names)
        values = tuple(sample.labels.values())
        child = metric.labels(*values) if names else metric
        if isinstance(child, Gauge):
            child.set(sample.value)
            return
        # A counter can only be raised: by what is new since it was told last.
        before = told.get((sample.name, values), 0.0)
        if sample.value > before or (sample.name, values) not in told:
            child.inc(sample.value - before)
        told[sample.name, values] = sample.value

    def _made(self, sample: Sample, names: tuple[str, ...]) -> Gauge | Counter:
        text = HELP[sample.name]
        if sample.kind == "counter":
            return Counter(sample.name, text, names, registry=self.registry)
        combined = _COMBINED[sample.name]
        return Gauge(sample.name, text, names, registry=self.registry, multiprocess_mode=combined)  # type: ignore[arg-type]


_exposed: dict[int, _Exposed] = {}


def expose(switch: Switch, registry: CollectorRegistry = REGISTRY) -> None:
    """Expose what a process of the site counts. A second time for one switch it does nothing.

    It begins nothing: the numbers are there from the moment on at which the process follows the store. Call it before
    or after a server's fork.

    Args:
        switch: The process's switch.
        registry: Where.

    Raises:
        ConfigurationError: The registry has the numbers of another switch.
    """
    if any(one.registry is registry and one.switch is not switch for one in _exposed.values()):
        raise ConfigurationError(
            f"expose({switch!r}): the registry has the numbers of another switch of this process, by the same names: "
            "give each site a CollectorRegistry() of its own, or withdraw() the other one first."
        )
    if id(switch) not in _exposed:
        _exposed[id(switch)] = _Exposed(switch, registry)


def withdraw(switch: Switch) -> None:
    """Take back what `expose` did."""
    found = _exposed.pop(id(switch), None)
    if found is not None:
        found.stop()


class SiteCollector(Collector):
    """What the record and all members say, by one look at the store for each scrape."""

    def __init__(self, site: Site) -> None:
        self._site = site

    def collect(self) -> Iterable[Metric]:
        """Yield the metrics of one look."""
        families: dict[str, Metric] = {}
        for sample in of_site(self._site):
            family = families.get(sample.name)
            if family is None:
                made = CounterMetricFamily if sample.kind == "counter" else GaugeMetricFamily
                family = families[sample.name] = made(sample.name, HELP[sample.name], labels=list(sample.labels))
            family.add_metric(list(sample.labels.values()), sample.value)  # type: ignore[attr-defined]
        yield from families.values()

    def describe(self) -> Iterable[Metric]:
        """Yield nothing: what there is, is known only when the store was asked."""
        return ()
