"""`import flight_replica`: a replica inside a program, and nothing of it left afterwards."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

import flight_replica
from flight_replica import Access, Table, errors
from tests.accounts import write_users
from tests.processes import ROOT, Server, rows, running, until

ROWS = 50_000


@pytest.fixture(scope="module")
def primary(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server("primary", "--data", str(tmp_path_factory.mktemp("library") / "primary"))
    with running(server):
        rows(server.uri, "CREATE TABLE orders (id BIGINT PRIMARY KEY, customer VARCHAR)")
        rows(server.uri, f"INSERT INTO orders SELECT range, 'c' || range FROM range({ROWS})")
        rows(server.uri, "CREATE TABLE items (id BIGINT PRIMARY KEY)")
        yield server


@pytest.fixture(scope="module")
def replica(primary: Server) -> Iterator[flight_replica.Replica]:
    with flight_replica.open(primary.uri) as found:
        yield found


def test_answers_come_in_every_form_with_their_position(replica: flight_replica.Replica) -> None:
    assert sorted(replica.tables) == ["items", "orders"]
    sql = "SELECT id, customer FROM orders WHERE id < ? ORDER BY id"
    expected = [(0, "c0"), (1, "c1")]
    assert replica.query(sql, [2]).rows() == expected
    assert replica.query(sql.replace("?", "$most"), {"most": 2}).rows() == expected
    assert replica.query(sql, [2]).arrow() == pa.table({"id": [0, 1], "customer": ["c0", "c1"]})
    assert replica.query(sql, [2]).polars().rows() == expected
    assert list(replica.query(sql, [2]).pandas().itertuples(index=False, name=None)) == expected
    assert replica.query(sql, [2]).relation().aggregate("sum(id)").fetchall() == [(1,)]
    result = replica.query("SELECT * FROM orders")
    (at,) = result.positions
    assert (at.table, result.schema.names) == ("orders", ["id", "customer"])
    with result:
        assert sum(batch.num_rows for batch in result.reader()) >= ROWS
    with pytest.raises(errors.Closed, match="read already"):
        result.arrow()


def test_a_write_is_seen_by_those_who_ask_for_its_seq(
    primary: Server, replica: flight_replica.Replica
) -> None:
    ((_, seq),) = rows(primary.uri, "INSERT INTO orders VALUES (-1, 'new')")
    assert isinstance(seq, int)
    assert replica.query("SELECT customer FROM orders WHERE id = -1", min_seq=seq).rows() == [("new",)]
    assert replica.query("SELECT count(*) FROM orders", min_seq={"orders": seq}).rows() == [(ROWS + 1,)]
    now = replica.wait_for("ORDERS", seq)
    assert (now.table, now.is_serving) == ("orders", True)
    assert now.newest_seq >= now.seq >= seq
    until(lambda: replica.freshness("orders").lag_seconds is not None, "the lag is proven")
    assert replica.query("SELECT 1 FROM orders LIMIT 1", max_staleness_seconds=30).rows() == [(1,)]


def test_rows_that_are_counted_as_they_come_are_not_scanned_to_count_them(
    primary: Server, replica: flight_replica.Replica
) -> None:
    def plan() -> str:
        return str(replica.query("EXPLAIN SELECT count(*) AS rows FROM orders").rows())

    assert "Dummy Scan" in plan()
    ((_, seq),) = rows(primary.uri, "INSERT INTO orders VALUES (-7, 'a'), (-8, 'b')")
    assert isinstance(seq, int)
    counted = replica.query("SELECT count(*) AS rows, COUNT(1) FROM Orders o LIMIT 5", min_seq=seq)
    scanned = replica.query('SELECT count(id) AS rows, count(id) AS "count(1)" FROM orders')
    assert counted.positions[0].visible_seq == scanned.positions[0].visible_seq == seq
    assert counted.arrow() == scanned.arrow()


def test_errors_are_of_one_tree_and_say_what_is_wrong(
    primary: Server, replica: flight_replica.Replica
) -> None:
    with pytest.raises(errors.ReadOnly, match="write to the primary"):
        replica.query("DELETE FROM orders")
    with pytest.raises(errors.NotAllowed):
        replica.query("SELECT * FROM read_csv('/etc/passwd')")
    with pytest.raises(errors.TableNotFound, match="'nix'"):
        replica.freshness("nix")
    with pytest.raises(errors.Unavailable, match="visible is seq"):
        replica.query("SELECT 1 FROM orders", min_seq=10**9, wait_seconds=0.1)
    with pytest.raises(errors.Unavailable, match="visible is seq"):
        replica.wait_for("orders", 10**9, timeout_seconds=0.1)
    with pytest.raises(errors.InvalidStatement, match="takes 1 parameters, 0 were bound"):
        replica.query("SELECT ?")
    with pytest.raises(errors.InvalidStatement, match="a sequence of values"):
        replica.query("SELECT ?", "text")
    with pytest.raises(errors.ConfigError, match="either a primary, or tables"):
        flight_replica.open()
    with pytest.raises(errors.ConfigError, match="a list of names"):
        flight_replica.open(primary.uri, tables="orders")
    with pytest.raises(errors.ConfigError, match="isn't KIND:PLACE"):
        flight_replica.open(tables={"t": Table("nix")})
    with pytest.raises(flight_replica.ReplicaError, match="refused"):
        flight_replica.open("grpc://127.0.0.1:1")


def test_nothing_is_left_when_it_is_closed(
    primary: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    flight_replica.open(primary.uri).close()  # what libraries keep for good is there from now on
    threads, handles = set(threading.enumerate()), open_files()
    with flight_replica.open(primary.uri) as replica:
        begun = replica.query("SELECT a.id FROM orders a, orders b")
        batches = iter(begun.reader())
        next(batches)
        replica.query("SELECT * FROM orders")  # never read
        assert os.listdir(tmp_path) != []
    with pytest.raises(errors.Closed):
        next(batches)
    with pytest.raises(errors.Closed):
        replica.query("SELECT 1")
    with pytest.raises(errors.Closed):
        replica.freshness("orders")
    replica.close()
    assert os.listdir(tmp_path) == []
    assert set(threading.enumerate()) <= threads
    assert open_files() <= handles


def open_files() -> set[str]:
    """The files that this process has open, without sockets and pipes."""
    found = set()
    for handle in os.listdir("/proc/self/fd"):
        try:
            place = os.readlink(f"/proc/self/fd/{handle}")
        except FileNotFoundError:  # it was the listing's own
            continue
        if place.startswith("/") and not place.startswith("/dev"):
            found.add(place)
    return found


def test_close_ends_a_statement_that_another_thread_waits_for(primary: Server) -> None:
    replica = flight_replica.open(primary.uri)
    result = replica.query("SELECT count(*) FROM orders a, orders b, orders c WHERE a.id + b.id + c.id = 7")
    raised: list[BaseException] = []
    begun = threading.Event()

    def read() -> None:
        begun.set()
        try:
            result.arrow()
        except errors.ReplicaError as error:
            raised.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    assert begun.wait(30)
    replica.close()
    reader.join(60)
    assert not reader.is_alive()
    assert isinstance(raised[0], errors.Cancelled | errors.Closed | errors.TimedOut), raised


def test_tables_by_hand_and_a_folder_that_lasts(primary: Server, tmp_path: Path) -> None:
    orders = Table(base=f"flight:{primary.uri}", feed=primary.uri)
    for _ in range(2):
        with flight_replica.open(tables={"orders": orders}, data=tmp_path / "data") as replica:
            assert replica.tables == ["orders"]
            assert replica.query("SELECT count(*) FROM orders WHERE id >= 0").rows() == [(ROWS,)]
    assert (tmp_path / "data").is_dir()


def test_a_login_is_asked_for_and_its_password_is_never_shown(tmp_path: Path) -> None:
    users = tmp_path / "users.json"
    write_users(users, ann={"password": "long enough"})
    server = Server("primary", "--data", str(tmp_path / "p"), "--auth", "basic", "--users", str(users))
    with running(server):
        with pytest.raises(errors.ReplicaError):
            flight_replica.open(server.uri)
        access = Access(user="ann", password="long enough")
        assert "long enough" not in repr(access)
        with flight_replica.open(server.uri, access=access) as replica:
            assert replica.tables == []


def test_importing_it_loads_nothing_heavy() -> None:
    program = (
        "import sys, flight_replica; print(sorted({'pyarrow', 'duckdb', 'pyiceberg'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"
    assert set(flight_replica.__all__) <= set(dir(flight_replica))
    assert all(hasattr(flight_replica, name) for name in flight_replica.__all__)


PROGRAM = """
import flight_replica
import pyarrow as pa

with flight_replica.open("grpc://127.0.0.1:4711", tables=["orders"]) as replica:
    result: flight_replica.Result = replica.query("SELECT 1", [1, "a"], min_seq={"orders": 5})
    table: pa.Table = result.arrow()
    seq: int = replica.freshness("orders").seq
    lag: float | None = replica.wait_for("orders", seq).lag_seconds
    version: str = flight_replica.__version__
try:
    pass
except flight_replica.errors.Unavailable as error:
    again: bool = error.retryable
wrong: str = replica.freshness("orders").seq
replica.nix()
"""


@pytest.mark.long
def test_a_program_s_types_are_checked(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    environment = {**os.environ, "MYPYPATH": str(ROOT)}
    command = [sys.executable, "-m", "mypy", "--strict", "--ignore-missing-imports", "program.py"]
    done = subprocess.run(
        [*command, "--follow-imports", "silent"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    found = [line for line in done.stdout.splitlines() if line.startswith("program.py")]
    assert len(found) == 2, done.stdout
    assert 'expression has type "int", variable has type "str"' in found[0]
    assert '"Replica" has no attribute "nix"' in found[1]
