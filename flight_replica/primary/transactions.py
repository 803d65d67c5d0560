"""`ClientTransaction`: the writes of one client transaction, and how they become one commit.

Nothing is held open in the store, so an idle transaction blocks nobody. Each statement is tried out on the
writer thread: on the newest rows, with what the transaction has changed so far put over them; its ops are
kept and the store is rolled back. At commit the ops are put once more and logged. Whoever changed one of the
keys in between was first, and this transaction has a conflict.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import pyarrow as pa

from flight_replica.errors import Conflict, InvalidStatement, LimitExceeded
from flight_replica.flightsql.service import Ending, WriteResult
from flight_replica.log.source import Op
from flight_replica.position import TablePosition
from flight_replica.primary.changes import (
    codec_of,
    living,
    newest_of,
    ops_of_keys_after,
    replace_rows,
    without_seqs,
)
from flight_replica.primary.statements import DmlStatement, prepare
from flight_replica.primary.store import PK_BYTES, TableRecord
from flight_replica.primary.transaction import WriteTransaction
from flight_replica.sql.database import literal, quote
from flight_replica.sql.types import sql_type
from flight_replica.sql.view import View

if TYPE_CHECKING:
    from flight_replica.primary.engine import Engine

__all__ = ["ClientTransaction"]

_OP = "$op"


@dataclass(frozen=True, slots=True)
class _Own:
    """What the transaction has done to one table. Ops are `op, pk_bytes`, then the columns."""

    record: TableRecord  # no other commit up to its high_water has changed the keys
    ops: tuple[pa.RecordBatch, ...]  # in order, a statement each
    newest: pa.RecordBatch  # the last op of each key

    @property
    def keys(self) -> pa.BinaryArray:
        return self.newest.column(1)

    @property
    def rows(self) -> pa.RecordBatch:
        """The ops whose rows are there afterwards."""
        return living(self.newest)


class ClientTransaction:
    """A `PendingWrites` of an engine. Used by one thread at a time; lives until it is dropped."""

    def __init__(self, engine: Engine, snapshot: Sequence[TablePosition] | None) -> None:
        """With `snapshot` a table must still be there when a statement of this transaction touches it."""
        self._engine = engine
        self._snapshot = {at.table: at for at in snapshot} if snapshot is not None else None
        self._own: dict[int, _Own] = {}  # table id -> what was done
        self._byte_count = 0

    @property
    def is_empty(self) -> bool:
        return not self._own

    # --- statements -------------------------------------------------------------------------------

    def write(
        self, sql: str, parameters: pa.Table | None = None, ending: Ending | None = None
    ) -> WriteResult:
        """See `PendingWrites.write`."""
        statement = prepare(sql, parameters, self._engine.tables)
        if not isinstance(statement, DmlStatement):
            raise InvalidStatement("CREATE, DROP and ALTER can't be part of a transaction")
        result, records, ops = self._engine.try_out(lambda tx: self._try(tx, statement), ending)
        self._keep(records, ops)
        return replace(result, seq=None)

    def _try(
        self, tx: WriteTransaction, statement: DmlStatement
    ) -> tuple[WriteResult, dict[int, TableRecord], dict[int, pa.RecordBatch]]:
        """The statement's result and ops, and the tables as they are without this transaction."""
        for own in self._own.values():
            replace_rows(tx, _unchanged(tx, own), own.keys, own.rows)
        if self._snapshot is not None:
            for name in {statement.dml.table, *statement.dml.tables}:
                self._check_snapshot(tx.table(name), self._snapshot)
        records = {record.id: record for record in tx.tables}
        return statement.run(tx), records, tx.take_logged()

    def _check_snapshot(self, record: TableRecord, snapshot: Mapping[str, TablePosition]) -> None:
        at = snapshot.get(record.name)
        if at is None or (at.lineage, at.visible_seq) != (record.lineage, record.high_water):
            seen = "not there" if at is None else f"at seq {at.visible_seq}"
            raise Conflict(
                f"table {record.name!r} was {seen} in the transaction's snapshot and is at seq "
                f"{record.high_water} now, so it can't be written with isolation=snapshot"
            )

    def _keep(self, records: Mapping[int, TableRecord], logged: Mapping[int, pa.RecordBatch]) -> None:
        """Add a statement's ops. Raises `LimitExceeded`, then nothing is added."""
        byte_count = self._byte_count + sum(ops.nbytes for ops in logged.values())
        limit = self._engine.settings.transaction_bytes_max
        if byte_count > limit:
            raise LimitExceeded(
                f"the transaction's changes take {byte_count} bytes, more than transaction_bytes_max, "
                f"{limit} bytes; commit in parts"
            )
        self._byte_count = byte_count
        # What was checked before this statement is known to stand up to these positions.
        checked = {id_: replace(own, record=records[id_]) for id_, own in self._own.items()}
        for id_, batch in logged.items():
            ops = without_seqs(batch)
            before = checked.get(id_)
            if before is None:
                checked[id_] = _Own(records[id_], (ops,), newest_of(ops))
            else:
                newest = newest_of(pa.concat_batches([before.newest, ops]))
                checked[id_] = _Own(records[id_], (*before.ops, ops), newest)
        self._own = checked

    # --- reading ----------------------------------------------------------------------------------

    def cover(self, view: View) -> None:
        """See `PendingWrites.cover`."""
        shown = {at.table for at in view.positions}
        for own in self._own.values():
            if own.record.name in shown:
                _check_shape(view, own.record)
                name = f"$own_{own.record.id}"
                view.bind_data(name, _named(own))
                view.bind(own.record.name, _covered(own.record, name))

    # --- its end ----------------------------------------------------------------------------------

    def commit(self) -> Mapping[str, int]:
        """See `PendingWrites.commit`."""
        return self._engine.submit(self._commit)

    def _commit(self, tx: WriteTransaction) -> dict[str, int]:
        names = []
        for own in self._own.values():
            record = _unchanged(tx, own)
            replace_rows(tx, record, own.keys, own.rows)
            for ops in own.ops:
                tx.log(record, ops)
            names.append(record.name)
        return {name: tx.table(name).high_water for name in names}


def _unchanged(tx: WriteTransaction, own: _Own) -> TableRecord:
    """The table as it is now. Raises `Conflict` where others have changed it, or the same keys in it."""
    before, now = own.record, tx.find(own.record.name)
    if now is None or (now.id, now.lineage, now.schema_version) != (
        before.id,
        before.lineage,
        before.schema_version,
    ):
        raise Conflict(f"table {before.name!r} was altered or dropped since this transaction wrote to it")
    if now.high_water == before.high_water:
        return now
    if now.low_water > before.high_water:
        raise Conflict(
            f"table {now.name!r}: what was changed after seq {before.high_water} is kept from seq "
            f"{now.low_water} on only, so conflicts can't be told"
        )
    changed = ops_of_keys_after(tx, now, own.keys, before.high_water)
    if len(changed):
        raise Conflict(
            f"table {now.name!r}: another commit has changed {_key_text(now, changed)} since this "
            f"transaction did"
        )
    return now


def _key_text(record: TableRecord, keys: pa.BinaryArray) -> str:
    """The first of some keys, and how many more there are."""
    parts = codec_of(record.schema).decode(keys.slice(0, 1))
    shown = ", ".join(
        f"{name} = {part[0].as_py()!r}" for name, part in zip(record.schema.primary_key, parts, strict=True)
    )
    return f"key {shown}" + (f" (and {len(keys) - 1} more keys)" if len(keys) > 1 else "")


def _check_shape(view: View, record: TableRecord) -> None:
    """Raise `Conflict` where the view has the table with other columns, or has it no more."""
    query = f'SELECT schema_version, lineage FROM "$tables" WHERE id = {record.id}'
    found = view.execute(query).read_all().to_pylist()
    if found != [{"schema_version": record.schema_version, "lineage": str(record.lineage)}]:
        raise Conflict(f"table {record.name!r} was altered or dropped since this transaction wrote to it")


def _named(own: _Own) -> pa.Table:
    """The newest ops under names that no column of a user has."""
    names = [_OP, PK_BYTES.strip('"'), *own.record.schema.names]
    return pa.Table.from_batches([own.newest]).rename_columns(names)


def _covered(record: TableRecord, own: str) -> str:
    """The table's rows with the relation `own` over them."""
    columns = [quote(column.name) for column in record.schema.columns]
    values = [
        f"CAST({name} AS {sql_type(column.type)})"
        for name, column in zip(columns, record.schema.columns, strict=True)
    ]
    return (
        f"SELECT {', '.join(columns)} FROM {record.rows} r "
        f"ANTI JOIN {quote(own)} o ON (r.{PK_BYTES} = o.{PK_BYTES}) "
        f"UNION ALL SELECT {', '.join(values)} FROM {quote(own)} "
        f"WHERE {quote(_OP)} <> {literal(Op.DELETE.value)}"
    )
