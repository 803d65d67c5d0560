"""The client programs of other languages: built once per source, driven line by line.

Each is a folder beside this file. What it is built into lies under the Python environment, in a folder
named by a hash of its source, and is reused. A program that can't be built here, for want of its language,
skips its tests; with FLIGHT_REPLICA_REQUIRE_CLIENTS=1 it fails them.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

SOURCES = Path(__file__).parent
REQUIRED = "FLIGHT_REPLICA_REQUIRE_CLIENTS"
BUILD_SECONDS = 1200.0  # a first build fetches its parts and compiles gRPC
ANSWER_SECONDS = 60.0


class ClientError(Exception):
    """What the program's driver raised: `kind` is its class, the text that of the error and its causes."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class Program:
    """A running client program: one request a line, one answer a line. One thread at a time."""

    def __init__(self, command: Sequence[str]) -> None:
        self._command = command
        self._start()

    def _start(self) -> None:
        self._process = subprocess.Popen(
            self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )

    def do(self, verb: str, **fields: object) -> object:
        """The answer's value. Raises `ClientError`.

        Fails the test when the program ends or is silent, and starts it anew for the next one.
        """
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps({"do": verb, **fields}) + "\n")
        self._process.stdin.flush()
        silence = threading.Timer(ANSWER_SECONDS, self._process.kill)
        silence.start()
        line = self._process.stdout.readline()
        silence.cancel()
        if not line:
            self.close()
            self._start()
            pytest.fail(f"the client ended, or was silent for {ANSWER_SECONDS} s: {verb} {fields}")
        return answer_of(json.loads(line))

    def close(self) -> None:
        """End the program, with its connections."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.kill()
        self._process.wait()
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.stdout.close()


def answer_of(answer: dict[str, object]) -> object:
    """The value of {"ok": value}. Raises `ClientError` for {"error": …}."""
    if "error" in answer:
        error = answer["error"]
        assert isinstance(error, dict)
        raise ClientError(str(error["kind"]), str(error["message"]))
    return answer["ok"]


def jdbc_command() -> list[str]:
    """How the Java program is started; it is built first where needed."""
    classes = _built("jdbc", ["java", "mvn"], ["mvn", "-q", "-B", "compile"], "target/classes") / "target"
    path = os.pathsep.join([str(classes / "classes"), str(classes / "dependency" / "*")])
    return [
        "java",
        "-Xmx512m",
        "-Duser.timezone=UTC",
        "--add-opens=java.base/java.nio=ALL-UNNAMED",
        "-cp",
        path,
        "Client",
    ]


def go_command() -> list[str]:
    """How the Go program is started; it is built first where needed."""
    return [str(_built("go", ["go"], ["go", "build", "-o", "client", "."], "client") / "client")]


def _built(name: str, tools: Sequence[str], command: Sequence[str], product: str) -> Path:
    """The folder with the built program. Built beside its place and moved there whole."""
    for tool in tools:
        if shutil.which(tool) is None:
            _missing(f"there is no {tool} here to build and run tests/clients/{name} with")
    place = Path(sys.prefix) / "clients" / f"{name}-{_digest(SOURCES / name)}"
    if (place / product).exists():
        return place
    building = place.with_name(f"{place.name}.{os.getpid()}")
    shutil.copytree(SOURCES / name, building)
    try:
        done = subprocess.run(
            command, cwd=building, capture_output=True, text=True, timeout=BUILD_SECONDS, check=False
        )
        assert done.returncode == 0, f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}"
        with contextlib.suppress(OSError):  # somebody else built the same meanwhile
            building.rename(place)
        assert (place / product).exists(), f"{' '.join(command)} made no {product}"
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return place


def _digest(folder: Path) -> str:
    found = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        found.update(f"{path.relative_to(folder)}\0".encode() + path.read_bytes())
    return found.hexdigest()[:16]


def _missing(reason: str) -> None:
    if os.environ.get(REQUIRED) == "1":
        pytest.fail(f"{reason}, and {REQUIRED} is set")
    pytest.skip(reason)
