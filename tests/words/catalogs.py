"""Brings the catalogues up to date with the source, and compiles them: `python -m tests.words.catalogs`.

What is new in the source is put in untranslated, and a test fails until somebody has said it in that language.
"""

from __future__ import annotations

import io
from datetime import UTC, datetime
from pathlib import Path

from babel.messages.catalog import Catalog
from babel.messages.extract import extract_from_file
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po, write_po

ROOT = Path(__file__).parents[2]
LOCALE = ROOT / "readonly" / "words" / "locale"
LANGUAGES = ("de", "es", "fr")
SOURCES = (
    "readonly/notices.py",
    "readonly/pages/__init__.py",
    "readonly/rejection.py",
    "readonly/script/__init__.py",
)
WRITTEN = datetime(2026, 1, 1, tzinfo=UTC)
# Asked for by a date, and so in no call that could be found.
DATES = (
    *("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"),
    *("January", "February", "March", "April", "May", "June", "July"),
    *("August", "September", "October", "November", "December"),
)


def template() -> Catalog:
    """Return what the source says."""
    found = Catalog(project="readonly-mode", charset="utf-8")
    for source in SOURCES:
        for _, message, comments, context in extract_from_file("python", ROOT / source):
            found.add(message, locations=[(source, 0)], auto_comments=comments, context=context)
    for word in DATES:
        found.add(word)
    return found


def path_of(language: str) -> Path:
    """Return where a language's catalogue is written."""
    return LOCALE / language / "LC_MESSAGES" / "readonly.po"


def read(language: str) -> Catalog:
    """Return a catalogue as it is written."""
    with path_of(language).open("rb") as stream:
        return read_po(stream, locale=language)


def compiled(catalog: Catalog) -> bytes:
    """Return a catalogue as gettext reads it."""
    out = io.BytesIO()
    write_mo(out, catalog)
    return out.getvalue()


def main() -> None:
    """Rewrite the catalogues."""
    for language in LANGUAGES:
        path = path_of(language)
        path.parent.mkdir(parents=True, exist_ok=True)
        catalog = read(language) if path.exists() else Catalog(locale=language, project="readonly-mode")
        catalog.update(template(), no_fuzzy_matching=True)
        catalog.obsolete.clear()
        catalog.fuzzy = False
        catalog.header_comment = f"# What readonly says to visitors, in {catalog.locale.english_name}."  # type: ignore[union-attr]
        # Dates would differ with each run, and say nothing that git does not.
        catalog.creation_date = catalog.revision_date = WRITTEN
        catalog.last_translator = catalog.language_team = catalog.msgid_bugs_address = ""
        with path.open("wb") as stream:
            write_po(stream, catalog, width=120, omit_header=False, no_location=True, sort_output=True)
        path.with_suffix(".mo").write_bytes(compiled(catalog))


if __name__ == "__main__":
    main()
