"""The formulas that benchmarks hold answers against, compared with the rows that the ops make; their feed."""

from __future__ import annotations

from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pytest

from benchmarks.counted_feed import counted_feed
from benchmarks.counted_ops import ONE, WHOLE, CountedOps
from benchmarks.orders_table import SEED
from flight_replica.demo_orders import orders
from flight_replica.log.feed_client import Endpoint, FeedClient, changes_sql

OP_COUNT = 150


@pytest.mark.parametrize("base_rows", [1, 37, 100])
def test_what_is_told_of_a_seq_is_what_the_ops_made_by_then(base_rows: int) -> None:
    ops = CountedOps(base_rows)
    base = orders(np.arange(base_rows), np.random.default_rng(SEED))
    row_by_id: dict[int, dict[str, Any]] = {row["id"]: row for row in base.to_pylist()}
    parts = [ops.ops(base_rows, 13), ops.ops(base_rows + 13, OP_COUNT - 13)]
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        for op in pa.Table.from_batches(parts).to_pylist():
            _take(row_by_id, op)
            if op["seq"] % 25 == 0:
                rows = pa.Table.from_pylist(list(row_by_id.values()), base.schema)
                connection.register("orders", rows)
                whole = connection.sql(WHOLE).to_arrow_table().to_pydict()
                assert whole == ops.whole(op["seq"])
                for key in range(0, base_rows + OP_COUNT // 4, 5):
                    found = connection.sql(ONE.format(key=key)).to_arrow_table().to_pydict()
                    assert ops.is_right(key, op["seq"], found), (key, found)


def _take(row_by_id: dict[int, dict[str, Any]], op: dict[str, Any]) -> None:
    """A delete is of a row that is there, as an update is; an insert is of none."""
    assert (op["id"] in row_by_id) == (op["op"] != "INSERT"), op
    if op["op"] == "DELETE":
        del row_by_id[op["id"]]
    else:
        row_by_id[op["id"]] = op


def test_of_100_ops_60_are_updates_25_inserts_and_15_deletes() -> None:
    assert CountedOps(1000).counts(1100) == (60, 25, 15)


def test_the_feed_of_benchmarks_lists_its_table_and_has_the_ops_that_were_asked_for() -> None:
    with counted_feed(20, None) as feed, FeedClient(Endpoint(feed.uri)) as client:
        seq, _ = feed.add(50)
        assert client.query("SELECT table_name, high_water FROM merutable_tables()").to_pydict() == {
            "table_name": ["orders"],
            "high_water": [seq],
        }
        assert client.query(changes_sql("orders", 0))["seq"].to_pylist() == list(range(1, 51))
