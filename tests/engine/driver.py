"""The real engine in a process of its own: `Engine` starts the Rust program beside this file and drives it.

`binary` builds the program first where needed. README.md says what it needs and what it can be told.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from flight_replica.schema import TableSchema
from tests.samples import value

SOURCE = Path(__file__).parent
BUILD_SECONDS = 3600.0  # the first build compiles 327 crates; on two busy cores that takes minutes
ANSWER_SECONDS = 120.0

Values = tuple[object, ...]


def binary() -> Path:
    """The program, built where it is older than its source. Skips the test where it can't be built.

    It is built into `$CARGO_TARGET_DIR`, else into `target` beside this file.
    """
    if shutil.which("cargo") is None:
        pytest.skip("there is no cargo here to build tests/engine with")
    target = Path(os.environ.get("CARGO_TARGET_DIR", SOURCE / "target"))
    build = ["cargo", "build", "--release", "--locked", "--quiet"]
    done = subprocess.run(
        build,
        cwd=SOURCE,
        env={**os.environ, "PROTOC": _protoc(), "CARGO_TARGET_DIR": str(target)},
        capture_output=True,
        text=True,
        timeout=BUILD_SECONDS,
        check=False,
    )
    assert done.returncode == 0, f"{' '.join(build)} failed:\n{done.stdout}{done.stderr}"
    return target / "release" / "engine-driver"


def _protoc() -> str:
    """The protobuf compiler: the one that is stated or installed, else that of Python's grpcio-tools."""
    stated = os.environ.get("PROTOC") or shutil.which("protoc")
    if stated is not None:
        return stated
    bundled = Path(sys.executable).with_name("python-grpc-tools-protoc")
    if not bundled.exists():
        pytest.skip("there is no protoc here to build tests/engine with, and no grpcio-tools either")
    return str(bundled)


Ops = tuple[tuple[bytes, list[Any] | None], ...]  # pk_bytes and the row as JSON; None: a delete


@dataclass(frozen=True, slots=True)
class Commit:
    """One commit that is in the engine's log."""

    first_seq: int
    at_us: int  # µs since 1970, when the engine had answered; 0 where it was killed before
    ops: Ops

    @property
    def last_seq(self) -> int:
        return self.first_seq + len(self.ops) - 1


@dataclass(frozen=True, slots=True)
class Scan:
    """What the engine itself reads: the whole table at one seq."""

    read_seq: int
    rows: dict[bytes, Values]  # pk_bytes, in key order -> values in column order; a row may be short


class Engine:
    """A running engine over one table. `truth` is told what it writes, from a thread of ours.

    `options` are those of README.md; `directory` holds the catalog, `wal` in it the log.
    """

    def __init__(self, directory: Path, *, truth: Truth | None = None, **options: object) -> None:
        self.directory = directory
        self.wal = directory / "wal"
        self.options = options
        self._truth = truth
        self._answers: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self._ended: queue.Queue[dict[str, Any] | None] = queue.Queue()  # reports of writes
        self.errors: list[str] = []  # what failed beside the commands, and what the program wrote to stderr
        self._process = subprocess.Popen(
            [str(binary()), json.dumps({"directory": str(directory), **options})],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._threads = [
            threading.Thread(target=self._listen, name="engine-out", daemon=True),
            threading.Thread(target=self._listen_errors, name="engine-errors", daemon=True),
        ]
        for thread in self._threads:
            thread.start()
        try:
            self.opened_at = int(self._answer("open")["read_seq"])
            if truth is not None:
                truth.opened(self.opened_at)
        except BaseException:
            self.kill()
            raise

    @property
    def schema(self) -> TableSchema:
        """The schema that this engine was opened with."""
        return schema(str(self.options.get("kind", "id")), int(str(self.options.get("added_columns", 0))))

    def do(self, verb: str, **fields: object) -> dict[str, Any]:
        """The answer to one command. Fails the test where the engine refuses it or ends."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"do": verb, **fields}) + "\n")
        self._process.stdin.flush()
        return self._answer(verb)

    def write(self, ops: int, **plan: object) -> int:
        """Write that many ops and wait for the end; the engine's read_seq then."""
        self.start_writing(ops=ops, **plan)
        return self.wait_written()

    def start_writing(self, **plan: object) -> None:
        """Write beside whatever else is asked for, until `stop` or until `ops` are written."""
        self.do("write", **plan)

    def wait_written(self, timeout_seconds: float = 600.0) -> int:
        """Wait for the end of what was started; the engine's read_seq then."""
        return int(self._take(self._ended, "write", timeout_seconds)["read_seq"])

    def stop(self) -> int:
        """End the writing between two commits; the engine's read_seq."""
        return int(self.do("stop")["read_seq"])

    def scan(self, path: Path) -> Scan:
        """The whole table at one seq; `path` is written on the way. Writing may go on."""
        self.do("scan", path=str(path))
        return read_scan(path, self.schema)

    def close(self) -> None:
        """What an orderly program does: a last flush, and the end."""
        self.do("close")
        self._process.wait(ANSWER_SECONDS)
        self.kill()

    def kill(self) -> None:
        """kill -9, and reap. Everything that it said before is heard when this returns."""
        self._process.kill()
        self._process.wait(ANSWER_SECONDS)
        for thread in self._threads:
            thread.join(ANSWER_SECONDS)
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            if pipe is not None and not pipe.closed:
                with contextlib.suppress(BrokenPipeError):  # a command that nobody read
                    pipe.close()

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *error: object) -> None:
        self.kill()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if not line.endswith("\n"):
                break  # cut off by a kill
            said = json.loads(line)
            if "writing" in said:
                if self._truth is not None:
                    self._truth.began(tuple((bytes.fromhex(key), row) for key, row in said["writing"]))
            elif "acknowledged" in said:
                if self._truth is not None:
                    self._truth.acknowledged(said["acknowledged"], said["at_us"])
            elif "wrote" in said or said.get("failed") == "write":
                self._ended.put(said)
                self.errors += [line.rstrip("\n")] * ("failed" in said)
            elif said.get("failed") == "flush beside the writes":
                self.errors.append(line.rstrip("\n"))
            else:
                self._answers.put(said)
        self._answers.put(None)
        self._ended.put(None)

    def _listen_errors(self) -> None:
        assert self._process.stderr is not None
        self.errors.extend(line.rstrip("\n") for line in self._process.stderr)

    def _answer(self, verb: str) -> dict[str, Any]:
        answer = self._take(self._answers, verb, ANSWER_SECONDS)
        assert answer["did"] == verb, answer
        return answer

    def _take(
        self, source: queue.Queue[dict[str, Any] | None], verb: str, timeout_seconds: float
    ) -> dict[str, Any]:
        try:
            answer = source.get(timeout=timeout_seconds)
        except queue.Empty:
            raise AssertionError(f"{verb}: the engine was silent for {timeout_seconds} s") from None
        assert answer is not None, f"{verb}: the engine ended: {self.errors}"
        assert "failed" not in answer, f"{verb}: {answer}"
        return answer


class Truth:
    """Every commit of a table, as its writers tell, and the table that follows from them.

    `Engine` fills it from its listening thread, through any number of lives of the engine; others read.
    """

    def __init__(self, schema: TableSchema) -> None:
        self.schema = schema
        self.commits: list[Commit] = []
        self._begun: Ops | None = None  # written, but not acknowledged yet

    @property
    def last_seq(self) -> int:
        return self.commits[-1].last_seq if self.commits else 0

    def began(self, ops: Ops) -> None:
        self._begun = ops

    def acknowledged(self, first_seq: int, at_us: int) -> None:
        assert self._begun is not None and first_seq == self.last_seq + 1, first_seq
        self.commits.append(Commit(first_seq, at_us, self._begun))
        self._begun = None

    def opened(self, read_seq: int) -> None:
        """The engine was started again. What a killed one had begun is in the log as a whole, or isn't."""
        if self._begun is not None and read_seq != self.last_seq:
            self.commits.append(Commit(self.last_seq + 1, 0, self._begun))
        self._begun = None
        assert read_seq == self.last_seq, f"opened at {read_seq}, acknowledged up to {self.last_seq}"

    def ops(self) -> Iterator[tuple[int, bytes, Values | None]]:
        """`seq, pk_bytes, values` of every op in commit order; None for a delete."""
        for commit in list(self.commits):
            for number, (key, row) in enumerate(commit.ops):
                yield commit.first_seq + number, key, None if row is None else row_of(row, self.schema)

    def has_grown(self, count: int) -> Callable[[], bool]:
        """A condition: whether there are `count` more commits than now."""
        goal = len(self.commits) + count
        return lambda: len(self.commits) >= goal

    def reaches(self, seq: int) -> Callable[[], bool]:
        """A condition: whether that seq is acknowledged."""
        return lambda: self.last_seq >= seq

    def table(self) -> Table:
        """The table before the first commit, to be moved on."""
        return Table(self)

    def rows(self) -> dict[bytes, Values]:
        """The table now, in key order."""
        table = self.table()
        table.move_to(self.last_seq)
        return table.rows


class Table:
    """The rows of a `Truth` at one seq, which only goes up. `rows` are in key order after a `move_to`."""

    def __init__(self, truth: Truth) -> None:
        self._truth = truth
        self._position = 0  # commits taken
        self.seq = 0
        self.rows: dict[bytes, Values] = {}

    @property
    def known_seq(self) -> int:
        """How far it can be moved now."""
        return self._truth.last_seq

    def move_to(self, seq: int) -> None:
        """Take all commits through `seq`, which must be the end of one."""
        while self.seq < seq:
            commit = self._truth.commits[self._position]
            for key, row in commit.ops:
                self.rows.pop(key, None)
                if row is not None:
                    self.rows[key] = row_of(row, self._truth.schema)
            self._position += 1
            self.seq = commit.last_seq
        assert self.seq == seq, f"{seq} isn't the end of a commit: it is at {self.seq}"
        self.rows = dict(sorted(self.rows.items()))


def schema(kind: str, added_columns: int = 0) -> TableSchema:
    """The schema of a kind of table, as src/tables.rs makes it."""
    return TableSchema.from_engine_json(engine_schema(kind, added_columns))


def engine_schema(kind: str, added_columns: int = 0) -> dict[str, object]:
    """The same as the engine's own schema JSON."""
    columns = [*_COLUMNS[kind], *_LATE[:added_columns]]
    return {
        "table_name": "events",
        "columns": [
            {"name": name, "col_type": kind, "nullable": nullable, "initial_default": default}
            for name, kind, nullable, default in columns
        ],
        "primary_key": _KEYS[kind],
    }


_COLUMNS: dict[str, list[tuple[str, object, bool, object]]] = {
    "id": [("id", "Int64", False, None), ("v", "Int64", True, None), ("note", "ByteArray", True, None)],
    "composite": [
        ("id", "Int64", False, None),
        ("amount", "Double", True, None),
        ("name", "ByteArray", False, None),
    ],
    "types": [
        ("small", "Int32", False, None),
        ("flag", "Boolean", True, None),
        ("real", "Double", False, None),
        ("i32", "Int32", True, None),
        ("i64", "Int64", True, None),
        ("f32", "Float", True, None),
        ("f64", "Double", True, None),
        ("blob", "ByteArray", True, None),
        ("code", {"FixedLenByteArray": 5}, True, None),
        ("count", "Int64", False, None),
        ("tag", {"FixedLenByteArray": 3}, False, None),
        ("is_left", "Boolean", False, None),
    ],
}
_KEYS = {"id": [0], "composite": [2, 0], "types": [11, 2, 0, 10]}
_LATE: list[tuple[str, object, bool, object]] = [
    ("late", "Int64", True, None),
    ("rate", "Double", True, {"Double": 7.5}),
    ("state", "ByteArray", False, {"Bytes": list(b"old")}),
]


def read_scan(path: Path, schema: TableSchema) -> Scan:
    with path.open(encoding="utf-8") as lines:
        head = json.loads(next(lines))
        assert head["columns"] == list(schema.names), head
        found = (json.loads(line) for line in lines)
        rows = {bytes.fromhex(line["pk"]): row_of(line["row"], schema) for line in found}
    assert len(rows) == head["row_count"], "the engine's own scan shows a key twice"
    return Scan(head["read_seq"], rows)


def row_of(row: list[Any], schema: TableSchema) -> Values:
    """Values as `rows_of` gives them: floats as the bytes of their bits, so that equality is exact."""
    types = [column.type for column in schema.columns]
    return tuple(
        bytes.fromhex(cell) if cell is not None and pa.types.is_floating(kind) else value(cell, kind)
        for cell, kind in zip(row, types, strict=False)
    )


def until_true(condition: Callable[[], bool], what: str, timeout_seconds: float = 60.0) -> None:
    """Wait for a condition; fails the test when it doesn't come."""
    deadline = time.monotonic() + timeout_seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout_seconds} s: {what}"
        time.sleep(0.02)
