"""A log of bytes as a log of text: strings with the same keys, and what happens to a value that is none."""

from __future__ import annotations

import pyarrow as pa
import pytest

from flight_replica.errors import InvalidText, LineageChanged
from flight_replica.log.in_process import InProcessLogSource
from flight_replica.log.op_log import OpLog
from flight_replica.log.source import Op
from flight_replica.log.text_log import TextLog
from flight_replica.schema import Column, TableSchema
from flight_replica.text_columns import TextChoice, TextColumns
from tests.bases import LINEAGE, op_batch

SCHEMA = TableSchema((Column("k", pa.binary(), False), Column("v", pa.binary())), ("k",))


def bytes_log(setting: str, *values: bytes) -> tuple[InProcessLogSource, TextChoice]:
    feed = OpLog("t", LINEAGE, SCHEMA, bytes_max=1 << 20, clock_us=lambda: 1)
    for seq, value in enumerate(values, 1):
        ops = op_batch(SCHEMA, [(seq, Op.INSERT, {"k": b"%d" % seq, "v": value})])
        feed.append(ops, through=seq, commit_time_us=1)
    return InProcessLogSource(feed, batch_size=1), TextChoice(TextColumns.parse(setting))


def test_ops_come_as_strings_under_the_schema_that_says_so() -> None:
    log = TextLog(*bytes_log("*", b"x", "é".encode()))
    batches = list(log.stream(0))
    assert [record.row for batch in batches for record in batch.records()] == [
        {"k": "1", "v": "x"},
        {"k": "2", "v": "é"},
    ]
    assert log.schema.feed_schema == batches[0].ops.schema
    assert (log.lineage, log.latest_seq()) == (LINEAGE, 2)
    log.close()


def test_an_invalid_value_stops_the_log_where_it_stands() -> None:
    log = TextLog(*bytes_log("v", b"x", b"\xff"))
    seen = []
    with pytest.raises(InvalidText, match="text column 'v', key 320000: ff isn't UTF-8"):
        seen.extend(log.stream(0))
    assert [batch.mark.through for batch in seen][-1:] <= [1]


def test_in_a_lenient_column_it_begins_the_table_afresh_with_bytes() -> None:
    stored, choice = bytes_log("v?", b"x", b"\xff")
    with pytest.raises(LineageChanged, match="column 'v' turns from text to bytes"):
        list(TextLog(stored, choice).stream(0))
    again = TextLog(stored, choice)
    assert again.schema == SCHEMA
    assert [record.row["v"] for batch in again.stream(0) for record in batch.records() if record.row] == [
        b"x",
        b"\xff",
    ]
