"""What a refused form gives back to whoever typed it, and which part of that nobody may see again.

Only a form that this very site sent is given back, and only what fits: its body is read once it is known that the
request is refused, and where neither a rule nor its size speaks against that. A form from elsewhere gets the plain
page: a "try again" of ours would turn a request of another site into one of this site's own.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from dataclasses import dataclass
from enum import StrEnum
from typing import Final
from urllib.parse import urlsplit

from .forms import Field, fields_of
from .negotiation import Format, negotiate
from .policy import Policy
from .rules import BODY_LIMIT_BYTES, Facts, PathRule

# More are no text that somebody typed; each makes a piece of the page.
MOST_FIELDS: Final = 200
# A body of this size has been sent by then; whoever sends it slower than that is shown the page without it.
SECONDS: Final = 5.0

_FORM: Final = "application/x-www-form-urlencoded"
_FILES: Final = "multipart/form-data"
# Words in the name of a field, in the languages of the catalogues and then some; and what stands inside of one word.
_SECRET_WORDS: Final = frozenset(
    {
        *("pass", "passphrase", "passcode", "password", "passwort", "passwd", "pwd", "pw", "pin", "tan", "otp", "totp"),
        *("mfa", "kennwort", "contrasena", "clave", "motdepasse", "mdp", "senha", "secret", "iban", "ssn"),
        *("card", "karte", "tarjeta", "carte", "cc", "cvc", "cvv", "cvn", "csc"),
    }
)
_SECRET_PARTS: Final = ("passw", "kennw", "creditcard", "cardnum", "cardno", "ccnum", "ccexp", "securitycode", "cvv")
_TOKEN_PARTS: Final = ("csrf", "xsrf", "token", "nonce", "captcha", "verification")


class Offer(StrEnum):
    """Whether a refused request is given back."""

    NO = ""
    FORM = "form"
    LARGE = "large"
    FILES = "files"
    # Set where its body was read, after all.
    KEPT = "kept"


@dataclass(frozen=True, slots=True)
class Draft:
    """A form that was refused.

    Attributes:
        fields: Names and values in the order in which they were sent, without those that are secret.
        left_out: Names of the secret ones.
        id: The same for the same form, whoever sends it how often in the same read-only time.
        key: A name for sending it again, once: an Idempotency-Key.
        ended: It came with a session that has ended.
    """

    fields: tuple[Field, ...]
    left_out: tuple[str, ...]
    id: str
    key: str
    ended: bool = False


class Drafts:
    """Decides for one application which refused forms are given back. Any thread may use it."""

    def __init__(self, policy: Policy) -> None:
        self._undrafted = tuple(rule for rule in policy.rules("undrafted") if isinstance(rule, PathRule))

    @staticmethod
    def concerns(facts: Facts) -> bool:
        """Return whether a refusal may depend on more than its headers say, so that it is kept for nobody else."""
        return _media(facts) == _FORM and negotiate(facts) is Format.PAGE

    def offer(self, facts: Facts, *, secure: bool) -> Offer:
        """Return what a refused request is given back, its body not being read.

        Args:
            facts: The request.
            secure: It came by https.
        """
        media = _media(facts)
        if media not in (_FORM, _FILES) or facts.method != "POST" or facts.kind != "http":
            return Offer.NO
        if negotiate(facts) is not Format.PAGE or not is_own_form(facts, secure=secure):
            return Offer.NO
        if any(rule.concerns(facts) for rule in self._undrafted):
            return Offer.NO
        if media == _FILES:
            return Offer.FILES
        length = facts.headers.get("content-length") or ""
        if not (length.isascii() and length.isdigit() and int(length[:20]) <= BODY_LIMIT_BYTES):
            return Offer.LARGE
        return Offer.FORM

    @staticmethod
    def draft(facts: Facts, *, since: str, ended: bool) -> Draft | None:
        """Return what was typed, or None if that can't be told or is too much.

        Args:
            facts: The request, with the whole of its body.
            since: A name for the read-only time that it came in.
            ended: It came with a session that has ended.
        """
        sent = fields_of(facts)
        if sent is None or len(sent) > MOST_FIELDS:
            return None
        secret = {name for name, value in sent if is_secret(name) or is_card(value)}
        fields = tuple(field for field in sent if field[0] not in secret)
        left_out = tuple(dict.fromkeys(name for name, _ in sent if name in secret))
        typed = [field for field in fields if not is_token(field[0])]
        text = repr((since, facts.path, facts.query, typed)).encode("utf-8", "surrogatepass")
        found = hashlib.sha256(text).hexdigest()[:24]
        return Draft(fields, left_out, found, secrets.token_hex(16), ended)


def is_own_form(facts: Facts, *, secure: bool) -> bool:
    """Return whether a browser says that a page of this very origin sent a form, to be shown what comes of it."""
    get = facts.headers.get
    if (get("sec-fetch-mode") or "navigate") != "navigate":
        return False
    site = get("sec-fetch-site")
    if site is not None:
        return site == "same-origin"
    origin, host = get("origin"), get("host")
    if not origin or not host:
        return False
    try:
        scheme, found, path, query, fragment = urlsplit(origin.lower())
    except ValueError:
        return False
    # A proxy may have taken the encryption off: https is right in any case, http where nothing was encrypted.
    right = scheme == "https" or (scheme == "http" and not secure)
    return right and found == host.lower() and not (path or query or fragment)


def is_secret(name: str) -> bool:
    """Return whether a field is never given back, by its name: passwords, and what is on a card."""
    words, joined = _words(name)
    return not words.isdisjoint(_SECRET_WORDS) or any(part in joined for part in _SECRET_PARTS)


def is_card(value: str) -> bool:
    """Return whether a value is a card's number, whatever its field is called: HTML tells browsers alone what it is."""
    digits = value.strip().replace(" ", "").replace("-", "")
    if _CARD.match(digits) is None:
        return False
    doubled = [int(digit) * (1 + place % 2) for place, digit in enumerate(reversed(digits))]
    return sum(number // 10 + number % 10 for number in doubled) % 10 == 0


def is_token(name: str) -> bool:
    """Return whether a field was not typed but made by the site for this form: it goes back unseen, and unchanged."""
    return any(part in _words(name)[1] for part in _TOKEN_PARTS)


# American Express; Visa, Mastercard, Discover. Others have lengths that identifiers of rows have, too.
_CARD: Final = re.compile(r"(?:3[47][0-9]{13}|4[0-9]{15}|(?:5[1-5]|2[2-7]|6[05])[0-9]{14})\Z")
_CAMEL: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_SEPARATED: Final = re.compile(r"[^a-z]+")


def _words(name: str) -> tuple[frozenset[str], str]:
    words = [word for word in _SEPARATED.split(_CAMEL.sub(" ", name[:200]).lower()) if word]
    return frozenset(words), "".join(words)


def _media(facts: Facts) -> str:
    return (facts.headers.get("content-type") or "").partition(";")[0].strip().lower()
