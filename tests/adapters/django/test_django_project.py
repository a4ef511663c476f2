"""What a project sees beside its requests: settings, checks, migrations, templates, the server's lifespan."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.apps import apps
from django.core.checks import run_checks
from django.core.management import CommandError, call_command
from django.db.models.signals import post_migrate, pre_migrate
from django.test import override_settings

import readonly_django
from readonly import Switch, changes
from readonly.bypass import COOKIE
from readonly.changes import Operator
from readonly.record import RUN
from readonly.words import Words
from readonly_django import checks, conf
from readonly_django.asgi import with_lifespan
from readonly_django.test import override_readonly
from support.collecting import nothing_in_flight
from support.django_site import views
from support.django_site.models import Article
from support.holding import SCOPES, check, let_through
from support.waiting import eventually

from .conftest import FIRST, OURS, Visitor, Witness

ROOT = Path(__file__).resolve().parents[3]
STORE = "memory://?site=django-tests"

# --- settings --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"LOGN": []}, "no setting is called 'LOGN'; did you mean 'LOGIN'?"),
        ({"FROBNICATE": 1}, "no setting is called 'FROBNICATE'; its keys are STORE, "),
        (["STORE"], "READONLY is a list and no dict"),
        ({"STORE": 3}, 'READONLY["STORE"]=3 is no text'),
        ({"LEASE": "soon"}, "READONLY[\"LEASE\"]='soon' is no number of seconds"),
        ({"LEASE": True}, 'READONLY["LEASE"]=True is no number'),
        ({"BOOT": "ajar"}, "READONLY[\"BOOT\"]='ajar' is not a choice: use 'closed' or 'open'"),
        ({"LOGIN": "/login"}, "READONLY[\"LOGIN\"]='/login' is a bare string where a list belongs"),
        ({"LOGIN": ["login"]}, "READONLY[\"LOGIN\"]: 'login' is not a rule"),
        ({"EXEMPT": ["/"]}, "READONLY[\"EXEMPT\"]: '/' would let everything through"),
        ({"SESSIONS": "burn"}, "READONLY[\"SESSIONS\"]='burn' is not a choice"),
        ({"SESSION_COOKIES": ["a b"]}, "READONLY[\"SESSION_COOKIES\"]: 'a b' is not a cookie's name"),
        ({"FIND_LOGINS": 1}, 'READONLY["FIND_LOGINS"]=1 is not a choice: use True or False'),
        ({"REPLICAS_SCHEMA": "alembick"}, 'READONLY["REPLICAS_SCHEMA"]: '),
        ({"REPLICAS_NONE_FIT": "nobody"}, "READONLY[\"REPLICAS_NONE_FIT\"]='nobody' is not a choice"),
        ({"REPLICAS": "replica"}, "READONLY[\"REPLICAS\"]='replica' is a bare string"),
        ({"UNGUARDED": 7}, 'READONLY["UNGUARDED"]=7 is no list'),
        ({"POOLERS": "transaction"}, "READONLY[\"POOLERS\"]='transaction' is no dict"),
        ({"POOLERS": {"default": "statement"}}, "READONLY[\"POOLERS\"]['default']='statement' is no choice"),
        ({"DISCARD": [7]}, 'READONLY["DISCARD"]=7 is no text'),
        ({"PAGE": 7}, 'READONLY["PAGE"]=7 is no text'),
        ({"RETRY_AFTER_SECONDS": 0}, 'READONLY["RETRY_AFTER_SECONDS"]=0 must be a number of seconds'),
    ],
)
def test_a_setting_that_can_not_be_right_is_named(given: Any, said: str) -> None:
    """Unknown, mistyped, or without sense; Django's commands show it without a traceback."""
    with pytest.raises(conf.SettingsError) as caught:
        conf.read_settings(given, {})
    assert said in str(caught.value)


@pytest.mark.parametrize("given", ["redis://:hush@flag/0?site=shop", {"STORE": b"redis://:hush@flag/0?site=shop"}])
def test_no_password_is_shown(given: Any) -> None:
    """An address where it does not belong, or as bytes: what is said of it goes to a log."""
    with pytest.raises(conf.SettingsError) as caught:
        conf.read_settings(given, {})
    assert "hush" not in str(caught.value)


def test_the_environment_fills_in_what_is_not_said() -> None:
    """It is where deployments keep addresses; the project's own settings come first."""
    environ = {"READONLY_STORE": "redis://flag/0?site=shop", "READONLY_LEASE": "30", "READONLY_SESSIONS": "keep"}
    found = conf.read_settings(None, environ)
    assert (found.store, found.lease, found.policy) == ("redis://flag/0?site=shop", 30.0, {})
    assert conf.read_settings({"STORE": "memory://"}, environ).store == "memory://"
    assert conf.read_settings({"REPLICAS": ["a"]}, {}).replicas == {"default": ("a",)}
    assert conf.read_settings({"REPLICAS": {"b": ["a"]}}, {}).replicas == {"b": ("a",)}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, 'READONLY["STORE"] is not set'),
        ({"STORE": "redis://flag/0"}, 'READONLY["STORE"]: '),
        ({"STORE": STORE, "LEASE": 0.5}, "READONLY: lease=0.5 will not do"),
        ({"STORE": STORE, "PAGE": "no.such.page"}, 'READONLY["PAGE"]: '),
        ({"STORE": STORE, "PAGE": "readonly.__version__"}, "is no page"),
    ],
)
def test_the_server_does_not_start_with_them(database: Path, given: Any, said: str) -> None:
    """The middleware is made when it starts."""
    with override_settings(READONLY=given, MIDDLEWARE=[OURS]):
        with pytest.raises(conf.SettingsError) as caught:
            Visitor().get("/")
        assert said in str(caught.value)


def test_the_switch_stands_for_whichever_there_is(switch: Switch) -> None:
    """It may be imported anywhere, and settings that do not concern it make no other."""
    assert isinstance(conf.switch, Switch)
    assert repr(conf.switch) == repr(switch)
    with override_settings(READONLY={"STORE": STORE, "GUARD": False, "READS": ["POST /x"]}):
        assert conf.current_switch() is switch
    conf.switch.guarded = True
    assert switch.guarded is True


# --- checks ----------------------------------------------------------------------------------------------------------

GOOD = {"STORE": STORE, "GUARD": False}
SQLITE = {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}
IN_DATABASE = {"default": {"BACKEND": "django.core.cache.backends.db.DatabaseCache", "LOCATION": "x"}}


@pytest.mark.parametrize(
    ("found", "settings"),
    [
        ([], {}),
        (["E001"], {"MIDDLEWARE": FIRST[1:]}),
        (["W002"], {"MIDDLEWARE": [FIRST[1], OURS, *FIRST[2:]]}),
        (["W002"], {"MIDDLEWARE": [*FIRST, OURS]}),
        (["E003"], {"READONLY": {}}),
        (["E003"], {"READONLY": {"STORE": "redis://flag/0"}}),
        (["W004"], {"READONLY": {"STORE": "redis://127.0.0.1:1/0?site=shop"}}),
        (["W004"], {"READONLY": {"STORE": "sqlite:////nowhere/flag.db?site=shop"}}),
        (["W005"], {"ROOT_URLCONF": "support.django_site.urls"}),
        ([], {"ROOT_URLCONF": "support.django_site.urls", "READONLY": {**GOOD, "LOGIN": ["/api/login"]}}),
        (["W005"], {"READONLY": {**GOOD, "FIND_LOGINS": False}}),
        (["W007"], {"CACHES": IN_DATABASE}),
        (
            ["W006", "W007"],
            {"CACHES": IN_DATABASE, "SESSION_ENGINE": "django.contrib.sessions.backends.cached_db"},
        ),
        (["E009"], {"READONLY": {**GOOD, "REPLICAS": ["replica"]}}),
        (["E009"], {"READONLY": {**GOOD, "UNGUARDED": ["queue"]}}),
    ],
)
def test_checks(project: None, found: list[str], settings: dict[str, Any]) -> None:
    """Each says what is wrong, and how to put it right."""
    with override_settings(**{"READONLY": GOOD, **settings}):
        messages = run_checks(tags=[checks.TAG])
    assert [str(message.id).removeprefix("readonly_django.") for message in messages] == found
    assert all(message.hint for message in messages if "STORE" not in message.msg)


@pytest.mark.parametrize("kind", ["redis", "sqlite"])
def test_a_store_without_a_record(redis_url: str, project: None, tmp_path: Path, kind: str) -> None:
    """The way in is named; a file that is not there is not made by looking for it."""
    url = redis_url if kind == "redis" else f"sqlite:///{tmp_path}/flag.db?site=shop"
    with override_settings(READONLY={"STORE": url}):
        (message,) = run_checks(tags=[checks.TAG])
    assert message.id == "readonly_django.W004"
    assert "manage.py readonly init" in str(message.hint)
    assert not (tmp_path / "flag.db").exists()


def test_a_store_of_one_process_is_for_tests(project: None) -> None:
    """`check --deploy` says so."""
    with override_settings(READONLY=GOOD):
        found = run_checks(tags=[checks.TAG], include_deployment_checks=True)
    assert [message.id for message in found] == ["readonly_django.W011"]


def test_a_queue_in_the_database(project: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its workers could not even take a job."""
    monkeypatch.setattr(apps, "is_installed", lambda name: name in ("django_q", "post_office"))
    assert [message.id for message in checks.queues(None)] == ["readonly_django.W008"] * 2


def test_two_owners_of_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """The installer overwrites one with the other, and says nothing."""
    owners = {"readonly": ["readonly-mode", "django-readonly", "readonly-mode"]}
    monkeypatch.setattr("importlib.metadata.packages_distributions", lambda: owners)
    (message,) = checks.owners(None)
    assert "django-readonly and readonly-mode" in message.msg


# --- migrations ------------------------------------------------------------------------------------------------------


def migrate(**more: Any) -> None:
    """Migrate a little: which changes nothing, and sends all signals."""
    call_command("migrate", "contenttypes", fake=True, verbosity=0, **more)


def test_a_migration_is_refused_while_read_only(project: None, witness: Witness) -> None:
    """Before anything was done; reading plans is no migration."""
    with override_readonly(reason="INC-441"):
        witness.saw_a_write()
        with pytest.raises(CommandError, match=r"INC-441.*READONLY_RUN") as caught:
            migrate()
        assert caught.value.returncode == 75
        call_command("showmigrations", "contenttypes", verbosity=0, stdout=StringIO())
        assert not witness.saw_a_write()


def test_a_migration_is_in_flight(switch: Switch) -> None:
    """From its first receiver to its last one."""
    counted: list[int] = []

    def note(**_: Any) -> None:
        counted.append(switch.inflight.count())

    pre_migrate.connect(note)
    post_migrate.connect(note)
    try:
        migrate()
    finally:
        pre_migrate.disconnect(note)
        post_migrate.disconnect(note)
    assert counted
    assert set(counted[:-1]) == {1}
    assert switch.inflight.count() == 0


def test_a_migration_inside_its_run(switch: Switch, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run that stands names itself in the environment of what it runs."""
    done = changes.turn_on(switch.store.reopened(), Operator("anna", "bastion"), kind=RUN)
    switch.look()
    monkeypatch.setattr(switch, "_run", "another")  # as READONLY_RUN says when a process starts
    with pytest.raises(CommandError, match="read-only"):
        migrate()
    monkeypatch.setattr(switch, "_run", done.causes[0])
    migrate()
    assert switch.inflight.count() == 0


def test_a_migration_that_fails_leaves_nothing_behind(switch: Switch) -> None:
    """Neither a write in flight, nor a way in for the next one."""

    def fail(**_: Any) -> None:
        raise ValueError("no")

    pre_migrate.connect(fail)
    try:
        with pytest.raises(ValueError, match="no"):
            migrate()
    finally:
        pre_migrate.disconnect(fail)
    with override_readonly(), pytest.raises(CommandError):
        migrate()
    eventually(lambda: nothing_in_flight(switch), what="what failed is collected")


def test_a_database_that_is_left_alone_is_migrated(project: None) -> None:
    """It is not what is read-only."""
    with override_settings(READONLY={**GOOD, "UNGUARDED": ["default"]}), override_readonly():
        migrate()


# --- templates -------------------------------------------------------------------------------------------------------


def test_the_banner_is_there_while_it_is_true(visitor: Visitor) -> None:
    """With the operator's message, escaped, in the visitor's language; and no cache keeps it."""
    assert visitor.get("/banner").content == b"<p>False</p>"
    with override_readonly(message="<b>moving</b>"):
        answer = visitor.get("/banner", accept_language="de")
        assert b"&lt;b&gt;moving&lt;/b&gt;" in answer.content
        assert 'lang="de"' in answer.content.decode()
        assert b"<p>True</p>" in answer.content
        assert answer.headers["cache-control"] == "no-store"
    with override_readonly():
        assert b"You can go on reading" in visitor.get("/banner").content


def test_djangos_own_cache_does_not_keep_the_banner(project: None) -> None:
    """It would go on saying so for as long as it keeps pages."""
    cached = [
        OURS,
        "django.middleware.cache.UpdateCacheMiddleware",
        *FIRST[1:],
        "django.middleware.cache.FetchFromCacheMiddleware",
    ]
    with override_settings(MIDDLEWARE=cached, CACHE_MIDDLEWARE_KEY_PREFIX="banner"):
        with override_readonly():
            assert b"<p>True</p>" in Visitor().get("/banner").content
        assert b"<p>False</p>" in Visitor().get("/banner").content


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("source", ["{% load readonly %}{% readonly_banner %}", "{{ readonly.banner }}"])
@pytest.mark.parametrize("cached", [False, True])
def test_the_banner_of_a_bypass_is_its_holders(
    switch: Switch, monkeypatch: pytest.MonkeyPatch, source: str, scope: tuple[str, ...], cached: bool
) -> None:
    """By a request as a browser sends it; neither a cache on the way nor Django's own hands it to others."""
    monkeypatch.setattr(views, "BANNER", source)
    middleware = [OURS, "django.middleware.cache.UpdateCacheMiddleware", *FIRST[1:]]
    middleware += ["django.middleware.cache.FetchFromCacheMiddleware"]
    prefix = f"bypass-{source}-{scope}".replace(" ", "")
    with override_settings(MIDDLEWARE=middleware if cached else FIRST, CACHE_MIDDLEWARE_KEY_PREFIX=prefix):
        holder = let_through(switch, *scope)

        def get(cookie: str) -> tuple[str, Any]:
            answer = Visitor().get("/banner", **({"cookie": cookie} if cookie else {}))
            return answer.content.decode(), answer.headers

        check(get, holder)


@pytest.mark.parametrize("kind", ["sync", "async"])
@pytest.mark.parametrize("path", ["/", "/streamed", "/missing", "/broken"])
def test_what_a_bypass_lets_write_is_in_flight_until_its_end(switch: Switch, kind: str, path: str) -> None:
    """However it ends, or whoever takes the bypass back would wait for ever; and not before."""
    inflight = switch.inflight
    token = let_through(switch).partition(f"{COOKIE}=")[2]
    answer = Visitor(kind, raise_request_exception=False).post(path, x_read_only_bypass=token)
    assert answer.status_code != 503
    if answer.streaming and kind == "sync":
        assert len(inflight.left(())) == 1
        assert b"".join(answer.streaming_content) == b"one two"
    answer.close()
    assert inflight.left(()) == frozenset()


def test_every_text_is_translated() -> None:
    """What the core's own catalogue says need not be said again; and what is compiled is what is written."""
    import gettext

    folder = Path(readonly_django.__file__).parent
    found = folder / "locale" / "de" / "LC_MESSAGES"
    with (found / "django.mo").open("rb") as compiled:
        catalog = gettext.GNUTranslations(compiled)
    known = catalog._catalog  # type: ignore[attr-defined]
    said: set[str] = set()
    for path in (ROOT / "readonly/pages/__init__.py", ROOT / "readonly/rejection.py", *folder.glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("_", "gettext_lazy", "ngettext"):
                said |= {str(arg.value) for arg in node.args[:1] if isinstance(arg, ast.Constant)}
            elif isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "gettext":
                said |= {str(arg.value) for arg in node.args if isinstance(arg, ast.Constant)}
    for page in folder.rglob("*.html"):
        for text, context in re.findall(r'translate ["\']([^"\']+)["\'](?: context "([^"]+)")?', page.read_text()):
            said.add(f"{context}\x04{text}" if context else text)
    # Words that every admin has are translated there.
    assert len(said) > 40
    core = Words().catalog("de")
    texts = (text for text in said - {"Home"} if text not in known and (text, 0) not in known)
    assert sorted(text for text in texts if core.gettext(text) == text and core.ngettext(text, text, 1) == text) == []
    written = (found / "django.po").read_text(encoding="utf-8")
    for text in known:
        message = text[0] if isinstance(text, tuple) else text.rpartition("\x04")[2]
        assert f'msgid "{message}"' in written
        for translated in [known[text]] if message else []:
            assert f'"{translated}"' in written


# --- the server ------------------------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_the_switch_starts_and_ends_with_the_server(switch: Switch) -> None:
    """Django knows nothing of lifespans; an idle worker is a member all the same."""
    asked: list[str] = []
    messages = iter([{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}])
    sent: list[str] = []
    alone = Switch.from_url("memory://?site=lifespan")

    async def application(scope: Any, receive: Any, send: Any) -> None:
        asked.append(scope["type"])

    async def receive() -> Any:
        return next(messages)

    async def send(message: Any) -> None:
        sent.append(message["type"])
        if message["type"] == "lifespan.startup.complete":
            assert [member.role for member in alone.members()] == ["job"]

    wrapped: Callable[..., Any] = with_lifespan(application, alone)
    await wrapped({"type": "lifespan"}, receive, send)
    await wrapped({"type": "http"}, receive, send)
    assert asked == ["http"]
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]


def test_probes_tell_of_the_switch_that_is_in_use(visitor: Visitor) -> None:
    """Other settings, as a test may have them, make another switch; the routes keep neither."""

    def mode() -> str:
        return str(visitor.get("/probes/-/readonly/ready").json()["mode"])

    assert mode() == "writable"
    with override_settings(READONLY={**GOOD, "STORE": "memory://?site=other"}), override_readonly():
        assert mode() == "read-only"
    assert mode() == "writable"
    with override_readonly():
        assert mode() == "read-only"


def test_probes(visitor: Visitor) -> None:
    """Read-only fails none, and they say nothing that is not public."""
    with override_readonly(reason="INC-441", message="moving"):
        ready = visitor.get("/probes/-/readonly/ready")
        assert (ready.status_code, ready.json()) == (200, {"ready": True, "mode": "read-only"})
        status = visitor.get("/probes/-/readonly/status")
        assert (status.json()["read_only"], status.json()["message"]) == (True, "moving")
        assert status.headers["cache-control"] == "no-store"
        assert b"INC-441" not in status.content
    assert visitor.post("/probes/-/readonly/status").status_code == 405
    assert Article.objects.count() == 0


@pytest.mark.parametrize(
    ("middleware", "told"),
    [(FIRST, ()), (FIRST[1:], ("absent MIDDLEWARE",)), ([*FIRST, OURS], ("twice in MIDDLEWARE",))],
)
def test_a_process_doubts_its_list_of_middleware(middleware: list[str], told: tuple[str, ...]) -> None:
    """For `doctor`, which never loads the project."""
    with override_settings(MIDDLEWARE=middleware, READONLY={"STORE": "memory://?site=doubtful"}):
        assert conf.current_switch().doubts.told() == told
