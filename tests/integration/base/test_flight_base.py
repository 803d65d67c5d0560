"""What `FlightBase` brings from a real primary: one moment, of any key and column type, in bounded pieces."""

from __future__ import annotations

import datetime
import math
import struct
from collections.abc import Iterator
from contextlib import closing
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from uuid import UUID

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flight_replica.base.fetched_file import FetchedFile
from flight_replica.base.flight import server_and_table
from flight_replica.digest import digest
from flight_replica.errors import BaseNotUsable, ConfigError, TableNotFound
from flight_replica.schema import Column, TableSchema
from tests.bases import assert_same, sorted_by_key
from tests.integration.base.flight_primary import FlightPrimary, counted, rows_of

NAN_BITS = struct.unpack("<d", bytes.fromhex("010000000000f8ff"))[0]  # negative, with a payload


@pytest.fixture
def primary(tmp_path: Path) -> Iterator[FlightPrimary]:
    with closing(FlightPrimary(tmp_path)) as found:
        yield found


def test_a_base_is_the_table_at_one_seq_in_ascending_ranges_of_its_key(primary: FlightPrimary) -> None:
    seq = primary.write_rows(60_000)
    expected = primary.counted()
    with closing(primary.base(range_bytes=100_000)) as base:
        begun = base.begin()
        primary.write("DELETE FROM t WHERE id < 1000")
        snapshot = base.load()
        assert (begun.base_seq, snapshot.base_seq, snapshot.row_count) == (seq, seq, 60_000)
        assert snapshot.lineage == begun.lineage == primary.service.engine.table("t").lineage
        assert counted(snapshot) == expected
        ends = [_ends(file.path) for file in snapshot.files]
        assert len(ends) > 10
        assert all(below[1] < above[0] for below, above in pairwise(ends))


def _ends(path: str) -> tuple[int, int]:
    """The least and the greatest key of a file."""
    keys = pq.read_table(path, columns=["id"]).column(0).to_pylist()
    return min(keys), max(keys)


def test_an_empty_table_is_a_base_without_files(primary: FlightPrimary) -> None:
    primary.write("CREATE TABLE t (id BIGINT PRIMARY KEY)")
    with closing(primary.base()) as base:
        snapshot = base.load()
        assert (snapshot.files, snapshot.base_seq, snapshot.row_count) == ((), 0, 0)
        primary.write("INSERT INTO t VALUES (1)")
        base.want(primary.write("DELETE FROM t"))
        snapshot = base.load()
        assert (snapshot.files, snapshot.base_seq, snapshot.row_count) == ((), 2, 0)


def test_a_newer_base_comes_only_when_it_is_wanted(primary: FlightPrimary) -> None:
    first = primary.write_rows(100)
    with closing(primary.base()) as base:
        assert base.poll() is None
        old = base.load()
        second = primary.write("DELETE FROM t WHERE id < 10")
        assert base.poll() == old.version
        assert base.load() is old
        base.want(first)
        assert base.load() is old
        base.want(second)
        assert base.poll() != old.version
        new = base.load()
        assert (new.base_seq, new.row_count) == (second, 90)
        assert base.poll() == new.version
        assert not any(Path(file.path).exists() for file in old.files), "nobody wants them any more"
        base.want(second + 1)
        with pytest.raises(BaseNotUsable, match=f"at seq {second}, needed is {second + 1}"):
            base.load()
        primary.write("DELETE FROM t WHERE id = 11")
        assert base.load().row_count == 89


KEYS: list[tuple[str, list[str]]] = [
    ("BOOLEAN", ["true", "false"]),
    ("TINYINT", ["'-128'", "0", "127"]),
    ("UBIGINT", ["0", "18446744073709551615"]),
    ("FLOAT", ["'-inf'", "'-0.0'", "0.0", "1.5", "'inf'"]),
    ("DOUBLE", ["'-inf'", "'-0.0'", "0.0", "'1e-320'", "1.7976931348623157e308"]),
    ("DECIMAL(38, 5)", ["'-99999999999999999999999.99999'", "0", "1.00001"]),
    ("VARCHAR", ["''", "'a''b'", "'é'", "'a' || chr(0) || 'b'", "'" + 3000 * "x" + "'"]),
    ("BLOB", ["''", "'\\x00\\xFF'", "'\\x27\\x5C'", "'abc'"]),
    ("UUID", ["'00000000-0000-0000-0000-000000000000'", "'ffffffff-ffff-ffff-ffff-ffffffffffff'"]),
    ("DATE", ["'0001-01-01'", "'1970-01-01'", "'9999-12-31'"]),
    ("TIME", ["'00:00:00'", "'23:59:59.999999'"]),
    ("TIMESTAMP_S", ["'1969-12-31 23:59:59'", "'2020-02-29 00:00:00'"]),
    ("TIMESTAMP", ["'0001-01-01 00:00:00'", "'9999-12-31 23:59:59.999999'"]),
    ("TIMESTAMPTZ", ["'1969-12-31 23:59:59+00'", "'2020-02-29 00:00:00.5+01'"]),
]


@pytest.mark.parametrize(("kind", "keys"), KEYS, ids=[kind for kind, _ in KEYS])
def test_keys_of_any_type_fall_into_one_range_each(
    primary: FlightPrimary, kind: str, keys: list[str]
) -> None:
    primary.write(f"CREATE TABLE t (a {kind}, b {kind}, v INTEGER, PRIMARY KEY (b, a))")
    pairs = [f"({one}::{kind}, {other}::{kind}, 1)" for one in keys for other in keys]
    for pair in pairs:
        primary.write(f"INSERT INTO t VALUES {pair}")
    with closing(primary.base(range_bytes=1)) as base:
        snapshot = base.load()
        assert snapshot.row_count == len(pairs)
        assert len(snapshot.files) > 1
        assert counted(snapshot) == primary.counted()


VALUES: list[tuple[pa.DataType, list[object]]] = [
    (pa.int8(), [-128, None, 127]),
    (pa.uint16(), [0, None, 65535]),
    (pa.uint64(), [0, None, 2**64 - 1]),
    (pa.float32(), [math.nan, None, -0.0]),
    (pa.float64(), [NAN_BITS, -0.0, math.inf]),
    (pa.decimal128(38, 10), [Decimal("-1.25"), None, Decimal("7.0000000001")]),
    (pa.string(), ["", None, "a\0b"]),
    (pa.binary(), [b"", None, b"\0\xff\0"]),
    (pa.binary(3), [b"abc", None, b"\0\0\0"]),
    (pa.date32(), [datetime.date(1969, 12, 31), None, datetime.date(9999, 12, 31)]),
    (pa.time32("s"), [datetime.time(1, 2, 3), None, datetime.time(0)]),
    (pa.time64("us"), [datetime.time(1, 2, 3, 4), None, datetime.time(0)]),
    (pa.timestamp("s"), [datetime.datetime(1960, 1, 1), None, datetime.datetime(2020, 1, 1)]),
    (pa.timestamp("ms", "Europe/Berlin"), [datetime.datetime(2020, 7, 1, tzinfo=datetime.UTC), None, None]),
    (pa.timestamp("us", "UTC"), [datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC), None, None]),
    (pa.uuid(), [UUID(int=5), None, UUID(int=2**128 - 1)]),
    (pa.list_(pa.string()), [["a", None, ""], None, []]),
    (pa.list_(pa.list_(pa.int32())), [[[1], None, []], None, [[2, 3]]]),
    (pa.map_(pa.string(), pa.float64()), [[("a", 1.0), ("b", None)], None, []]),
    (
        pa.struct({"x": pa.int32(), "y": pa.list_(pa.bool_())}),
        [{"x": 1, "y": [True]}, None, {"x": None, "y": None}],
    ),
    (pa.list_(pa.struct({"d": pa.decimal128(9, 2)})), [[{"d": Decimal("1.50")}, None], None, []]),
]


@pytest.mark.parametrize(("kind", "values"), VALUES, ids=[str(kind) for kind, _ in VALUES])
def test_values_of_any_type_are_in_the_file_bit_for_bit(
    tmp_path: Path, kind: pa.DataType, values: list[object]
) -> None:
    schema = TableSchema((Column("id", pa.int64(), False), Column("v", kind)), ("id",))
    columns = [pa.array(range(len(values)), pa.int64()), pa.array(values, kind)]
    rows = pa.Table.from_arrays(columns, schema=pa.schema([("id", pa.int64()), ("v", kind)]))
    path = tmp_path / "values.parquet"
    with FetchedFile(path, schema) as file:
        for batch in rows.to_batches(max_chunksize=2):
            file.add(batch)
        part = file.finish()
    found = digest(rows.to_batches(), schema)
    assert (part.row_count, part.digest) == (found.row_count, found.value)
    assert_same(sorted_by_key(pq.read_table(path), schema), sorted_by_key(rows, schema))


def test_wide_rows_come_in_row_groups_of_bounded_size(primary: FlightPrimary) -> None:
    primary.write("CREATE TABLE t (id BIGINT PRIMARY KEY, v VARCHAR)")
    for first in range(0, 60, 20):
        rows = pa.table({"id": range(first, first + 20), "v": [chr(65 + i) * 3_000_000 for i in range(20)]})
        primary.service.write("INSERT INTO t VALUES (?, ?)", rows)
    with closing(primary.base()) as base:
        snapshot = base.load()
        assert counted(snapshot) == primary.counted()
        footers = [pq.read_metadata(file.path) for file in snapshot.files]
        groups = [footer.row_group(i).num_rows for footer in footers for i in range(footer.num_row_groups)]
        assert max(groups) < 20


def test_a_column_that_is_added_meanwhile_is_in_the_base_or_not_but_never_by_half(
    primary: FlightPrimary,
) -> None:
    primary.write("CREATE TABLE t (id BIGINT PRIMARY KEY, v VARCHAR)")
    primary.write("INSERT INTO t VALUES (1, 'a')")
    primary.write("ALTER TABLE t ADD COLUMN w INTEGER DEFAULT 7")
    with closing(primary.base()) as base:
        begun = base.begin()
        primary.write("ALTER TABLE t ADD COLUMN later INTEGER DEFAULT 8")
        snapshot = base.load()
        assert begun.schema.names == ("id", "v", "w")
        whole = {"id": 1, "v": "a", "w": 7, "later": 8}
        assert snapshot.schema.names[:3] == begun.schema.names
        assert rows_of(snapshot).to_pylist() == [{name: whole[name] for name in snapshot.schema.names}]


def test_a_table_that_is_not_there_is_said_so(primary: FlightPrimary) -> None:
    with closing(primary.base()) as base, pytest.raises(TableNotFound, match="t"):
        base.load()


def test_the_pin_is_let_go_when_the_base_is_there(primary: FlightPrimary) -> None:
    primary.write_rows(10)
    with closing(primary.base()) as base:
        base.begin()
        assert primary.server.stats.pins == 1
        base.load()
        assert primary.server.stats.pins == 0


@pytest.mark.parametrize(
    ("place", "expected"),
    [
        ("grpc://h:1", ("grpc://h:1", "t")),
        ("grpc+tls://h:1/", ("grpc+tls://h:1", "t")),
        ("grpc://[::1]:1/a%2Fb%20c", ("grpc://[::1]:1", "a/b c")),
    ],
)
def test_a_place_names_a_server_and_perhaps_a_table(place: str, expected: tuple[str, str]) -> None:
    assert server_and_table(place, "t") == expected


@pytest.mark.parametrize("place", ["", "h:1", "http://h:1", "grpc://", "grpc:///t", "grpc://h:1?x=1"])
def test_what_names_no_server_is_refused(place: str) -> None:
    with pytest.raises(ConfigError, match="expected grpc://HOST:PORT"):
        server_and_table(place, "t")
