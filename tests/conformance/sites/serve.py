"""What servers load: the site that CONFORMANCE_SITE names, and the hook that makes an idle worker of uWSGI a member."""

from __future__ import annotations

import importlib
import os
import sys

from conformance.sites.contract import hasten

hasten()
_site = importlib.import_module(f"conformance.sites.{os.environ['CONFORMANCE_SITE']}_site")
application = _site.application
switch = _site.switch
# What makes an idle worker a member, for servers that have a hook for it.
start = getattr(_site, "start", switch.start)

if os.environ.get("CONFORMANCE_GUARDED"):
    # From now on requests carry what the refusal of a write in them is marked on, as where a database is guarded.
    switch.writing()

if "uwsgi" in sys.modules:
    from uwsgidecorators import postfork  # type: ignore[import-not-found]  # of uWSGI, inside of it

    postfork(start)
