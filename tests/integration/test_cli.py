"""The command line as processes: what it prints, how it ends, and that nothing is left behind."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.request import urlopen

import pytest

from flight_replica.admin.client import AdminClient
from flight_replica.cli import main
from flight_replica.errors import ReplicaError
from flight_replica.log.feed_client import Endpoint
from tests.processes import (
    Process,
    Server,
    children_of,
    command_of,
    is_answered,
    is_running,
    rows,
    running,
    until,
)

AGREEMENT = re.compile(r"replica and primary agree at seq (\d+): (\d+) rows")
USAGE_ERROR = 2


def run(*arguments: str, timeout_seconds: float = 30.0) -> tuple[int, list[str], list[str]]:
    """Exit code, lines of stdout and of stderr of one command."""
    process = Process("flight_replica", *arguments)
    with running(process):
        code = process.wait(timeout_seconds)
        return code, list(process.lines()), process.errors


def failure(*arguments: str) -> str:
    """The one line that a command fails with."""
    code, out, errors = run(*arguments)
    assert code == 1
    assert out == []
    (line,) = errors
    assert line.startswith("flight-replica: ")
    return line


def silent_port() -> int:
    """A port on which nobody listens."""
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        return int(listener.getsockname()[1])


@pytest.fixture(scope="module")
def primary(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server("primary", "--data", str(tmp_path_factory.mktemp("cli") / "primary"))
    with running(server):
        rows(server.uri, "CREATE TABLE t (id BIGINT PRIMARY KEY, v VARCHAR, b BLOB)")
        rows(server.uri, "INSERT INTO t VALUES (1, 'a,b', 'xy'), (2, NULL, NULL)")
        yield server


# --- help and usage ---------------------------------------------------------------------------------------


def parsed(*arguments: str) -> int:
    """The exit code of a command that ends with its command line; what it prints is this process's."""
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert isinstance(ended.value.code, int)
    return ended.value.code


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert parsed("--help") == 0
    text = capsys.readouterr().out
    for command in ("primary", "serve", "demo", "sql", "status", "verify"):
        assert re.search(rf"^ +{command}\b", text, re.MULTILINE), command
    assert "examples:" in text


@pytest.mark.parametrize("command", ["primary", "serve", "demo", "sql", "status", "verify"])
def test_each_command_explains_its_options(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert parsed(command, "--help") == 0
    assert capsys.readouterr().out.startswith(f"usage: flight-replica {command}")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "COMMAND"),
        (["nix"], "'nix'"),
        (["primary"], "--data"),
        (["serve", "--nix"], "--nix"),
        (["serve", "--listen", "nowhere"], "'nowhere' isn't HOST:PORT"),
        (["demo", "--rows", "0"], "'0' isn't a number above 0"),
        (["sql", "grpc://127.0.0.1:1", "SELECT 1", "--format", "xml"], "'xml'"),
        (["demo", "--seconds", "nan"], "'nan' isn't a number above 0"),
        (["demo", "--seconds", "-5"], "'-5' isn't a number above 0"),
        (["primary", "--data", "d", "--retain-ops", "x"], "'x'"),
        (["sql", "grpc://127.0.0.1:1", "--nix", "SELECT 1"], "--nix"),
        (["status", "grpc://127.0.0.1:1", "--watch", "--interval", "nan"], "'nan'"),
        (["status", "grpc://127.0.0.1:1", "--watch", "--interval", "-1"], "'-1' isn't a number of seconds"),
    ],
)
def test_a_wrong_option_is_one_line_that_names_it(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert parsed(*arguments) == USAGE_ERROR
    printed = capsys.readouterr()
    assert printed.out == ""
    (line,) = printed.err.splitlines()
    assert line.startswith("flight-replica") and line.endswith("--help tells more")
    assert said in line


def test_a_limit_that_is_set_counts(tmp_path: Path) -> None:
    server = Server("primary", "--data", str(tmp_path), "--limit", "result_bytes_max=1000")
    with running(server):
        assert rows(server.uri, "SELECT 1") == [(1,)]
        with pytest.raises(ReplicaError, match="result_bytes_max is 1000 bytes"):
            rows(server.uri, "SELECT range FROM range(1000)")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "give either --primary, or one --base or more"),
        (["--base", "x"], "--base x: expected NAME="),
        (["--base", "x=nix:y"], "the kind is merutable, iceberg or flight, not 'nix'"),
        (["--base", "x=iceberg:y", "--base", "x=iceberg:z"], "x is given twice"),
        (["--base", "x=merutable:y", "--schema", "x=/nowhere"], "schema file /nowhere can't be read"),
        (["--base", "x=iceberg:y", "--base-seq", "x=many"], "'many' isn't a seq"),
        (["--base", "x=iceberg:y", "--base-seq", "x=²"], "'²' isn't a seq"),
        (["--base", "x=iceberg:y", "--memory-limit", "lots"], "--memory-limit lots: expected a size"),
        (["--base", "x=iceberg:y", "--key", "z=id"], "there is no --base z="),
        (["--feed", "x=grpc://h:1"], "give either --primary, or one --base or more"),
        (["--base", "x=merutable:y", "--key", "x=id"], "it doesn't go with a --base of kind merutable"),
        (["--base", "x=iceberg:y", "--lineage", "x=1"], "'1' isn't a UUID"),
        (["--base", "x=flight:nowhere"], "nowhere: expected grpc://HOST:PORT"),
        (["--base", "x=iceberg:y", "--feed", "x=http://h:1"], "http://h:1: expected grpc://HOST:PORT"),
        (["--table", "x", "--base", "x=iceberg:y"], "--table goes with --primary"),
        (["--primary", "nowhere"], "nowhere"),
        (["--primary", "grpc://h:1", "--limit", "nope=1"], "there is no such limit, only statement_seconds,"),
        (["--primary", "grpc://h:1", "--limit", "pins_max=1.5"], "expected a number from 0"),
        (["--primary", "grpc://h:1", "--limit", "pin_seconds=inf"], "expected seconds from 0, or a time"),
        (["--primary", "grpc://h:1/x"], "--primary names a server: say --table x"),
        (["--base", "x=merutable:"], "--base x=merutable:: expected a place behind the kind"),
        (["--base", "x=merutable:file://elsewhere/t"], "a file on another host can't be read"),
        (["--base", "x=merutable:s3://id:secret@bucket/t"], "credentials don't belong in a URI"),
        (["--base", "x=iceberg:/t/metadata"], "not an Iceberg metadata file"),
    ],
)
def test_options_that_do_not_fit_are_one_clear_line(arguments: list[str], said: str) -> None:
    assert said in failure("serve", *arguments)


# --- what is out of reach or in use -----------------------------------------------------------------------


def test_an_unreachable_server_is_one_clear_line() -> None:
    uri = f"grpc://127.0.0.1:{silent_port()}"
    for arguments in (["sql", uri, "SELECT 1"], ["status", uri], ["serve", "--primary", uri]):
        line = failure(*arguments)
        assert uri in line
        assert "refused" in line


def test_a_data_folder_in_use_by_another_process_is_refused(primary: Server, tmp_path: Path) -> None:
    first = Server("primary", "--data", str(tmp_path / "data"))
    with running(first):
        assert "is in use by another" in failure("primary", "--data", str(tmp_path / "data"))
    replica = Server("serve", "--primary", primary.uri, "--data", str(tmp_path / "replica"))
    with running(replica):
        line = failure("serve", "--primary", primary.uri, "--data", str(tmp_path / "replica"))
        assert "is in use by another" in line


def test_a_data_folder_of_something_else_is_refused_and_left_alone(primary: Server, tmp_path: Path) -> None:
    (tmp_path / "letters.txt").write_text("dear")
    assert str(tmp_path) in failure("serve", "--primary", primary.uri, "--data", str(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["letters.txt"]
    assert "can't be used" in failure("primary", "--data", str(tmp_path / "letters.txt"))
    database = tmp_path / "primary"
    database.mkdir()
    (database / "primary.duckdb").write_text("no database")
    assert "primary.duckdb" in failure("primary", "--data", str(database))
    assert (database / "primary.duckdb").read_text() == "no database"


def test_a_port_in_use_is_one_clear_line(primary: Server, tmp_path: Path) -> None:
    for arguments in (["primary", "--data", str(tmp_path / "data")], ["serve", "--primary", primary.uri]):
        line = failure("--log-level", "error", *arguments, "--listen", primary.address)
        assert line == f"flight-replica: --listen {primary.address}: Address already in use"
    assert rows(primary.uri, "SELECT count(*) FROM t") == [(2,)]


def test_every_port_can_be_one_of_ipv6(tmp_path: Path) -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6")
    ports = ["--http-listen", "[::1]:0", "--admin-listen", "[::1]:0"]
    server = Server("primary", "--data", str(tmp_path / "data"), *ports, listen="[::1]:0")
    with running(server):
        assert server.uri.startswith("grpc://[::1]:")
        assert rows(server.uri, "SELECT 1") == [(1,)]
        http, admin = server.line(), server.line()
        with urlopen(http.removeprefix("http on ") + "/livez", timeout=30) as reply:
            assert reply.status == 200
        with AdminClient(Endpoint(admin.removeprefix("admin on "))) as client:
            assert client.status().server.addresses["flight"] == server.uri


# --- ends -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_end_servers_with_code_0_and_nothing_is_left(number: signal.Signals, tmp_path: Path) -> None:
    primary = Server("primary", "--data", str(tmp_path / "primary"))
    with running(primary):
        rows(primary.uri, "CREATE TABLE t (id BIGINT PRIMARY KEY)")
        rows(primary.uri, "INSERT INTO t SELECT * FROM range(100000)")
        replica = Server("serve", "--primary", primary.uri)
        with running(replica):
            until(is_answered(replica.uri, "SELECT count(*) FROM t", [(100_000,)]), "the replica is up")
            for server in (replica, primary):
                assert (server.interrupt() if number is signal.SIGINT else server.terminate()) == 0
                assert server.left == []
                assert not any("Traceback" in line for line in server.errors)


# --- clients ----------------------------------------------------------------------------------------------


def test_sql_prints_a_table_and_says_its_position_beside_it(primary: Server) -> None:
    code, out, errors = run("sql", primary.uri, "SELECT id, v FROM t ORDER BY id")
    assert code == 0
    assert out == ["id  v", "--  ----", "1   a,b", "2   NULL", "(2 rows)"]
    assert errors == ["t at seq 2, lag 0.0 ms"]


def test_sql_prints_csv_and_jsonl_that_programs_can_read(primary: Server) -> None:
    statement = "SELECT * FROM t ORDER BY id"
    _, out, _ = run("sql", primary.uri, "--format", "csv", statement)  # options stand anywhere
    assert list(csv.reader(out))[:2] == [["id", "v", "b"], ["1", "a,b", "7879"]]
    _, out, _ = run("sql", primary.uri, statement, "--format", "jsonl")
    assert list(map(json.loads, out)) == [{"id": 1, "v": "a,b", "b": "7879"}, {"id": 2, "v": None, "b": None}]


def test_a_wrong_statement_is_one_clear_line(primary: Server) -> None:
    assert "nix" in failure("sql", primary.uri, "SELECT nix FROM t")
    assert "syntax error" in failure("sql", primary.uri, "SELEC 1")


def test_status_shows_every_table(primary: Server) -> None:
    code, out, errors = run("status", primary.uri)
    assert (code, errors) == (0, [])
    assert out[0].split()[:2] == ["table_name", "state"]
    assert out[2].split()[:2] == ["t", "serving"]


# --- the demo ---------------------------------------------------------------------------------------------


def demo(*arguments: str) -> Process:
    return Process("flight_replica", "demo", "--rows", "20000", "--rate", "500", *arguments)


def line_with(process: Process, text: str) -> str:
    """Read on to the line with `text`."""
    while text not in (line := process.line()):
        pass
    return line


def test_the_demo_ends_with_the_agreement_and_says_nothing_on_stderr() -> None:
    process = demo("--seconds", "3")
    with running(process):
        assert process.wait(90) == 0
    *_, last = process.lines()
    agreement = AGREEMENT.fullmatch(last)
    assert agreement is not None, last
    assert int(agreement[1]) > 20_000
    assert process.errors == []
    assert process.left == []


def test_ctrl_c_ends_the_demo_with_its_verdict() -> None:
    process = demo()
    with running(process):
        line_with(process, "writing about")
        line_with(process, "count:")
        parts = children_of(process.pid)
        assert len(parts) == 3
        assert process.interrupt() == 0
        *_, last = process.lines()
        assert AGREEMENT.fullmatch(last), last
        assert process.errors == []
        assert process.left == []
        assert not any(map(is_running, parts))


def test_ctrl_c_before_the_demo_is_up_ends_it_too() -> None:
    process = demo()
    with running(process):
        process.line()
        until(lambda: bool(children_of(process.pid)), "the primary is started")
        parts = children_of(process.pid)
        assert process.interrupt() == 1
        assert list(process.lines())[-1] == "stopped before the replica was up"
        assert process.errors == []
        assert process.left == []
        assert not any(map(is_running, parts))


@pytest.mark.parametrize("moment", ["250,000 orders", "count:"])
def test_a_killed_primary_ends_the_demo_and_no_part_shows_what_a_driver_raised(moment: str) -> None:
    process = Process("flight_replica", "demo", "--rows", "750000", "--rate", "500")
    with running(process):
        line_with(process, moment)
        parts = children_of(process.pid)
        (primary,) = [pid for pid in parts if "primary" in command_of(pid)]
        os.kill(primary, signal.SIGKILL)
        assert process.wait(60) == 1
        assert list(process.lines())[-1].startswith("MISMATCH not compared: ")
        assert process.errors[-1].startswith("flight-replica: ")
        assert not [line for line in process.errors if line.startswith("adbc")], process.errors
        assert process.left == []
        assert not any(map(is_running, parts))


def test_a_killed_replica_ends_the_demo_with_one_clear_line() -> None:
    process = demo()
    with running(process):
        line_with(process, "writing about")
        line_with(process, "count:")
        parts = children_of(process.pid)
        (replica,) = [pid for pid in parts if "serve" in command_of(pid)]
        os.kill(replica, signal.SIGKILL)
        assert process.wait(60) == 1
        assert list(process.lines())[-1].startswith("MISMATCH not compared: ")
        assert len(process.errors) == 1, process.errors
        assert process.errors[0].startswith("flight-replica: ")
        assert process.left == []
        assert not any(map(is_running, parts))
