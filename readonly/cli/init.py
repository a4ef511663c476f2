"""The command that makes a site's first record."""

from __future__ import annotations

import shlex
from urllib.parse import parse_qs, quote, urlsplit

import click

from ..changes import initialise
from ..errors import ConfigurationError, UnreadableRecord
from ..hostfile import HostFile, state_folder
from ..record_format import load
from ..site import Site
from ..state import State
from ..stores import Store, redacted, store_from_url
from ..switch import Switch
from ..windows import there
from . import common
from .options import json_option, yes_option
from .terminal import OK, Output, run
from .words import printable


@click.command(short_help="Make the site's first record.")
@click.argument("name")
@click.option("--protected", is_flag=True, help="Commands will want the site's name before they change it.")
@click.option("--replace", "replace_existing", is_flag=True, help="Start anew on purpose: lift everything that stands.")
@click.option("--end-sessions", is_flag=True, help="End sessions issued before now: after a total loss of the store.")
@yes_option
@json_option
@click.pass_obj
def init(
    options: common.Options,
    name: str,
    protected: bool,
    replace_existing: bool,
    end_sessions: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Make the site's first record. Until there is one, the site's processes refuse writes.

    The only command that may create a store. It refuses (exit 6) when there is a record already.
    """
    output = Output(as_json=as_json or options.as_json, site=name)

    def body() -> None:
        if options.expected_site not in (None, name):
            raise ConfigurationError(
                f"--site {options.expected_site} and init {name} name two sites. Nothing was changed"
            )
        store = _store(options, name)
        planned = _ask(options, store, yes=yes) if replace_existing else ""
        change = initialise(
            store,
            options.operator(),
            protected=protected,
            replace_existing=replace_existing,
            end_sessions=end_sessions,
            floor=max(_remembered(store), _fenced(options, store)),
        )
        state = State.at(change.reading.at, change.record)
        shown = redacted(store.url)
        output.line(f"{name} · {shown}")
        output.line(
            f"{'Made anew' if replace_existing else 'Created'}: {state.mode.upper()}, epoch {change.record.epoch}"
            + (", protected." if protected else ".")
        )
        if planned:
            output.line(f"No longer planned: {printable(planned)}")
        output.line("On every machine that runs or operates the site:")
        output.line(f"  READONLY_STORE={shlex.quote(shown)}")
        output.result(OK, mode=str(state.mode), epoch=change.record.epoch, store=shown, protected=protected)

    run(body, output)


def _remembered(store: Store) -> int:
    """Return the last epoch that this host saw, for a store that was lost: epochs never fall."""
    last = HostFile(store.url, store.site, state_folder()).recall()
    try:
        return load(last[0]).epoch if last is not None else 0
    except UnreadableRecord as error:
        return error.epoch or 0


def _fenced(options: common.Options, store: Store) -> int:
    """Return the last epoch that fences remember which this machine can ask: one that stands outlives a store."""
    return Site.from_config(options.config, store=store.url).fences.epoch()


def _store(options: common.Options, name: str) -> Store:
    """Return the store, to be made if need be, but without the first record that a site would put into it."""
    url = options.store_url()
    common.refuse_memory(url)
    parts = urlsplit(url)
    named = parse_qs(parts.query, keep_blank_values=True).get("site", [])
    if not named:
        url = f"{url}{'&' if parts.query else '?'}site={quote(name)}"
    elif named != [name]:
        raise ConfigurationError(
            f"the URL {redacted(url)} names the site {', '.join(named)}; you said init {name}. Nothing was changed"
        )
    return store_from_url(url, create=True, initialise=False)


def _ask(options: common.Options, store: Store, *, yes: bool) -> str:
    """Want a protected site's name before all that stands is lifted; return the windows that will not be, by name."""
    site = Site(Switch(store))
    look = site.look()
    common.check_site(options, site, look, f"Lift everything that stands in {site.name}?", yes=yes)
    return "" if look.record is None else there(look.record, at=look.census.reading.at, none="")
