"""Sets Django up before any test module builds an application with it."""

from __future__ import annotations

from support.django_site import configure

configure()
