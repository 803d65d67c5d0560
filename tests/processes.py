"""Servers and clients as real processes for tests: started, asked, killed."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from flight_replica.client import position_of, query
from flight_replica.errors import ReplicaError

ROOT = Path(__file__).resolve().parents[1]
START_SECONDS = 120.0  # a busy machine takes its time to load what a server needs
STOP_SECONDS = 20.0


class Process:
    """One process of this project, by its command line. Its stdout is read line by line."""

    def __init__(
        self, *arguments: str, env: dict[str, str] | None = None, inside: Sequence[str] = ()
    ) -> None:
        """`inside`: a command that runs it, such as one that changes the user."""
        command = [*inside, sys.executable, "-m", *arguments]
        self._temporary = tempfile.TemporaryDirectory()  # a killed process leaves its files there
        self._process = subprocess.Popen(
            command,
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "TMPDIR": self._temporary.name, **(env or {})},
        )
        self._lines: queue.Queue[str | None] = queue.Queue()
        self.errors: list[str] = []
        self._is_finished = False
        self.left: list[str] = []  # names of the temporary files that an ended process left behind
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

    def say(self, line: str) -> None:
        """Give the process a line of input."""
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def resident_bytes(self) -> int:
        """Memory that the process holds now (Linux)."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    @property
    def code(self) -> int | None:
        return self._process.poll()

    def wait(self, timeout_seconds: float = STOP_SECONDS) -> int:
        """Let the process end by itself; its exit code."""
        return self._finish(timeout_seconds)

    def interrupt(self) -> int:
        """Ctrl-C; the exit code."""
        self._process.send_signal(signal.SIGINT)
        return self._finish()

    def terminate(self) -> int:
        self._process.terminate()
        return self._finish()

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """The process stands still in the block, with its connections open."""
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """kill -9, and reap."""
        self._process.kill()
        self._finish()

    def _finish(self, timeout_seconds: float = STOP_SECONDS) -> int:
        """Wait for the end and let go of everything; the exit code. Idempotent."""
        code = self._process.wait(timeout_seconds)
        for thread in self._threads:
            thread.join(STOP_SECONDS)
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            if pipe is not None:
                pipe.close()
        if not self._is_finished:
            self._is_finished = True
            self.left = os.listdir(self._temporary.name)
            self._temporary.cleanup()
        return code


class Server(Process):
    """`flight-replica primary|serve …`, or another server `module`, listening."""

    def __init__(
        self,
        *arguments: str,
        listen: str = "127.0.0.1:0",
        env: dict[str, str] | None = None,
        module: str = "flight_replica",
        inside: Sequence[str] = (),
    ) -> None:
        super().__init__(module, *arguments, "--listen", listen, env=env, inside=inside)
        try:
            line = self.line()
            assert line.startswith("listening on grpc"), line
        except BaseException:
            self.kill()
            raise
        self.uri = line.removeprefix("listening on ")
        self.address = self.uri.rpartition("//")[2]


@contextmanager
def running(*processes: Process) -> Iterator[None]:
    """The processes are ended with the block, whatever happens in it."""
    try:
        yield
    finally:
        end(*processes)


def end(*processes: Process) -> None:
    """Kill those that are still there, the last one first, and let go of all."""
    for process in reversed(processes):
        process.kill()


def children_of(pid: int) -> list[int]:
    """The living children of a process (Linux)."""
    listed = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in listed if is_running(int(child))]


def is_running(pid: int) -> bool:
    """Whether the process is there and has not ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def command_of(pid: int) -> list[str]:
    """The command line of a process that is there."""
    return Path(f"/proc/{pid}/cmdline").read_text().split("\0")


def until(condition: Callable[[], bool], what: str, timeout_seconds: float = 30.0) -> None:
    """Wait for a condition; fails the test when it doesn't come."""
    deadline = time.monotonic() + timeout_seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout_seconds} s: {what}"
        time.sleep(0.02)


def is_answered(uri: str, sql: str, expected: object) -> Callable[[], bool]:
    """A condition for `until`: the statement gives these rows, as tuples. What fails isn't an answer."""

    def holds() -> bool:
        try:
            return rows(uri, sql) == expected
        except ReplicaError:
            return False

    return holds


def rows(uri: str, sql: str) -> list[tuple[object, ...]]:
    """The rows of one statement through ADBC. Raises the server's error as the command line tells it."""
    answer = query(uri, sql)
    return list(zip(*(column.to_pylist() for column in answer.columns), strict=True))


def position(uri: str, table: str) -> dict[str, int]:
    """Where an answer about this table stands now."""
    (found,) = position_of(query(uri, f'SELECT * FROM "{table}" LIMIT 0'))
    return found  # type: ignore[return-value]


def status(uri: str, table: str) -> dict[str, object]:
    """The table's row of `merutable_status()`; empty where it isn't listed."""
    found: list[dict[str, object]] = query(uri, "SELECT * FROM merutable_status()").to_pylist()
    return next((row for row in found if row["table_name"] == table), {})


def reports(process: Process) -> list[dict[str, int]]:
    """The JSON lines that a client process has printed since last time."""
    return [json.loads(line) for line in process.lines()]
