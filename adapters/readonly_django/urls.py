"""Probes: `path("", include("readonly_django.urls"))` serves `/-/readonly/ready` and `/-/readonly/status`."""

from __future__ import annotations

from functools import cache

from django.http import HttpRequest, JsonResponse
from django.urls import path
from django.views.decorators.http import require_safe

from readonly.handling import READY_PATH, STATUS_PATH, Status

from . import conf


@cache
def _status() -> Status:
    return Status(conf.current_switch())


@require_safe
def status(request: HttpRequest) -> JsonResponse:
    """Answer a load balancer, or a browser that wants to know when it may send again."""
    found = _status().document("/" + request.path_info.rsplit("/", 1)[-1], conf.current_switch().look())
    code, document = found or (404, {"error": "not found"})
    return JsonResponse(document, status=code, headers={"Cache-Control": "no-store"})


urlpatterns = [
    path(READY_PATH.lstrip("/"), status, name="readonly_ready"),
    path(STATUS_PATH.lstrip("/"), status, name="readonly_status"),
]
