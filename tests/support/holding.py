"""A banner that tells one visitor that they may write: who is shown it, and which cache may keep it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta

from readonly import Switch
from readonly.bypass import COOKIE
from readonly.bypassing import give
from readonly.changes import Operator

# What a page says of itself where everybody gets the same one.
PUBLIC = "public, max-age=600"
MINE, EVERYBODYS = 'data-readonly-banner="bypass"', 'data-readonly-banner="read_only"'
# Good everywhere, or for another path than that of the page.
SCOPES = ((), ("/admin/*",))

# Takes the value of a Cookie header, or none; returns a page with the banner, sent as PUBLIC, and its headers.
Get = Callable[[str], tuple[str, Mapping[str, str]]]


def let_through(switch: Switch, *paths: str) -> str:
    """Turn a site read-only and let somebody through; return the Cookie header of their browser."""
    switch.on(message="moving")
    _, _, link, _ = give(switch.store, Operator("bob", "bastion"), "ann", lasting=timedelta(minutes=30), paths=paths)
    switch.look()
    return f"theme=dark; {COOKIE}={switch.redeem_bypass(link)}"


def check(get: Get, holder: str) -> None:
    """Expect the holder's page to be theirs alone, whoever asks in which order."""
    for cookie in (holder, "", holder, f"{COOKIE}=rombp_made-up"):
        page, headers = get(cookie)
        mine = cookie is holder
        assert ((MINE in page), (EVERYBODYS in page)) == (mine, not mine)
        kept = headers.get("Cache-Control") or ""
        assert not mine or ("public" not in kept and ("private" in kept or "no-store" in kept)), kept
    assert "may write until" in get(holder)[0]
