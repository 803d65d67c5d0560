"""Comparing two primaries of one lineage that went different ways, by any type of key, in small pieces."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pytest

from flight_replica.base.pinned_table import PinLost, PinnedTable
from flight_replica.errors import LineageChanged, SchemaMismatch
from flight_replica.flightsql.limits import DEFAULT_LIMITS
from flight_replica.flightsql.server import FlightSqlServer
from flight_replica.keys import KeyCodec
from flight_replica.log.feed_client import Endpoint
from flight_replica.primary.service import PrimaryService
from flight_replica.primary.settings import PrimarySettings
from flight_replica.verify.compare import Comparison, compare
from flight_replica.verify.moment import CommonMoment, common_moment, rows_between

KEYS = [
    ("BIGINT", "i - 500"),
    ("DOUBLE", "CASE i WHEN 0 THEN '-0.0'::DOUBLE WHEN 1 THEN 0 ELSE (i - 500.5) / 7 END"),
    ("VARCHAR", "CASE i WHEN 0 THEN '' WHEN 1 THEN 'a' || chr(0) ELSE 'é''' || i END"),
    ("VARCHAR", "repeat('x', 2500) || i"),  # too long for a bound
    ("BLOB", "unhex(lpad(hex(i * 37), 6, '0'))"),
    ("UUID", "md5(i::VARCHAR)::UUID"),
    ("DECIMAL(20, 3)", "(i - 500) / 8"),
    ("DATE", "DATE '1970-01-01' + (i - 500)::INTEGER"),
    ("TIMESTAMPTZ", "make_timestamptz(i * 1000001)"),
]
ROWS = 300


@dataclass(frozen=True, slots=True)
class Server:
    """A primary in this process."""

    service: PrimaryService
    flight: FlightSqlServer

    @property
    def at(self) -> Endpoint:
        return Endpoint(f"grpc://127.0.0.1:{self.flight.port}")

    def write(self, *statements: str) -> None:
        for sql in statements:
            self.service.write(sql)


@contextmanager
def served(folder: Path) -> Iterator[Server]:
    settings = PrimarySettings(publish_seconds=3600)
    with (
        closing(PrimaryService.open(folder, settings)) as service,
        closing(FlightSqlServer(service, "127.0.0.1", 0, DEFAULT_LIMITS)) as flight,
    ):
        yield Server(service, flight)


@contextmanager
def twins(folder: Path, *statements: str) -> Iterator[tuple[Server, Server]]:
    """Two primaries that go on from the same data."""
    with served(folder / "a") as first:
        first.write(*statements)
    shutil.copytree(folder / "a", folder / "b")
    with served(folder / "a") as a, served(folder / "b") as b:
        yield a, b


def compared(a: Server, b: Server, wanted: int = 1000, leaf_keys_max: int = 100) -> Comparison:
    steps: list[tuple[int, int]] = []
    with common_moment(a.at, b.at, "t", 10) as moment:
        found = compare(
            moment,
            wanted,
            lambda done, total: steps.append((done, total)),
            range_bytes=4000,
            leaf_rows=20,
            leaf_keys_max=leaf_keys_max,
        )
    assert steps == [(number + 1, found.range_count) for number in range(found.range_count)]
    return found


OFTEN = {0, 1, 3}  # the others take the same ways, and are looked at by the long tests
CASES = [
    pytest.param(*case, id=f"{case[0]}-{number}", marks=[] if number in OFTEN else [pytest.mark.long])
    for number, case in enumerate(KEYS)
]


@pytest.mark.parametrize(("kind", "key"), CASES)
def test_all_keys_that_differ_are_found_in_order(kind: str, key: str, tmp_path: Path) -> None:
    drawn = random.Random(kind)
    table = f"CREATE TABLE t (k {kind} PRIMARY KEY, i BIGINT, v VARCHAR)"
    fill = f"INSERT INTO t SELECT {key}, i, 'v' || i FROM range({ROWS}) r(i)"
    with twins(tmp_path, table, fill) as (a, b):
        assert compared(a, b).is_equal
        changed = sorted(drawn.sample(range(ROWS), 7))
        for server, text in ((a, "a"), (b, "b")):
            # As many ops in both, so that both are at one seq; the last key is deleted in one of them.
            server.write(f"UPDATE t SET v = '{text}' WHERE i IN ({', '.join(map(str, changed[:-1]))})")
        a.write(f"DELETE FROM t WHERE i = {changed[-1]}")
        b.write(f"UPDATE t SET v = 'b' WHERE i = {changed[-1]}")
        found = compared(a, b)
        assert found.differing_ranges > 0
        keys = [difference.pk_bytes for difference in found.differences]
        assert keys == sorted(keys)
        told = {difference.row.column("i")[0].as_py(): difference for difference in found.differences}
        assert sorted(told) == changed
        assert told[changed[-1]].a is None
        assert all(told[number].columns == ["v"] for number in changed[:-1])
        assert [d.pk_bytes for d in compared(a, b, wanted=3).differences] == keys[:3]


def test_rows_that_are_null_nan_or_longer_differ_bit_for_bit(tmp_path: Path) -> None:
    values = ["NULL", "'nan'::DOUBLE", "'-0.0'::DOUBLE", "0.0::DOUBLE"]
    with twins(tmp_path, "CREATE TABLE t (k BIGINT PRIMARY KEY, x DOUBLE)") as (a, b):
        for server, shift in ((a, 0), (b, 1)):
            for number in range(len(values)):
                server.write(f"INSERT INTO t VALUES ({number}, {values[(number + shift) % len(values)]})")
        found = compared(a, b)
        assert [difference.columns for difference in found.differences] == [["x"]] * len(values)


def test_ops_between_two_pins_are_taken_from_the_feed(tmp_path: Path) -> None:
    table = "CREATE TABLE t (k BIGINT PRIMARY KEY, x BIGINT)"
    fill = "INSERT INTO t SELECT range, 0 FROM range(1000)"
    with (
        twins(tmp_path, table, fill) as (a, b),
        closing(PinnedTable(a.at, "t")) as first,
        closing(PinnedTable(b.at, "t")) as second,
    ):
        after = first.pin().visible_seq
        for server in (a, b):
            server.write(
                "UPDATE t SET x = 1 WHERE k IN (3, 500)",
                "DELETE FROM t WHERE k = 7",
                "INSERT INTO t VALUES (5000, 5)",
                "DELETE FROM t WHERE k = 500",
                "UPDATE t SET x = x + 1 WHERE k = 3",
            )
        a.write("UPDATE t SET x = 9 WHERE k = 20")
        b.write("UPDATE t SET x = 10 WHERE k = 21")
        second.pin()
        a.write("UPDATE t SET x = 77 WHERE k = 70")  # after the common seq: it doesn't count
        between = rows_between(a.at, "t", after, second)
        assert len(between) == 5
        moment = CommonMoment(first, second, between)
        found = compare(moment, 10, lambda done, total: None, range_bytes=4000, leaf_rows=20)
        told = {d.row.column("k")[0].as_py(): d for d in found.differences}
        assert list(told) == [20, 21]
        assert [row.column("x")[0].as_py() for row in (told[20].a, told[20].b) if row] == [9, 0]
        assert (found.a.row_count, found.b.row_count) == (999, 999)


def test_another_schema_and_another_lineage_can_not_be_compared(tmp_path: Path) -> None:
    table = "CREATE TABLE t (k BIGINT PRIMARY KEY, x BIGINT)"
    with twins(tmp_path / "one", table) as (a, b), served(tmp_path / "other") as other:
        b.write("ALTER TABLE t ADD COLUMN y BIGINT")
        with pytest.raises(SchemaMismatch, match="another schema at each server"):
            compared(a, b)
        other.write(table)
        with pytest.raises(LineageChanged, match="is of lineage"):
            compared(a, other)


def test_a_server_that_forgot_its_pin_is_an_error_and_no_difference(tmp_path: Path) -> None:
    fill = "INSERT INTO t SELECT range, 0 FROM range(1000)"
    with twins(tmp_path, "CREATE TABLE t (k BIGINT PRIMARY KEY, x BIGINT)", fill) as (a, b):  # noqa: SIM117
        with pytest.raises(PinLost), common_moment(a.at, b.at, "t", 10) as moment:
            b.flight.close()  # and one on the same port that knows nothing
            with closing(FlightSqlServer(b.service, "127.0.0.1", int(b.at.uri.rpartition(":")[2]))):
                b.write("DELETE FROM t WHERE k = 1")
                compare(moment, 10, lambda done, total: None)


def test_a_digest_of_a_range_is_the_same_whether_sql_knows_its_bounds_or_not(tmp_path: Path) -> None:
    with served(tmp_path) as server, closing(PinnedTable(server.at, "t")) as pinned:
        server.write("CREATE TABLE t (k VARCHAR, n BIGINT, PRIMARY KEY (k, n))")
        server.write("INSERT INTO t SELECT chr((97 + i % 5)::INTEGER), i - 50 FROM range(100) r(i)")
        pinned.pin()
        rows = pinned.collect("SELECT * FROM t").combine_chunks().to_batches()[0]
        keys = sorted(KeyCodec(pinned.schema).encode_batch(rows).to_pylist())
        for low, high in (
            (keys[10], keys[60]),
            (keys[10][:-1], keys[60]),
            (None, keys[9]),
            (keys[90], None),
        ):
            inside = [key for key in keys if (low or b"") <= key and (high is None or key < high)]
            assert pinned.digest(lambda cancel: None, low, high).row_count == len(inside)
        assert pa.types.is_string(rows.schema.field("k").type)
