"""One write transaction: what is changed in it, and how that becomes ops, seqs and commits.

Statements change rows through the connection and hand their ops to `log`; `end_commit` follows each of them;
`flush` writes the ops and gives them their time, `write_positions` the rest, before the caller's COMMIT.
What has to be told to followers is `Changes`. Dropping the object after a ROLLBACK undoes all that it knows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import duckdb
import numpy as np
import pyarrow as pa

from flight_replica.errors import TableNotFound
from flight_replica.log.batches import concat, seqs_of
from flight_replica.primary import store
from flight_replica.primary.store import TableRecord
from flight_replica.schema import Column, TableSchema
from flight_replica.sql.database import quote


@dataclass(frozen=True, slots=True)
class Commit:
    """One statement's ops in one table, in the feed's schema, ascending; `through` is its last seq."""

    ops: pa.RecordBatch
    through: int


@dataclass(slots=True)
class Changes:
    """What one durable transaction did, table ids to their parts, in the order in which to publish them."""

    commit_time_us: int = 0
    dropped: list[int] = field(default_factory=list)
    created: dict[int, TableRecord] = field(default_factory=dict)
    altered: dict[int, TableRecord] = field(default_factory=dict)
    commits: dict[int, list[Commit]] = field(default_factory=dict)
    records: dict[int, TableRecord] = field(default_factory=dict)  # positions as they are now


class WriteTransaction:
    """Used by the writer thread alone, between its BEGIN and COMMIT or ROLLBACK."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, tables: Mapping[str, TableRecord]) -> None:
        self.connection = connection
        self.changes = Changes()
        self._logged: dict[int, list[pa.RecordBatch]] = {}  # table id -> ops of the commit under way
        self._tables = dict(tables)  # folded name -> record, with the seqs handed out in here

    @property
    def tables(self) -> tuple[TableRecord, ...]:
        return tuple(self._tables.values())

    def find(self, name: str) -> TableRecord | None:
        return self._tables.get(name.casefold())

    def table(self, name: str) -> TableRecord:
        """The table of this name, whatever its case. Raises `TableNotFound`."""
        record = self.find(name)
        if record is None:
            raise TableNotFound(f"there is no table {name!r}")
        return record

    @contextmanager
    def data(self, name: str, data: pa.RecordBatch | pa.Table) -> Iterator[str]:
        """`data` as a relation for statements inside the block; the quoted name is `name` itself."""
        table = pa.Table.from_batches([data]) if isinstance(data, pa.RecordBatch) else data
        self.connection.register(name, table)
        yield quote(name)
        self.connection.unregister(name)  # after an error the ROLLBACK takes it away

    def log(self, record: TableRecord, ops: pa.RecordBatch) -> None:
        """Give `ops` (`op, pk_bytes`, then the columns) the table's next seqs."""
        if ops.num_rows == 0:
            return
        record = self.table(record.name)
        first = record.high_water + 1
        seqs = pa.array(np.arange(first, first + ops.num_rows, dtype=np.uint64))
        batch = pa.RecordBatch.from_arrays([seqs, *ops.columns], schema=record.schema.feed_schema)
        self._logged.setdefault(record.id, []).append(batch)
        self._keep(replace(record, high_water=record.high_water + ops.num_rows))

    def take_logged(self) -> dict[int, pa.RecordBatch]:
        """What was logged since the last commit's end, by table id; for a trial, which keeps it itself."""
        logged, self._logged = self._logged, {}
        return {id_: concat(batches, batches[0].schema) for id_, batches in logged.items()}

    def end_commit(self) -> None:
        """Readers see all that was logged since the last call, or nothing of it."""
        for id_, batches in self._logged.items():
            ops = concat(batches, batches[0].schema)
            self.changes.commits.setdefault(id_, []).append(Commit(ops, int(seqs_of(ops)[-1])))
        self._logged = {}

    def create(self, name: str, schema: TableSchema) -> TableRecord:
        record = self._keep(store.create_table(self.connection, name, schema))
        self.changes.created[record.id] = record
        return record

    def drop(self, record: TableRecord) -> None:
        store.drop_table(self.connection, record)
        del self._tables[record.name.casefold()]
        self.changes.dropped.append(record.id)

    def add_column(self, record: TableRecord, column: Column) -> TableRecord:
        altered = self._keep(store.add_column(self.connection, record, column))
        self.changes.altered[record.id] = altered
        return altered

    def raise_low_water(self, record: TableRecord, low_water: int) -> None:
        """Promise, before anything is trimmed, that ops up to `low_water` aren't served any more."""
        self.changes.records[record.id] = self._keep(replace(record, low_water=low_water))

    def _keep(self, record: TableRecord) -> TableRecord:
        self._tables[record.name.casefold()] = record
        return record

    def flush(self, clock_us: Callable[[], int]) -> Changes:
        """Write the ops that were logged; commit times never go back within a table.

        The time is taken as late as can be. Ends and positions are left to `write_positions`.
        """
        assert not self._logged, "ops were logged after the last commit's end"
        written = [record for record in self.tables if record.id in self.changes.commits]
        for record in written:
            commits = self.changes.commits[record.id]
            self._write_ops(record, commits)
            if record.commit_time_us:
                before = int(seqs_of(commits[0].ops)[0]) - 1
                self._write_ends(record, [before], record.commit_time_us)
        time_us = max([clock_us(), *(record.commit_time_us for record in written)])
        self.changes.commit_time_us = time_us
        for record in written:
            self.changes.records[record.id] = self._keep(replace(record, commit_time_us=time_us))
        return self.changes

    def write_positions(self) -> None:
        """Write where the commits end. The last one's end is in the position until the next one comes."""
        for id_, record in self.changes.records.items():
            if ends := [commit.through for commit in self.changes.commits.get(id_, ())[:-1]]:
                self._write_ends(record, ends, record.commit_time_us)
            store.save_position(self.connection, record)

    def _write_ops(self, record: TableRecord, commits: list[Commit]) -> None:
        with self.data("$ops", pa.Table.from_batches([commit.ops for commit in commits])) as ops:
            self.connection.execute(f"INSERT INTO {record.ops} SELECT * FROM {ops} ORDER BY 1")

    def _write_ends(self, record: TableRecord, ends: list[int], time_us: int) -> None:
        signs = ", ".join(["(?, ?)"] * len(ends))
        numbers = [number for end in ends for number in (end, time_us)]
        self.connection.execute(f"INSERT INTO {record.commits} VALUES {signs}", numbers)
