"""Sets Django up before any test module imports a model."""

from __future__ import annotations

import importlib.util

if importlib.util.find_spec("django") is not None:
    from support.django_site import configure

    configure()
