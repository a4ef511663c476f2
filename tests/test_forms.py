"""Forms that read or write by the button that was pressed: what a framework would find, these predicates find."""

from __future__ import annotations

import asyncio
import importlib.util
import io
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from readonly.errors import ConfigurationError
from readonly.forms import form_with, form_without
from readonly.gate import ActKind, Gate
from readonly.policy import Policy
from readonly.rules import Facts, rule

URLENCODED = "application/x-www-form-urlencoded"
MULTIPART = "multipart/form-data; boundary=xyz"


def facts(body: bytes | None, content_type: str | None = URLENCODED, query: str = "", **more: Any) -> Facts:
    """Return a POST."""
    headers = {} if content_type is None else {"content-type": content_type}
    return Facts("POST", "/search", query=query, headers=headers, body=body, **more)


def multipart(*fields: tuple[str, str], boundary: str = "xyz") -> bytes:
    """Return a body as browsers write it."""
    parts = [
        f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n' for name, value in fields
    ]
    return "".join([*parts, f"--{boundary}--\r\n"]).encode()


FILE = (
    b'--xyz\r\nContent-Disposition: form-data; name="q"\r\n\r\ngoal\r\n'
    b'--xyz\r\nContent-Disposition: form-data; name="photo"; filename="a.png"\r\nContent-Type: image/png\r\n\r\n'
    b'name="save"\r\n--xyz--\r\n'
)


@pytest.mark.parametrize(
    ("without", "asked"),
    [
        (True, facts(b"q=goal")),
        (True, facts(b"q=save")),
        (True, facts(b"q=goal&saved=1")),
        (True, facts(b"q=goal&SAVE=1")),
        (True, facts(b"")),
        (True, facts(b"", None)),
        (True, facts(b"q=goal", URLENCODED + "; charset=UTF-8")),
        (True, facts(b"q=goal&action=find")),
        (False, facts(b"q=goal&save=")),
        (False, facts(b"q=goal&save")),
        (False, facts(b"save=1&q=goal&save=0")),
        (False, facts(b"q=goal&s%61ve=1")),
        (False, facts(b"q=goal;save=1")),
        (False, facts(b"q=goal&save.x=3&save.y=9")),
        (False, facts(b"q=goal&action=delete")),
        (False, facts(b"q=goal&action=find&action=delete")),
        (False, facts(b"q=goal&action.x=7")),
        (False, facts(b"q=goal&gr%C3%B6%C3%9Fe=1")),
        (False, facts("q=goal&größe=1".encode())),
        (False, facts(b"q=goal", query="save=1")),
        (False, facts(b"q=goal", query="s%61ve")),
        (True, facts(b"q=goal", query="page=2")),
        # What can't be told.
        (False, facts(b"q=goal", body_complete=False)),
        (False, facts(None)),
        (False, facts(b"q=goal", None)),
        (False, facts(b'{"q": "goal"}', "application/json")),
        (False, facts(b"q=goal", "text/plain")),
        (False, facts(b"q=goal", URLENCODED + "; charset=utf-16")),
        (False, facts(b"q=goal", URLENCODED + ", text/plain")),
        (False, facts(b"q=\xff")),
        (False, facts(b"q=%ff")),
        (False, facts(b"q=goal", query="q=%ff")),
        (False, facts(b"", kind="websocket")),
        # Several parts.
        (True, facts(multipart(("q", "goal")), MULTIPART)),
        (True, facts(multipart(("q", "save")), MULTIPART)),
        (True, facts(multipart(("q", "a"), boundary="--=x"), 'multipart/form-data; boundary="--=x"')),
        (True, facts(FILE, MULTIPART)),
        (True, facts(multipart(("q", "goal")).removesuffix(b"\r\n"), MULTIPART)),
        (False, facts(multipart(("q", "goal"), ("save", "")), MULTIPART)),
        (False, facts(multipart(("save", "1"), ("q", "goal"), ("save", "0")), MULTIPART)),
        (False, facts(multipart(("action", "delete")), MULTIPART)),
        (False, facts(multipart(("größe", "1")), MULTIPART)),
        (True, facts(multipart(("action", "find")), MULTIPART)),
        (False, facts(multipart(("q", "goal")), "multipart/form-data")),
        (False, facts(multipart(("q", "goal")), MULTIPART + "; boundary=abc")),
        (False, facts(multipart(("q", "goal")), "multipart/mixed; boundary=xyz")),
        (False, facts(multipart(("q", "goal"))[:-9], MULTIPART)),
        (False, facts(b"preamble\r\n" + multipart(("q", "goal")), MULTIPART)),
        (False, facts(multipart(("q", "goal")) + b"epilogue", MULTIPART)),
        (False, facts(multipart(("q", "goal")).replace(b"\r\n", b"\n"), MULTIPART)),
        (False, facts(multipart(('q"; x="', "goal")), MULTIPART)),
        (False, facts(multipart(("q%22", "goal")), MULTIPART)),
        (False, facts(multipart(("q", "a")).replace(b'name="q"', b'name="q"; name="save"'), MULTIPART)),
        (False, facts(multipart(("q", "a")).replace(b'name="q"', b"name*=utf-8''save"), MULTIPART)),
        (False, facts(multipart(("q", "a")).replace(b'name="q"', b"name=save"), MULTIPART)),
        (False, facts(multipart(("q", "a")).replace(b'name="q"', b'name="s\\ave"'), MULTIPART)),
        (False, facts(multipart(("q", "a")).replace(b"\r\n\r\n", b"\r\nX-A: b\r\n\r\n"), MULTIPART)),
        (False, facts(multipart(("q", "a\n--xyz\nContent-Disposition: x")), MULTIPART)),
    ],
)
def test_what_was_sent(without: bool, asked: Facts) -> None:
    """One predicate is the other's opposite; the doubtful counts as a write."""
    fields = ("save", "action=delete", "größe")
    assert form_without(*fields)(asked) is without
    assert form_with(*fields)(asked) is not without


@pytest.mark.parametrize("fields", [(), ("",), ("=x",)])
def test_a_field_must_be_named(fields: tuple[str, ...]) -> None:
    """A predicate that is always true would be no rule."""
    for make in (form_with, form_without):
        with pytest.raises(ConfigurationError, match="name a field"):
            make(*fields)


def test_they_say_what_they_are() -> None:
    """In a rule's text."""
    assert repr(rule("POST /search", when=form_without("save"))) == "rule('POST /search', when=form_without('save'))"
    assert repr(form_with("save", "a=b")) == "form_with('save', 'a=b')"


@pytest.mark.parametrize(
    "policy",
    [
        Policy(reads=[rule("POST /search", when=form_without("save"))]),
        Policy(reads=["POST /search"], writes=[rule("POST /search", when=form_with("save"))]),
    ],
    ids=["as a read", "as a write"],
)
def test_both_ways_to_say_it(policy: Policy) -> None:
    """The one rule that lets through, or the two: nothing doubtful passes."""
    gate = Gate(policy)
    reading = facts(b"q=goal")
    assert gate.wants_body(reading)
    assert gate.classify(reading).kind is ActKind.DECLARED_READ
    doubtful = (facts(b"save=1"), facts(b"q=a", body_complete=False), facts(b"{}", "application/json"))
    for asked in (*doubtful, facts(b"q=a&_method=DELETE")):
        assert gate.classify(asked).may_write


# --- against the parsers of real frameworks --------------------------------------------------------------------------


def _in_starlette(body: bytes, content_type: str) -> list[str]:
    from starlette.requests import Request

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    scope = {
        "type": "http",
        "method": "POST",
        "query_string": b"",
        "headers": [(b"content-type", content_type.encode("latin-1"))],
    }

    async def read() -> list[str]:
        async with Request(scope, receive).form() as form:
            return [name for name, _ in form.multi_items()]

    return asyncio.run(read())


def _in_werkzeug(body: bytes, content_type: str) -> list[str]:
    from werkzeug.wrappers import Request

    request = Request(
        {
            "REQUEST_METHOD": "POST",
            "wsgi.input": io.BytesIO(body),
            "CONTENT_LENGTH": str(len(body)),
            "CONTENT_TYPE": content_type,
        }
    )
    return [*request.form, *request.files]


def _in_django(body: bytes, content_type: str) -> list[str]:
    from django.conf import settings
    from django.core.handlers.wsgi import WSGIRequest

    if not settings.configured:
        settings.configure()
    request = WSGIRequest(
        {
            "REQUEST_METHOD": "POST",
            "SCRIPT_NAME": "",
            "PATH_INFO": "/",
            "wsgi.input": io.BytesIO(body),
            "CONTENT_LENGTH": str(len(body)),
            "CONTENT_TYPE": content_type,
        }
    )
    return [*request.POST, *request.FILES]


FINDERS = [
    find
    for name, find in (("starlette", _in_starlette), ("werkzeug", _in_werkzeug), ("django", _in_django))
    if importlib.util.find_spec(name) is not None
]


def _names(body: bytes, content_type: str) -> Iterator[str]:
    """Yield every field that some framework finds."""
    for find in FINDERS:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                yield from find(body, content_type)
        except Exception:
            continue  # it answers 400, or 500: no view gets a form


PIECES = st.sampled_from(
    [
        b"--xyz",
        b"--xyz--",
        b"\r\n",
        b"\n",
        b"\r\n\r\n",
        b'Content-Disposition: form-data; name="q"',
        b'Content-Disposition: form-data; name="save"',
        b"content-disposition: form-data; name=save",
        b'Content-Disposition: form-data; name="q"; name="save"',
        b"Content-Disposition: form-data; name*=utf-8''save",
        b'Content-Disposition: form-data; name="s\\ave"',
        b'Content-Disposition: form-data;\r\n name="save"',
        b"Content-Type: text/plain",
        b"Content-Transfer-Encoding: base64",
        b" ",
        b"value",
        b'"',
    ]
)
WHOLE = st.lists(
    st.sampled_from(
        [
            b'--xyz\r\nContent-Disposition: form-data; name="q"\r\n\r\ngoal\r\n',
            b'--xyz\r\nContent-Disposition: form-data; name="save"\r\n\r\n1\r\n',
            b'--xyz \r\nContent-Disposition: form-data; name="save"\r\n\r\n1\r\n',
            b'--xyz\r\nContent-Type: text/plain\r\nContent-Disposition: form-data; name="save"\r\n\r\n1\r\n',
            b'--xyz\nContent-Disposition: form-data; name="save"\n\n1\n',
            b'--xyz\r\nContent-Disposition: attachment; name="save"\r\n\r\n1\r\n',
            b'--xyzz\r\nContent-Disposition: form-data; name="save"\r\n\r\n1\r\n',
        ]
    ),
    max_size=4,
).map(lambda parts: b"".join(parts) + b"--xyz--\r\n")


@given(body=st.one_of(st.lists(PIECES, max_size=14).map(b"".join), WHOLE))
def test_no_framework_finds_a_field_that_is_not_found_here(body: bytes) -> None:
    """In several parts, whatever is done to them."""
    if form_without("save")(facts(body, MULTIPART)):
        assert "save" not in [*_names(body, MULTIPART)]


@given(
    body=st.lists(
        st.sampled_from([b"save", b"s%61ve", b"%73ave", b"q", b"=", b"&", b";", b"+", b"%", b"%26", b"\xc3", b"a"]),
        max_size=12,
    ).map(b"".join)
)
def test_no_framework_finds_a_field_in_a_line_that_is_not_found_here(body: bytes) -> None:
    """In one line, as most forms are sent."""
    if form_without("save")(facts(body)):
        assert "save" not in [*_names(body, URLENCODED)]


def test_the_frameworks_are_asked() -> None:
    """The comparison above would say nothing if nobody found anything."""
    assert [*_names(multipart(("save", "1")), MULTIPART)] == ["save"] * len(FINDERS)
    assert [*_names(b"save=1", URLENCODED)] == ["save"] * len(FINDERS)
