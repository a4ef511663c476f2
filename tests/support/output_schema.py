"""The schema of `--json`: real output is held against it, and the tables of docs/commands.md are made from it.

Here it is strict: a field that it does not name is wrong. Programs that read the output are to let new ones pass.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.resources import files
from typing import Any

import jsonschema

DEFINED_BY = {"entry": "entry_event"}
# What only a database server shows: held against its own test's output.
OF_FENCES = frozenset({"fence", "holder", "holdup", "fence_waiting", "fences"})
# What goes on until it is ended: shown by the tests of those commands.
OF_WATCHING = frozenset({"watch", "result_watch", "result_metrics"})
OF_RUNS = frozenset({"step", "output", "result_run", "result_resume", "result_abandon", "result_attach"})


@cache
def schema() -> dict[str, Any]:
    """Return the schema as it is shipped."""
    found: dict[str, Any] = json.loads((files("readonly.cli") / "output.schema.json").read_text(encoding="utf-8"))
    return found


@cache
def _strict() -> dict[str, Any]:
    strict: dict[str, Any] = json.loads(json.dumps(schema()))
    for definition in strict["$defs"].values():
        if "properties" in definition:
            definition["additionalProperties"] = False
    return strict


def name_of(document: Mapping[str, Any]) -> str:
    """Return which definition an object belongs to."""
    event = str(document.get("event"))
    if event != "result":
        return DEFINED_BY.get(event, event)
    command = document.get("command")
    return f"result_{str(command).replace(' ', '_')}" if command is not None else "result_of_no_command"


@cache
def _validator(name: str) -> Any:
    return jsonschema.Draft202012Validator({**_strict(), "oneOf": [{"$ref": f"#/$defs/{name}"}]})


def check(document: Mapping[str, Any]) -> None:
    """Fail unless an object is just as the schema says, with nothing that it does not name."""
    name = name_of(document)
    assert name in schema()["$defs"], f"the schema knows nothing of {document}"
    problems = [f"{'/'.join(map(str, e.absolute_path))}: {e.message}" for e in _problems(name, document)]
    assert not problems, f"{name}: {problems}"


def _problems(name: str, document: Mapping[str, Any]) -> Iterator[Any]:
    for error in _validator(name).iter_errors(document):
        yield from error.context or [error]


def fields_in(document: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the definitions and fields that an object shows."""
    yield from _fields(name_of(document), document)


def _fields(name: str, document: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for key, value in document.items():
        yield name, key
        # In an entry causes and members are other things than elsewhere: ids, and how many.
        inner = {
            "causes": "cause",
            "members": "member",
            "guards": "guard",
            "entries": "entry",
            "fences": "fence",
            "holders": "holder",
            "holdups": "holdup",
            "windows": "window",
            "schedules": "recurring",
            "bypasses": "bypass",
            "replicas": "replica",
            "splits": "split",
        }.get(key)
        for one in value if inner is not None and isinstance(value, list) else ():
            if isinstance(one, Mapping):
                yield from _fields(str(inner), one)


# --- the tables of the page ----------------------------------------------------------------------------------------


def tables() -> str:
    """Return the tables of docs/commands.md: what each object holds, and what each field means."""
    defined = {name: d for name, d in schema()["$defs"].items() if "properties" in d}
    objects = [(name, d) for name, d in defined.items() if "event" in d["properties"]]
    parts = [(name, d) for name, d in defined.items() if name not in dict(objects) and name != "entry"]
    lines = ["| object | fields; those in brackets are not always there |", "|---|---|"]
    for name, definition in [*objects, *parts]:
        shown = definition["title"]
        event, _, command = shown.partition(" of ")
        title = f"`{event}` of `{command}`" if command and command != "no command" else f"`{event}`"
        title = f"`{event}` of no command" if command == "no command" else title
        title = f"a {shown}" if name in dict(parts) else title
        lines.append(f"| {title} | {', '.join(_listed(definition)) or '-'} |")
    lines += ["", "| field | in | |", "|---|---|---|"]
    meanings: dict[tuple[str, str], list[str]] = {}
    for name, definition in defined.items():
        for field, told in definition["properties"].items():
            # Which event or command it is, is fixed in each definition.
            key = told["$ref"].rpartition("/")[2] if "$ref" in told else field
            if field != "event":
                described = schema()["$defs"]["fields"][key]["description"]
                where = "entry" if name == "entry_event" else name.partition("_")[0]
                found = meanings.setdefault((field, described), [])
                if where not in found:
                    found.append(where)
    everywhere = {name.partition("_")[0] for name, _ in objects}
    for (field, described), where in sorted(meanings.items(), key=lambda item: item[0][0]):
        there = "each object" if everywhere <= set(where) else ", ".join(where)
        lines.append(f"| `{field}` | {there} | {described} |")
    return "\n".join(lines)


def _listed(definition: Mapping[str, Any]) -> list[str]:
    always = {*definition["required"], *definition.get("then", {}).get("required", ())}
    head = ("schema", "event", "command", "site")
    fields = [f for f in definition["properties"] if f not in head or "event" not in definition["properties"]]
    return [f"`{field}`" if field in always else f"(`{field}`)" for field in fields]


def is_of_fences(name: str) -> bool:
    """Tell whether a definition is shown by commands that need a database server."""
    return name in OF_FENCES or name.startswith("result_fence")


def is_of_runs(name: str) -> bool:
    """Tell whether a definition is shown by commands that run a migration."""
    return name in OF_RUNS | OF_WATCHING
