"""`MemoryService`: a small real `Service` for tests. Tables in one DuckDB database, ops in an `OpLog` each.

Rows, seq and ops change under one lock; a write is one commit. Only what the front asks for is there.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from uuid import UUID, uuid4

import pyarrow as pa

from flight_replica.conform import conform
from flight_replica.errors import ConstraintViolation, InvalidStatement, ReadOnly, TableNotFound
from flight_replica.flightsql.service import Ending, IngestMode, PendingWrites, TableEntry, WriteResult
from flight_replica.keys import KeyCodec
from flight_replica.log.op_log import OpLog
from flight_replica.log.reading import wait_until_at
from flight_replica.position import Demand, TablePosition
from flight_replica.schema import Column, TableSchema
from flight_replica.sql.database import open_database, quote
from flight_replica.sql.dml import parse_dml, retarget
from flight_replica.sql.key_filter import NO_KEYS, Keys
from flight_replica.sql.types import sql_type
from flight_replica.sql.view import View

CLOCK_US = 1_700_000_000_000_000


@dataclass
class MemoryTable:
    name: str
    schema: TableSchema
    lineage: UUID
    log: OpLog
    seq: int = 0

    @property
    def stored(self) -> str:
        return quote(self.stored_name)

    @property
    def stored_name(self) -> str:
        return f"stored {self.name.encode().hex()}"  # DuckDB's names ignore case


class MemoryService:
    """Tables are made by `add_table` and filled by `put`, by SQL or by ingestion."""

    product = "test"

    def __init__(self, *, read_only_reason: str | None = None) -> None:
        self.read_only_reason = read_only_reason
        self.open_views = 0
        self.writes_total = 0
        self.tables_by_name: dict[str, MemoryTable] = {}
        self._lock = threading.Lock()
        self._database = open_database()

    def close(self) -> None:
        self._database.close()

    def add_table(self, name: str, schema: TableSchema, *, bytes_max: int = 1 << 30) -> MemoryTable:
        lineage = uuid4()
        log = OpLog(name, lineage, schema, bytes_max=bytes_max, heartbeat_ms=50, clock_us=lambda: CLOCK_US)
        table = MemoryTable(name, schema, lineage, log)
        columns = ", ".join(f"{quote(c.name)} {sql_type(c.type)}" for c in schema.columns)
        self._database.cursor().execute(f"CREATE TABLE {table.stored} ({columns})")
        self.tables_by_name[name] = table
        return table

    def run(self, sql: str) -> None:
        """Run anything on the stored tables."""
        self._database.cursor().execute(sql)

    def put(self, name: str, rows: pa.Table) -> int:
        """Insert the rows as one commit; its seq."""
        table = self.tables_by_name[name]
        with self._lock:
            cursor = self._database.cursor()
            cursor.register("rows", rows)
            cursor.execute(f"INSERT INTO {table.stored} SELECT * FROM rows")
            return self._commit(table, rows)

    def _commit(self, table: MemoryTable, rows: pa.Table) -> int:
        for batch in rows.combine_chunks().to_batches():
            fitted = conform(batch, table.schema)
            count = fitted.num_rows
            head = [
                pa.array(range(table.seq + 1, table.seq + 1 + count), pa.uint64()),
                pa.array(["INSERT"] * count),
                KeyCodec(table.schema).encode_batch(fitted),
            ]
            ops = pa.RecordBatch.from_arrays(head + fitted.columns, schema=table.schema.feed_schema)
            table.seq += count
            table.log.append(ops, through=table.seq, commit_time_us=CLOCK_US)
        return table.seq

    # --- Service ----------------------------------------------------------------------------------

    def tables(self) -> Sequence[TableEntry]:
        return [
            TableEntry(table.name, table.schema, str(UUID(int=7)), table.log.low_water, self._position(table))
            for table in self.tables_by_name.values()
        ]

    def _position(self, table: MemoryTable) -> TablePosition:
        return TablePosition(table.name, table.lineage, 0, table.seq, CLOCK_US, 0, table.seq)

    def _table(self, name: str) -> MemoryTable:
        if name not in self.tables_by_name:
            raise TableNotFound(f"there is no table {name!r}")
        return self.tables_by_name[name]

    def table_names(self) -> Sequence[str]:
        return [entry.name for entry in self.tables()]

    def made_of(self, tables: Sequence[str]) -> Sequence[object]:
        return [self._table(name).schema for name in tables]

    def known(self, table: str, key: Sequence[object] | None) -> None:
        return None

    def feed(self, table: str) -> OpLog:
        return self._table(table).log

    def open_view(self, tables: Sequence[str], keys: Keys = NO_KEYS) -> View:
        with self._lock:
            return self._open_view(tables)

    def open_together(self, tables: Sequence[str], count: int) -> Sequence[View]:
        with self._lock:
            return [self._open_view(tables) for _ in range(count)]

    def open_view_as_of(self, tables: Sequence[str], seqs: Mapping[str, int]) -> View:
        view = self.open_view(tables)
        if any(seqs.get(at.table, at.visible_seq) != at.visible_seq for at in view.positions):
            view.close()
            raise InvalidStatement("only the newest seq is held here")
        return view

    def begin(self, snapshot: Sequence[TablePosition] | None = None) -> PendingWrites:
        raise ReadOnly("this service has no write transactions")

    def _open_view(self, tables: Sequence[str]) -> View:
        session = self._database.cursor()
        session.execute("BEGIN TRANSACTION READ ONLY")
        session.execute("SELECT count(*) FROM duckdb_tables()").fetchall()  # takes the snapshot
        found = [self._table(name) for name in tables]
        view = View(session, [self._position(table) for table in found], self._released)
        self.open_views += 1
        view.made_of = self.made_of(tables)
        for table in found:
            ((row_count,),) = session.execute(f"SELECT count(*) FROM {table.stored}").fetchall()
            view.offer(table.name, f"SELECT * FROM {table.stored}", partial(int, row_count))
        view.take_up(tables)
        return view

    def wait_for(self, demand: Demand, timeout_seconds: float, ending: Ending) -> None:
        feed = self.feed(demand.table)
        ending.on_end(feed.wake)
        wait_until_at(feed, demand.min_seq, timeout_seconds, lambda: ending.is_ended)

    def _released(self) -> None:
        with self._lock:
            self.open_views -= 1

    def write(
        self, sql: str, parameters: pa.Table | None = None, ending: Ending | None = None
    ) -> WriteResult:
        with self._lock:
            self.writes_total += 1
            if sql.upper().startswith("CREATE"):
                return WriteResult(0, "created", 0)
            names = {name.casefold(): name for name in self.tables_by_name}
            dml = parse_dml(sql, lambda name: names.get(name.casefold()))
            table = self._table(names[dml.table.casefold()])
            text = retarget(dml, table.stored_name, dml.table) + "\nRETURNING *"
            bound = parameters.to_pylist() if parameters is not None else [{}]
            cursor = self._database.cursor()
            count = 0
            for row in bound:
                rows = cursor.sql(text, params=list(row.values()) or None).to_arrow_table()
                count += rows.num_rows
                self._commit(table, rows)
            return WriteResult(count, table.name, table.seq)

    def ingest(
        self, table: str, mode: IngestMode, data: pa.RecordBatchReader, ending: Ending | None = None
    ) -> WriteResult:
        rows = data.read_all()
        exists = table in self.tables_by_name
        if mode is IngestMode.CREATE and exists:
            raise ConstraintViolation(f"table {table!r} exists")
        if mode is IngestMode.APPEND and not exists:
            raise TableNotFound(f"there is no table {table!r}")
        if not exists:
            first, *rest = rows.schema
            if not first.name:
                raise InvalidStatement("a column without a name")
            columns = (Column(first.name, first.type, False), *(Column(f.name, f.type) for f in rest))
            self.add_table(table, TableSchema(columns, (first.name,)))
        seq = self.put(table, rows)
        return WriteResult(rows.num_rows, table, seq)

    def clock_us(self) -> int:
        return CLOCK_US
