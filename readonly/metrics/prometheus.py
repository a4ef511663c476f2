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


class _Exposed:
    """The metrics of one switch; brought up to date by its thread."""

    def __init__(self, switch: Switch, registry: CollectorRegistry) -> None:
        self._switch = switch
        self._registry = registry
        self._drains = Drains(switch)
        self._lock = threading.Lock()
        self._pid = os.getpid()
        self._metrics: dict[str, Gauge | Counter] = {}
        self._told: dict[tuple[str, tuple[str, ...]], float] = {}
        self.update()
        self._stop = switch.on_heartbeat(self.update)

    def update(self) -> None:
        """Take over what the process counts. Any thread."""
        with self._lock:
            if self._pid != os.getpid():
                # A child counts from nothing, and its values are its own.
                self._pid, self._told = os.getpid(), {}
                self._drains.stop()
                self._drains = Drains(self._switch)
            for sample in of_process(self._switch, self._drains):
                self._take(sample)

    def stop(self) -> None:
        """Take everything back."""
        self._stop()
        self._drains.stop()
        for metric in self._metrics.values():
            self._registry.unregister(metric)

    def _take(self, sample: Sample) -> None:
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
        before = self._told.get((sample.name, values), 0.0)
        if sample.value > before or (sample.name, values) not in self._told:
            child.inc(sample.value - before)
        self._told[sample.name, values] = sample.value

    def _made(self, sample: Sample, names: tuple[str, ...]) -> Gauge | Counter:
        text = HELP[sample.name]
        if sample.kind == "counter":
            return Counter(sample.name, text, names, registry=self._registry)
        combined = _COMBINED[sample.name]
        return Gauge(sample.name, text, names, registry=self._registry, multiprocess_mode=combined)  # type: ignore[arg-type]


_exposed: dict[int, _Exposed] = {}


def expose(switch: Switch, registry: CollectorRegistry = REGISTRY) -> None:
    """Expose what a process of the site counts. A second time for one switch it does nothing.

    Args:
        switch: The process's switch.
        registry: Where; None: the client library's own.
    """
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
