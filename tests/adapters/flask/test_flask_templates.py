"""What templates and receivers of the signal see: the state, and nothing that visitors may not."""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from babel.messages.catalog import Catalog
from babel.messages.mofile import write_mo
from flask import Blueprint, Flask, render_template, render_template_string

from readonly import State
from readonly.errors import ConfigurationError
from readonly.pages import Refused
from readonly_flask import ReadOnly, changed
from support.flask_sites import MakeApp, installed, switch_of
from support.holding import PUBLIC, SCOPES, check, let_through
from support.waiting import eventually

BANNER = "{% from 'readonly/banner.html' import banner %}{{ banner() }}"


def rendered(app: Flask, source: str) -> str:
    """Render a template as a view does."""
    with app.test_request_context():
        return render_template_string(source)


# --- the global and the banner ----------------------------------------------------------------------------------------


def test_templates_see_the_state(make_app: MakeApp) -> None:
    """The global is there in every template, imported macros included, and is never out of date."""
    app = make_app()
    source = "{{ readonly.read_only }} {{ readonly.message }} {{ readonly.since is none }} {{ readonly.expected_end }}"
    switch_of(app).start()
    assert rendered(app, source) == "False  True None"
    switch_of(app).on(reason="INC-441", message="<b>moving</b>", expected=timedelta(hours=1))
    shown = rendered(app, source)
    assert re.fullmatch(r"True &lt;b&gt;moving&lt;/b&gt; False \d{4}-.*\+00:00", shown)
    switch_of(app).off()
    assert rendered(app, source).startswith("False")


def test_reasons_are_not_for_visitors(make_app: MakeApp) -> None:
    """What colleagues wrote is not in reach of a template."""
    app = make_app()
    switch_of(app).on(reason="INC-441")
    assert rendered(app, "{{ readonly.reason }}{{ readonly.state }}{{ readonly.causes }}") == ""


def test_the_banner(make_app: MakeApp) -> None:
    """Nothing while writable; else a status that is read out, escaped, with the expected end for machines."""
    app = make_app()
    switch_of(app).start()
    assert rendered(app, BANNER) == ""
    switch_of(app).on(message="<script>alert('moving')</script>", expected=timedelta(hours=1))
    shown = rendered(app, BANNER)
    assert '<div class="readonly-banner" role="status" data-readonly-banner="read_only" lang="en"' in shown
    assert "<script>" not in shown
    assert "&lt;script&gt;alert(&#x27;moving&#x27;)&lt;/script&gt;" in shown
    end = switch_of(app).state.expected_end
    assert end is not None
    assert f'<time datetime="{end:%Y-%m-%dT%H:%M:%SZ}">' in shown


OWN_WORDS = BANNER.replace("banner()", "banner(text='Nur lesen', late='Es dauert')")


@pytest.mark.parametrize(
    ("source", "says"), [(BANNER, "Cela prend plus de temps que prévu."), (OWN_WORDS, "<p>Es dauert</p>")]
)
def test_the_banner_gives_no_time_that_has_passed(make_app: MakeApp, source: str, says: str) -> None:
    """It takes longer than planned, in the visitor's language or in the site's own words."""
    app = make_app()
    app.add_url_rule("/banner", view_func=lambda: render_template_string(source))
    switch_of(app).on(expected=timedelta(microseconds=1))
    answer = app.test_client().get("/banner", headers={"Accept-Language": "fr"})
    assert says in answer.text
    assert "<time" not in answer.text


def test_the_banner_announces(make_app: MakeApp) -> None:
    """A window that is about to begin, in the visitor's language."""
    app = make_app()
    app.add_url_rule("/banner", view_func=lambda: render_template_string(BANNER))
    at = datetime.now(UTC) + timedelta(minutes=9)
    switch_of(app).schedule(at, lasting=timedelta(hours=1), message="<i>new</i>")
    answer = app.test_client().get("/banner", headers={"Accept-Language": "fr"})
    assert 'data-readonly-banner="announced" lang="fr"' in answer.text
    assert "&lt;i&gt;new&lt;/i&gt;" in answer.text
    assert answer.headers["X-Read-Only-From"]


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("source", [BANNER, "{{ readonly.banner }}"])
def test_the_banner_of_a_bypass_is_its_holders(make_app: MakeApp, source: str, scope: tuple[str, ...]) -> None:
    """By a request as a browser sends it; a page that everybody may keep is then one that nobody else may."""
    app = make_app()

    @app.get("/")
    def home() -> Any:
        return render_template_string(source), {"Cache-Control": PUBLIC}

    holder = let_through(switch_of(app), *scope)

    def get(cookie: str) -> tuple[str, Any]:
        answer = app.test_client(use_cookies=False).get("/", headers={"Cookie": cookie} if cookie else {})
        return answer.text, answer.headers

    check(get, holder)


def test_the_banner_escapes_by_itself(make_app: MakeApp) -> None:
    """Also where the site has switched that off."""
    app = make_app(wrap=False)
    app.select_jinja_autoescape = lambda filename: False  # type: ignore[method-assign]
    ReadOnly(app)
    switch_of(app).on(message="<b>moving</b>")
    assert "&lt;b&gt;moving&lt;/b&gt;" in rendered(app, BANNER)
    own = BANNER.replace("banner()", "banner(class='\"><i>', text='<u>', until='<s>')")
    switch_of(app).off()
    switch_of(app).on(expected=timedelta(hours=1))
    shown = rendered(app, own)
    assert not re.search(r"<[ius]>", shown)
    assert "&lt;u&gt;" in shown


def test_words_of_the_sites_own(make_app: MakeApp) -> None:
    """For a translation, or another tone; an operator's message comes first."""
    app = make_app()
    source = BANNER.replace("banner()", "banner(class='note', text=_('Nur lesen'), until='Bis')")
    app.jinja_env.globals["_"] = str.upper
    switch_of(app).on(expected=timedelta(hours=1))
    shown = rendered(app, source)
    assert 'class="note"' in shown
    assert "<p>NUR LESEN</p>" in shown
    assert "<p>Bis <time" in shown


def test_a_template_of_the_sites_own_comes_first(make_app: MakeApp, tmp_path: Path) -> None:
    """A file of that name in the application's folder takes the place of ours."""
    (tmp_path / "readonly").mkdir()
    (tmp_path / "readonly" / "banner.html").write_text("{% macro banner() %}ours{% endmacro %}")
    app = make_app(options={"template_folder": str(tmp_path)})
    assert rendered(app, BANNER) == "ours"


def test_a_blueprint_of_our_name(make_app: MakeApp) -> None:
    """Two of one name would hide each other's templates."""
    app = make_app(wrap=False)
    app.register_blueprint(Blueprint("readonly_flask", __name__))
    with pytest.raises(ConfigurationError, match="readonly_flask"):
        ReadOnly(app)


# --- the site's own page ----------------------------------------------------------------------------------------------


def refused(app: Flask) -> Any:
    """Have a browser's write refused."""
    return app.test_client().post("/", headers={"Accept": "text/html"})


def test_a_page_from_a_template(make_app: MakeApp, tmp_path: Path) -> None:
    """It is given what is known of the refusal, and escapes as templates do."""
    (tmp_path / "refused.html").write_text("{{ refused.status }} {{ refused.message }} {{ readonly.read_only }}")
    app = make_app(options={"template_folder": str(tmp_path)}, READONLY_PAGE="refused.html")
    switch_of(app).on(message="<b>moving</b>")
    answer = refused(app)
    assert (answer.status_code, answer.text) == (503, "503 &lt;b&gt;moving&lt;/b&gt; True")
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    assert answer.headers["Retry-After"]


def test_a_page_from_a_function(make_app: MakeApp) -> None:
    """The core's own way."""

    def page(refused: Refused) -> str:
        return f"page {refused.code}"

    app = make_app(READONLY_PAGE=page)
    switch_of(app).on()
    assert refused(app).text == "page READ_ONLY"


def test_a_folder_of_words(make_app: MakeApp, tmp_path: Path) -> None:
    """A site replaces one sentence in one language; the rest is the library's."""
    catalog = Catalog(locale="de")
    catalog.add("No changes right now", "Heute Ruhetag")
    folder = tmp_path / "de" / "LC_MESSAGES"
    folder.mkdir(parents=True)
    with (folder / "readonly.mo").open("wb") as out:
        write_mo(out, catalog)
    app = make_app(READONLY_WORDS=str(tmp_path))
    switch_of(app).on()
    answer = app.test_client().post("/", headers={"Accept": "text/html", "Accept-Language": "de"})
    assert ("Heute Ruhetag" in answer.text, "wurde nicht gespeichert" in answer.text) == (True, True)


def test_a_page_that_fails(make_app: MakeApp, caplog: pytest.LogCaptureFixture) -> None:
    """A template that is not there makes no 500 of a refusal: ours is shown, and the log says why."""
    app = make_app(READONLY_PAGE="missing.html")
    switch_of(app).on()
    with caplog.at_level(logging.ERROR, "readonly"):
        answer = refused(app)
    assert (answer.status_code, "No changes right now" in answer.text) == (503, True)
    assert "missing.html" in caplog.text


# --- the signal -------------------------------------------------------------------------------------------------------


def started(app: Flask) -> None:
    """Start an application's switch, and wait until it has told of its beginning: the question is behind that."""
    switch_of(app).start()
    assert switch_of(app).members()


@contextmanager
def heard(sender: Flask | None = None) -> Iterator[list[tuple[str, State, str]]]:
    """Collect what is sent: the application's name, the state, and the thread it came in."""
    found: list[tuple[str, State, str]] = []

    def receive(app: Flask, state: State) -> None:
        found.append((app.name, state, threading.current_thread().name))

    connect: Callable[..., Any] = changed.connected_to
    with connect(receive, sender) if sender is not None else connect(receive):
        yield found


def test_a_change_is_told(make_app: MakeApp) -> None:
    """To whoever listens to the application, with the new state, in the switch's thread."""
    one, two = make_app("one"), make_app("two")
    started(one)
    started(two)
    with heard(one) as told, heard() as all_told:
        switch_of(one).on(message="moving")
        eventually(lambda: [s.message for _, s, _ in told] == ["moving"], what="the change was told")
        assert told[0][0] == "one"
        assert told[0][2] == "readonly-follower"
        switch_of(two).on()
        eventually(lambda: [name for name, _, _ in all_told] == ["one", "two"], what="the other one's, too")
        assert len(told) == 1
        switch_of(one).off()
        eventually(lambda: [s.read_only for _, s, _ in told] == [True, False], what="the end was told")


def test_a_receiver_that_fails_breaks_nothing(make_app: MakeApp, caplog: pytest.LogCaptureFixture) -> None:
    """It is logged; the state changes all the same."""
    app = make_app()
    started(app)

    def fail(app: Flask, state: State) -> None:
        raise LookupError("a receiver's own fault")

    with changed.connected_to(fail, app):
        assert switch_of(app).on().read_only
        eventually(lambda: "a receiver's own fault" in caplog.text, what="it was logged")


def test_nothing_is_sent_for_what_is_closed(make_app: MakeApp) -> None:
    """An application that was closed, or is gone, says nothing more, though others share its switch."""
    app = make_app()
    switch = switch_of(app)
    other = make_app("other", switch=switch)
    installed(other).close()
    started(app)
    with heard() as told:
        switch.on()
        eventually(lambda: bool(told), what="the first one is told")
        assert [name for name, _, _ in told] == ["site"]


def test_a_page_in_a_view(make_app: MakeApp, tmp_path: Path) -> None:
    """A whole page with the banner, as a browser gets it."""
    (tmp_path / "page.html").write_text(f"<body>{BANNER}<h1>hello</h1></body>")
    app = make_app(options={"template_folder": str(tmp_path)})
    app.add_url_rule("/", "home", lambda: render_template("page.html"))
    client = app.test_client()
    assert client.get("/").text == "<body><h1>hello</h1></body>"
    switch_of(app).on()
    assert 'role="status"' in client.get("/").text
