"""The script that pages of a site load: it keeps the banner true, and what visitors typed until it can be sent.

One file without dependencies, made of the parts in this folder, served below `/-/readonly` under a name that changes
with what is in it. It needs no more of a Content-Security-Policy than `script-src 'self'; connect-src 'self'`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from importlib.resources import files
from typing import Final

from ..pages import ENGLISH, Catalog

_PARTS: Final = ("timing.js", "banner.js", "kept.js", "telling.js", "drafts.js", "requests.js", "main.js")
# A page may load it twice, in its own layout and with what was typed: two of them would send everything twice.
_ONCE: Final = "if (window.readOnlyMode) { return; }\n"


def _joined() -> bytes:
    parts = [files(__name__).joinpath(name).read_text(encoding="utf-8") for name in _PARTS]
    return ("(function () {\n'use strict';\n" + _ONCE + "\n".join(parts) + "})();\n").encode()


SCRIPT: Final = _joined()
# Of what it holds: a browser keeps it for good, and gets another one when there is another one.
SCRIPT_NAME: Final = f"script-{hashlib.sha256(SCRIPT).hexdigest()[:16]}.js"
SCRIPT_PATH: Final = f"/-/readonly/{SCRIPT_NAME}"


def script_words(catalog: Catalog = ENGLISH) -> Mapping[str, str]:
    """Return what the script says by itself.

    Args:
        catalog: In which language.
    """
    _ = catalog.gettext
    return {
        "over": _("The site takes changes again."),
        "kept": _("It is kept in this tab, and sent by itself as soon as changes are possible."),
        "sending": _("It is being sent."),
        "elsewhere": _("It was sent from another tab."),
        "unsure": _("No answer came back: it may have arrived. Look before you send it again; it is kept in this tab."),
        "refused": _("The site did not take it. It is kept in this tab: look at it in the form."),
        "ended": _("It is kept in this tab. Your session has ended: log in again, then send it."),
        "login": _("Log in again"),
        "filled": _("This is what you typed before. Look at it, and send it."),
        "unsent": _("Something that you typed was not sent."),
        "form": _("To the form"),
        "sent": _("What you typed before was sent. Look whether it is there."),
        "page": _("To the page"),
        "gone": _("The page has no such form any more. What you typed is kept in this tab: copy it from here."),
        "typed": _("What you typed"),
        "discard": _("Discard"),
        "manual": _("It is kept in this tab. Send it when changes are possible again."),
    }
