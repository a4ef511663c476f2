"""What operators and visitors write stays text in the template tag, the context processor and the admin's page."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import User
from django.template import engines
from django.test import RequestFactory
from django.urls import set_script_prefix

from readonly import Switch
from readonly_django.test import override_readonly
from support.hostile import HOSTILE, assert_harmless_html, elements, plant

from .conftest import Visitor

PAGE = "/admin/readonly_django/readonlymode/"
TEMPLATE = (
    "{% load readonly %}{% readonly_banner %}<p title='x{{ readonly.message }}'>{{ readonly.message }}</p>"
    "{{ readonly.banner }}{% readonly_script %}"
)
# What the tag writes itself, the template's own, and the shared banner.
READ_ONLY = ["div", "p", "p", "time", "p", "div", "p", "p", "time", "script"]
ANNOUNCED = ["div", "p", "time", "time", "p", "p", "div", "p", "time", "time", "p", "script"]


def test_templates(switch: Switch) -> None:
    """A page consists of what the template and the banner consist of, whatever was written."""
    template = engines["django"].from_string(TEMPLATE)
    for hostile in HOSTILE:
        sent = hostile.encode("utf-8", "replace").decode("latin-1")
        headers: dict[str, Any] = {"HTTP_ACCEPT_LANGUAGE": sent, "HTTP_COOKIE": sent, "HTTP_X_READ_ONLY_BYPASS": sent}
        for announced, tags in ((False, READ_ONLY), (True, ANNOUNCED)):
            # A site of its own for each, made anew.
            with override_readonly(False):
                plant(switch, hostile, announced=announced)
                page = template.render({}, RequestFactory().get("/", **headers))
            assert_harmless_html(page, own=("script",))
            assert [tag for tag, _ in elements(page)] == tags, hostile


def test_the_scripts_path(project: None) -> None:
    """It is on this host, whatever prefix the project is served below."""
    try:
        for hostile in ("//evil.example/", *("/" + text + "/" for text in HOSTILE)):
            set_script_prefix(hostile.encode("utf-8", "replace").decode())
            page = engines["django"].from_string("{% load readonly %}{% readonly_script %}").render({})
            assert_harmless_html(page, own=("script",))
            ((_, attributes),) = elements(page)
            source = dict(attributes)["src"] or ""
            assert source.startswith("/")
            assert not source.startswith(("//", "/\\"))
    finally:
        set_script_prefix("/")


@pytest.fixture
def root(project: None) -> Visitor:
    """Somebody who may do everything, by a hostile name."""
    visitor = Visitor()
    visitor.signs_in(User.objects.create_superuser("<script>alert(1)</script>", password="secret"))
    return visitor


def test_the_admins_page(root: Visitor, switch: Switch, monkeypatch: pytest.MonkeyPatch) -> None:
    """All that operators of other hosts wrote, and what is missing for a proof, stands in cells and items."""
    shown: list[list[str]] = []
    for texts in (["plain"] * len(HOSTILE), HOSTILE):
        told = tuple(text or "x" for text in texts)
        monkeypatch.setattr("readonly_django.admin._missing", lambda _, told=told: told)
        with override_readonly(False):
            plant(switch, *texts)
            answer = root.get(PAGE)
            assert answer.status_code == 200
            page = answer.content.decode()
            shown.append([tag for tag, _ in elements(page)])
            assert shown[-1].count("td") >= 5 * len(HOSTILE)
            # Django's own: the theme's script and icons, and ours that asks again.
            refresh = '<meta http-equiv="refresh" content="3">'
            assert page.count(refresh) == 1
            assert_harmless_html(page.replace(refresh, ""), own=("script", "svg", "img"))
    assert shown[0] == shown[1]


@pytest.mark.parametrize("hostile", HOSTILE, ids=range(len(HOSTILE)))
def test_what_is_typed_into_the_admins_page(root: Visitor, switch: Switch, hostile: str) -> None:
    """Comes back in the fields of the form with what is wrong, or is what the site is switched with."""
    text = hostile.encode("utf-8", "replace").decode()
    tags = [tag for tag, _ in elements(root.get(PAGE).content.decode())]
    wrong = root.post(PAGE, {"on": "1", "reason": text, "message": text, "minutes": text or "x"})
    page = wrong.content.decode()
    assert_harmless_html(page, own=("script", "svg", "img"))
    assert {tag for tag, _ in elements(page)} <= {*tags, "ul", "li"}
    assert not switch.state.read_only
