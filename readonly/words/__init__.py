"""What visitors read, in their language: catalogues in the usual form (GNU gettext), chosen by Accept-Language.

English is the language of the source; German, French and Spanish come with the library. A site adds others, or replaces
any sentence, by a folder of its own: `LANGUAGE/LC_MESSAGES/readonly.mo`. What neither has is said in English.
"""

from __future__ import annotations

import gettext
import logging
from collections.abc import Callable, Mapping
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Final

from ..errors import ConfigurationError
from ..negotiation import weighed
from ..pages import ENGLISH, Catalog, direction
from ..rules import Facts

DOMAIN: Final = "readonly"
# What browsers send is shorter. What is longer is cut off, so that nobody fills the memory with what was chosen for it.
WANTED_CHARACTERS: Final = 200

logger = logging.getLogger("readonly")
Languages = Callable[[Facts], tuple[str, Catalog]]

__all__ = ["DOMAIN", "Languages", "Words", "direction", "languages_of"]


class Words:
    """The catalogues of a site. Any thread may use it; nothing is read after it was made."""

    def __init__(self, folder: str | Path | None = None, *, default: str = "en") -> None:
        """Read the catalogues.

        Args:
            folder: The site's own, asked before the library's.
            default: The language of those who ask for none of these.

        Raises:
            ConfigurationError: The folder is not there, holds no catalogue or one that can't be read; or there is no
                catalogue in the default language.
        """
        self.catalogs: Mapping[str, Catalog] = {"en": ENGLISH, **_read()}
        if folder is not None:
            theirs = _read_from(Path(folder))
            for language, catalog in theirs.items():
                # What the site does not say in a language, the library may.
                catalog.add_fallback(_known(language))
            self.catalogs = {**self.catalogs, **theirs}
        if default not in self.catalogs:
            raise ConfigurationError(
                f"default={default!r}: there is no catalogue in that language; there are "
                f"{', '.join(sorted(self.catalogs))}"
            )
        self.default = default
        self._names = {name.lower(): name for name in self.catalogs}
        self._chosen = lru_cache(maxsize=512)(self._choose)

    def __call__(self, facts: Facts) -> tuple[str, Catalog]:
        """Return which language a request is answered in, as HTML spells it, and what translates to it."""
        wanted = facts.headers.get("accept-language")
        if wanted is None:
            language = self.default
        elif len(wanted) <= WANTED_CHARACTERS:
            language = self._chosen(wanted)
        else:
            # The last one may have been cut in two.
            language = self._chosen(wanted[:WANTED_CHARACTERS].rpartition(",")[0])
        return language, self.catalogs[language]

    def catalog(self, language: str) -> Catalog:
        """Return the catalogue of a language, or of what it is a kind of (`de` for `de-at`); else English."""
        found = self._known(language)
        return ENGLISH if found is None else self.catalogs[found]

    def _choose(self, wanted: str) -> str:
        # The longest tag that is a beginning of what was asked for (RFC 4647, section 3.4, lookup).
        for tag, _ in sorted(weighed(wanted), key=lambda item: -item[1]):
            if tag == "*":
                return self.default
            found = self._known(tag)
            if found is not None:
                return found
        return self.default

    def _known(self, tag: str) -> str | None:
        tag = tag.lower()
        while tag:
            if tag in self._names:
                return self._names[tag]
            tag = tag.rpartition("-")[0]
        return None


def languages_of(given: str | Path | Languages | None) -> Languages:
    """Return what answers in a visitor's language.

    Args:
        given: A folder of the site's own catalogues, something that chooses by itself (such as `Words`), or None for
            the library's own.

    Raises:
        ConfigurationError: The folder won't do.
    """
    return given if callable(given) else Words(given)


@lru_cache(maxsize=1)
def _read() -> dict[str, gettext.GNUTranslations]:
    """Read the library's own. They are part of the distribution: one that is broken is a broken installation."""
    found: dict[str, gettext.GNUTranslations] = {}
    for language in files(__name__).joinpath("locale").iterdir():
        compiled = language.joinpath("LC_MESSAGES", f"{DOMAIN}.mo")
        if compiled.is_file():
            with compiled.open("rb") as stream:
                found[language.name] = gettext.GNUTranslations(stream)
    return found


def _read_from(folder: Path) -> dict[str, gettext.GNUTranslations]:
    found = {}
    for compiled in sorted(folder.glob(f"*/LC_MESSAGES/{DOMAIN}.mo")):
        # As gettext spells it, pt_BR; as HTML does, pt-BR.
        language = compiled.parents[1].name.replace("_", "-")
        try:
            with compiled.open("rb") as stream:
                found[language] = gettext.GNUTranslations(stream)
        except (OSError, UnicodeDecodeError, ValueError) as error:
            raise ConfigurationError(f"the catalogue {compiled} can't be read: {error}") from error
    if not found:
        raise ConfigurationError(
            f"the folder {folder} holds no catalogue: compile LANGUAGE/LC_MESSAGES/{DOMAIN}.po there, "
            "with msgfmt or pybabel"
        )
    return found


def _known(language: str) -> gettext.NullTranslations:
    found = _read()
    return found.get(language) or found.get(language.partition("-")[0]) or gettext.NullTranslations()
