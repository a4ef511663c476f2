"""A page of the docs, typed by somebody who has nothing else: its files are saved, its commands typed, in its order.

    <!-- file: main.py -->          before a block: it is saved under that name; further blocks of that name are added
    <!-- terminal: server -->       before a console block: it is typed in a terminal of its own, which goes on serving

All other console blocks are typed into one shell. What the page shows after a command is what it must print to its
standard output, but for what differs from run to run; with READONLY_TEST_REWRITE=1 the page is written anew.
"""

from __future__ import annotations

import difflib
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from support import children, missing
from support.ports import free_port
from support.waiting import eventually

_MARK = re.compile(r"<!-- (file|terminal): ([\w./-]+) -->\Z")
_OPENS = re.compile(r"(readonly|readonlyctl) off\b")
_END = "=== typed ==="
_SECONDS = 60.0
_IN_CI = frozenset({"CI", "BUILD_NUMBER"})


class Page:
    """Types one page in a folder.

    Args:
        path: The page.
        folder: Where it is typed: an empty one.
        port: What the page calls its port; a free one is used instead.
        shown: What is printed here, and what the page shows instead.
        variable: What differs from run to run, each with what it is taken for.
        ready: Asked, with the port, until the server is ready to be asked by the page.
    """

    def __init__(
        self,
        path: Path,
        folder: Path,
        *,
        port: int = 8000,
        shown: Iterable[tuple[str, str]] = (),
        variable: Iterable[tuple[str, str]] = (),
        ready: Callable[[int], bool] = children.accepts,
    ) -> None:
        self.path = path
        self.text = path.read_text(encoding="utf-8")
        if "curl " in self.text and shutil.which("curl") is None:
            raise missing.outcome(missing.ServerMissing("curl", "curl on PATH"))
        self._folder = folder
        self._stated_port, self._port = str(port), str(free_port())
        self._shown = [(re.compile(found, re.MULTILINE), instead) for found, instead in shown]
        self._variable = [(re.compile(found, re.MULTILINE), instead) for found, instead in variable]
        self._ready = ready
        self._servers: list[subprocess.Popen[bytes]] = []
        self._shell: subprocess.Popen[str] | None = None
        scripts = Path(sys.executable).parent
        self._environment = {
            # What a program shows to a person: some show more in CI.
            **{name: value for name, value in children.without_ours(os.environ).items() if name not in _IN_CI},
            "PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}",
            "PYTHONUNBUFFERED": "1",
            # What the page installs is there already; if it is not, that is an error and not a download.
            "PIP_NO_INDEX": "1",
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            "PIP_ROOT_USER_ACTION": "ignore",
            "NO_COLOR": "1",
            "COLUMNS": "120",
        }

    def __enter__(self) -> Page:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._shell is not None:
            self._shell.kill()
            self._shell.communicate()
        for server in self._servers:
            children.kill_session(server)
            server.wait(10)

    def typed(self) -> str:
        """Type the page and return it with what was printed."""
        return "\n".join(self._lines(self.text.splitlines())) + "\n"

    def check(self) -> None:
        """Type the page: it must show what is printed."""
        typed = self.typed()
        if os.environ.get("READONLY_TEST_REWRITE") == "1":
            self.path.write_text(typed, encoding="utf-8")
            return
        shown, found = (self._same(text).splitlines() for text in (self.text, typed))
        assert shown == found, "\n".join(difflib.unified_diff(shown, found, self.path.name, "typed", lineterm=""))

    def _same(self, text: str) -> str:
        for found, instead in self._variable:
            text = found.sub(instead, text)
        return text

    # --- inside ------------------------------------------------------------------------------------------------------

    def _lines(self, lines: list[str]) -> Iterator[str]:
        kind = name = language = ""
        block: list[str] | None = None
        for line in lines:
            if block is None:
                mark = _MARK.match(line)
                if mark is not None:
                    kind, name = mark.groups()
                elif line.startswith("```"):
                    language, block = line.removeprefix("```"), []
                elif line:
                    kind = name = ""
                yield line
            elif line == "```":
                yield from self._block(language, kind, name, block)
                yield line
                block, kind, name = None, "", ""
            else:
                block.append(line)

    def _block(self, language: str, kind: str, name: str, lines: list[str]) -> Iterator[str]:
        if kind == "file":
            with (self._folder / name).open("a", encoding="utf-8") as file:
                file.write("\n".join([*lines, "", ""]))
        if language != "console":
            yield from lines
            return
        for command in _commands(lines):
            yield from command.splitlines()
            words = command.removeprefix("$ ").replace("\n> ", "\n").replace(self._stated_port, self._port)
            if kind == "terminal":
                self._serve(words)
            else:
                yield from self._type(words)
            if _OPENS.search(words):
                # Sessions are signed with whole seconds, and who logs in within that of `off` is taken for an old one.
                time.sleep(1 - time.time() % 1)

    def _serve(self, command: str) -> None:
        log = self._folder / "server.log"
        environment = self._exported()
        with log.open("ab") as output:
            server = children.start(
                ["bash", "-c", f"exec {command}"],
                output=output,
                when_we_die="TERM",
                environment=environment,
                folder=self._folder,
            )
        self._servers.append(server)

        def serves() -> bool:
            assert server.poll() is None, log.read_text(encoding="utf-8")
            return children.accepts(int(self._port)) and self._ready(int(self._port))

        eventually(serves, _SECONDS, what=command)

    def _exported(self) -> Mapping[str, str]:
        """Return the environment that the page has made for itself: in the other terminal it is the same."""
        self._type("env -0 > .environment")
        pairs = (self._folder / ".environment").read_text(encoding="utf-8").split("\0")
        return dict(pair.split("=", 1) for pair in pairs if pair)

    def _type(self, command: str) -> list[str]:
        if self._shell is None:
            with (self._folder / "errors.log").open("wb") as errors:
                self._shell = subprocess.Popen(
                    ["bash", "--norc"],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=errors,
                    text=True,
                    cwd=self._folder,
                    env=self._environment,
                )
        assert self._shell.stdin is not None
        assert self._shell.stdout is not None
        self._shell.stdin.write(f"{command}\necho; echo '{_END}'\n")
        self._shell.stdin.flush()
        printed: list[str] = []
        for line in self._shell.stdout:
            if line.rstrip("\n") == _END:
                break
            printed.append(line.rstrip())
        else:
            raise AssertionError(f"the shell ended at {command!r}: {printed}")
        # The line break before the mark, and the one that ends the output if it has one.
        text = "\n".join(printed).replace(self._port, self._stated_port).replace(str(self._folder), "/srv/hello")
        for found, instead in self._shown:
            text = found.sub(instead, text)
        return text.strip("\n").splitlines()


def _commands(lines: list[str]) -> Iterator[str]:
    """Yield what is typed in a console block, with its continued lines; what was printed is left out."""
    command = ""
    for line in lines:
        if line.startswith("$ "):
            if command:
                yield command
            command = line
        elif command and line.startswith("> "):
            command += f"\n{line}"
    if command:
        yield command
