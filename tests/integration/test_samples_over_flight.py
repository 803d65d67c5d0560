"""Tables of the real engine over the whole line: a feed server, a replica process, an ADBC client.

One feed server and one replica serve all of them. Each checkpoint is published in place of the table of
the same name, so the replica also meets dozens of re-created tables in a row.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import adbc_driver_flightsql.dbapi as flightsql
import pyarrow as pa
import pytest

from flight_replica.client import position_of
from flight_replica.keys import KeyCodec
from flight_replica.schema import TableSchema
from flight_replica.sql.database import quote
from tests import samples
from tests.feed_server import Publication
from tests.processes import Server, running, status, until

pytestmark = samples.needs_samples

SCENARIOS = ["s01", "s02", "s03", "s04", "s05", "s06", "s10", "s15"]
# Compaction dropped the newest tombstone, whose seq no file knows any more: the publisher has to.
VOUCHED = {"c6_bottom_level_tombstones_dropped": 63, "c7_new_ops_in_log": 63}


class Line:
    """A feed server, a replica that follows all it has, and a connection to the replica."""

    def __init__(self, feed: Server, replica: Server, cursor: flightsql.Cursor) -> None:
        self._feed = feed
        self._replica = replica
        self.cursor = cursor

    def publish(self, checkpoint: Path, catalog: Path, base_seq: int) -> str:
        """Wait until the replica serves the checkpoint's table; the table's name."""
        self._feed.say(Publication(str(checkpoint), str(catalog), base_seq).to_line())
        lineage = self._feed.line()
        table = samples.table_name(samples.scenario_of(checkpoint))
        until(lambda: self._serves(table, lineage), f"{checkpoint} is served: {self._replica.errors[-3:]}")
        return table

    def _serves(self, table: str, lineage: str) -> bool:
        found = status(self._replica.uri, table)
        return (found.get("state"), found.get("lineage")) == ("serving", lineage)

    def table(self, sql: str, parameters: list[object] | None = None) -> pa.Table:
        self.cursor.execute(sql, parameters)
        return self.cursor.fetch_arrow_table()


@pytest.fixture(scope="module")
def line() -> Iterator[Line]:
    feed = Server(module="tests.feed_server")
    with running(feed):
        replica = Server("serve", "--primary", feed.uri)
        with (
            running(replica),
            flightsql.connect(replica.uri, autocommit=True) as connection,
            connection.cursor() as cursor,
        ):
            yield Line(feed, replica, cursor)


@pytest.mark.parametrize("checkpoint", samples.checkpoints(SCENARIOS))
def test_a_replica_answers_what_the_engine_reads_at_each_checkpoint(
    line: Line, checkpoint: Path, tmp_path: Path
) -> None:
    base_seq = VOUCHED.get(checkpoint.name, samples.base_seq(samples.expected_base(checkpoint)))
    table = line.publish(checkpoint, samples.catalog(checkpoint, tmp_path), base_seq)
    expected = samples.expected(checkpoint)
    schema = samples.session_schema(checkpoint)

    answer = line.table(f"SELECT * FROM {quote(table)}")

    assert position_of(answer)[0]["visible_seq"] == samples.read_seq(expected)
    _assert_rows(answer, expected, schema)
    _assert_gets(line, checkpoint, table, schema)


def _assert_rows(answer: pa.Table, expected: pa.Table, schema: TableSchema) -> None:
    """The same rows, bit by bit, whatever their order. SQL has no binary of fixed length."""
    assert answer.schema.names == list(schema.names)
    assert answer.schema.types == [
        pa.binary() if pa.types.is_fixed_size_binary(column.type) else column.type
        for column in schema.columns
    ]
    assert samples.float_bits(_by_key(answer, schema)).equals(
        samples.float_bits(expected.drop_columns(["seq"]).cast(_keyed(schema)).replace_schema_metadata())
    )


def _keyed(schema: TableSchema) -> pa.Schema:
    columns = [pa.field(column.name, column.type) for column in schema.columns]
    return pa.schema([pa.field("pk_bytes", pa.binary()), *columns])


def _by_key(answer: pa.Table, schema: TableSchema) -> pa.Table:
    fitted = answer.cast(pa.schema(list(_keyed(schema))[1:]))
    keys = KeyCodec(schema).encode([fitted[name] for name in schema.primary_key])
    return pa.table([keys, *fitted.columns], schema=_keyed(schema)).sort_by("pk_bytes")


def _assert_gets(line: Line, checkpoint: Path, table: str, schema: TableSchema) -> None:
    """Each key is asked for as a client does: by its values."""
    codec = KeyCodec(schema)
    where = " AND ".join(f"{quote(name)} = ?" for name in schema.primary_key)
    for key, row in samples.gets(checkpoint, schema):
        parts = [part[0].as_py() for part in codec.decode(pa.array([key], pa.binary()))]
        answer = line.table(f"SELECT * FROM {quote(table)} WHERE {where}", parts)
        # SQL takes −0.0 and 0.0 for equal, but they are two keys.
        found = [
            tuple(values.values())
            for values in answer.to_pylist()
            if codec.encode_row([values[name] for name in schema.primary_key]) == key
        ]
        padded = [] if row is None else [row + (None,) * (len(schema.columns) - len(row))]
        assert list(map(repr, found)) == list(map(repr, padded)), key.hex()
