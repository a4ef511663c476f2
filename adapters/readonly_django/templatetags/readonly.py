"""`{% load readonly %}{% readonly_banner %}`: says to visitors that the site is read-only, or will be."""

from __future__ import annotations

from typing import Any

from django import template
from django.template import Context
from django.urls import reverse
from django.utils.html import format_html

from readonly.script import SCRIPT_NAME
from readonly_django.visible import kept_by_nobody, shown

register = template.Library()


@register.simple_tag
def readonly_script() -> str:
    """Return the element that loads the script, which keeps the banner true.

    Raises:
        NoReverseMatch: `readonly_django.urls` is not included in the URLconf.
    """
    path = reverse("readonly_own", kwargs={"rest": SCRIPT_NAME})
    return format_html('<script src="{}" defer></script>', path)


@register.inclusion_tag("readonly_django/banner.html", takes_context=True)
def readonly_banner(context: Context) -> dict[str, Any]:
    """Render the banner, or nothing while the site is writable and will stay so.

    A page that carries it is not kept by caches: it would go on saying so when it is over.
    """
    request = context.get("request")
    found = shown(request)
    if found["notice"] is not None:
        kept_by_nobody(request)
    return {"readonly": found}
