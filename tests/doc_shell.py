"""Runs the blocks of a page as a reader would: one shell and one Python, in a folder of their own.

What a reader would do by hand is done for him: a server keeps running while he goes on, in another terminal
so to speak, and addresses are free ones of this machine instead of those that are written.
"""

from __future__ import annotations

import contextlib
import os
import random
import re
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.doc_blocks import ROOT, Block
from tests.samples import SAMPLES

BLOCK_SECONDS = 120.0
HEAVY_SECONDS = 1800.0
STOP_SECONDS = 20.0
# Below the ports that the system gives out by itself, so that nobody takes one between choice and use.
_PORTS = range(20_000, 32_000)
_ADDRESS = re.compile(r"(?<![\w.])(?:127\.0\.0\.1|localhost|10\.0\.0\.\d+|0\.0\.0\.0):(\d{4,5})\b")

# `flight-replica primary|serve|feed` goes to the background and is waited for; the rest is what it is.
_PRELUDE = r"""
set -e -o pipefail
flight-replica() {
    case "$1 $*" in
        *--help*|"primary --"*--check*) ;;
        primary\ *|serve\ *|feed\ *) in_background "$@"; return ;;
    esac
    command flight-replica "$@"
}
in_background() {
    local out="$SCRATCH/server.$((++servers))"
    command flight-replica "$@" >"$out" 2>"$out.err" </dev/null 3>&- &
    local pid=$!
    echo "$pid" >>"$SCRATCH/pids"
    until grep -q '^listening on' "$out"; do
        kill -0 "$pid" 2>/dev/null || { cat "$out.err" >&2; return 1; }
        sleep 0.05
    done
}
end_servers() {
    local pid
    for pid in $(cat "$SCRATCH/pids" 2>/dev/null); do kill "$pid" 2>/dev/null || true; done
    wait
    : >"$SCRATCH/pids"
}
eventually() {
    local tries=0
    until "$@" >"$SCRATCH/eventually" 2>&1; do
        (( ++tries < 300 )) || { cat "$SCRATCH/eventually" >&2; return 1; }
        sleep 0.1
    done
}
"""
_PYTHON = """
import os
from pathlib import Path
namespace = {"__name__": "__main__"}
while True:
    place, _, path = input().partition("\\t")
    exec(compile(Path(path).read_text(), place, "exec"), namespace)
    os.write(3, b"0\\n")
"""


class BlockFailed(AssertionError):
    """A block of the docs doesn't do what its page says."""


class Terminal:
    """A folder with a shell and a Python in it. Ends with `with`, servers included. One thread."""

    def __init__(self, folder: Path, ports: Mapping[int, int]) -> None:
        """`ports`: what stands for a port that pages write; others are chosen here."""
        self._scratch = folder / "scratch"
        self._home = folder / "home"
        for path in (self._scratch, self._home, folder / "tmp"):
            path.mkdir()
        self._ports = dict(ports)
        kept = {name: value for name, value in os.environ.items() if not name.startswith("FLIGHT_REPLICA_")}
        self._environment = {
            **kept,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "HOME": str(self._home),
            "TMPDIR": str(folder / "tmp"),
            "SCRATCH": str(self._scratch),
            "ROOT": str(ROOT),
            "SAMPLES": str(SAMPLES),
        }
        self._shell = _Interpreter(["bash", "--noprofile", "--norc"], self._home, self._environment)
        self._python: _Interpreter | None = None
        self._blocks = 0
        self._shell.do(_PRELUDE + "echo 0 >&3\n", BLOCK_SECONDS)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for interpreter in (self._python, self._shell):
            if interpreter is not None:
                interpreter.close()
        self._end_servers()

    def _end_servers(self) -> None:
        listed = self._scratch / "pids"
        pids = [int(pid) for pid in listed.read_text().split()] if listed.exists() else []
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def run(self, block: Block) -> None:
        """Raises `BlockFailed` with the place, what failed and what was printed."""
        self._blocks += 1
        limit = HEAVY_SECONDS if block.is_heavy else BLOCK_SECONDS
        text = self._here(block.text, block.where)
        if block.language == "python":
            self._run_python(block, text, limit)
        elif block.language == "console":
            for command, expected in _conversation(text):
                said = self._run_shell(block, command, limit)
                if not _is_like(said, expected):
                    raise BlockFailed(f"{block.place}: `{command}` printed\n{said}\nand not\n{expected}")
        else:
            self._run_shell(block, text, limit)

    def _here(self, text: str, where: Mapping[str, str]) -> str:
        """The text with addresses and places of this machine."""
        for name, meant in where.items():
            text = text.replace(name, meant.replace("$SCRATCH", str(self._scratch)))
        return _ADDRESS.sub(lambda found: f"127.0.0.1:{self._port(int(found[1]))}", text)

    def _port(self, written: int) -> int:
        if written not in self._ports:
            self._ports[written] = _free_port()
        return self._ports[written]

    def _run_shell(self, block: Block, text: str, limit: float) -> str:
        """What was printed, by both ways."""
        script = self._scratch / f"block.{self._blocks}.sh"
        script.write_text(text)
        out = self._scratch / f"block.{self._blocks}.out"
        line = f'. "{script}" >"{out}" 2>&1'
        # In a subshell `set -e` would hold too; where failure is expected nothing of it is wanted later.
        line = (
            f"if ( {line} ); then echo 1 >&3; else echo 0 >&3; fi\n"
            if block.fails
            else f"{line}\necho 0 >&3\n"
        )
        code = self._shell.do(line, limit)
        said = out.read_text() if out.exists() else ""
        if code != "0":
            wanted = "didn't fail" if block.fails and code == "1" else "failed"
            raise BlockFailed(f"{block.place}: {wanted} ({code or 'the shell ended'}):\n{text}\n{said}")
        return said

    def _run_python(self, block: Block, text: str, limit: float) -> None:
        if self._python is None:
            errors = self._scratch / "python.err"
            self._python = _Interpreter(
                [sys.executable, "-W", "error", "-c", _PYTHON], self._home, self._environment, errors
            )
        script = self._scratch / f"block.{self._blocks}.py"
        script.write_text("\n" * (block.line - 1) + text)  # errors name the line of the page
        code = self._python.do(f"{block.page}\t{script}\n", limit)
        if code != "0":
            raise BlockFailed(f"{block.place}: failed:\n{text}\n{self._python.errors}")


class _Interpreter:
    """A process that reads what to do from its input and says on its fd 3 when it has."""

    def __init__(
        self, command: list[str], folder: Path, environment: Mapping[str, str], errors: Path | None = None
    ) -> None:
        self._errors = errors
        self._done, said = os.pipe()
        with (errors or Path(os.devnull)).open("wb") as log:
            self._process = subprocess.Popen(
                ["bash", "-c", f'exec 3>&{said}; exec "$@"', "bash", *command],
                cwd=folder,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                pass_fds=[said],
                start_new_session=True,
            )
        os.close(said)

    @property
    def errors(self) -> str:
        return self._errors.read_text() if self._errors else ""

    def do(self, text: str, limit_seconds: float) -> str:
        """What it says when it is done; empty when it ended instead. Fails the test when it is silent."""
        assert self._process.stdin is not None
        self._process.stdin.write(text.encode())
        self._process.stdin.flush()
        deadline = time.monotonic() + limit_seconds
        while time.monotonic() < deadline:
            if select.select([self._done], [], [], 0.1)[0]:
                return os.read(self._done, 100).decode().strip()
            if self._process.poll() is not None:
                return ""
        raise BlockFailed(f"not done within {limit_seconds} s: {text}")

    def close(self) -> None:
        """End it and what it started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGTERM)
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        os.close(self._done)


def _free_port() -> int:
    for _ in range(100):
        port = random.choice(_PORTS)
        with contextlib.suppress(OSError), closing(socket.socket()) as tried:
            tried.bind(("127.0.0.1", port))
            return port
    raise AssertionError("no free port")


def _conversation(text: str) -> list[tuple[str, str]]:
    """The commands of a console block, each with what it is said to print."""
    found: list[tuple[str, str]] = []
    for line in text.splitlines():
        if line.startswith("$ "):
            found.append((line[2:], ""))
        elif found and found[-1][0].endswith("\\"):
            found[-1] = (f"{found[-1][0]}\n{line}", "")
        else:
            found[-1] = (found[-1][0], found[-1][1] + line + "\n")
    return found


def _is_like(said: str, expected: str) -> bool:
    """Whether it is the same but for spaces; `…` stands for anything, on a line of its own for any lines."""
    pattern = "".join(
        r"(?:.*\n)*?" if line == "…" else re.escape(line).replace("…", ".*?") + r"\n"
        for line in _lines(expected)
    )
    return re.fullmatch(pattern, "".join(f"{line}\n" for line in _lines(said))) is not None


def _lines(text: str) -> list[str]:
    return [" ".join(line.split()) for line in text.strip().splitlines()]
