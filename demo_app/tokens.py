"""Signed texts that the site hands out and gets back: codes of the sign-in services, and the remember-me cookie."""

from __future__ import annotations

from typing import Final

from itsdangerous import BadSignature, URLSafeTimedSerializer

from demo_app.trouble import Trouble

CODE_MAX_AGE_SECONDS: Final = 300
"""How long the code of a (pretended) sign-in service may take to come back."""

REMEMBER_COOKIE: Final = "remember_token"
"""As Flask-Login calls its own; with it, a visitor whose session is over is logged in again by any page."""

REMEMBER_MAX_AGE_SECONDS: Final = 30 * 24 * 3600


class Tokens:
    """Makes and reads them, with the site's secret."""

    def __init__(self, secret: str) -> None:
        self._codes = URLSafeTimedSerializer(secret, salt="sign-in-code")
        self._remembering = URLSafeTimedSerializer(secret, salt="remember-me")

    def code(self, service: str, subject: str) -> str:
        """Return the code with which a service sends somebody back."""
        return str(self._codes.dumps([service, subject]))

    def subject(self, service: str, code: str) -> str:
        """Return whom a code names.

        Raises:
            Trouble: It is not, or no longer, a code of this service.
        """
        try:
            signed_for, subject = self._codes.loads(code, max_age=CODE_MAX_AGE_SECONDS)
        except BadSignature:
            raise Trouble(403, "That code is not, or no longer, worth anything.") from None
        if signed_for != service:
            raise Trouble(403, "That code is another service's.")
        return str(subject)

    def remember(self, account_id: int) -> str:
        """Return the value of the remember-me cookie."""
        return str(self._remembering.dumps(account_id))

    def remembered(self, token: str) -> int | None:
        """Return the account that a remember-me cookie is for, or None."""
        try:
            return int(self._remembering.loads(token, max_age=REMEMBER_MAX_AGE_SECONDS))
        except BadSignature:
            return None


def service_account(service: str, subject: str) -> tuple[str, str]:
    """Return name and display name of the account that somebody has through a sign-in service."""
    # A plus sign can't be in a name that was registered here, so nobody can claim another's account through a service.
    return f"{service}+{subject}", subject.replace("-", " ").title()
