"""The mirror against a dict. Invariants after every step: pyiceberg's own scan and `IcebergBase` both give
exactly the dict's rows, and the snapshot says the seq, time, lineage and schema of the last commit."""

from __future__ import annotations

import datetime
import decimal
import math
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from uuid import UUID, uuid4

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.exceptions import CommitFailedException
from pyiceberg.table import StaticTable

from flight_replica.base.iceberg import IcebergBase
from flight_replica.base.source import BaseSnapshot
from flight_replica.errors import BaseError, ConfigError, ConstraintViolation, SchemaMismatch
from flight_replica.keys import KeyCodec
from flight_replica.primary.mirror import CommitInfo, IcebergMirror, MirrorLimits
from flight_replica.schema import Column, TableSchema
from tests.iceberg_reading import by_key, rows_of_scan, rows_of_snapshot

LINEAGE = UUID("3f2b8c1e-0000-4000-8000-000000000001")
HOUR = 3600.0

ORDERS = TableSchema(
    (
        Column("region", pa.string(), False),
        Column("id", pa.uint16(), False),
        Column("amount", pa.float64()),
        Column("tags", pa.list_(pa.uint64())),
    ),
    ("region", "id"),
)
SMALL = MirrorLimits(file_rows=40, row_group_rows=7, small_files_max=3)

Row = Mapping[str, object]


@contextmanager
def opened(
    directory: Path,
    schema: TableSchema = ORDERS,
    *,
    lineage: UUID = LINEAGE,
    limits: MirrorLimits | None = None,
) -> Iterator[IcebergMirror]:
    mirror = IcebergMirror(directory, name="Orders/ü", schema=schema, lineage=lineage, limits=limits)
    try:
        yield mirror
    finally:
        mirror.close()


def order(region: str, number: int, amount: float | None = 1.0) -> Row:
    return {"region": region, "id": number, "amount": amount, "tags": None}


def commit(
    mirror: IcebergMirror, puts: Sequence[Row], deletes: Sequence[Row] = (), *, seq: int, time_us: int = 7
) -> CommitInfo:
    """Commit `puts`, and the deletion of the keys of `deletes`."""
    schema = mirror.schema
    rows = pa.Table.from_pylist(list(puts), schema.arrow_schema)
    keys = [[row[name] for name in schema.primary_key] for row in (*puts, *deletes)]
    encoded = pa.array([KeyCodec(schema).encode_row(key) for key in keys], pa.binary())
    return mirror.commit(rows, encoded, seq, time_us)


def load(mirror: IcebergMirror) -> BaseSnapshot:
    return IcebergBase(mirror.metadata_location, table="orders").load()


def expect(mirror: IcebergMirror, rows: Sequence[Row]) -> None:
    """Both ways of reading the mirror give exactly `rows`."""
    schema = mirror.schema
    expected = by_key(pa.Table.from_pylist(list(rows), schema.arrow_schema), schema)
    snapshot = load(mirror)
    assert snapshot.schema == schema
    assert by_key(rows_of_scan(mirror.metadata_location, schema), schema) == expected
    assert by_key(rows_of_snapshot(snapshot), schema) == expected
    assert snapshot.row_count == mirror.row_count == len(rows)


@pytest.mark.parametrize("seed", range(4))
def test_random_history_equals_the_dict_after_every_step(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    model: dict[tuple[str, int], dict[str, object]] = {}
    schema, seq = ORDERS, 0
    mirror = IcebergMirror(tmp_path, name="t", schema=schema, lineage=LINEAGE, limits=SMALL)
    for _ in range(22):
        keys = {(rng.choice("abc"), rng.randrange(40)) for _ in range(rng.choice([0, 1, 3, 30]))}
        dead = {key for key in sorted(keys) if rng.random() < 0.4}
        puts = [random_row(rng, schema, key) for key in sorted(keys - dead)]
        model = {key: row for key, row in model.items() if key not in keys}
        model |= {(row["region"], row["id"]): row for row in puts}
        seq += len(keys)
        commit(mirror, puts, [order(*key) for key in dead], seq=seq)
        if rng.random() < 0.5:
            mirror.compact_if_needed()
        if rng.random() < 0.1:
            default = rng.choice([None, 2.5])
            column = Column(f"extra{len(schema.columns)}", pa.float32(), True, default)
            mirror.add_column(column)
            schema = TableSchema((*schema.columns, column), schema.primary_key)
            model = {key: row | {column.name: default} for key, row in model.items()}
        if rng.random() < 0.2:
            mirror.expire(0.0, time.time() + HOUR)
        if rng.random() < 0.2:
            mirror.close()
            mirror = IcebergMirror(tmp_path, name="t", schema=schema, lineage=LINEAGE, limits=SMALL)
        assert mirror.base_seq == load(mirror).base_seq == seq
        expect(mirror, list(model.values()))
    mirror.close()


def random_row(rng: random.Random, schema: TableSchema, key: tuple[str, int]) -> dict[str, object]:
    row: dict[str, object] = {"region": key[0], "id": key[1]}
    for column in schema.columns[2:]:
        is_list = pa.types.is_list(column.type)
        numbers = [None, [], [2**64 - 1, None]] if is_list else [None, math.nan, -0.0, 0.0, 0.5]
        row[column.name] = rng.choice(numbers)
    return row


def test_snapshot_says_lineage_seq_time_and_schema(tmp_path: Path) -> None:
    with opened(tmp_path) as mirror:
        assert (mirror.base_seq, mirror.snapshot_id) == (0, None)
        info = commit(mirror, [order("a", 1), order("b", 2)], seq=41, time_us=1_700_000_000_000_001)
        snapshot = load(mirror)
        assert (snapshot.lineage, snapshot.base_seq, snapshot.commit_time_us) == (
            LINEAGE,
            41,
            1_700_000_000_000_001,
        )
        assert snapshot.version == mirror.snapshot_id == info.snapshot_id
        assert (info.added_rows, info.deleted_rows, info.added_files) == (2, 0, 1)


def test_commit_hides_the_superseded_rows_and_writes_only_the_changed_ones(tmp_path: Path) -> None:
    with opened(tmp_path) as mirror:
        commit(mirror, [order("a", number) for number in range(100)], seq=100)
        info = commit(mirror, [order("a", 3, 9.0)], [order("a", 5), order("z", 1)], seq=103)
        assert (info.added_rows, info.deleted_rows, info.added_files) == (1, 2, 1)
        rows = [order("a", number) for number in range(100) if number not in (3, 5)]
        expect(mirror, [*rows, order("a", 3, 9.0)])


def test_commit_without_changes_moves_the_seq_alone(tmp_path: Path) -> None:
    with opened(tmp_path) as mirror:
        assert commit(mirror, [], seq=5).added_files == 0
        expect(mirror, [])
        commit(mirror, [order("a", 1)], seq=6)
        commit(mirror, [], seq=9)
        assert load(mirror).base_seq == 9
        expect(mirror, [order("a", 1)])


def test_rows_are_split_into_files_sorted_by_key(tmp_path: Path) -> None:
    with opened(tmp_path, limits=SMALL) as mirror:
        rows = [order("a", number) for number in range(100)]
        random.Random(1).shuffle(rows)
        assert commit(mirror, rows, seq=100).added_files == 3
        for file in load(mirror).files:
            numbers = [row["id"] for row in pq.read_table(file.path).to_pylist()]
            assert numbers == sorted(numbers)
        expect(mirror, rows)


def test_reopened_mirror_goes_on_where_it_stood(tmp_path: Path) -> None:
    with opened(tmp_path) as mirror:
        commit(mirror, [order("a", 1), order("a", 2)], seq=2)
        commit(mirror, [], [order("a", 1)], seq=3)
        snapshot_id = mirror.snapshot_id
    with opened(tmp_path) as mirror:
        assert (mirror.base_seq, mirror.snapshot_id) == (3, snapshot_id)
        assert commit(mirror, [order("a", 1, 4.0)], seq=4).deleted_rows == 0
        expect(mirror, [order("a", 1, 4.0), order("a", 2)])


def test_other_lineage_or_key_is_refused(tmp_path: Path) -> None:
    with opened(tmp_path):
        pass
    other = uuid4()
    with (
        pytest.raises(ConfigError, match=f"belongs to lineage {LINEAGE}, expected {other}"),
        opened(tmp_path, lineage=other),
    ):
        pass
    turned = TableSchema(ORDERS.columns, ("id", "region"))
    with pytest.raises(ConfigError, match="has the key"), opened(tmp_path, turned):
        pass
    fewer = TableSchema(ORDERS.columns[:3], ORDERS.primary_key)
    with pytest.raises(ConfigError, match="has columns"), opened(tmp_path, fewer):
        pass


@pytest.mark.parametrize("pattern", ["metadata/*.metadata.json", "metadata/*.avro", "data/*.parquet"])
def test_damaged_mirror_is_refused_when_opened(tmp_path: Path, pattern: str) -> None:
    with opened(tmp_path) as mirror:
        commit(mirror, [order("a", 1)], seq=1)
    for path in tmp_path.glob(pattern):
        path.write_bytes(b"")
    with pytest.raises(BaseError), opened(tmp_path):
        pass


def test_two_rows_of_one_key_are_refused_and_leave_the_mirror_as_it_was(tmp_path: Path) -> None:
    with opened(tmp_path) as mirror:
        commit(mirror, [order("a", 1)], seq=1)
        with pytest.raises(ConstraintViolation, match="two rows of one commit"):
            commit(mirror, [order("a", 2), order("a", 2)], seq=3)
        assert mirror.base_seq == 1
        expect(mirror, [order("a", 1)])


def test_rows_with_other_columns_are_refused(tmp_path: Path) -> None:
    with opened(tmp_path) as mirror, pytest.raises(SchemaMismatch, match="has columns"):
        mirror.commit(pa.table({"id": [1]}), pa.array([b"x"]), 1, 0)


def test_seq_never_goes_back(tmp_path: Path) -> None:
    with opened(tmp_path) as mirror:
        commit(mirror, [order("a", 1)], seq=5)
        with pytest.raises(AssertionError, match="at seq 5, asked to go back to 4"):
            commit(mirror, [], seq=4)


def test_many_small_files_become_one_at_the_same_seq(tmp_path: Path) -> None:
    with opened(tmp_path) as mirror:
        for number in range(17):
            assert mirror.compact_if_needed() is None
            commit(mirror, [order("a", number)], seq=number + 1, time_us=50 + number)
        info = mirror.compact_if_needed()
        assert info is not None
        assert (info.added_files, info.removed_files, info.base_seq) == (1, 17, 17)
        assert load(mirror).commit_time_us == 66
        assert mirror.compact_if_needed() is None
        expect(mirror, [order("a", number) for number in range(17)])


def test_worn_files_are_rewritten_and_the_others_stay(tmp_path: Path) -> None:
    limits = MirrorLimits(file_rows=50)
    with opened(tmp_path, limits=limits) as mirror:
        rows = [order("a", number) for number in range(100)]
        commit(mirror, rows, seq=100)
        commit(mirror, [], [*rows[:20], rows[70]], seq=121)
        before = {file.path for file in load(mirror).files}
        info = mirror.compact_if_needed()
        assert info is not None
        assert (info.added_rows, info.added_files, info.removed_files) == (30, 1, 1)
        files = load(mirror).files
        assert len(before & {file.path for file in files}) == 1
        assert sorted(len(file.deleted) for file in files) == [0, 1]
        expect(mirror, [*rows[20:70], *rows[71:]])


def test_many_delete_files_become_one_without_touching_data(tmp_path: Path) -> None:
    with opened(tmp_path, limits=MirrorLimits(file_rows=1000)) as mirror:
        rows = [order("a", number) for number in range(1000)]
        commit(mirror, rows, seq=1000)
        for number in range(17):
            commit(mirror, [], [rows[number]], seq=1001 + number)
        info = mirror.compact_if_needed()
        assert info is not None
        assert (info.added_files, info.removed_files) == (0, 0)
        assert mirror.compact_if_needed() is None
        expect(mirror, rows[17:])


def test_added_column_with_null_default_keeps_the_files(tmp_path: Path) -> None:
    with opened(tmp_path) as mirror:
        commit(mirror, [order("a", 1)], seq=1)
        before = load(mirror)
        mirror.add_column(Column("note", pa.string()))
        after = load(mirror)
        assert [file.path for file in after.files] == [file.path for file in before.files]
        assert after.files[0].columns == ORDERS.names
        assert (after.base_seq, after.schema.names[-1]) == (1, "note")
        expect(mirror, [order("a", 1) | {"note": None}])  # type: ignore[operator]


def test_added_column_with_default_rewrites_the_files(tmp_path: Path) -> None:
    with opened(tmp_path) as mirror:
        commit(mirror, [order("a", 1), order("a", 2)], seq=2)
        commit(mirror, [], [order("a", 2)], seq=3)
        mirror.add_column(Column("note", pa.string(), False, "none"))
        (file,) = load(mirror).files
        assert (file.row_count, file.columns[-1]) == (1, "note")
        expect(mirror, [order("a", 1) | {"note": "none"}])  # type: ignore[operator]


def test_added_column_before_the_first_commit_is_there_after_reopening(tmp_path: Path) -> None:
    with opened(tmp_path) as mirror:
        mirror.add_column(Column("note", pa.string()))
        wider = mirror.schema
    with opened(tmp_path, wider) as mirror:
        assert mirror.schema == wider
        assert mirror.base_seq == 0


def test_not_null_column_without_default_is_refused_while_there_are_rows(tmp_path: Path) -> None:
    with opened(tmp_path) as mirror:
        commit(mirror, [order("a", 1)], seq=1)
        with pytest.raises(SchemaMismatch, match="'note' is NOT NULL without default"):
            mirror.add_column(Column("note", pa.string(), False))
        assert mirror.schema == ORDERS


def test_expiry_keeps_what_is_within_grace(tmp_path: Path) -> None:
    with opened(tmp_path) as mirror:
        commit(mirror, [order("a", 1)], seq=1)
        old = mirror.metadata_location
        commit(mirror, [order("a", 1, 2.0)], seq=2)
        mirror.compact_if_needed()
        mirror.add_column(Column("n", pa.int32(), True, 1))  # rewrites every file
        assert mirror.expire(HOUR) == 0
        earlier = IcebergBase(old, table="orders").load()
        assert by_key(rows_of_snapshot(earlier), ORDERS) == by_key(rows_of_scan(old, ORDERS), ORDERS)
        assert mirror.expire(HOUR, time.time() + 2 * HOUR) > 0
        assert not Path(old).exists()
        expect(mirror, [order("a", 1, 2.0) | {"n": 1}])  # type: ignore[operator]
    left = {path.suffix for path in (tmp_path / "metadata").iterdir()}
    assert left == {".json", ".avro"}
    assert len(list((tmp_path / "data").iterdir())) == 1


def test_crash_before_the_catalog_commit_leaves_only_orphans(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(tmp_path) as mirror:
        commit(mirror, [order("a", 1)], seq=1)
        before = {path for path in tmp_path.rglob("*") if path.is_file()}

        def crash(*_: object, **__: object) -> None:
            raise KeyboardInterrupt

        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(SqlCatalog, "commit_table", crash)
            commit(mirror, [order("a", 1, 2.0)], seq=2)
    orphans = {path for path in tmp_path.rglob("*") if path.is_file()} - before
    assert len(orphans) >= 4  # data, deletes, manifests and manifest list
    with opened(tmp_path) as mirror:
        assert mirror.base_seq == 1
        expect(mirror, [order("a", 1)])
        assert mirror.expire(HOUR) == 0
        mirror.expire(HOUR, time.time() + 2 * HOUR)
        assert not any(path.exists() for path in orphans)
        expect(mirror, [order("a", 1)])


def test_failed_catalog_commit_leaves_the_open_mirror_usable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(tmp_path) as mirror:
        commit(mirror, [order("a", 1)], seq=1)

        def fail(*_: object, **__: object) -> None:
            raise CommitFailedException("disk full")

        with monkeypatch.context() as patch, pytest.raises(CommitFailedException):
            patch.setattr(SqlCatalog, "commit_table", fail)
            commit(mirror, [order("a", 1, 2.0)], seq=2)
        assert mirror.base_seq == 1
        commit(mirror, [order("a", 1, 3.0)], seq=3)
        expect(mirror, [order("a", 1, 3.0)])


def test_files_are_not_named_after_the_table(tmp_path: Path) -> None:
    with opened(tmp_path / "odd dir #1 ?x%41:") as mirror:
        commit(mirror, [order("a", 1)], seq=1)
        expect(mirror, [order("a", 1)])
    assert not any("Orders" in path.name for path in tmp_path.rglob("*"))


EVERY_TYPE: dict[str, tuple[pa.DataType, list[object]]] = {
    "bool": (pa.bool_(), [True, False]),
    "i8": (pa.int8(), [-128, 127]),
    "i16": (pa.int16(), [-(2**15), 2**15 - 1]),
    "i32": (pa.int32(), [-(2**31), 2**31 - 1]),
    "i64": (pa.int64(), [-(2**63), 2**63 - 1]),
    "u8": (pa.uint8(), [0, 255]),
    "u16": (pa.uint16(), [0, 2**16 - 1]),
    "u32": (pa.uint32(), [0, 2**32 - 1]),
    "u64": (pa.uint64(), [0, 2**64 - 1]),
    "f32": (pa.float32(), [math.nan, -0.0]),
    "f64": (pa.float64(), [-math.inf, -0.0]),
    "a.b text": (pa.string(), ["", "ü\0" * 20]),
    "bytes": (pa.binary(), [b"", b"\xff" * 40]),
    "fixed": (pa.binary(3), [b"\0\0\0", b"\xff\xff\xff"]),
    "uuid": (pa.uuid(), [UUID(int=0), UUID(int=2**128 - 1)]),
    "d9": (pa.decimal128(9, 2), [decimal.Decimal("-9999999.99"), decimal.Decimal("0.01")]),
    "d18": (pa.decimal128(18, 0), [decimal.Decimal(10**18 - 1), decimal.Decimal(-1)]),
    "d38": (pa.decimal128(38, 38), [decimal.Decimal("0." + "9" * 38), decimal.Decimal(0)]),
    "date": (pa.date32(), [datetime.date(1, 1, 1), datetime.date(9999, 12, 31)]),
    "time_s": (pa.time32("s"), [datetime.time(0), datetime.time(23, 59, 59)]),
    "time_ms": (pa.time32("ms"), [datetime.time(0), datetime.time(23, 59, 59, 999_000)]),
    "time_us": (pa.time64("us"), [datetime.time(0), datetime.time(23, 59, 59, 999_999)]),
    "ts_s": (pa.timestamp("s"), [datetime.datetime(1, 1, 1), datetime.datetime(9999, 1, 1)]),
    "ts_ms": (pa.timestamp("ms", "Europe/Rome"), [datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)] * 2),
    "ts_us": (pa.timestamp("us"), [datetime.datetime(2024, 1, 1, 0, 0, 0, 1)] * 2),
    "ts_utc": (pa.timestamp("us", "UTC"), [datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC)] * 2),
    "list": (pa.list_(pa.list_(pa.uint64())), [[[2**64 - 1], None, []], []]),
    "map": (pa.map_(pa.string(), pa.int8()), [[("k", -1), ("l", None)], []]),
    "struct": (
        pa.struct([("x y", pa.uint32()), ("t", pa.timestamp("s"))]),
        [{"x y": 2**32 - 1, "t": None}, {"x y": None, "t": None}],
    ),
}


def test_every_type_comes_back_exactly(tmp_path: Path) -> None:
    columns = [Column(name, kind) for name, (kind, _) in EVERY_TYPE.items()]
    schema = TableSchema((Column("key", pa.int32(), False), *columns), ("key",))
    rows = [{"key": -1}] + [
        {"key": row} | {name: values[row] for name, (_, values) in EVERY_TYPE.items()} for row in range(2)
    ]
    with opened(tmp_path, schema) as mirror:
        commit(mirror, rows, seq=3)
        expect(mirror, rows)


def test_uuids_inside_a_struct_come_back_exactly(tmp_path: Path) -> None:
    uuids = pa.array([UUID(int=7).bytes, None], pa.uuid())
    parts = pa.StructArray.from_arrays([uuids], ["u"])
    schema = TableSchema((Column("key", pa.int32(), False), Column("s", parts.type)), ("key",))
    rows = pa.Table.from_arrays([pa.array([1, 2], pa.int32()), parts], schema=schema.arrow_schema)
    with opened(tmp_path, schema) as mirror:
        keys = KeyCodec(schema).encode([rows.column("key")])
        mirror.commit(rows, keys, 2, 0)
        assert by_key(rows_of_snapshot(load(mirror)), schema) == by_key(rows, schema)
        assert by_key(rows_of_scan(mirror.metadata_location, schema), schema) == by_key(rows, schema)


MOST_DAYS, MOST_US = 2**31 - 1, 2**63 - 1


@pytest.mark.parametrize(
    ("kind", "numbers"),
    [
        (pa.date32(), [-MOST_DAYS, 2_932_897, MOST_DAYS]),  # the second one is 10000-01-01
        (pa.timestamp("us"), [-MOST_US, 0, MOST_US]),  # the first and the last are DuckDB's infinities
        (pa.timestamp("us", "UTC"), [-MOST_US, 253_402_300_800_000_000, MOST_US]),
    ],
    ids=str,
)
def test_times_beyond_python_s_come_back_exactly(
    tmp_path: Path, kind: pa.DataType, numbers: list[int]
) -> None:
    number = pa.int32() if kind == pa.date32() else pa.int64()
    times = pa.array(numbers, number).cast(kind)
    inside = pa.StructArray.from_arrays([times], ["t"])
    schema = TableSchema((Column("k", kind, False), Column("s", inside.type), Column("n", number)), ("k",))
    rows = pa.table([times, inside, pa.array(numbers, number)], schema=schema.arrow_schema)
    with opened(tmp_path, schema) as mirror:
        mirror.commit(rows, KeyCodec(schema).encode([times]), 3, 0)
        assert rows_of_snapshot(load(mirror)).sort_by("n").equals(rows)
        table = StaticTable.from_metadata(mirror.metadata_location)
        (task,) = table.scan().plan_files()
        assert set(task.file.lower_bounds) == {table.schema().find_field("n").field_id}
        assert mirror.commit(rows.slice(1), KeyCodec(schema).encode([times[1:]]), 4, 0).deleted_rows == 2
        assert rows_of_snapshot(load(mirror)).sort_by("n").equals(rows)


@pytest.mark.parametrize("name", [name for name, (kind, _) in EVERY_TYPE.items() if kind.num_fields == 0])
def test_every_flat_type_works_as_a_key(tmp_path: Path, name: str) -> None:
    kind, values = EVERY_TYPE[name]
    schema = TableSchema((Column(name, kind, False), Column("v", pa.int32())), (name,))
    keys = [value for value in dict.fromkeys(map(repr, values)) if value != "nan"]
    rows = [{name: value, "v": 1} for value in values if repr(value) in keys][: len(keys)]
    with opened(tmp_path, schema) as mirror:
        commit(mirror, rows, seq=2)
        assert commit(mirror, [rows[-1] | {"v": 2}], seq=3).deleted_rows == 1
        expect(mirror, [*rows[:-1], rows[-1] | {"v": 2}])


@pytest.mark.parametrize(("key", "has_identifier"), [(("region", "id"), True), (("amount", "id"), False)])
def test_key_is_the_identifier_where_iceberg_allows_it(
    tmp_path: Path, key: tuple[str, ...], has_identifier: bool
) -> None:
    columns = tuple(Column(c.name, c.type, c.name not in key) for c in ORDERS.columns)
    with opened(tmp_path, TableSchema(columns, key)):
        catalog = SqlCatalog("mirror", uri=f"sqlite:///{tmp_path}/catalog.db")
        names = catalog.load_table(("merutable", "mirror")).schema().identifier_field_names()
        catalog.close()
    assert names == (set(key) if has_identifier else set())


def test_type_that_iceberg_cannot_hold_is_refused_by_name(tmp_path: Path) -> None:
    schema = TableSchema((Column("k", pa.int32(), False), Column("d", pa.decimal256(40, 2))), ("k",))
    with (
        pytest.raises(SchemaMismatch, match=r"column 'd': type decimal256\(40, 2\)"),
        opened(tmp_path, schema),
    ):
        pass
