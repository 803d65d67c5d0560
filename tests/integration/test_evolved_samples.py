"""Replicas on sample tables whose columns were added on the way, and on the sample mirror."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from uuid import UUID

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from flight_replica.base.evolution import as_read
from flight_replica.base.merutable import MerutableBase
from flight_replica.log.in_process import InProcessLogSource
from flight_replica.log.op_log import OpLog
from flight_replica.replica.replica import Replica
from flight_replica.schema import TableSchema
from flight_replica.state.workspace import Workspace
from tests import samples
from tests.bases import assert_same, sorted_by_key

LINEAGE = UUID("0d4be0a8-8d6b-4d0e-9d53-6f2d5c1f8a11")
FIRST_COLUMNS = 2  # that the tables of s07 and s07b were made with


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    with closing(Workspace(tmp_path / "data")) as workspace:
        yield workspace


def feed_of(scenario: Path, schema: TableSchema, through: int) -> OpLog:
    """The scenario's ops; values after a row's own fields are its columns' initial defaults."""
    ops = samples.ops(scenario).filter(pc.field("seq") <= through).to_pylist()
    rows: list[dict[str, object]] = []
    for op in ops:
        row = {
            "seq": op["seq"],
            "op": "INSERT" if op["op"] == "PUT" else op["op"],
            "pk_bytes": op["pk_bytes"],
        }
        for number, column in enumerate(schema.columns):
            row[column.name] = op[column.name] if number < op["n_fields"] else column.default
        rows.append(row)
    feed = OpLog("t", LINEAGE, schema, bytes_max=1 << 30, clock_us=lambda: 0)
    batch = pa.RecordBatch.from_pylist(rows, schema.feed_schema)
    feed.append(batch, through=through, commit_time_us=0)
    return feed


def without_differences(checkpoint: Path, expected: pa.Table) -> pa.Table:
    """What the engine would read if a row were the same in its memory as in its files (s07b c2)."""
    facts = json.loads((samples.scenario_of(checkpoint) / "scenario.json").read_text())
    listed: list[dict[str, Any]] = (
        facts["replay_differs_from_engine"].get(checkpoint.name, {}).get("files_and_log", [])
    )
    rows = expected.to_pylist()
    for difference in listed:
        (row,) = [row for row in rows if row["pk_bytes"].hex() == difference["pk_bytes"]]
        row[difference["column"]] = difference["replay"]
    return pa.Table.from_pylist(rows, expected.schema)


def in_key_order(table: pa.Table, schema: TableSchema) -> pa.Table:
    fitted = pa.Table.from_arrays(
        table.drop_columns(["pk_bytes", "seq"]).columns,
        schema=pa.schema([(c.name, c.type) for c in schema.columns]),
    )
    return sorted_by_key(fitted, schema)


@samples.needs_samples
@pytest.mark.parametrize("checkpoint", samples.checkpoints(["s07"]))
def test_added_columns_read_as_the_engine_s_in_base_and_tail(
    checkpoint: Path, tmp_path: Path, workspace: Workspace
) -> None:
    schema = as_read(samples.session_schema(checkpoint), FIRST_COLUMNS)
    base, whole = samples.expected_base(checkpoint), samples.expected(checkpoint)
    source = MerutableBase(
        samples.catalog(checkpoint, tmp_path / "catalog"), table="t", schema=schema, lineage=LINEAGE
    )
    columns = ", ".join(schema.names)
    # Files can hold more columns than the engine's process knew; a log that knows them all goes with them.
    wide = source.load().schema
    feed = feed_of(samples.scenario_of(checkpoint), wide, samples.read_seq(whole))
    with closing(Replica.open(source, InProcessLogSource(feed), workspace=workspace)) as replica:
        found = replica.query(f"SELECT {columns} FROM t").read_all()
        assert_same(sorted_by_key(found, schema), in_key_order(base, schema))
        replica.advance()
        assert replica.visible_seq == samples.read_seq(whole)
        found = replica.query(f"SELECT {columns} FROM t").read_all()
        expected = in_key_order(without_differences(checkpoint, whole), schema)
        assert_same(sorted_by_key(found, schema), expected)
        replica.swaps.merge_on_apply()
        found = replica.query(f"SELECT {columns} FROM t").read_all()
        assert_same(sorted_by_key(found, schema), expected)


@samples.needs_samples
@pytest.mark.parametrize("name", ["c1_mirrored", "c3_number_differs_from_payload", "c9_one_behind"])
def test_a_replica_on_the_mirror_catches_up_with_the_engine(name: str, workspace: Workspace) -> None:
    """The mirror is behind the catalog; ops after its snapshot come from the log."""
    scenario = samples.scenario("s08")
    checkpoint = scenario / "checkpoints" / name
    schema, whole = samples.session_schema(checkpoint), samples.expected(checkpoint)
    source = MerutableBase(checkpoint / "mirror", table="t", schema=schema, lineage=LINEAGE)
    feed = feed_of(scenario, schema, samples.read_seq(whole))
    mirrored = samples.read_arrow(checkpoint / "expected_mirror.arrow")
    with closing(Replica.open(source, InProcessLogSource(feed), workspace=workspace)) as replica:
        assert replica.base_seq == samples.read_seq(mirrored)
        replica.advance()
        found = replica.query("SELECT * FROM t").read_all()
        assert_same(sorted_by_key(found, schema), in_key_order(whole, schema))
