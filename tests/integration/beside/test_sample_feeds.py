"""The feed of each sample table at every `since`, and its rows, against the engine's own feed and scan.

The engine's feed loses ops without a word; ours has them, or says that no file holds them any more.
"""

from __future__ import annotations

import json
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from flight_replica.beside.engine_table import EngineTable
from flight_replica.beside.service import FeedService
from flight_replica.errors import LogGap, Unavailable
from flight_replica.keys import KeyCodec
from flight_replica.schema import TableSchema
from flight_replica.state.workspace import Workspace
from tests import samples
from tests.bases import assert_same, sorted_by_key
from tests.engine_directory import changes, engine_at, engine_table, feed_of
from tests.processes import until

SCENARIOS = ["s01", "s02", "s03", "s04", "s05", "s06", "s07", "s08", "s09", "s10", "s11", "s12", "s14", "s15"]
CHECKPOINTS = samples.checkpoints(SCENARIOS)

# scenario-checkpoint-since -> the low_water that refuses it: a compaction dropped a newer tombstone
DROPPED = {
    "s04_compaction-c6_bottom_level_tombstones_dropped-0": 63,
    "s04_compaction-c6_bottom_level_tombstones_dropped-62": 63,
    "s04_compaction-c7_new_ops_in_log-62": 63,
    "s04_compaction-c8_l0_over_l2-0": 63,
    "s04_compaction-c9_all_in_l2-0": 63,
}


def engine_feeds() -> list[object]:
    """Each feed of the engine's that lies beside a checkpoint, by its `since`."""
    return [
        pytest.param(path, id=f"{samples.scenario_of(checkpoint).name}-{checkpoint.name}-{path.stem[5:]}")
        for (checkpoint,) in (parameter.values for parameter in CHECKPOINTS)
        for path in sorted(checkpoint.glob("feed_*.arrow"))
    ]


def stated_schema(checkpoint: Path) -> TableSchema | None:
    """What has to be stated: columns that no file of the checkpoint has yet."""
    scenario = samples.scenario_of(checkpoint)
    is_told = (checkpoint / "catalog" / "version-hint.text").exists() and not scenario.name.startswith("s07")
    return None if is_told else samples.table_schema(scenario)


def newest_by_key(ops: pa.Table) -> dict[bytes, int]:
    """Key -> seq of its last op."""
    return dict(zip(ops.column("pk_bytes").to_pylist(), ops.column("seq").to_pylist(), strict=True))


@samples.needs_samples
@pytest.mark.parametrize("engine_feed", engine_feeds())
def test_a_feed_has_the_newest_op_of_every_key_or_says_that_it_is_gone(
    engine_feed: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    checkpoint, since = engine_feed.parent, int(engine_feed.stem[5:])
    scenario = samples.scenario_of(checkpoint)
    read_seq = samples.read_seq(samples.expected(checkpoint))
    truth = samples.ops(scenario).filter((pc.field("seq") > since) & (pc.field("seq") <= read_seq))
    refused_by = DROPPED.get(request.node.callspec.id)
    with engine_table(engine_at(checkpoint, tmp_path), tmp_path / "data", stated_schema(checkpoint)) as table:
        feed = feed_of(table, read_seq)
        if since > read_seq:
            with pytest.raises(LogGap, match=f"ends at seq {read_seq}"):
                changes(feed, since)
            return
        if refused_by is not None:
            with pytest.raises(LogGap, match=f"earliest available {refused_by}"):
                changes(feed, since)
            return
        found = changes(feed, since)
    seqs = found.column("seq").to_pylist()
    assert seqs == sorted(set(seqs))
    assert newest_by_key(found.select(["seq", "op", "pk_bytes"])) == newest_by_key(truth)
    assert set(samples.read_arrow(engine_feed).column("seq").to_pylist()) <= set(seqs)
    assert_rows_are_those_written(found, truth, feed.schema, scenario.name)


def assert_rows_are_those_written(
    found: pa.Table, truth: pa.Table, schema: TableSchema, scenario: str
) -> None:
    """Every put holds what was written, and the initial default in columns that are newer than the row."""
    order = pc.index_in(found.column("seq"), truth.column("seq"))
    assert order.null_count == 0
    written = truth.take(order)
    assert pc.all(
        pc.equal(pc.equal(found.column("op"), "DELETE"), pc.equal(written.column("op"), "DELETE")),
        min_count=0,
    ).as_py()
    is_put = pc.not_equal(found.column("op"), "DELETE")
    for number, column in enumerate(schema.columns):
        if scenario.startswith("s07") and number > 1:
            continue  # compactions change added columns there: the replicas' tests have each value
        left, right = found.column(column.name), written.column(column.name).cast(column.type)
        table = pa.table({"found": left, "written": right}).filter(is_put)
        bits = samples.float_bits(table)
        assert bits.column("found").equals(bits.column("written")), column.name


@samples.needs_samples
@pytest.mark.parametrize("checkpoint", CHECKPOINTS)
def test_rows_at_a_feed_server_are_what_the_engine_reads(checkpoint: Path, tmp_path: Path) -> None:
    engine = engine_at(checkpoint, tmp_path)
    expected = samples.expected(checkpoint)
    workspace = Workspace(tmp_path / "data")
    with (
        engine_table(engine, tmp_path / "data" / "tables", stated_schema(checkpoint)) as table,
        closing(FeedService(workspace, [table], {})) as service,
    ):
        found = rows(service, table, samples.read_seq(expected))
        (entry,) = service.tables()
    schema = without_not_null(samples.session_schema(checkpoint))
    found = sorted_by_key(found.select(schema.names), schema)
    wanted = sorted_by_key(expected.drop_columns(["pk_bytes", "seq"]), schema)
    assert_same(found, with_initial_defaults(checkpoint, wanted, schema))
    assert entry.base_kind == "flight"
    assert entry.position.visible_seq == samples.read_seq(expected)


def rows(service: FeedService, table: EngineTable, seq: int) -> pa.Table:
    def is_at_seq() -> bool:
        try:
            with service.open_view(["t"]) as view:
                return view.positions[0].visible_seq == seq
        except Unavailable:
            return False

    until(is_at_seq, f"the rows are at seq {seq}: {table.trouble}")
    with service.open_view(["t"]) as view:
        return view.execute("SELECT * FROM t").read_all()


def without_not_null(schema: TableSchema) -> TableSchema:
    """Rows from before a NOT NULL column have no value in it."""
    columns = (replace(column, nullable=column.name not in schema.primary_key) for column in schema.columns)
    return TableSchema(tuple(columns), schema.primary_key)


def with_initial_defaults(checkpoint: Path, wanted: pa.Table, schema: TableSchema) -> pa.Table:
    """What the engine reads once it has flushed: before that it gives short rows without their defaults."""
    facts = json.loads((samples.scenario_of(checkpoint) / "scenario.json").read_text())
    listed = facts.get("replay_differs_from_engine", {}).get(checkpoint.name, {}).get("files_and_log", [])
    keys = (
        [
            bytes(key)
            for key in KeyCodec(schema).encode_batch(wanted.combine_chunks().to_batches()[0]).to_pylist()
        ]
        if listed
        else []
    )
    rows = wanted.to_pylist()
    for entry in listed:
        row = rows[keys.index(bytes.fromhex(entry["pk_bytes"]))]
        kind = wanted.schema.field(entry["column"]).type
        assert row[entry["column"]] == samples.value(entry["engine"], kind)
        row[entry["column"]] = samples.value(entry["replay"], kind)
    return pa.Table.from_pylist(rows, wanted.schema) if listed else wanted
