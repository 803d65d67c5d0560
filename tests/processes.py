"""Servers and clients as real processes for tests: started, asked, killed."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
START_SECONDS = 30.0
STOP_SECONDS = 20.0


class Process:
    """One process of this project, by its command line. Its stdout is read line by line."""

    def __init__(self, *arguments: str, env: dict[str, str] | None = None) -> None:
        command = [sys.executable, "-m", *arguments]
        self._process = subprocess.Popen(
            command,
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **(env or {})},
        )
        self._lines: queue.Queue[str | None] = queue.Queue()
        self.errors: list[str] = []
        self._threads = [
            threading.Thread(target=self._read_out, daemon=True),
            threading.Thread(target=self._read_errors, daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    def _read_out(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line.rstrip("\n"))
        self._lines.put(None)

    def _read_errors(self) -> None:
        assert self._process.stderr is not None
        self.errors.extend(line.rstrip("\n") for line in self._process.stderr)

    def line(self, timeout_seconds: float = START_SECONDS) -> str:
        """The next line of output. Fails the test when the process ended or is silent."""
        try:
            line = self._lines.get(timeout=timeout_seconds)
        except queue.Empty:
            raise AssertionError(f"silent for {timeout_seconds} s: {self.errors}") from None
        assert line is not None, f"ended: {self.errors}"
        return line

    def lines(self) -> Iterator[str]:
        """What was printed and not read yet."""
        while True:
            try:
                line = self._lines.get_nowait()
            except queue.Empty:
                return
            if line is None:
                return
            yield line

    @property
    def code(self) -> int | None:
        return self._process.poll()

    def wait(self, timeout_seconds: float = STOP_SECONDS) -> int:
        return self._process.wait(timeout_seconds)

    def interrupt(self) -> None:
        self._process.send_signal(signal.SIGINT)

    def terminate(self) -> int:
        self._process.terminate()
        return self._finish()

    def kill(self) -> None:
        """kill -9, and reap."""
        self._process.kill()
        self._finish()

    def _finish(self) -> int:
        code = self._process.wait(STOP_SECONDS)
        for thread in self._threads:
            thread.join(STOP_SECONDS)
        for pipe in (self._process.stdout, self._process.stderr):
            if pipe is not None:
                pipe.close()
        return code


class Server(Process):
    """`flight-replica primary|serve …`, listening."""

    def __init__(
        self, *arguments: str, listen: str = "127.0.0.1:0", env: dict[str, str] | None = None
    ) -> None:
        super().__init__("flight_replica", *arguments, "--listen", listen, env=env)
        line = self.line()
        assert line.startswith("listening on grpc://"), line
        self.uri = line.removeprefix("listening on ")
        self.address = self.uri.removeprefix("grpc://")


@contextmanager
def running(*processes: Process) -> Iterator[None]:
    """The processes are ended with the block, whatever happens in it."""
    try:
        yield
    finally:
        for process in reversed(processes):
            if process.code is None:
                process.kill()


def until(condition: Callable[[], bool], what: str, timeout_seconds: float = 30.0) -> None:
    """Wait for a condition; fails the test when it doesn't come."""
    deadline = time.monotonic() + timeout_seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout_seconds} s: {what}"
        time.sleep(0.02)


def reports(process: Process) -> list[dict[str, int]]:
    """The JSON lines that a client process has printed since last time."""
    return [json.loads(line) for line in process.lines()]
