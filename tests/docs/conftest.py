"""Sets Django up before any page's sample imports a model."""

from __future__ import annotations

from support.django_site import configure

configure()
