"""A primary for sample tables: the engine's ops and catalogs, served through the project's own feed code.

python -m tests.feed_server --listen HOST:PORT

It prints where it listens. Each line of JSON on stdin, a `Publication`, puts a table in place of the one
of the same name, as a history of its own, and prints the new lineage. It answers no query of rows.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from uuid import uuid4

import pyarrow as pa
import pyarrow.compute as pc

from flight_replica.errors import ReadOnly, TableNotFound, Unavailable
from flight_replica.flightsql.server import FlightSqlServer
from flight_replica.flightsql.service import IngestMode, TableEntry, WriteResult
from flight_replica.flightsql.status import hide_tracebacks
from flight_replica.log.op_log import OpLog
from flight_replica.position import TablePosition
from flight_replica.schema import TableSchema
from flight_replica.sql.database import open_database
from flight_replica.sql.key_filter import NO_KEYS, Keys
from flight_replica.sql.view import View
from tests import samples

_COMMIT_TIME_US = 1_700_000_000_000_000


@dataclass(frozen=True, slots=True)
class Publication:
    """A checkpoint as a table: its catalog is the base, the scenario's ops after that are the feed."""

    checkpoint: str
    catalog: str
    base_seq: int  # what the publisher vouches for; ops up to here are no more in the log

    def to_line(self) -> str:
        return json.dumps(asdict(self))


class FeedService:
    """A `Service` of feeds alone; thread-safe, since tables are replaced as a whole."""

    product = "feed server"
    read_only_reason = "this is a feed of samples"

    def __init__(self) -> None:
        self._entries: dict[str, TableEntry] = {}
        self._feeds: dict[str, OpLog] = {}
        self._database = open_database()

    def publish(self, publication: Publication) -> str:
        """Put the table in place of the one of its name; the lineage of its history."""
        checkpoint = Path(publication.checkpoint)
        name = samples.table_name(samples.scenario_of(checkpoint))
        feed = _feed(name, checkpoint, publication.base_seq)
        version = int(json.loads((checkpoint / "checkpoint.json").read_text())["base_snapshot_id"])
        entry = TableEntry(
            name=name,
            schema=feed.schema,
            table_uuid=_table_uuid(checkpoint),
            low_water=feed.low_water,
            position=TablePosition(name, feed.lineage, 0, feed.high_water, high_water=feed.high_water),
            base_kind="merutable",
            base_uri=Path(publication.catalog).as_uri(),
            base_version=version,
            base_seq=publication.base_seq,
        )
        old = self._feeds.pop(name, None)
        self._entries[name], self._feeds[name] = entry, feed
        if old is not None:
            old.drop()
        return str(feed.lineage)

    def tables(self) -> Sequence[TableEntry]:
        return list(self._entries.values())

    def table_names(self) -> Sequence[str]:
        return [entry.name for entry in self.tables()]

    def made_of(self, tables: Sequence[str]) -> None:
        return None

    def known(self, table: str, key: Sequence[object] | None) -> None:
        return None

    def feed(self, table: str) -> OpLog:
        try:
            return self._feeds[table]
        except KeyError:
            raise TableNotFound(f"there is no table {table!r}") from None

    def open_view(self, tables: Sequence[str], keys: Keys = NO_KEYS) -> View:
        if tables:
            raise Unavailable("rows aren't served here, feeds are")
        session = self._database.cursor()
        session.execute("BEGIN TRANSACTION READ ONLY")
        return View(session, [], lambda: None)

    def write(self, sql: str, parameters: pa.Table | None = None) -> WriteResult:
        raise ReadOnly(self.read_only_reason)

    def ingest(self, table: str, mode: IngestMode, data: pa.RecordBatchReader) -> WriteResult:
        raise ReadOnly(self.read_only_reason)

    def clock_us(self) -> int:
        return time.time_ns() // 1000


def _table_uuid(checkpoint: Path) -> str:
    """The catalog's own; any before its first commit."""
    manifest = checkpoint / "manifest.json"
    return str(json.loads(manifest.read_text())["table_uuid"]) if manifest.exists() else str(uuid4())


def _feed(name: str, checkpoint: Path, base_seq: int) -> OpLog:
    """The scenario's ops in `(base_seq, the checkpoint's read_seq]`, a commit each."""
    schema = samples.session_schema(checkpoint)
    ops = samples.ops(samples.scenario_of(checkpoint))
    through = samples.read_seq(samples.expected(checkpoint))
    is_in_log = pc.and_(pc.greater(ops["seq"], base_seq), pc.less_equal(ops["seq"], through))
    feed = OpLog(
        name, uuid4(), schema, start=base_seq, bytes_max=1 << 30, clock_us=lambda: time.time_ns() // 1000
    )
    if through > base_seq:
        feed.append(_feed_ops(ops.filter(is_in_log), schema), through=through, commit_time_us=_COMMIT_TIME_US)
    return feed


def _feed_ops(ops: pa.Table, schema: TableSchema) -> pa.RecordBatch:
    kinds = pc.if_else(pc.equal(ops["op"].cast(pa.string()), "PUT"), "INSERT", "DELETE")
    columns = [ops["seq"], kinds, ops["pk_bytes"], *(ops[column.name] for column in schema.columns)]
    fitted = pa.table(columns, names=schema.feed_schema.names).cast(schema.feed_schema)
    (batch,) = fitted.combine_chunks().to_batches() or [pa.RecordBatch.from_pylist([], schema.feed_schema)]
    return batch


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--listen", required=True)
    host, _, port = parser.parse_args().listen.rpartition(":")
    hide_tracebacks()
    service = FeedService()
    server = FlightSqlServer(service, host, int(port))
    print(f"listening on grpc://{host}:{server.port}", flush=True)
    for line in sys.stdin:
        print(service.publish(Publication(**json.loads(line))), flush=True)
    server.close()


if __name__ == "__main__":
    main()
