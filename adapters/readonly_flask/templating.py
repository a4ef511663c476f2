"""What templates see of the state: a global, a banner, and the site's own page for refusals."""

from __future__ import annotations

import weakref
from datetime import UTC, datetime
from typing import Final

from flask import Blueprint, Flask, has_request_context, request
from markupsafe import Markup

from readonly.errors import ConfigurationError
from readonly.notices import Notice, Notices, banner, script_tag
from readonly.pages import Page, Refused
from readonly.rules import Facts
from readonly.state import State
from readonly.switch import Switch
from readonly.words import Languages, Words
from readonly.wsgi import facts_of

# Of the Jinja global. Templates of ours are found below a folder of the same name.
NAME: Final = "readonly"
_BLUEPRINT: Final = "readonly_flask"
_NOBODY: Final = Facts("GET", "/")


class Shown:
    """What `{{ readonly }}` is: nothing that visitors may not see, read anew each time it is asked."""

    def __init__(self, switch: Switch, languages: Languages | None) -> None:
        self._switch = switch
        self._languages = languages or Words()
        self._notices = Notices(switch)

    @property
    def notice(self) -> Notice | None:
        """What there is to say to this visitor: of a window that comes, of read-only time, of a bypass."""
        if not has_request_context():
            return self._notices.of()
        return self._notices.of(facts_of(request.environ), request.headers.getlist("Cookie"))

    @property
    def banner(self) -> Markup:
        """The same as HTML, in the visitor's language; empty if there is nothing to say."""
        facts = facts_of(request.environ) if has_request_context() else _NOBODY
        language, catalog = self._languages(facts)
        return Markup(banner(self.notice, catalog, language))  # noqa: S704 - everything in it was escaped

    @property
    def script(self) -> Markup:
        """The element that loads the script, which keeps the banner true; the library's routes have to be mounted."""
        mount = request.script_root if has_request_context() else ""
        return Markup(script_tag(mount))  # noqa: S704 - the path was escaped

    @property
    def _state(self) -> State:
        return self._switch.state

    @property
    def read_only(self) -> bool:
        """Whether writes are refused now."""
        return self._state.read_only

    @property
    def message(self) -> str:
        """What the operator wrote for visitors, else ""."""
        return self._state.message

    @property
    def since(self) -> datetime | None:
        """When it began, UTC."""
        return self._state.since

    @property
    def expected_end(self) -> datetime | None:
        """When it is expected to be over, UTC."""
        return self._state.expected_end

    @property
    def overdue(self) -> bool:
        """Whether that has passed, so that nobody believes in it any more."""
        end = self._state.expected_end
        return end is not None and end <= datetime.now(UTC)


def check(app: Flask) -> None:
    """Make sure that our templates can be added.

    Raises:
        ConfigurationError: The name of the blueprint that brings them is taken.
    """
    if _BLUEPRINT in app.blueprints:
        raise ConfigurationError(f"a blueprint named {_BLUEPRINT!r} is there already: rename it, the name is ours.")


def install(app: Flask, switch: Switch, languages: Languages | None = None) -> None:
    """Give an application's templates the global `readonly`, and the template `readonly/banner.html`."""
    app.register_blueprint(Blueprint(_BLUEPRINT, __name__, template_folder="templates"))
    app.jinja_env.globals[NAME] = Shown(switch, languages)


def page(app: Flask, given: str | Page | None) -> Page | None:
    """Return the site's own page for refusals: a function as it is, a template's name as what renders it.

    A page is kept and shown to everybody, so the template is rendered outside of any request: it is given `refused` (a
    `readonly.pages.Refused`) and the globals of the environment.
    """
    if given is None or callable(given):
        return given
    name = given
    # The switch's side must not keep an application alive.
    known = weakref.ref(app)

    def render(refused: Refused, /) -> str:
        found = known()
        if found is None:  # pragma: no cover - its middleware is gone with it
            raise RuntimeError("the application is gone")
        return found.jinja_env.get_template(name).render(refused=refused)

    return render
