"""Commands that go on looking: watch, for people, and metrics, for Prometheus."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import click

from ..confirmation import Confirmation
from ..errors import ConfigurationError, StoreUnreachable
from ..record import Mode
from ..site import Look, Site
from . import common
from .groups import holding_up, obeying, shortened
from .options import json_option
from .progress import NAMED, REFRESHES_PER_SECOND
from .show import show
from .terminal import OK, Output, run
from .words import clock_time, counted, printable, progress_fields, state_fields


@click.command(short_help="Go on showing what the site is, until Ctrl-C.")
@json_option
@click.pass_obj
def watch(options: common.Options, as_json: bool) -> None:
    """Go on showing what the site is, and who does not obey: live on a terminal, a line for each change elsewhere."""
    output = Output(as_json=as_json or options.as_json)
    # It only looks: there is nothing to say of what it changed.
    output.standing = lambda _: {}

    def body() -> None:
        site = options.site()
        output.site = site.name
        with _screen(output) as screen:
            said: object = None
            for found in site.watch():
                if isinstance(found, StoreUnreachable):
                    said = _say_away(found, said, output, screen)
                else:
                    said = _say(found, site, said, options, output, screen)

    run(body, output)


class _Screen:
    """What stands on a terminal; drawn again when it changes."""

    def __init__(self, live: Any) -> None:
        self._live = live

    def draw(self, lines: list[str]) -> None:
        from rich.text import Text

        # Plain text: nothing that a member or an operator wrote is taken for markup.
        self._live.update(Text("\n".join(lines), overflow="fold"), refresh=True)


@contextmanager
def _screen(output: Output) -> Iterator[_Screen | None]:
    if output.as_json or not sys.stdout.isatty():
        yield None
        return
    from rich.console import Console
    from rich.live import Live

    console = Console(highlight=False)
    if console.is_dumb_terminal:
        yield None
        return
    # The last picture stays when it ends.
    with Live(console=console, auto_refresh=False, refresh_per_second=REFRESHES_PER_SECOND) as live:
        yield _Screen(live)


def _say(
    look: Look, site: Site, said: object, options: common.Options, output: Output, screen: _Screen | None
) -> object:
    found = site.judge(look)
    at = look.census.reading.at
    if screen is not None:
        lines = [f"{site.name} · {site.shown_store} · {clock_time(at, at)}"]
        show(look, found, site, options, lines.append)
        screen.draw(lines)
        return None
    meaning = (
        look.state.mode,
        look.state.epoch,
        [c.id for c in look.state.causes],
        found.problems,
        [(m.report.id, m.condition, m.report.in_flight if m.blocks else 0) for m in found.members],
    )
    if meaning != said:
        output.line(f"{clock_time(at, at)}   {_sentence(look, found)}")
        output.event("watch", **progress_fields(found) | state_fields(look.state), at=at)
    return meaning


def _sentence(look: Look, found: Confirmation) -> str:
    text = f"{look.state.mode.upper()}, epoch {look.state.epoch}"
    done = "obey and have drained" if look.state.mode is Mode.READ_ONLY else "follow"
    text += f"; {obeying(found)} of {counted(len(found.members), 'member')} {done}"
    missing = holding_up(found)
    return text + (f"; missing: {'; '.join(shortened(missing, NAMED + 1))}" if missing else "")


def _say_away(error: StoreUnreachable, said: object, output: Output, screen: _Screen | None) -> object:
    if screen is not None:
        screen.draw([printable(str(error)), "Processes keep what they last saw. Asking again …"])
    elif said != "away":
        now = datetime.now(UTC)
        output.line(f"{clock_time(now, now)}   {printable(str(error))}")
        output.event("waiting", error=type(error).__name__, message=str(error))
    return "away"


@click.command(short_help="Print the site's numbers for Prometheus, or serve them.")
@click.option("--listen", metavar="HOST:PORT", help="Serve them at http://HOST:PORT/metrics until Ctrl-C.")
@click.pass_obj
def metrics(options: common.Options, listen: str | None) -> None:
    """Print what the record and all members say, in Prometheus's format, or serve it.

    One exporter for a site: each scrape is one look at the store. Processes count their own requests themselves
    (readonly.metrics.prometheus.expose).
    """
    output = Output(as_json=options.as_json)
    output.standing = lambda _: {}

    def body() -> None:
        try:
            import prometheus_client

            from ..metrics.prometheus import SiteCollector
        except ImportError as error:
            raise ConfigurationError(
                "metrics needs prometheus-client, which is not installed here: pip install 'readonly-mode[prometheus]'"
            ) from error
        address = _address(listen)
        if options.as_json and address is None:
            raise click.UsageError(
                "metrics prints Prometheus's format, not JSON: leave --json out; `status --json` has the state"
            )
        site = options.site()
        output.site = site.name
        registry = prometheus_client.CollectorRegistry()
        registry.register(SiteCollector(site))
        if address is None:
            output.line(prometheus_client.generate_latest(registry).decode().rstrip("\n"))
            output.result(OK)
        host, port = address
        try:
            server, thread = prometheus_client.start_http_server(port, host, registry)
        except OSError as error:
            raise ConfigurationError(
                f"--listen {listen}: nothing can be served there ({error.strerror or error}): name an address of this "
                "machine and a port that is free"
            ) from error
        try:
            shown = f"[{host}]" if ":" in host else host
            output.note(f"{site.name}: serving http://{shown}:{server.server_port}/metrics")
            thread.join()
        finally:
            server.shutdown()
            server.server_close()

    run(body, output)


def _address(listen: str | None) -> tuple[str, int] | None:
    if listen is None:
        return None
    host, _, port = listen.rpartition(":")
    if not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise click.UsageError(f"--listen {listen}: write HOST:PORT, as in 127.0.0.1:9109")
    return host.strip("[]"), int(port)
