"""What operators and visitors write stays text in the extension's global and in its macro."""

from __future__ import annotations

import pytest
from flask import render_template_string

from support.flask_sites import MakeApp, switch_of
from support.hostile import HOSTILE, assert_harmless_html, elements, plant

MACRO = "{% from 'readonly/banner.html' import banner %}{{ banner() }}"
GLOBAL = "{{ readonly.banner }}<p title='x{{ readonly.message }}'>{{ readonly.message }}</p>{{ readonly.script }}"
READ_ONLY = {
    MACRO: ["div", "p", "p", "time"],
    GLOBAL: ["div", "p", "p", "time", "p", "script"],
}
ANNOUNCED = {
    MACRO: ["div", "p", "time", "time", "p"],
    GLOBAL: ["div", "p", "time", "time", "p", "p", "script"],
}


@pytest.mark.parametrize("announced", [False, True], ids=["read-only", "announced"])
@pytest.mark.parametrize("hostile", HOSTILE, ids=range(len(HOSTILE)))
def test_templates(make_app: MakeApp, hostile: str, announced: bool) -> None:
    """A page consists of what the template and the banner consist of, whatever was written."""
    app = make_app()
    plant(switch_of(app), hostile, announced=announced)
    # As a server hands on what was sent: bytes, read as Latin-1.
    sent = hostile.encode("utf-8", "replace").decode("latin-1")
    environ = {"HTTP_ACCEPT_LANGUAGE": sent, "HTTP_COOKIE": sent, "HTTP_X_READ_ONLY_BYPASS": sent}
    environ["SCRIPT_NAME"] = "/" + sent
    for source, tags in (ANNOUNCED if announced else READ_ONLY).items():
        with app.test_request_context(environ_overrides=environ):
            page = render_template_string(source)
        assert_harmless_html(page, own=("script",))
        assert [tag for tag, _ in elements(page)] == tags


@pytest.mark.parametrize("hostile", HOSTILE, ids=range(len(HOSTILE)))
def test_words_given_to_the_macro(make_app: MakeApp, hostile: str) -> None:
    """Escaped like everything else, be it a translation."""
    app = make_app()
    plant(switch_of(app), "")
    source = MACRO.replace("banner()", "banner(class=word, text=word, until=word)")
    with app.test_request_context():
        page = render_template_string(source, word="x" + hostile.encode("utf-8", "replace").decode())
    assert_harmless_html(page)
    assert [tag for tag, _ in elements(page)] == READ_ONLY[MACRO]
