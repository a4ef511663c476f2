"""The `READONLY` setting of a Django project: one table, from which it is read, checked and documented; and the switch.

    READONLY = {"STORE": "redis://flag.internal/0?site=shop", "LOGIN": ["/api/token"]}

Nothing here connects to anything or starts a thread: the switch is made when somebody asks for it.
"""

from __future__ import annotations

import difflib
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, cast

from django.conf import settings as django_settings
from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed

from readonly import Policy, SessionCookie, Switch
from readonly.databases import POOLERS, Pooler
from readonly.databases.replicas import LAG_SECONDS, Schema, schema_of
from readonly.doubts import ABSENT, PAST, TWICE
from readonly.errors import ConfigurationError
from readonly.follower import ANNOUNCE_SECONDS
from readonly.pages import Page
from readonly.policy import RETRY_AFTER_SECONDS
from readonly.stores import store_from_url

from .sockets import loaded_past

__all__ = ["SETTINGS", "Settings", "SettingsError", "current_switch", "policy", "settings", "store_url", "switch"]

MIDDLEWARE: Final = "readonly_django.middleware.ReadOnlyMiddleware"


class SettingsError(ConfigurationError, ImproperlyConfigured):
    """A setting can't be right. Django's own commands know it as `ImproperlyConfigured`."""


@dataclass(frozen=True, slots=True)
class Setting:
    """One key of `READONLY`.

    Attributes:
        name: The key.
        default: As the documentation shows it.
        text: What it does, as the documentation says it.
        read: Checks what was given and returns what is used; raises ConfigurationError.
        environment: READONLY_ and the key, in the environment, counts where the project's settings say nothing.
        of_policy: It is an argument of `Policy`, by the same name in small letters.
    """

    name: str
    default: str
    text: str
    read: Callable[[str, Any], Any]
    environment: bool = False
    of_policy: bool = False

    @property
    def field(self) -> str:
        """The field of `Settings`, or of the policy, that it fills."""
        return self.name.lower()


@dataclass(frozen=True, slots=True)
class Settings:
    """What a project says, checked. Each field is a key of `READONLY` in small letters.

    Attributes:
        policy: The arguments of `Policy` that were given.
    """

    policy: Mapping[str, Any] = field(default_factory=dict)
    store: str = ""
    lease: float | None = None
    boot: Literal["closed", "open"] = "closed"
    role: str | None = None
    runs: str = ""
    announce_seconds: float = ANNOUNCE_SECONDS
    session_age: float | None = None
    find_logins: bool = True
    page: str | Page | None = None
    guard: bool = True
    unguarded: tuple[str, ...] = ()
    poolers: Mapping[str, Pooler] = field(default_factory=dict)
    replicas: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    replicas_always: bool = False
    replicas_schema: Schema | str | None = "django"
    replicas_max_lag: float = LAG_SECONDS
    replicas_none_fit: Literal["primary", "refuse"] = "primary"
    discard: tuple[str, ...] = ()


# --- reading one value ----------------------------------------------------------------------------------------------


def _shown(name: str) -> str:
    return f'READONLY["{name}"]'


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        # A store's URL may hold a password.
        said = "bytes" if isinstance(value, bytes) else repr(value)
        raise SettingsError(f"{_shown(name)}={said} is no text: write it as a string, or leave it out.")
    return value


def _number(name: str, value: Any) -> float:
    try:
        found = float("nan") if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        found = float("nan")
    if not 0 < found < float("inf"):
        raise SettingsError(f"{_shown(name)}={value!r} is no number of seconds: write 30, or leave it out.")
    return found


def _notice(name: str, value: Any) -> float:
    if not isinstance(value, bool) and str(value) in ("0", "0.0"):
        return 0.0
    return _number(name, value)


def _flag(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise SettingsError(f"{_shown(name)}={value!r} is not a choice: use True or False.")
    return value


def _boot(name: str, value: Any) -> str:
    if value not in ("closed", "open"):
        raise SettingsError(f"{_shown(name)}={value!r} is not a choice: use 'closed' or 'open'.")
    return cast(str, value)


def _names(name: str, value: Any) -> tuple[str, ...]:
    if isinstance(value, (str, bytes)):
        raise SettingsError(f"{_shown(name)}={value!r} is a bare string where a list belongs: write [{value!r}].")
    if not isinstance(value, (Sequence, set, frozenset)):
        raise SettingsError(f"{_shown(name)}={value!r} is no list: write [...].")
    return tuple(_text(name, item) for item in value)


def _replicas(name: str, value: Any) -> Mapping[str, tuple[str, ...]]:
    if not isinstance(value, Mapping):
        return {"default": _names(name, value)}
    return {_text(name, primary): _names(name, replicas) for primary, replicas in value.items()}


def _poolers(name: str, value: Any) -> Mapping[str, Pooler]:
    if not isinstance(value, Mapping):
        raise SettingsError(f"{_shown(name)}={value!r} is no dict: write {{'default': 'transaction'}}.")
    for alias, pooler in value.items():
        if pooler not in POOLERS:
            raise SettingsError(f"{_shown(name)}[{alias!r}]={pooler!r} is no choice: use 'transaction' or 'session'.")
    return {_text(name, alias): pooler for alias, pooler in value.items()}


def _schema(name: str, value: Any) -> Schema | str | None:
    try:
        schema_of(value)
    except ConfigurationError as error:
        raise SettingsError(f"{_shown(name)}: {error}.") from error
    return cast("Schema | str | None", value or None)


def _none_fit(name: str, value: Any) -> str:
    if value not in ("primary", "refuse"):
        raise SettingsError(f"{_shown(name)}={value!r} is not a choice: use 'primary' or 'refuse'.")
    return cast(str, value)


def _page(name: str, value: Any) -> str | Page:
    return cast(Page, value) if callable(value) else _text(name, value)


def _policy(name: str, value: Any) -> Any:
    """Check one argument of the policy, by building a policy of nothing else."""
    argument = name.lower()
    # Whether there is a key is another setting's affair.
    more: dict[str, Any] = {"secret": "-"} if argument == "session_cookies" else {}
    try:
        return getattr(Policy(**{argument: value}, **more), argument)
    except ConfigurationError as error:
        # The core's messages begin with the name that its own argument has.
        text = str(error)
        said = _shown(name) + text.removeprefix(argument) if text.startswith(argument) else f"{_shown(name)}: {text}"
        raise SettingsError(said) from error


# --- the table ------------------------------------------------------------------------------------------------------

SETTINGS: Final[tuple[Setting, ...]] = (
    Setting(
        "STORE",
        "",
        "where the state lives: `redis://host/0?site=shop`, `sqlite:////absolute/path?site=shop`, `memory://` in tests",
        _text,
        environment=True,
    ),
    Setting(
        "LEASE",
        "`None`",
        "seconds for which a process admits writes without reaching the store; `None`: for ever",
        _number,
        environment=True,
    ),
    Setting(
        "BOOT",
        "`'closed'`",
        "what a process does that never reached the store: `'closed'` refuses writes, `'open'` takes them",
        _boot,
        environment=True,
    ),
    Setting(
        "ROLE",
        "`'web'`",
        "what this process is, for `--expect web=4`; `job` where it serves no requests",
        _text,
        environment=True,
    ),
    Setting("RUNS", "`''`", "name and version of what it runs, shown by `members`", _text, environment=True),
    Setting(
        "ANNOUNCE_SECONDS",
        f"`{ANNOUNCE_SECONDS}`",
        "how long before a window visitors are told of it; `0`: not at all",
        _notice,
        environment=True,
    ),
    Setting(
        "EXEMPT",
        "`[]`",
        "rules for requests that gate and session rules look away from; the guard does not",
        _policy,
        of_policy=True,
    ),
    Setting(
        "LOGIN", "`[]`", "rules for what signs somebody in, added to what is found: refused", _policy, of_policy=True
    ),
    Setting(
        "LOGOUT",
        "`[]`",
        "rules for what signs somebody out, added to what is found: let through, and the cookies are cleared",
        _policy,
        of_policy=True,
    ),
    Setting(
        "READS",
        "`[]`",
        "rules for unsafe requests that only read (`@reads` on the view says the same)",
        _policy,
        of_policy=True,
    ),
    Setting(
        "WRITES",
        "`[]`",
        "rules for requests that write, even on GET (`@writes` on the view says the same)",
        _policy,
        of_policy=True,
    ),
    Setting(
        "FIND_LOGINS",
        "`True`",
        "recognise the views of `django.contrib.auth`, the admin and allauth that sign people in and out",
        _flag,
    ),
    Setting(
        "SESSIONS",
        "`'end'`",
        "`'end'`: sessions from before are over for good; `'suspend'`: until `off`; `'keep'`: they go on reading",
        _policy,
        of_policy=True,
    ),
    Setting(
        "SESSION_COOKIES",
        "`[]`",
        "names of more session cookies, or `SessionCookie` objects; `SESSION_COOKIE_NAME` is known",
        _policy,
        of_policy=True,
    ),
    Setting(
        "SESSION_AGE",
        "`None`",
        "seconds after which the longest session is over by itself, `set_expiry` included; `None`: unknown",
        _number,
    ),
    Setting("BEARER", "`'keep'`", "`'end'` takes bearer tokens off requests, too", _policy, of_policy=True),
    Setting(
        "RETRY_AFTER_SECONDS",
        f"`{RETRY_AFTER_SECONDS:g}`",
        "what refused clients are told when no end was announced",
        _policy,
        of_policy=True,
    ),
    Setting(
        "PAGE",
        "`None`",
        "the site's own page for refusals: a template, which is given `refused`, or a function of it (or its path)",
        _page,
    ),
    Setting(
        "UNDRAFTED",
        "`[]`",
        "rules for forms that are not given back to whoever sent them, when they are refused",
        _policy,
        of_policy=True,
    ),
    Setting("GUARD", "`True`", "guard the databases", _flag),
    Setting("UNGUARDED", "`[]`", "aliases of `DATABASES` that are left alone", _names),
    Setting(
        "POOLERS",
        "`{}`",
        "what stands before a PostgreSQL, by alias: `'transaction'` (PgBouncer in transaction mode: autocommit is not "
        "guarded there, and `status` says so) or `'session'`; where nothing is said, it is looked for",
        _poolers,
    ),
    Setting(
        "REPLICAS",
        "`[]`",
        "aliases of `DATABASES` that are replicas of `default`; or `{primary: [replica, …]}` by alias",
        _replicas,
    ),
    Setting("REPLICAS_ALWAYS", "`False`", "read from replicas while writable, too", _flag),
    Setting(
        "REPLICAS_SCHEMA",
        "`'django'`",
        "a replica must have the schema version that this process was written for: `'django'`, its own migrations; "
        "`None`, don't look; a `SELECT`, or a `readonly.databases.replicas.Schema`",
        _schema,
    ),
    Setting(
        "REPLICAS_MAX_LAG",
        f"`{LAG_SECONDS}`",
        "seconds that a replica may be behind where no fence's position says what must be there",
        _number,
    ),
    Setting(
        "REPLICAS_NONE_FIT", "`'primary'`", "with no fit replica read from the `'primary'`, or `'refuse'`", _none_fit
    ),
    Setting(
        "DISCARD",
        "`[]`",
        "incidental writes that are dropped while read-only: `'stats.PageView'`, `'accounts.User.last_seen'`",
        _names,
    ),
)


def table() -> str:
    """Return the settings as the table of docs/django.md."""
    lines = ["| setting | default | what it says |", "|---|---|---|"]
    lines += [f"| `{s.name}` | {s.default or 'none, needed'} | {s.text} |" for s in SETTINGS]
    return "\n".join(lines) + "\n"


def read_settings(given: Any, environ: Mapping[str, str]) -> Settings:
    """Read and check `READONLY`.

    Args:
        given: The project's setting; None: it has none.
        environ: The environment, for what may stand there.

    Raises:
        SettingsError: A key is unknown, or a value can't be right; the message names it.
    """
    given = {} if given is None else given
    if not isinstance(given, Mapping):
        # What stands there instead may be the store's URL, and a password in it: it is not shown.
        raise SettingsError(f'READONLY is a {type(given).__name__} and no dict: write READONLY = {{"STORE": ...}}.')
    _refuse_unknown(given)
    found: dict[str, Any] = {}
    rules: dict[str, Any] = {}
    for setting in SETTINGS:
        value = given.get(setting.name)
        if value is None and setting.environment:
            value = environ.get(f"READONLY_{setting.name}") or None
        if value is not None:
            (rules if setting.of_policy else found)[setting.field] = setting.read(setting.name, value)
    return Settings(policy=rules, **found)


def _refuse_unknown(given: Mapping[Any, Any]) -> None:
    known = [setting.name for setting in SETTINGS]
    unknown = [key for key in given if key not in known]
    if unknown:
        near = difflib.get_close_matches(str(unknown[0]).upper(), known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"its keys are {', '.join(known)}."
        raise SettingsError(f"READONLY: no setting is called {', '.join(map(repr, unknown))}; {hint}")


# --- what the process uses ------------------------------------------------------------------------------------------

_lock = threading.RLock()
_settings: Settings | None = None
# By which settings it was made, what those said of it, and the switch.
_switch: tuple[Settings, tuple[Any, ...], Switch] | None = None


def settings() -> Settings:
    """Return the project's settings, checked once.

    Raises:
        SettingsError: One can't be right; the message names it.
    """
    global _settings
    found = _settings
    if found is None:
        found = _settings = read_settings(getattr(django_settings, "READONLY", None), os.environ)
    return found


def store_url() -> str:
    """Return the store's URL, whatever else is wrong in the settings; "" where none is set.

    It is all that the command needs: a mistyped setting must not keep anybody from `off`.
    """
    given = getattr(django_settings, "READONLY", None)
    found = given.get("STORE") if isinstance(given, Mapping) else None
    return found if isinstance(found, str) and found else os.environ.get("READONLY_STORE", "")


def current_switch() -> Switch:
    """Return the process's switch, made on first use.

    Raises:
        SettingsError: No store is set, or a setting can't be right; the message names it.
    """
    global _switch
    found = _switch
    if found is not None and found[0] is _settings:
        return found[2]
    with _lock:
        said = settings()
        wanted = (said.store, said.lease, said.boot, said.runs, said.role, said.announce_seconds)
        if _switch is not None and _switch[1] == wanted:
            switch = _switch[2]
        else:
            switch = _made(said)
            if _switch is not None:
                _switch[2].close()
        _switch = (said, wanted, switch)
        return switch


def _made(said: Settings) -> Switch:
    if not said.store:
        raise SettingsError(
            f"{_shown('STORE')} is not set, nor is READONLY_STORE in the environment: give it the store's URL, such as "
            "redis://flag.internal/0?site=shop (in tests memory://)."
        )
    try:
        store = store_from_url(said.store)
    except ConfigurationError as error:
        raise SettingsError(f"{_shown('STORE')}: {error}") from error
    try:
        made = Switch(
            store,
            lease=said.lease,
            boot=said.boot,
            runs=said.runs,
            role=said.role,
            announce_seconds=said.announce_seconds,
        )
    except ConfigurationError as error:
        raise SettingsError(f"READONLY: {error}") from error
    made.doubts.look_for(PAST, loaded_past)
    places = list(django_settings.MIDDLEWARE)
    if MIDDLEWARE not in places:
        made.doubts.add(ABSENT, "MIDDLEWARE")
    elif places.count(MIDDLEWARE) > 1:
        made.doubts.add(TWICE, "in MIDDLEWARE")
    return made


class _Current:
    """Stands for the process's switch, whichever that is by the time it is used."""

    def __getattribute__(self, name: str) -> Any:
        return getattr(current_switch(), name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(current_switch(), name, value)

    def __repr__(self) -> str:
        return repr(current_switch())


# Made by nobody yet: `from readonly_django.conf import switch` may stand at the top of any module.
switch: Final[Switch] = cast(Switch, _Current())


def session_cookie() -> SessionCookie:
    """Return the cookie that Django's sessions travel in."""
    engine = django_settings.SESSION_ENGINE
    return SessionCookie(
        django_settings.SESSION_COOKIE_NAME,
        path=django_settings.SESSION_COOKIE_PATH or "/",
        domain=django_settings.SESSION_COOKIE_DOMAIN or None,
        max_age_seconds=settings().session_age,
        # Its values say themselves when they were signed; all other engines hand out opaque ids.
        signed=engine == "django.contrib.sessions.backends.signed_cookies",
    )


def policy() -> Policy:
    """Return the project's policy: its rules, Django's session cookie and those it names, its keys.

    Raises:
        SettingsError: A setting can't be right; the message names it.
    """
    given = dict(settings().policy)
    own = session_cookie()
    more = tuple(cookie for cookie in given.pop("session_cookies", ()) if cookie.name != own.name)
    keys = (django_settings.SECRET_KEY, *django_settings.SECRET_KEY_FALLBACKS)
    try:
        return Policy(session_cookies=(own, *more), secret=tuple(_as_text(key) for key in keys), **given)
    except ConfigurationError as error:
        raise SettingsError(f"READONLY: {error}") from error


def _as_text(key: str | bytes) -> str:
    return key if isinstance(key, str) else key.decode("latin-1")


def _changed(*, setting: str, **_: Any) -> None:
    """Read the settings again after a test has overridden them; the switch stays where its own did not change."""
    global _settings
    if setting == "READONLY":
        _settings = None


setting_changed.connect(_changed, dispatch_uid="readonly_django.conf")
