"""A replica on each sample table: its base alone, and with the ops after it, equals what the engine reads."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from uuid import UUID

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from flight_replica.base.merutable import MerutableBase
from flight_replica.keys import KeyCodec
from flight_replica.log.in_process import InProcessLogSource
from flight_replica.log.op_log import OpLog
from flight_replica.replica.replica import Replica
from flight_replica.schema import TableSchema
from flight_replica.state.workspace import Workspace
from tests import samples
from tests.bases import assert_same, sorted_by_key

LINEAGE = UUID("0d4be0a8-8d6b-4d0e-9d53-6f2d5c1f8a11")
SCENARIOS = ["s01", "s02", "s03", "s04", "s05", "s06", "s10", "s15"]
each_checkpoint = pytest.mark.parametrize("checkpoint", samples.checkpoints(SCENARIOS))


def feed_of(scenario: Path, through: int) -> OpLog:
    """The scenario's ops up to `through` as a log, PUT as INSERT."""
    schema = samples.table_schema(scenario)
    table = samples.ops(scenario).filter(pc.field("seq") <= through).combine_chunks()
    columns = {name: column.combine_chunks() for name, column in zip(table.column_names, table.columns)}  # noqa: B905
    columns["op"] = pc.if_else(pc.equal(columns["op"], "PUT"), "INSERT", columns["op"])
    arrays = [columns[name].cast(schema.feed_schema.field(name).type) for name in schema.feed_schema.names]
    feed = OpLog(samples.table_name(scenario), LINEAGE, schema, bytes_max=1 << 30, clock_us=lambda: 0)
    feed.append(
        pa.RecordBatch.from_arrays(arrays, schema=schema.feed_schema), through=through, commit_time_us=0
    )
    return feed


def in_key_order(table: pa.Table, schema: TableSchema) -> pa.Table:
    return sorted_by_key(table.drop_columns(["pk_bytes", "seq"]), schema)


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    workspace = Workspace(tmp_path / "data")
    yield workspace
    workspace.close()


def open_replica(checkpoint: Path, tmp_path: Path, workspace: Workspace) -> Replica:
    scenario = samples.scenario_of(checkpoint)
    base = MerutableBase(
        samples.catalog(checkpoint, tmp_path / "catalog"),
        table=samples.table_name(scenario),
        schema=samples.table_schema(scenario),
        lineage=LINEAGE,
    )
    log = InProcessLogSource(feed_of(scenario, samples.read_seq(samples.expected(checkpoint))))
    return Replica.open(base, log, workspace=workspace)


@samples.needs_samples
@each_checkpoint
def test_base_then_ops_then_gets_equal_the_engine_s(
    checkpoint: Path, tmp_path: Path, workspace: Workspace
) -> None:
    schema = samples.table_schema(samples.scenario_of(checkpoint))
    base, whole = samples.expected_base(checkpoint), samples.expected(checkpoint)
    with closing(open_replica(checkpoint, tmp_path, workspace)) as replica:
        assert replica.visible_seq == replica.base_seq == samples.base_seq(base)
        found = replica.query("SELECT * FROM t").read_all()
        assert_same(sorted_by_key(found, schema), in_key_order(base, schema))

        replica.advance()
        assert replica.visible_seq == samples.read_seq(whole)
        found = replica.query("SELECT * FROM t").read_all()
        assert_same(sorted_by_key(found, schema), in_key_order(whole, schema))
        assert_gets(replica, checkpoint, schema)

        replica.swaps.rebase()  # the same again, from the base up
        found = replica.query("SELECT * FROM t").read_all()
        assert_same(sorted_by_key(found, schema), in_key_order(whole, schema))


@pytest.mark.statement(30, 44)
@samples.needs_samples
def test_a_replica_changes_nothing_in_the_engine_s_directory(tmp_path: Path, workspace: Workspace) -> None:
    checkpoint = samples.scenario("s02_upserts_dv_on") / "checkpoints" / "c4_unflushed_upserts"
    catalog = samples.catalog(checkpoint, tmp_path / "catalog")
    before = contents(catalog)
    with closing(open_replica(checkpoint, tmp_path, workspace)) as replica:
        replica.advance()
        replica.swaps.rebase_hotswap()
        replica.swaps.merge_on_apply()
        assert replica.query("SELECT * FROM t").read_all().num_rows > 0
    assert contents(catalog) == before


def contents(directory: Path) -> dict[Path, tuple[int, bytes | None]]:
    """path -> its time of change in ns and its bytes (None: a directory), for all that is there."""
    return {
        path: (path.stat().st_mtime_ns, path.read_bytes() if path.is_file() else None)
        for path in [directory, *directory.rglob("*")]
    }


@pytest.mark.statement(117)
@samples.needs_samples
@pytest.mark.parametrize("checkpoint", samples.checkpoints(["s07_", "s07b_"]))
def test_rows_from_before_a_column_was_added_read_as_the_engine_reads_them(
    checkpoint: Path, tmp_path: Path, workspace: Workspace
) -> None:
    expected = samples.expected_base(checkpoint)
    with closing(open_replica(checkpoint, tmp_path, workspace)) as replica:
        names = ", ".join(expected.column_names[2:])
        found = replica.query(f"SELECT {names} FROM t ORDER BY id").read_all()
    wanted = expected.select(expected.column_names[2:]).sort_by("id")
    assert samples.float_bits(found).to_pylist() == samples.float_bits(wanted).to_pylist()


def assert_gets(replica: Replica, checkpoint: Path, schema: TableSchema) -> None:
    codec = KeyCodec(schema)
    for pk_bytes, expected in samples.gets(checkpoint, schema):
        key = [part[0].as_py() for part in codec.decode(pa.array([pk_bytes], pa.binary()))]
        row = replica.get(*key)
        found = None if row is None else tuple(row.values())
        assert bits(found) == bits(expected), key


def bits(row: tuple[object, ...] | None) -> tuple[object, ...] | None:
    """A row in which −0.0 isn't 0.0 and a NaN is itself."""
    if row is None:
        return None
    return tuple(np.float64(v).tobytes() if isinstance(v, float) else v for v in row)
