"""How servers end: streams may finish, nobody new is let in, a second signal ends at once, locks are free."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from pyarrow import flight

from flight_replica._pb import flight_sql_pb2 as pb
from flight_replica.flightsql.commands import pack
from tests.processes import ROOT, START_SECONDS, Process, Server, is_answered, rows, running, until

ROWS = 200_000
# More than a connection holds: the server waits for its reader.
WIDE = f"SELECT range, repeat('x', 1000) AS text FROM range({ROWS})"
SHUTTING_DOWN = "the server is shutting down"
SIGNALS = [signal.SIGTERM, signal.SIGINT]


@contextmanager
def primary_of(folder: Path, drain_seconds: float) -> Iterator[Server]:
    env = {"FLIGHT_REPLICA_LIFECYCLE_DRAIN_SECONDS": str(drain_seconds)}
    server = Server("primary", "--data", str(folder / "primary"), env=env)
    with running(server):
        yield server


@pytest.fixture
def primary(tmp_path: Path) -> Iterator[Server]:
    """Its streams have as long as they need."""
    with primary_of(tmp_path, 3600) as server:
        yield server


@pytest.fixture
def hurried(tmp_path: Path) -> Iterator[Server]:
    """Its streams have little time to end."""
    with primary_of(tmp_path, 0.2) as server:
        yield server


@contextmanager
def streaming(server: Server, sql: str = WIDE) -> Iterator[flight.FlightStreamReader]:
    """A stream of which one batch was taken."""
    with flight.connect(server.uri) as client:
        command = pack(pb.CommandStatementQuery(query=sql))
        info = client.get_flight_info(flight.FlightDescriptor.for_command(command))
        reader = client.do_get(info.endpoints[0].ticket)
        reader.read_chunk()
        yield reader


def send(server: Server, number: signal.Signals) -> None:
    os.kill(server.pid, number)


def is_refused(server: Server) -> bool:
    """Whether a new call on a connection of its own is told that the server is shutting down."""
    with flight.connect(server.uri) as client:
        try:
            client.get_flight_info(flight.FlightDescriptor.for_command(pack(pb.CommandGetCatalogs())))
        except flight.FlightUnavailableError as error:
            assert SHUTTING_DOWN in str(error) and "(retryable)" in str(error)
            return True
    return False


def said(server: Server, text: str) -> bool:
    return any(text in line for line in server.errors)


@pytest.mark.parametrize("number", SIGNALS)
def test_running_streams_come_to_their_end_while_nobody_new_is_let_in(
    primary: Server, number: signal.Signals
) -> None:
    with streaming(primary) as stream:
        send(primary, number)
        until(lambda: is_refused(primary), "new calls are refused")
        assert primary.code is None
        taken = sum(chunk.data.num_rows for chunk in stream)
        assert taken > ROWS // 2
        assert primary.wait() == 0
    assert said(primary, "draining seconds=3600 calls=1") and said(primary, "drained")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_second_signal_ends_it_at_once(primary: Server, number: signal.Signals, code: int) -> None:
    with streaming(primary):
        send(primary, signal.SIGTERM)
        until(lambda: said(primary, "draining"), "it drains")
        send(primary, number)
        assert primary.wait() == code


def test_streams_that_take_longer_than_drain_seconds_are_told_and_ended(hurried: Server) -> None:
    with streaming(hurried) as stream:
        send(hurried, signal.SIGTERM)
        until(lambda: said(hurried, "drain over, calls are ended seconds=0.2 calls=1"), "its time is over")
        with pytest.raises(flight.FlightUnavailableError, match=SHUTTING_DOWN):
            stream.read_all()
        assert hurried.wait() == 0


@pytest.mark.long
def test_a_client_that_neither_reads_nor_goes_is_left(hurried: Server) -> None:
    """It takes the 10 s that such a client is given at the end."""
    with streaming(hurried):
        send(hurried, signal.SIGTERM)
        assert hurried.wait(60) == 0


def test_followers_pins_and_idle_clients_hold_nothing_up(primary: Server) -> None:
    rows(primary.uri, "CREATE TABLE t (id BIGINT PRIMARY KEY)")
    rows(primary.uri, "INSERT INTO t VALUES (1), (2), (3)")
    replica = Server("serve", "--primary", primary.uri)
    with running(replica), flight.connect(primary.uri) as idle:
        until(is_answered(replica.uri, "SELECT count(*) FROM t", [(3,)]), "the replica is up")
        headers = flight.FlightCallOptions(headers=[(b"merutable-pin", b"held")])
        command = pack(pb.CommandStatementQuery(query="SELECT * FROM t"))
        idle.get_flight_info(flight.FlightDescriptor.for_command(command), headers)  # planned, never fetched
        send(primary, signal.SIGTERM)
        assert primary.wait(120) == 0  # and not after drain_seconds
        assert rows(replica.uri, "SELECT count(*) FROM t") == [(3,)]
        assert replica.terminate() == 0


def test_a_killed_process_leaves_its_folder_free_and_a_living_one_is_named(tmp_path: Path) -> None:
    folder = str(tmp_path / "data")
    first = Server("primary", "--data", folder)
    with running(first):
        refused = Process("flight_replica", "primary", "--data", folder)
        with running(refused):
            assert refused.wait() == 1
        (line,) = refused.errors
        assert f"in use by another process: pid {first.pid} on host {socket.gethostname()}" in line
        first.kill()
        second = Server("primary", "--data", folder)
        with running(second):
            assert rows(second.uri, "SELECT 1") == [(1,)]


def test_systemd_hears_that_it_is_ready_once_it_answers_and_that_it_stops(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.bind(str(tmp_path / "notify"))
        channel.settimeout(START_SECONDS)
        server = Server(
            "primary", "--data", str(tmp_path / "data"), env={"NOTIFY_SOCKET": str(tmp_path / "notify")}
        )
        with running(server):
            assert channel.recv(1000).startswith(b"READY=1\n")
            assert rows(server.uri, "SELECT 1") == [(1,)]
            assert server.terminate() == 0
        assert channel.recv(1000).startswith(b"STOPPING=1\n")


def test_a_container_s_first_process_hears_sigterm_while_it_starts(tmp_path: Path) -> None:
    """The kernel gives process 1 of a namespace no signal that it has no handler for."""
    unshare = shutil.which("unshare")
    if unshare is None or subprocess.run([unshare, "-pf", "true"], capture_output=True).returncode:
        pytest.skip("needs the right to make a PID namespace (unshare -p)")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(START_SECONDS)
        port = silent.getsockname()[1]
        command = [sys.executable, "-m", "flight_replica", "serve", "--primary", f"grpc://127.0.0.1:{port}"]
        process = subprocess.Popen([unshare, "-pf", *command], cwd=ROOT)
        try:
            connection, _ = silent.accept()  # it starts, and waits for an answer
            with connection:
                first = int(Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text())
                os.kill(first, signal.SIGTERM)
                assert process.wait(START_SECONDS) == 143
        finally:
            process.kill()
            process.wait()
