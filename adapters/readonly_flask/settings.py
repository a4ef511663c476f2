"""The settings of `app.config`: one table, from which they are read, checked, and shown in the documentation."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, cast

from readonly.databases import POOLERS, Pooler
from readonly.databases.replicas import LAG_SECONDS, Schema, schema_of
from readonly.errors import ConfigurationError
from readonly.follower import ANNOUNCE_SECONDS
from readonly.pages import Page
from readonly.policy import RETRY_AFTER_SECONDS, Policy
from readonly.words import Languages, languages_of

PREFIX: Final = "READONLY_"
# What the bind without a key is called where a name is needed.
DEFAULT_BIND: Final = None

BindKey = str | None


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting.

    Attributes:
        name: Its key in `app.config`.
        field: The field of `Settings`, or of the policy, that it fills.
        default: As the documentation shows it.
        text: What it does, as the documentation says it.
        read: Checks what was given and returns what is used; raises ConfigurationError, with the setting's name.
        environment: The variable of the same name counts where the application's config says nothing.
        of: Whose it is: the switch's, the policy's, or the extension's own. What is given to `ReadOnly` as an object
            can't be said again in the config.
    """

    name: str
    field: str
    default: str
    text: str
    read: Callable[[str, Any], Any]
    environment: bool = False
    of: Literal["switch", "policy", "extension"] = "extension"


@dataclass(frozen=True, slots=True)
class Settings:
    """What an application's config says, checked.

    Attributes:
        given: The names that are set in the config itself.
        policy: The fields of the policy that are set.
    """

    given: frozenset[str]
    policy: Mapping[str, Any]
    store: str = ""
    lease: float | None = None
    boot: Literal["closed", "open"] = "closed"
    role: str | None = None
    runs: str = ""
    disabled: bool = False
    announce_seconds: float = ANNOUNCE_SECONDS
    find_logins: bool = True
    page: str | Page | None = None
    words: Languages | None = None
    guard: bool = True
    unguarded: frozenset[BindKey] = frozenset()
    poolers: Mapping[BindKey, Pooler] = field(default_factory=dict)
    replicas: Mapping[BindKey, tuple[str, ...]] | None = None
    replicas_always: bool = False
    replicas_schema: Schema | str | None = None
    replicas_max_lag: float = LAG_SECONDS
    replicas_none_fit: Literal["primary", "refuse"] = "primary"
    discard: tuple[str, ...] = ()


# --- reading one value ----------------------------------------------------------------------------------------------


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        # A store's URL may hold a password.
        said = "bytes" if isinstance(value, bytes) else repr(value)
        raise ConfigurationError(f"{name}={said} is no text: write it as a string, or leave the setting out.")
    return value


def _seconds(name: str, value: Any) -> float | None:
    try:
        found = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        found = math.nan
    if not math.isfinite(found):
        raise ConfigurationError(f"{name}={value!r} is no number of seconds: write 30, or leave it out.")
    return found


def _notice(name: str, value: Any) -> float:
    found = _seconds(name, value)
    if found is None or found < 0:
        raise ConfigurationError(f"{name}={value!r} is no number of seconds: write 900, or 0 to announce nothing.")
    return found


_YES: Final = ("1", "true", "yes", "on")
_NO: Final = ("0", "false", "no", "off")


def _flag(name: str, value: Any) -> bool:
    word = str(value).strip().lower()
    if word not in _YES + _NO:
        raise ConfigurationError(f"{name}={value!r} is not a choice: use True or False.")
    return word in _YES


def _boot(name: str, value: Any) -> str:
    if value not in ("closed", "open"):
        raise ConfigurationError(f"{name}={value!r} is not a choice: use 'closed' or 'open'.")
    return cast(str, value)


def _list(name: str, value: Any) -> tuple[Any, ...]:
    if isinstance(value, (str, bytes)):
        raise ConfigurationError(f"{name}={value!r} is a bare string where a list belongs: write [{value!r}].")
    if not isinstance(value, (Sequence, set, frozenset)):
        raise ConfigurationError(f"{name}={value!r} is no list: write {name} = [...].")
    return tuple(value)


def _names(name: str, value: Any) -> tuple[str, ...]:
    return tuple(_text(name, item) for item in _list(name, value))


def _binds(name: str, value: Any) -> frozenset[BindKey]:
    return frozenset(_bind(name, item) for item in _list(name, value))


def _bind(name: str, value: Any) -> BindKey:
    if value is not DEFAULT_BIND and not isinstance(value, str):
        raise ConfigurationError(
            f"{name}: {value!r} is no bind: use a key of SQLALCHEMY_BINDS, or None for SQLALCHEMY_DATABASE_URI."
        )
    return value


def _replicas(name: str, value: Any) -> Mapping[BindKey, tuple[str, ...]]:
    if not isinstance(value, Mapping):
        value = {DEFAULT_BIND: value}
    found = {_bind(name, primary): _names(name, replicas) for primary, replicas in value.items()}
    return {primary: replicas for primary, replicas in found.items() if replicas}


def _poolers(name: str, value: Any) -> Mapping[BindKey, Pooler]:
    if not isinstance(value, Mapping):
        value = {DEFAULT_BIND: value}
    for pooler in value.values():
        if pooler not in POOLERS:
            raise ConfigurationError(f"{name}: {pooler!r} is not a choice: use 'transaction' or 'session'.")
    return {_bind(name, key): pooler for key, pooler in value.items()}


def _schema(name: str, value: Any) -> Schema | str | None:
    try:
        schema_of(value)
    except ConfigurationError as error:
        raise ConfigurationError(f"{name}: {error}.") from error
    return cast("Schema | str | None", value)


def _lag(name: str, value: Any) -> float:
    found = _seconds(name, value)
    if not found:
        raise ConfigurationError(f"{name}={value!r} is no number of seconds: write 10, or leave it out.")
    return found


def _none_fit(name: str, value: Any) -> str:
    if value not in ("primary", "refuse"):
        raise ConfigurationError(f"{name}={value!r} is not a choice: use 'primary' or 'refuse'.")
    return cast(str, value)


def _page(name: str, value: Any) -> str | Page:
    if callable(value):
        return cast(Page, value)
    if not isinstance(value, str) or not value.strip():
        raise ConfigurationError(f"{name}={value!r} is no page: give the name of a template, or a function.")
    return value


def _words(name: str, value: Any) -> Languages:
    if not callable(value) and not isinstance(value, (str, Path)):
        raise ConfigurationError(f"{name}={value!r} is no folder: give its path, or a `readonly.words.Words`.")
    try:
        return languages_of(value)
    except ConfigurationError as error:
        raise ConfigurationError(f"{name}: {error}") from error


def _policy(field: str) -> Callable[[str, Any], Any]:
    """Return what checks one field of the policy, by building a policy of nothing else."""

    def read(name: str, value: Any) -> Any:
        # A key is needed with some cookies; whether there is one is another setting's affair.
        more: dict[str, Any] = {"secret": "-"} if field == "session_cookies" else {}
        try:
            return getattr(Policy(**{field: value}, **more), field)
        except ConfigurationError as error:
            # The core's messages begin with the name that its own argument has.
            text = str(error)
            raise ConfigurationError(name + text.removeprefix(field) if text.startswith(field) else text) from error

    return read


# --- the table ------------------------------------------------------------------------------------------------------

SETTINGS: Final[tuple[Setting, ...]] = (
    Setting(
        "READONLY_STORE",
        "store",
        "",
        "where the state lives: `redis://host/0?site=shop`, `sqlite:////absolute/path?site=shop`, `memory://` in tests",
        _text,
        environment=True,
        of="switch",
    ),
    Setting(
        "READONLY_LEASE",
        "lease",
        "`None`",
        "seconds for which a process admits writes without reaching the store; `None`: for ever",
        _seconds,
        environment=True,
        of="switch",
    ),
    Setting(
        "READONLY_BOOT",
        "boot",
        "`'closed'`",
        "what a process does that never reached the store: `'closed'` refuses writes, `'open'` takes them",
        _boot,
        environment=True,
        of="switch",
    ),
    Setting(
        "READONLY_ROLE",
        "role",
        "`'web'`",
        "what this process is, for `--expect web=4`; `job` where it serves no requests",
        _text,
        environment=True,
        of="switch",
    ),
    Setting(
        "READONLY_RUNS",
        "runs",
        "`''`",
        "name and version of what it runs, shown by `members`",
        _text,
        environment=True,
        of="switch",
    ),
    Setting(
        "READONLY_DISABLED",
        "disabled",
        "`False`",
        "this process obeys nothing, and says so to whoever asks for proof",
        _flag,
        environment=True,
        of="switch",
    ),
    Setting(
        "READONLY_ANNOUNCE_SECONDS",
        "announce_seconds",
        f"`{ANNOUNCE_SECONDS}`",
        "how long before a window visitors are told of it; `0`: not at all",
        _notice,
        environment=True,
        of="switch",
    ),
    Setting(
        "READONLY_EXEMPT",
        "exempt",
        "`[]`",
        "rules for requests that gate and session rules look away from; the guard does not",
        _policy("exempt"),
        of="policy",
    ),
    Setting(
        "READONLY_LOGIN",
        "login",
        "`[]`",
        "rules for what signs somebody in, added to what is found: refused",
        _policy("login"),
        of="policy",
    ),
    Setting(
        "READONLY_LOGOUT",
        "logout",
        "`[]`",
        "rules for what signs somebody out, added to what is found: let through, and the cookies are cleared",
        _policy("logout"),
        of="policy",
    ),
    Setting(
        "READONLY_READS",
        "reads",
        "`[]`",
        "rules for unsafe requests that only read (`@reads` on the view says the same)",
        _policy("reads"),
        of="policy",
    ),
    Setting(
        "READONLY_WRITES",
        "writes",
        "`[]`",
        "rules for requests that write, even on GET (`@writes` on the view says the same)",
        _policy("writes"),
        of="policy",
    ),
    Setting(
        "READONLY_SESSION_COOKIES",
        "session_cookies",
        "`[]`",
        "names of more session cookies, or `SessionCookie` objects; Flask's own and remember-me are known",
        _policy("session_cookies"),
        of="policy",
    ),
    Setting(
        "READONLY_SESSIONS",
        "sessions",
        "`'end'`",
        "`'end'`: sessions from before are over for good; `'suspend'`: until `off`; `'keep'`: they go on reading",
        _policy("sessions"),
        of="policy",
    ),
    Setting(
        "READONLY_BEARER",
        "bearer",
        "`'keep'`",
        "`'end'` takes bearer tokens off requests, too",
        _policy("bearer"),
        of="policy",
    ),
    Setting(
        "READONLY_SECRET",
        "secret",
        "`SECRET_KEY`",
        "signs the stamps of opaque session ids, a list for rotation; else `SECRET_KEY` and `SECRET_KEY_FALLBACKS`",
        _policy("secret"),
        of="policy",
    ),
    Setting(
        "READONLY_RETRY_AFTER_SECONDS",
        "retry_after_seconds",
        f"`{RETRY_AFTER_SECONDS:g}`",
        "what refused clients are told when no end was announced",
        _policy("retry_after_seconds"),
        of="policy",
    ),
    Setting(
        "READONLY_UNDRAFTED",
        "undrafted",
        "`[]`",
        "rules for forms that are not given back to whoever sent them, when they are refused",
        _policy("undrafted"),
        of="policy",
    ),
    Setting(
        "READONLY_FIND_LOGINS",
        "find_logins",
        "`True`",
        "look at the installed extensions for logins, logouts and session cookies",
        _flag,
    ),
    Setting(
        "READONLY_PAGE",
        "page",
        "`None`",
        "the site's own page for refusals: a template, which is given `refused`, or a function of it",
        _page,
    ),
    Setting(
        "READONLY_WORDS",
        "words",
        "`None`",
        "a folder of the site's own catalogues, `LANGUAGE/LC_MESSAGES/readonly.mo`, for what visitors read",
        _words,
    ),
    Setting(
        "READONLY_GUARD",
        "guard",
        "`True`",
        "guard the databases of Flask-SQLAlchemy, every bind of them",
        _flag,
    ),
    Setting(
        "READONLY_UNGUARDED",
        "unguarded",
        "`[]`",
        "keys of binds that are left alone; `None` is `SQLALCHEMY_DATABASE_URI`",
        _binds,
    ),
    Setting(
        "READONLY_POOLERS",
        "poolers",
        "`{}`",
        "what stands before a PostgreSQL, by key of its bind: `'transaction'` (PgBouncer in transaction mode: "
        "autocommit is not guarded there, and `status` says so) or `'session'`; "
        "where nothing is said, it is looked for",
        _poolers,
    ),
    Setting(
        "READONLY_REPLICAS",
        "replicas",
        "`[]`",
        "keys of binds that are replicas of the default one; or `{primary: [replica, …]}` by key",
        _replicas,
    ),
    Setting(
        "READONLY_REPLICAS_ALWAYS",
        "replicas_always",
        "`False`",
        'sessions with `db.session.info["reads"] = True` read from a replica while writable, too',
        _flag,
    ),
    Setting(
        "READONLY_REPLICAS_SCHEMA",
        "replicas_schema",
        "`None`",
        "a replica must have the schema version that this process was written for: what `alembic()` or `query()` of "
        "`readonly.databases.replicas` returns; `'alembic'` or a `SELECT`, the version that was there at the switch",
        _schema,
    ),
    Setting(
        "READONLY_REPLICAS_MAX_LAG",
        "replicas_max_lag",
        f"`{LAG_SECONDS}`",
        "seconds that a replica may be behind where no fence's position says what must be there",
        _lag,
    ),
    Setting(
        "READONLY_REPLICAS_NONE_FIT",
        "replicas_none_fit",
        "`'primary'`",
        "with no fit replica read from the `'primary'`, or `'refuse'`",
        _none_fit,
    ),
    Setting(
        "READONLY_DISCARD",
        "discard",
        "`[]`",
        "incidental writes that are dropped while read-only: `'page_view'`, `'user.last_seen'`",
        _names,
    ),
)

# Of the command and of the machine: in an application's config they would be read by nobody.
_ELSEWHERE: Final = ("READONLY_CONFIG", "READONLY_EXPECT", "READONLY_OPERATOR", "READONLY_STATE_DIR")


def read_settings(
    config: Mapping[str, Any], environ: Mapping[str, str], *, switch: bool = False, policy: bool = False
) -> Settings:
    """Read and check all settings of one application.

    Args:
        config: `app.config`.
        environ: The environment, for settings that may stand there.
        switch: A switch was given as an object.
        policy: A policy was given as an object.

    Raises:
        ConfigurationError: One is unknown, or can't be right, or is said twice; the message names it.
    """
    _refuse_unknown(config)
    found: dict[str, Any] = {}
    rules: dict[str, Any] = {}
    given = set()
    for setting in SETTINGS:
        value = config.get(setting.name)
        as_object = {"switch": switch, "policy": policy}.get(setting.of, False)
        if value is not None:
            given.add(setting.name)
            if as_object:
                raise ConfigurationError(
                    f"{setting.name} and ReadOnly({setting.of}=...) are both given: say it in one place."
                )
        elif setting.environment and not as_object and environ.get(setting.name):
            value = environ[setting.name]
        else:
            continue
        (rules if setting.of == "policy" else found)[setting.field] = setting.read(setting.name, value)
    return Settings(given=frozenset(given), policy=rules, **found)


def _refuse_unknown(config: Mapping[str, Any]) -> None:
    known = [setting.name for setting in SETTINGS]
    unknown = sorted(key for key in config if key.startswith(PREFIX) and key not in known)
    if not unknown:
        return
    if unknown[0] in _ELSEWHERE:
        raise ConfigurationError(
            f"{unknown[0]} is for the environment of whoever types commands; take it out of the application's config."
        )
    near = difflib.get_close_matches(
        unknown[0].removeprefix(PREFIX), [name.removeprefix(PREFIX) for name in known], n=1
    )
    hint = f"did you mean {PREFIX}{near[0]}?" if near else f"the settings are {', '.join(known)}."
    raise ConfigurationError(f"{', '.join(unknown)}: no setting has that name; {hint}")


def table() -> str:
    """Return the settings as the table of docs/flask.md."""
    lines = ["| setting | default | what it says |", "|---|---|---|"]
    lines += [f"| `{s.name}` | {s.default or 'none, needed'} | {s.text} |" for s in SETTINGS]
    return "\n".join(lines) + "\n"
