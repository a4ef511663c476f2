"""Numbers for OpenTelemetry (`pip install 'readonly-mode[opentelemetry]'`).

    from readonly.metrics.opentelemetry import instrument

    instrument(switch)    # once in each process, with the application's own MeterProvider

They are observed when the SDK's reader collects, so that they cost a request nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from weakref import WeakKeyDictionary

from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation, get_meter_provider

from ..switch import Switch
from . import HELP, Drains, of_process

__all__ = ["instrument"]

_COUNTERS = (
    "readonly_refused",
    "readonly_allowed",
    "readonly_bypassed",
    "readonly_escaped",
    "readonly_sessions_ended",
    "readonly_drains",
    "readonly_drain_seconds",
)
_GAUGES = (
    "readonly_mode",
    "readonly_epoch",
    "readonly_store_reachable",
    "readonly_writes_in_flight",
    "readonly_last_drain_seconds",
    "readonly_replica_fit",
    "readonly_replica_lag_seconds",
)


_instrumented: WeakKeyDictionary[Switch, list[MeterProvider]] = WeakKeyDictionary()


def instrument(switch: Switch, meter_provider: MeterProvider | None = None) -> None:
    """Have a process of the site observed. A second time for one switch and provider it does nothing.

    It begins nothing: the process is a member from the moment on at which it follows the store.

    Args:
        switch: The process's switch.
        meter_provider: The application's; None: the global one.
    """
    provider = meter_provider or get_meter_provider()
    by = _instrumented.setdefault(switch, [])
    if any(one is provider for one in by):
        return
    by.append(provider)
    meter = provider.get_meter("readonly")
    drains = Drains(switch)

    def observed(name: str) -> Callable[[CallbackOptions], Iterable[Observation]]:
        def observe(_: CallbackOptions) -> Iterable[Observation]:
            return [
                Observation(sample.value, dict(sample.labels))
                for sample in of_process(switch, drains)
                if sample.name == name
            ]

        return observe

    for name in _COUNTERS:
        unit = "s" if name.endswith("_seconds") else ""
        meter.create_observable_counter(_dotted(name), [observed(name)], unit, HELP[name])
    for name in _GAUGES:
        unit = "s" if name.endswith("_seconds") else ""
        meter.create_observable_gauge(_dotted(name), [observed(name)], unit, HELP[name])


def _dotted(name: str) -> str:
    return name.replace("readonly_", "readonly.", 1)
