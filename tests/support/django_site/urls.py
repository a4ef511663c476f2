"""Views of the tests' Django project: pages that read, and pages that write a little on the way."""

from __future__ import annotations

from typing import Any

urlpatterns: list[Any] = []
