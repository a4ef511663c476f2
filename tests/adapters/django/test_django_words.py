"""The languages of refusals: Django's catalogs, and the core's behind them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from django.test import override_settings

from readonly import Switch
from readonly.rules import Facts
from readonly_django.test import override_readonly
from readonly_django.words import languages

from .conftest import Visitor


def test_what_django_can_not_say_the_core_says(project: None) -> None:
    """Languages that nobody has put into Django's catalogs; also a kind of one."""
    with override_settings(LANGUAGES=[("en", "English"), ("fr-ca", "French"), ("nl", "Dutch")]):
        said = {}
        for wanted in ("fr-CA", "nl"):
            language, catalog = languages(Facts("POST", "/", headers={"accept-language": wanted}))
            said[language] = (
                catalog.gettext("No changes right now"),
                catalog.ngettext("in about {n} hour", "in about {n} hours", 2).format(n=2),
            )
    assert said == {
        "fr-ca": ("Aucune modification pour le moment", "dans 2 heures environ"),
        "nl": ("No changes right now", "in about 2 hours"),
    }


@override_settings(LANGUAGES=[("en", "English"), ("fr", "Français")])
def test_the_banner_of_read_only_time(visitor: Visitor) -> None:
    """In languages that only the library's catalogues have, too; and past the announced end without a time."""
    with override_readonly(expected=timedelta(hours=1)):
        text = visitor.get("/banner", accept_language="fr").content.decode()
        assert 'data-readonly-banner="read_only" lang="fr"' in text
        assert "Le site est en lecture seule" in text
        assert '<time datetime="' in text
    with override_readonly(expected=timedelta(microseconds=1)):
        text = visitor.get("/banner", accept_language="fr").content.decode()
        assert "Cela prend plus de temps que prévu." in text
        assert "<time" not in text


def test_the_banner_announces(switch: Switch, visitor: Visitor) -> None:
    """A window that is about to begin, in the visitor's language; no cache keeps the page."""
    switch.schedule(datetime.now(UTC) + timedelta(minutes=9), lasting=timedelta(hours=1))
    answer = visitor.get("/banner", accept_language="de")
    text = answer.content.decode()
    assert 'data-readonly-banner="announced" lang="de"' in text
    assert "Speichern Sie vorher" in text
    assert answer.headers["X-Read-Only-From"]
    assert answer.headers["cache-control"] == "no-store"
