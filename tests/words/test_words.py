"""What visitors read, in their language."""

from __future__ import annotations

import io
import string
from pathlib import Path

import pytest
from babel.messages.catalog import Catalog
from babel.messages.mofile import write_mo

from readonly.errors import ConfigurationError
from readonly.rules import Facts
from readonly.words import Words, direction
from words import catalogs

TITLE = "No changes right now"


def asked(wanted: str | None) -> Facts:
    """Return a request that asks for a language."""
    return Facts("POST", "/", headers={} if wanted is None else {"accept-language": wanted})


@pytest.mark.parametrize("language", catalogs.LANGUAGES)
def test_a_catalogue_says_all_that_the_source_says(language: str) -> None:
    """Nothing is missing, nothing is left over, what is filled in stays to be filled in, and the compiled one is it."""
    catalog = catalogs.read(language)
    found = {message.id: message.string for message in catalog if message.id}
    assert set(found) == {message.id for message in catalogs.template() if message.id}
    for source, translation in found.items():
        sources = source if isinstance(source, tuple | list) else (source,)
        told = translation if isinstance(translation, tuple | list) else (translation,)
        translations = [str(text) for text in told]
        assert all(translations), f"{language} lacks {source!r}"
        wanted = {name for text in sources for _, name, _, _ in string.Formatter().parse(text) if name}
        for text in translations:
            assert {name for _, name, _, _ in string.Formatter().parse(text) if name} == wanted, text
    assert catalogs.path_of(language).with_suffix(".mo").read_bytes() == catalogs.compiled(catalog)


@pytest.mark.parametrize(
    ("wanted", "language"),
    [
        (None, "en"),
        ("", "en"),
        ("de", "de"),
        ("de-AT,en;q=0.5", "de"),
        ("DE-at", "de"),
        ("xx,fr;q=0.8,es;q=0.9", "es"),
        ("en-US,en;q=0.9,de;q=0.8", "en"),
        ("*", "en"),
        ("xx;q=1, *;q=0.5, de;q=0.1", "en"),
        ("de;q=0, fr;q=0.1", "fr"),
        ("../../etc/passwd", "en"),
        ("de;q=oops", "en"),
    ],
)
def test_which_language(wanted: str | None, language: str) -> None:
    """The best that there is, by what was asked for; never one that was not."""
    assert Words()(asked(wanted))[0] == language


def test_a_site_adds_a_language_and_replaces_a_sentence(tmp_path: Path) -> None:
    """Its own are asked first; what they do not say is said by the library's, in that language."""
    for language, words in (("pt_BR", {TITLE: "Sem alterações agora"}), ("de", {TITLE: "Heute Ruhetag"})):
        catalog = Catalog(locale=language)
        for source, translation in words.items():
            catalog.add(source, translation)
        out = io.BytesIO()
        write_mo(out, catalog)
        folder = tmp_path / language / "LC_MESSAGES"
        folder.mkdir(parents=True)
        (folder / "readonly.mo").write_bytes(out.getvalue())
    words_of = Words(tmp_path, default="pt-BR")
    language, portuguese = words_of(asked("pt-BR"))
    assert (language, portuguese.gettext(TITLE)) == ("pt-BR", "Sem alterações agora")
    assert portuguese.gettext("Please try again later.") == "Please try again later."
    german = words_of(asked("de"))[1]
    assert german.gettext(TITLE) == "Heute Ruhetag"
    assert german.gettext("Please try again later.").startswith("Bitte")
    assert words_of(asked("xx"))[0] == "pt-BR"


def test_what_can_not_be_a_folder_of_words_stops_the_start(tmp_path: Path) -> None:
    """By name."""
    with pytest.raises(ConfigurationError, match=r"holds no catalogue"):
        Words(tmp_path)
    folder = tmp_path / "de" / "LC_MESSAGES"
    folder.mkdir(parents=True)
    (folder / "readonly.mo").write_bytes(b"no catalogue")
    with pytest.raises(ConfigurationError, match=r"can't be read"):
        Words(tmp_path)
    with pytest.raises(ConfigurationError, match=r"default='xx'"):
        Words(default="xx")


def test_which_way_a_language_runs() -> None:
    """By its script, whatever the region."""
    assert [direction(language) for language in ("ar", "he-IL", "fa", "de", "pt-BR")] == ["rtl"] * 3 + ["ltr"] * 2
