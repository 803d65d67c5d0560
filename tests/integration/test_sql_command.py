"""`flight-replica sql` as a process: statements from everywhere, to everywhere, with bounded memory."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.processes import ROOT, Server, rows, running


@pytest.fixture(scope="module")
def primary(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server("primary", "--data", str(tmp_path_factory.mktemp("sql") / "primary"))
    with running(server):
        rows(server.uri, "CREATE TABLE t (id BIGINT PRIMARY KEY, v VARCHAR)")
        rows(server.uri, "INSERT INTO t VALUES (1, 'a'), (2, NULL)")
        yield server


def sql(primary: Server, *arguments: str, say: str = "") -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "flight_replica", "sql", primary.uri, *arguments]
    return subprocess.run(command, cwd=ROOT, input=say.encode(), capture_output=True, timeout=60)


def test_statements_come_from_the_input_and_from_a_file(primary: Server, tmp_path: Path) -> None:
    statements = "SELECT 1 AS one; -- and\nSELECT ';' AS two"
    file = tmp_path / "x.sql"
    file.write_text(statements)
    for done in (
        sql(primary, "--format", "jsonl", say=statements),
        sql(primary, "--format", "jsonl", "--file", "-", say=statements),
        sql(primary, "--format", "jsonl", "--file", str(file)),
    ):
        assert (done.returncode, done.stderr) == (0, b"")
        assert [json.loads(line) for line in done.stdout.splitlines()] == [{"one": 1}, {"two": ";"}]


def test_the_first_statement_that_fails_ends_it(primary: Server) -> None:
    done = sql(primary, "--format", "jsonl", say="SELECT 1 AS one; SELECT nix; SELECT 3 AS three;")
    assert done.returncode == 1
    assert done.stdout == b'{"one": 1}\n'
    assert done.stderr.startswith(b"flight-replica: ") and done.stderr.count(b"\n") == 1


@pytest.mark.parametrize(
    ("arguments", "said", "code"),
    [
        ([], b"there is no statement", 2),
        ([" "], b"there is no statement", 2),
        (["SELECT 1", "--file", "x"], b"not both", 2),
        (["--file", "/nowhere/x.sql"], b"can't be read", 1),
        (["SELECT 1", "--output", "/nowhere/x.csv"], b"can't be written", 1),
    ],
)
def test_what_can_not_be_done_is_one_line(
    primary: Server, arguments: list[str], said: bytes, code: int
) -> None:
    done = sql(primary, *arguments)
    assert (done.returncode, done.stdout) == (code, b"")
    assert said in done.stderr and done.stderr.count(b"\n") == 1


def test_binary_formats_go_to_files_and_pipes(primary: Server, tmp_path: Path) -> None:
    statement = "SELECT * FROM t ORDER BY id"
    expected = [{"id": 1, "v": "a"}, {"id": 2, "v": None}]
    done = sql(primary, statement, "--format", "parquet")
    assert pq.read_table(io.BytesIO(done.stdout)).to_pylist() == expected
    assert done.stderr.startswith(b"t at seq 2, lag ")
    done = sql(primary, statement, "--format", "arrow")
    assert pa.ipc.open_file(done.stdout).read_all().to_pylist() == expected
    for ending in ("parquet", "arrow"):
        path = tmp_path / f"x.{ending}"
        assert sql(primary, statement, "--output", str(path)).returncode == 0
        read = pq.read_table(path) if ending == "parquet" else pa.ipc.open_file(path).read_all()
        assert read.to_pylist() == expected
    assert sql(primary, "--format", "arrow", say="SELECT 1; SELECT 2").returncode == 1


def test_an_output_that_fails_half_way_leaves_no_file(primary: Server, tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    late = "SELECT range, CASE WHEN range = 900000 THEN error('late') END FROM range(1000000)"
    for statement in ("SELECT nix", late):
        done = sql(primary, statement, "--output", str(path))
        assert done.returncode == 1
        assert done.stderr.count(b"\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_who_reads_no_further_ends_it_silently(primary: Server) -> None:
    command = [sys.executable, "-m", "flight_replica", "sql", primary.uri]
    statement = "SELECT range AS id, repeat('x', 100) AS v FROM range(1000000)"
    with subprocess.Popen(
        [*command, statement, "--format", "csv"], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.readline() == b"id,v\r\n"
        process.stdout.close()
        assert process.wait(60) == 141
        assert process.stderr.read() == b""


COUNT, ROW_BYTES = 1_000_000, 300


@pytest.mark.long
@pytest.mark.parametrize("form", ["arrow", "parquet", "csv", "jsonl"])
def test_memory_does_not_go_with_the_answer(primary: Server, form: str, tmp_path: Path) -> None:
    few, many = (peak_mib(primary, form, count, tmp_path / "x") for count in (10, COUNT))
    assert many - few < COUNT * ROW_BYTES / 2**20 / 2


def peak_mib(primary: Server, form: str, count: int, path: Path) -> float:
    """The most memory that the command had while it wrote so many rows."""
    program = (
        "import resource, sys; from flight_replica.cli import main; code = main(sys.argv[1:]); "
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr); sys.exit(code)"
    )
    statement = f"SELECT range AS id, repeat('x', {ROW_BYTES}) AS v FROM range({count})"
    command = [sys.executable, "-c", program, "sql", primary.uri, statement, "--output", str(path)]
    done = subprocess.run(
        [*command, "--format", form], cwd=ROOT, capture_output=True, timeout=300, check=True
    )
    return int(done.stderr.split()[-1]) / 1024
