"""The wheel that users install: what is in it, what importing it loads, and that the tests pass against it."""

from __future__ import annotations

import ast
import email
import json
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest

from support.environments import ThinEnvironment
from support.processes import run

ROOT = Path(__file__).parents[2]
FRAMEWORKS = frozenset(
    {"celery", "django", "fastapi", "flask", "gunicorn", "jinja2", "starlette", "uvicorn", "werkzeug"}
)
CLIENTS = frozenset(
    {"aiosqlite", "asyncpg", "httpx", "psycopg", "pymysql", "redis", "sqlalchemy", "valkey", "websockets"}
)
FRAMEWORKS_AND_CLIENTS = FRAMEWORKS | CLIENTS
# What importing the core must not load, on top of those: the command's own packages.
OF_THE_COMMAND = frozenset({"click", "rich"})
RUNS_THE_TESTS = ("pytest>=8", "pytest-timeout", "pytest-randomly", "hypothesis", "anyio", "packaging", "psutil")


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    """The project's own description of itself."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    built = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", os.fspath(folder)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    (found,) = folder.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def names(wheel: Path) -> list[str]:
    """The names of all files in the wheel."""
    return zipfile.ZipFile(wheel).namelist()


@pytest.fixture(scope="module")
def installed(wheel: Path, project: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> ThinEnvironment:
    """An environment with the wheel, its plain dependencies, and what runs tests; no framework, no client."""
    requirements = [*project["project"]["dependencies"], *RUNS_THE_TESTS]
    environment = ThinEnvironment(tmp_path_factory.mktemp("installed") / "env", requirements)
    environment.install(wheel)
    return environment


def test_every_package_of_the_checkout_is_in_the_wheel(project: dict[str, Any], names: list[str]) -> None:
    """The list in pyproject.toml, the folders, and the wheel's top level name the same packages."""
    folders = {"readonly", *(f"adapters/{each.parent.name}" for each in ROOT.glob("adapters/*/__init__.py"))}
    assert set(project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]) == folders
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {Path(each).name for each in folders}


def test_every_file_of_a_package_is_in_the_wheel(project: dict[str, Any], names: list[str]) -> None:
    """Modules, pages and marks are all shipped, and nothing else is."""
    expected = {
        file.relative_to(package.parent).as_posix()
        for package in (ROOT / each for each in project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"])
        for file in package.rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }
    assert {name for name in names if ".dist-info/" not in name} == expected


def test_every_package_is_marked_as_typed(names: list[str]) -> None:
    """A checker that follows PEP 561 reads our annotations."""
    packages = {name.split("/")[0] for name in names if ".dist-info/" not in name}
    assert {package for package in packages if f"{package}/py.typed" not in names} == set()


def test_the_metadata_is_complete(wheel: Path, names: list[str], project: dict[str, Any]) -> None:
    """Licence, extras, the README where there is one; and no lower bound became a pin."""
    described = next(name for name in names if name.endswith(".dist-info/METADATA"))
    metadata = email.message_from_bytes(zipfile.ZipFile(wheel).read(described))
    assert metadata["Name"] == "readonly-mode"
    assert metadata["License-Expression"] == "MIT"
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)
    assert set(metadata.get_all("Provides-Extra") or ()) == set(project["project"]["optional-dependencies"])
    required = metadata.get_all("Requires-Dist") or []
    assert [each for each in required if re.search(r"==|~=|<", each.split(";")[0])] == []
    if (ROOT / "README.md").exists():
        assert project["project"].get("readme") == "README.md", 'add readme = "README.md" to [project]'


def test_importing_the_core_loads_no_framework_and_no_client(wheel: Path, tmp_path: Path) -> None:
    """Also where all of them are installed: the wheel in front of everything that this run has."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "wheel")
    show = (
        "import json, sys, readonly\n"
        "print(json.dumps([readonly.__file__, sorted({name.split('.')[0] for name in sys.modules})]))"
    )
    done = run(
        sys.executable,
        *("-P", "-c", show),
        environment={"PYTHONPATH": os.fspath(tmp_path / "wheel"), "COVERAGE_PROCESS_CONFIG": ""},
        folder=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    file, loaded = json.loads(done.stdout)
    assert file.startswith(os.fspath(tmp_path)), "the checkout was imported"
    assert set(loaded) & (FRAMEWORKS_AND_CLIENTS | OF_THE_COMMAND) == set()


def test_the_environment_has_no_framework(installed: ThinEnvironment, tmp_path: Path) -> None:
    """What the next tests rely on: none of them can be imported there."""
    show = "import importlib.util, sys; print([n for n in sys.argv[1:] if importlib.util.find_spec(n)])"
    done = run(installed.python, "-P", "-c", show, *sorted(FRAMEWORKS_AND_CLIENTS), folder=tmp_path)
    assert done.stdout.strip() == "[]"


def test_the_command_works_from_the_wheel(installed: ThinEnvironment, tmp_path: Path) -> None:
    """With nothing but the plain dependencies: as a script and as a module."""
    for command in ([installed.folder / "bin" / "readonlyctl"], [installed.python, "-P", "-m", "readonly"]):
        version = run(*command, "--version", folder=tmp_path)
        assert (version.returncode, version.stderr) == (0, "")
        assert re.search(r"\b0\.\d+\.\d+", version.stdout)
        helped = run(*command, "--help", folder=tmp_path)
        assert helped.returncode == 0, helped.stderr
        assert {"init", "on", "off", "status", "members"} <= set(helped.stdout.split())


@pytest.mark.timeout(900)
def test_the_suite_passes_against_the_wheel(installed: ThinEnvironment, tmp_path: Path) -> None:
    """Every test file that needs no framework, no client and no server runs where none is installed."""
    files = sorted(framework_free())
    assert files, "no test file is free of frameworks: is the detection still right?"
    done = run(
        installed.python,
        # `-P`: the checkout is the working directory, and must not be what is imported.
        *("-P", "-m", "pytest", "-q", "--no-header", "-p", "no:cacheprovider", "-o", "pythonpath=tests"),
        *(file.relative_to(ROOT) for file in files),
        environment={"READONLY_TEST_INSTALLED_BELOW": os.fspath(installed.folder), "PYTHONDONTWRITEBYTECODE": "1"},
        folder=ROOT,
        timeout=800,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]


def framework_free() -> list[Path]:
    """Return the test files whose imports and fixtures the thin environment can satisfy, found by reading them."""
    provided = {"hypothesis", "anyio", "packaging", "psutil", "pytest", "readonly", "click", "rich", "itsdangerous"}
    servers = re.compile(r"\b(own_redis|redis_url|redis_server|postgres\w*|subprocess|processes|demo_app)\b")
    found = []
    # The core's own tests: those in folders have a conftest.py each, with needs of its own.
    for file in ROOT.glob("tests/test_*.py"):
        text = file.read_text()
        if servers.search(text):
            continue
        if all(_available(name, provided) for name in imported(text)):
            found.append(file)
    return found


def imported(text: str) -> set[str]:
    """Return the dotted names of the modules that a file imports anywhere."""
    modules = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            modules.add(node.module or "")
            modules |= {f"{node.module}.{alias.name}" for alias in node.names}
    return modules


def _available(name: str, provided: set[str]) -> bool:
    # Our own modules that are named after a client need that client.
    if set(name.split(".")[1:]) & FRAMEWORKS_AND_CLIENTS:
        return False
    top = name.split(".")[0]
    return (
        top in provided
        or top in sys.stdlib_module_names
        or name.startswith(("support.waiting", "support.timing"))
        or name == "support"
    )
