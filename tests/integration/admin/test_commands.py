"""The operator's commands against servers that run, and `status --watch` in a real terminal."""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import io
import json
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pyte
import pytest
from pyarrow import flight

from flight_replica.admin.server import AdminServer
from flight_replica.errors import ReplicaError
from flight_replica.flightsql.auth import BasicLogins
from flight_replica.flightsql.tokens import Tokens
from flight_replica.flightsql.users import UsersFile
from flight_replica.operating.commands import add_operating_commands
from tests.accounts import write_users
from tests.integration.flightsql.clients import RawClient
from tests.integration.flightsql.test_cancel import ENDLESS, read_on
from tests.pair import served_pair
from tests.processes import ROOT, Process, Server, is_answered, rows, running, until

COUNT = "SELECT count(*) FROM orders"
ENTER_SECONDS = 60.0


class Serving(Server):
    """A server with an admin port."""

    def __init__(self, *arguments: str, **more: object) -> None:
        super().__init__(*arguments, "--admin-listen", "127.0.0.1:0", **more)  # type: ignore[arg-type]
        line = self.line()
        assert line.startswith("admin on grpc"), line
        self.admin = line.removeprefix("admin on ")


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Serving, Serving]]:
    """A primary with a table of orders, and a replica of it."""
    directory = tmp_path_factory.mktemp("servers")
    primary = Serving("primary", "--data", str(directory / "primary"))
    with running(primary):
        rows(primary.uri, "CREATE TABLE orders (id BIGINT PRIMARY KEY, item VARCHAR)")
        rows(primary.uri, "INSERT INTO orders SELECT range, 'x' FROM range(100)")
        replica = Serving("serve", "--primary", primary.uri)
        with running(replica):
            until(is_answered(replica.uri, COUNT, [(100,)]), "the replica serves")
            yield primary, replica


@pytest.fixture
def replica(servers: tuple[Serving, Serving]) -> Serving:
    return servers[1]


def run(*arguments: str) -> tuple[int, list[str], list[str]]:
    """Exit code, output and errors of a command, in this process: a new one takes a second to start."""
    parser = argparse.ArgumentParser()
    add_operating_commands(parser.add_subparsers())
    options = parser.parse_args(arguments)
    out = io.StringIO()
    try:
        with contextlib.redirect_stdout(out):
            code = options.run(options)
    except ReplicaError as error:
        return 1, out.getvalue().splitlines(), str(error).splitlines()
    return code, out.getvalue().splitlines(), []


def told(*arguments: str) -> list[str]:
    """What a command that goes well prints."""
    code, out, errors = run(*arguments)
    assert (code, errors) == (0, [])
    return out


# --- status -----------------------------------------------------------------------------------------------


def test_status_is_one_screen_and_its_exit_code_says_whether_all_is_well(replica: Serving) -> None:
    out = told("status", replica.admin)
    assert out[0].startswith(f"replica 0.1.0 on {replica.uri}, pid {replica.pid}, up ")
    assert out[1] == "all well: 1 table serving"
    assert out[3].split()[:3] == ["table", "state", "lag"]
    assert out[4].split()[:2] == ["orders", "serving"]
    assert out[-1] == "no queries"
    told("pause", replica.admin, "orders")
    code, out, errors = run("status", replica.admin)
    told("resume", replica.admin, "orders")
    assert (code, errors) == (3, [])
    assert out[1] == "1 of 1 table not well"
    assert "  orders: paused by an operator" in out


def test_status_in_json_is_one_document_of_the_same_shape_at_both_ports(replica: Serving) -> None:
    (text,) = told("status", replica.admin, "--json")
    at_admin = json.loads(text)
    (table,) = at_admin["tables"]
    assert (table["name"], table["state"], table["visible_seq"]) == ("orders", "serving", 100)
    assert at_admin["server"]["addresses"] == {"flight": replica.uri, "admin": replica.admin}
    (text,) = told("status", replica.uri, "--json")
    at_flight = json.loads(text)
    assert at_flight.keys() == at_admin.keys()
    assert at_flight["tables"][0].keys() == table.keys()
    assert at_flight["tables"][0]["visible_seq"] == 100


def test_status_of_a_flight_port_is_the_rows_of_merutable_status(replica: Serving) -> None:
    out = told("status", replica.uri)
    assert out[0].split()[:2] == ["table_name", "state"]
    assert out[2].split()[:2] == ["orders", "serving"]


def test_a_watched_status_is_one_document_a_line_for_a_script(replica: Serving) -> None:
    watching = Process("flight_replica", "status", replica.admin, "--watch", "--json", "--interval", "0.1")
    with running(watching):
        uptimes = [json.loads(watching.line())["server"]["uptime_seconds"] for _ in range(3)]
        assert uptimes == sorted(set(uptimes))
        assert watching.interrupt() == 0


def test_a_server_that_is_not_there_is_one_line(replica: Serving) -> None:
    for command in (["status"], ["tables"], ["queries"], ["pause", "orders"]):
        code, out, errors = run(command[0], "grpc://127.0.0.1:1", *command[1:])
        assert (code, out, len(errors)) == (1, [], 1), command
        assert "127.0.0.1:1" in errors[0]
    code, _, errors = run("pause", replica.uri, "orders")
    assert (code, len(errors)) == (1, 1)
    assert "is no admin port" in errors[0]
    code, _, errors = run("tables", "nowhere")
    assert (code, len(errors)) == (1, 1)
    assert "grpc://HOST:PORT" in errors[0]


# --- changes ----------------------------------------------------------------------------------------------


def test_queries_are_listed_and_cancelled_by_their_id(replica: Serving) -> None:
    with flight.connect(replica.uri) as client:
        raw = RawClient(client)
        stream = raw.open(raw.info(ENDLESS))
        found: list[str] = []

        def is_listed() -> bool:
            (text,) = told("queries", replica.admin, "--json")
            found[:] = [query["id"] for query in json.loads(text)["queries"] if query["sql"] == ENDLESS]
            return bool(found)

        until(is_listed, "it is listed", ENTER_SECONDS)
        names, line = told("queries", replica.admin)
        assert names.split()[:4] == ["query", "kind", "user", "phase"]
        assert line.split()[0] == found[0]
        (said,) = told("cancel", replica.admin, found[0])
        assert said.startswith(f"query {found[0]} is cancelled")
        with pytest.raises(flight.FlightCancelledError, match="cancelled by an operator"):
            read_on(stream)
    code, _, errors = run("cancel", replica.admin, found[0])
    assert (code, len(errors)) == (1, 1)
    slow = told("queries", replica.admin, "--slow")
    assert any(line.split()[:3] == [found[0], "-", "cancelled"] for line in slow) or len(slow) == 1


def test_a_table_is_paused_resumed_rebased_and_compacted(replica: Serving) -> None:
    assert told("pause", replica.admin, "orders") == ["table orders is paused at seq 100"]
    assert told("resume", replica.admin, "orders") == ["table orders follows from seq 100"]
    (said,) = told("rebase", replica.admin, "orders")
    assert said.startswith("table orders: base at seq ")
    (said,) = told("compact", replica.admin, "orders")
    assert "visible seq 100, merge on apply" in said
    code, _, errors = run("pause", replica.admin, "nothing")
    assert (code, len(errors)) == (1, 1)
    assert "there is no table 'nothing'" in errors[0]


def test_tables_are_removed_and_added(servers: tuple[Serving, Serving]) -> None:
    primary, replica = servers
    told("tables", replica.admin, "remove", "orders")
    assert told("tables", replica.admin) == [
        "table  state  lag  behind  visible  base  held as  tail  rebases"
    ]
    told("tables", replica.admin, "add", "orders")
    until(is_answered(replica.uri, COUNT, [(100,)]), "it is served again")
    # The same rows under another name, as `serve --base … --feed …` states them.
    stated = ["--set", f"base=flight:{primary.uri}/orders", "--set", f"feed={primary.uri}/orders"]
    told("tables", replica.admin, "add", "copy", *stated)
    until(is_answered(replica.uri, "SELECT count(*) FROM copy", [(100,)]), "the copy is served")
    rows(primary.uri, "CREATE TABLE later (id BIGINT PRIMARY KEY)")
    until(is_answered(replica.uri, "SELECT count(*) FROM later", [(0,)]), "the list was looked at again")
    rows(primary.uri, "DROP TABLE later")
    until(lambda: not any("later" in line for line in told("tables", replica.admin)), "and once more")
    told("tables", replica.admin, "remove", "copy")  # which isn't in that list
    for wrong in (["--set", "bass=x"], ["--set", "feed=grpc://127.0.0.1:1"], ["--set", "base=nothing:x"]):
        code, out, errors = run("tables", replica.admin, "add", "wrong", *wrong)
        assert (code, out, len(errors)) == (1, [], 1), wrong


def test_sessions_pins_and_the_log_level(replica: Serving) -> None:
    with flight.connect(replica.uri) as client:
        RawClient(client).rows("SELECT * FROM orders", merutable_pin="mine")
        assert told("pins", replica.admin)[1].split()[:2] == ["-", "mine"]
        assert told("pins", replica.admin, "--release", "", "mine") == ["pin mine is released"]
    assert told("sessions", replica.admin)[0].split()[:2] == ["session", "user"]
    assert told("log-level", replica.admin) == ["info"]
    assert told("log-level", replica.admin, "debug") == ["log level debug, before info"]
    assert told("log-level", replica.admin, "info") == ["log level info, before debug"]
    until(lambda: any("control change=log level" in line for line in replica.errors), "it is logged")


def test_a_primary_says_what_it_cannot_do(servers: tuple[Serving, Serving]) -> None:
    primary, _ = servers
    assert "primary 0.1.0" in told("status", primary.admin)[0]
    code, _, errors = run("pause", primary.admin, "orders")
    assert (code, len(errors)) == (1, 1)
    assert "a primary can't pause table 'orders'" in errors[0]


def test_with_users_the_admin_right_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In this process: each process more takes a second or two to start."""
    users = write_users(
        tmp_path / "users.json", ann={"password": "ann's", "admin": True}, bob={"password": "bob's"}
    )
    logins = BasicLogins(UsersFile(users), Tokens(seconds=60))
    with (
        served_pair(tmp_path) as pair,
        closing(AdminServer(pair.control, "127.0.0.1", 0, logins=logins)) as server,
    ):
        code, _, errors = run("status", server.uri)
        assert (code, len(errors)) == (1, 1)
        assert "log in" in errors[0]
        for name, expected in (("ann", 0), ("bob", 1)):
            monkeypatch.setenv("FLIGHT_REPLICA_PASSWORD", f"{name}'s")
            assert run("status", server.uri, "--user", name)[0] == 0
            code, _, errors = run("log-level", server.uri, "--user", name)
            assert code == expected
        assert "takes the right admin" in errors[0]


@pytest.mark.long
def test_an_admin_port_that_everybody_could_reach_is_refused_without_a_login(tmp_path: Path) -> None:
    process = Process("flight_replica", "primary", "--data", str(tmp_path), "--admin-listen", "0.0.0.0:0")
    assert process.wait(ENTER_SECONDS) == 1
    (error,) = process.errors
    assert "--admin-listen 0.0.0.0" in error


# --- in a terminal ----------------------------------------------------------------------------------------


class Terminal:
    """A command in a terminal of 24 lines, which is read as a person sees it."""

    def __init__(self, *arguments: str) -> None:
        self._screen = pyte.Screen(120, 24)
        self._stream = pyte.ByteStream(self._screen)
        self._lock = threading.Lock()
        self.redrawn = 0  # how often it was drawn from its upper left corner
        self.raw = b""
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 120, 0, 0))
        self._process = subprocess.Popen(
            [sys.executable, "-m", "flight_replica", *arguments],
            cwd=ROOT,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        os.close(slave)
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        while True:
            try:
                data = os.read(self._master, 65536)
            except OSError:  # the other end is gone
                return
            if not data:
                return
            with self._lock:
                self._stream.feed(data)
                self.raw += data
                self.redrawn += data.count(b"\x1b[H")

    @property
    def lines(self) -> list[str]:
        with self._lock:
            return [line.rstrip() for line in self._screen.display]

    def shows(self, text: str) -> bool:
        return any(text in line for line in self.lines)

    def press(self, keys: bytes) -> None:
        os.write(self._master, keys)

    def wait(self) -> int:
        code = self._process.wait(ENTER_SECONDS)
        self._thread.join(ENTER_SECONDS)
        return code

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        self._thread.join(ENTER_SECONDS)
        os.close(self._master)


@pytest.fixture
def watching(replica: Serving) -> Iterator[Terminal]:
    terminal = Terminal("status", replica.admin, "--watch", "--interval", "0.2")
    try:
        until(lambda: terminal.shows("all well"), f"the first status: {terminal.lines}", ENTER_SECONDS)
        yield terminal
    finally:
        terminal.close()


def test_a_watched_status_is_drawn_in_place_and_ends_with_q(watching: Terminal, replica: Serving) -> None:
    before = watching.redrawn
    until(lambda: watching.redrawn > before + 2, "it is drawn again", ENTER_SECONDS)
    assert sum("all well" in line for line in watching.lines) == 1
    assert watching.lines[0].startswith("replica 0.1.0")
    told("pause", replica.admin, "orders")
    until(lambda: watching.shows("paused by an operator"), "the pause is shown", ENTER_SECONDS)
    told("resume", replica.admin, "orders")
    until(lambda: not watching.shows("paused"), "nothing of it is left", ENTER_SECONDS)
    watching.press(b"q")
    assert watching.wait() == 0
    assert watching.raw.endswith(b"\x1b[?25h\x1b[?1049l")  # the cursor and the screen from before


@pytest.mark.long
def test_a_watched_status_ends_with_ctrl_c(watching: Terminal) -> None:
    watching.press(b"\x03")
    assert watching.wait() == 0
    assert watching.raw.endswith(b"\x1b[?25h\x1b[?1049l")


@pytest.mark.long
def test_a_watched_status_waits_for_a_server_that_goes(tmp_path: Path) -> None:
    server = Serving("primary", "--data", str(tmp_path / "data"))
    terminal = Terminal("status", server.admin, "--watch", "--interval", "0.2")
    try:
        with running(server):
            until(lambda: terminal.shows("no tables"), "the first status", ENTER_SECONDS)
        until(lambda: terminal.shows("trying again"), "it says that nobody answers", ENTER_SECONDS)
        os.kill(terminal._process.pid, signal.SIGINT)
        assert terminal.wait() == 0
    finally:
        terminal.close()


@pytest.mark.long
def test_a_watched_status_that_is_not_let_in_ends_with_one_line(tmp_path: Path) -> None:
    logins = BasicLogins(
        UsersFile(write_users(tmp_path / "users.json", ann={"password": "ann's"})), Tokens(60)
    )
    with (
        served_pair(tmp_path) as pair,
        closing(AdminServer(pair.control, "127.0.0.1", 0, logins=logins)) as server,
    ):
        terminal = Terminal("status", server.uri, "--watch")
        try:
            assert terminal.wait() == 1
            assert terminal.shows("log in")
        finally:
            terminal.close()


def test_names_that_move_a_cursor_are_harmless(servers: tuple[Serving, Serving]) -> None:
    primary, _ = servers
    with flight.connect(primary.uri) as client:
        raw = RawClient(client)
        stream = raw.open(raw.info(f"/* \x1b[2J\x07 */ {ENDLESS}"))
        shown: list[str] = []

        def is_listed() -> bool:
            shown[:] = told("queries", primary.admin)
            return any("range" in line for line in shown)

        until(is_listed, "it is listed", ENTER_SECONDS)
        assert all(line.isprintable() for line in shown)
        stream.cancel()
