"""The logs that the real engine wrote: the ops it did, and the tables it recovers from them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from flight_replica.beside.engine_log import EngineLog
from flight_replica.beside.log_file import WriteBatch
from flight_replica.beside.row_values import field_count, ops_of
from flight_replica.errors import DamagedLog, MissedLog
from flight_replica.log.source import Op
from tests import samples
from tests.samples import float_bits, needs_samples

WITH_LOGS = [
    pytest.param(path.parent, id=f"{path.parents[2].name}-{path.parent.name}")
    for path in sorted(samples.SAMPLES.glob("s*/checkpoints/*/wal") if samples.SAMPLES else [])
]
CRASH = "s11_crash"
STOPS = {  # checkpoint of s11 -> seqs that come before, what the error says
    "t05": (62, "000005.wal, offset 538: the checksum of 41 bytes isn't .* a right record behind it, at 586"),
    "t06": (18, "000003.wal, offset 50: the checksum of 50 bytes isn't .* in a log that isn't the newest"),
    "t07": (14, "000002.wal, offset 120: the checksum of 111 bytes isn't .* in a log that isn't the newest"),
    "t08": (52, "000005.wal, offset 0: the checksum of 50 bytes isn't .* a right record behind it, at 57"),
    "t12": (
        17,
        r"000004.wal, offset 0: seq 21 follows seq 17: ops 18 to 20 are gone \(.*000003.wal is empty",
    ),
    "t13": (17, "000004.wal, offset 0: seq 21 follows seq 17: ops 18 to 20 are gone with 000003.wal"),
}
PENDING = {  # checkpoint of s11 -> what stands unread behind the last op
    "t01": "000005.wal, offset 1087: 43 of 46 bytes behind a record's header",
    "t02": "000005.wal, offset 1087: 4 of the 7 bytes of a header",
    "t03": "000005.wal, offset 1087: 0 of 46 bytes behind a record's header",
    "t09": "000005.wal, offset 1140: unknown record type 253",
    "t11": "000005.wal, offset 32768: unknown record type 7",
    "t16": "000005.wal, offset 1087: unknown record type 9",
    "t17": "000005.wal, offset 1140: the first 3 bytes of a record of several fragments",
    "t18": "000005.wal, offset 1140: a middle fragment without a first one",
    "t19": "000005.wal, offset 1140: a record that is no write batch: record 1 of 2 is cut off",
}


def read_all(log: EngineLog) -> list[WriteBatch]:
    found: list[WriteBatch] = []
    while batches := log.read_new():
        found += batches
    return found


def read_through_damage(checkpoint: Path) -> tuple[list[WriteBatch], list[DamagedLog]]:
    """What the engine recovers; nobody has the ops of a log that is missing."""
    log = EngineLog(checkpoint / "wal", accept_damage=True)
    found: list[WriteBatch] = []
    while True:
        try:
            batches = log.read_new()
        except MissedLog:
            log.pass_over()
            continue
        if not batches:
            log.close()
            return found, log.accepted
        found += batches


def rows(table: pa.Table) -> dict[bytes, dict[str, object]]:
    """Key bytes -> row, floats as their bits."""
    return {row["pk_bytes"]: row for row in float_bits(table).to_pylist()}


def replayed(base: pa.Table, ops: pa.RecordBatch) -> dict[bytes, dict[str, object]]:
    """The table after `ops` on `base`, as the engine has it: the highest seq of a key counts."""
    table = rows(base)
    newest = {key: row["seq"] for key, row in table.items()}
    for op in float_bits(pa.Table.from_batches([ops])).to_pylist():
        kind, key = op.pop("op"), op["pk_bytes"]
        if op["seq"] < newest.get(key, 0):
            continue
        newest[key] = op["seq"]
        table.pop(key, None)
        if kind != "DELETE":
            table[key] = op
    return table


def base_of(checkpoint: Path) -> pa.Table:
    described = json.loads((checkpoint / "checkpoint.json").read_text())
    source = described.get("crash", {}).get("catalog_from")
    return samples.expected_base(checkpoint.parent / source if source else checkpoint)


@needs_samples
@pytest.mark.parametrize("checkpoint", WITH_LOGS)
def test_the_ops_of_a_log_are_those_that_the_engine_wrote(checkpoint: Path) -> None:
    scenario = samples.scenario_of(checkpoint)
    if (name := checkpoint.name[:3]) in STOPS and scenario.name == CRASH:
        pytest.skip(f"{name} is damaged")
    log = EngineLog(checkpoint / "wal")
    batches = read_all(log)
    log.close()
    schema = samples.table_schema(scenario)
    found = pa.Table.from_batches([ops_of(batches, schema)])
    if checkpoint.name.startswith("t15"):  # the record of seq 73 is there twice
        assert found.slice(found.num_rows - 1).equals(found.slice(found.num_rows - 2, 1))
        found = found.slice(0, found.num_rows - 1)
    wrote = samples.ops(scenario)
    wrote = wrote.filter(pc.is_in(wrote["seq"], found["seq"].combine_chunks()))
    assert found["seq"].equals(wrote["seq"]) and found["pk_bytes"].equals(wrote["pk_bytes"])
    assert found["op"].equals(pc.replace_substring(wrote["op"], "PUT", "INSERT"))
    own_puts = [put for batch in batches for put in puts_before_deletes(batch)][: found.num_rows]
    values = [record.value for batch in batches for record in batch.records][: found.num_rows]
    for row, put in enumerate(own_puts):
        if put:  # nobody recorded this pre-image: it is the row that the batch itself put
            columns = list(schema.names)
            assert found.select(columns).slice(row, 1).equals(found.select(columns).slice(row - put, 1))
    is_other = pa.array([not put for put in own_puts], pa.bool_())
    counts = [field_count(value) for value, put in zip(values, own_puts, strict=True) if not put]
    assert_rows_equal(found.filter(is_other), wrote.filter(is_other), schema, counts)


def puts_before_deletes(batch: WriteBatch) -> list[int]:
    """For each record how many records before it its batch has put the key that it deletes; 0 for others."""
    put_at: dict[bytes, int] = {}
    found = []
    for index, record in enumerate(batch.records):
        at = put_at.pop(record.pk_bytes, None)
        found.append(index - at if record.op is Op.DELETE and at is not None else 0)
        if record.op is not Op.DELETE:
            put_at[record.pk_bytes] = index
    return found


def assert_rows_equal(found: pa.Table, wrote: pa.Table, schema: Any, field_counts: list[int]) -> None:
    """Values and pre-images; where a row was too short for a column, its initial default."""
    names = list(schema.names)
    lines = zip(
        float_bits(found.select(names)).to_pylist(),
        float_bits(wrote.select(names)).to_pylist(),
        wrote["op"].to_pylist(),
        wrote["n_fields"].to_pylist(),
        field_counts,
        strict=True,
    )
    for got, expected, op, n_fields, field_count_ in lines:
        if op == "PUT":
            assert field_count_ == n_fields
        if op == "DELETE" and all(value is None for value in expected.values()):
            continue  # nobody recorded the pre-image (s11: never)
        for number, column in enumerate(schema.columns):
            is_there = number < field_count_
            assert got[column.name] == (expected[column.name] if is_there else column.default)


@needs_samples
@pytest.mark.parametrize("checkpoint", WITH_LOGS)
def test_files_and_log_are_what_the_engine_reads(checkpoint: Path) -> None:
    """Damaged logs too: what is accepted is what the engine recovers."""
    batches, accepted = read_through_damage(checkpoint)
    assert bool(accepted) is (checkpoint.name[:3] in STOPS and CRASH in str(checkpoint))
    schema = samples.session_schema(checkpoint)
    table = replayed(base_of(checkpoint), ops_of(batches, schema))
    expected = rows(samples.expected(checkpoint))
    for differs in stated_differences(checkpoint):
        key, column = bytes.fromhex(differs["pk_bytes"]), differs["column"]
        assert (table[key][column], expected[key][column]) == (differs["replay"], differs["engine"])
        expected[key][column] = table[key][column]
    assert table == expected


def stated_differences(checkpoint: Path) -> list[dict[str, Any]]:
    """Where the engine shows a short row of its memtable without the initial defaults (s07b c2)."""
    described = json.loads((samples.scenario_of(checkpoint) / "scenario.json").read_text())
    stated = described.get("replay_differs_from_engine", {}).get(checkpoint.name, {})
    return list(stated.get("files_and_log", []))


@needs_samples
@pytest.mark.parametrize("name", STOPS)
def test_damage_in_front_of_acknowledged_ops_stops_with_a_precise_error(name: str) -> None:
    (checkpoint,) = (samples.scenario(CRASH) / "checkpoints").glob(f"{name}_*")
    log = EngineLog(checkpoint / "wal")
    last_seq, reason = STOPS[name]
    batches = log.read_new()
    assert batches[-1].last_seq == last_seq, "what stands in front of the damage comes first"
    for _ in range(2):
        with pytest.raises(DamagedLog, match=reason) as found:
            log.read_new()
        assert found.value.after_seq == last_seq
    log.close()


@needs_samples
@pytest.mark.parametrize("name", PENDING)
def test_a_bad_end_of_the_newest_log_is_waited_for_and_said(name: str) -> None:
    (checkpoint,) = (samples.scenario(CRASH) / "checkpoints").glob(f"{name}_*")
    log = EngineLog(checkpoint / "wal")
    read_all(log)
    for _ in range(3):
        assert log.read_new() == []
        assert log.pending == f"log {PENDING[name]}"
    log.close()
