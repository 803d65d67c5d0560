"""The server's own relations, `merutable_*(…)`: their schemas at once, their rows when the query runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias
from uuid import UUID

import pyarrow as pa

from flight_replica.digest import digest
from flight_replica.errors import FeedError, InvalidStatement, TableNotFound, Unavailable, without_table
from flight_replica.flightsql import feeds, information_schema
from flight_replica.flightsql.options import MS_MAX
from flight_replica.flightsql.service import Service, TableEntry
from flight_replica.flightsql.streams import batch_rows
from flight_replica.keys import KeyCodec
from flight_replica.log.feed import TableFeed
from flight_replica.log.source import FeedMark
from flight_replica.position import TablePosition
from flight_replica.schema import TableSchema
from flight_replica.sql.calls import INFORMATION_PREFIX
from flight_replica.sql.database import quote
from flight_replica.sql.sandbox import TableFunction
from flight_replica.sql.statement import fold
from flight_replica.sql.view import View, read_batches

CHANGES = "merutable_changes"
DIGEST = "merutable_digest"
WAIT = "merutable_wait"

Data: TypeAlias = pa.Table | pa.RecordBatchReader

_UTC = pa.timestamp("us", "UTC")
_TABLES = pa.schema(
    {
        "table_name": pa.string(),
        "lineage": pa.string(),
        "table_uuid": pa.string(),
        "primary_key": pa.list_(pa.string()),
        "low_water": pa.uint64(),
        "high_water": pa.uint64(),
        "commit_time": _UTC,
        "base_kind": pa.string(),
        "base_uri": pa.string(),
        "base_version": pa.int64(),
        "base_seq": pa.uint64(),
    }
)
_STATUS = pa.schema(
    {
        "table_name": pa.string(),
        "state": pa.string(),
        "reason": pa.string(),
        "lineage": pa.string(),
        "base_seq": pa.uint64(),
        "visible_seq": pa.uint64(),
        "high_water": pa.uint64(),
        "low_water": pa.uint64(),
        "lag_ms": pa.float64(),
        "commit_time": _UTC,
    }
)
_CLOCK = pa.schema({"now": _UTC})
_DIGEST = pa.schema(
    {
        "table_name": pa.string(),
        "lineage": pa.string(),
        "seq": pa.uint64(),
        "row_count": pa.uint64(),
        "digest": pa.uint64(),
    }
)
_WAIT = pa.schema({"table_name": pa.string(), "visible_seq": pa.uint64(), "waited_ms": pa.float64()})
_FEED_COLUMNS = 3  # seq, op and pk_bytes stand before a table's columns


@dataclass(frozen=True, slots=True)
class Relation:
    """What stands in the place of a call. `open` runs before the query does, on the view's session."""

    schema: pa.Schema
    open: Callable[[View], Data]
    position: TablePosition | None = None  # of the table whose changes it gives, as far as they go


@dataclass(frozen=True, slots=True)
class Changes:
    """The arguments of `merutable_changes`."""

    table: str
    since: int
    is_follow: bool


@dataclass(frozen=True, slots=True)
class Wait:
    """The arguments of `merutable_wait`."""

    table: str  # as spelled
    seq: int
    timeout_ms: float | None  # None: the call's wait_timeout_ms


def served_name(service: Service, name: str) -> str | None:
    """A served table's name for a name as spelled: the same, or the same but for case."""
    names = service.table_names()
    if name in names:
        return name
    return next((served for served in names if fold(served) == fold(name)), None)


def feed_of(service: Service, name: str) -> TableFeed:
    """The feed of a table for a name as spelled. Raises `TableNotFound`, `Unavailable`."""
    return service.feed(served_name(service, name) or name)


def digest_table(call: TableFunction) -> str | None:
    """The table whose rows the call reads out of the view, None where it reads none."""
    return _text(call, 0, "a table's name") if call.name == DIGEST else None


def relation(call: TableFunction, service: Service, lineage: UUID | None) -> Relation:
    """The relation that a call asks for.

    Raises `InvalidStatement`, `TableNotFound`, `LogGap`, `Unavailable`.
    """
    match call.name:
        case "merutable_tables":
            return _bare(call, _TABLES, [_tables_row(entry) for entry in service.tables()])
        case "merutable_status":
            return _bare(call, _STATUS, [_status_row(entry) for entry in service.tables()])
        case "merutable_clock":
            return _bare(call, _CLOCK, [{"now": service.clock_us()}])
        case "merutable_digest":
            return _digest_relation(call, service)
        case "merutable_changes":
            return _changes_relation(call, service, lineage)
    if call.name.startswith(INFORMATION_PREFIX):
        return _information_relation(call.known_as, service)
    raise InvalidStatement(f"{call.name}() isn't served here")


def changes_of(call: TableFunction) -> Changes:
    """The arguments of a `merutable_changes` call. Raises `InvalidStatement`."""
    _check_arguments(call, 2, 2, ("follow",))
    is_follow = call.named.get("follow", False)
    if not isinstance(is_follow, bool):
        raise InvalidStatement(f"{call.name}(): follow is true or false")
    return Changes(_text(call, 0, "a table's name"), _seq(call, 1), is_follow)


def wait_of(call: TableFunction) -> Wait:
    """The arguments of a `merutable_wait` call. Raises `InvalidStatement`."""
    _check_arguments(call, 2, 3)
    timeout = call.arguments[2] if len(call.arguments) > 2 else None
    is_number = isinstance(timeout, int) and not isinstance(timeout, bool)
    if timeout is not None and not (is_number and 0 <= timeout <= MS_MAX):  # type: ignore[operator]
        raise InvalidStatement(f"{call.name}(): argument 3 is whole milliseconds, from 0 to {MS_MAX:.0f}")
    return Wait(_text(call, 0, "a table's name"), _seq(call, 1), timeout if is_number else None)  # type: ignore[arg-type]


def wait_rows(table: str, visible_seq: int, waited_ms: float) -> pa.Table:
    """The row of a `merutable_wait` that is over."""
    row = {"table_name": table, "visible_seq": visible_seq, "waited_ms": waited_ms}
    return pa.Table.from_pylist([row], _WAIT)


# --- arguments ----------------------------------------------------------------------------------------


def _check_arguments(call: TableFunction, least: int, most: int, names: Sequence[str] = ()) -> None:
    count = len(call.arguments)
    if not least <= count <= most:
        expected = str(least) if least == most else f"{least} to {most}"
        raise InvalidStatement(f"{call.name}() takes {expected} arguments, {count} were given")
    for name in call.named:
        if name not in names:
            raise InvalidStatement(f"{call.name}() has no argument {name!r}")


def _text(call: TableFunction, index: int, what: str) -> str:
    value = call.arguments[index] if index < len(call.arguments) else None
    if not isinstance(value, str):
        raise InvalidStatement(f"{call.name}(): argument {index + 1} is {what}, a text")
    return value


def _seq(call: TableFunction, index: int) -> int:
    value = call.arguments[index]
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**64:
        raise InvalidStatement(f"{call.name}(): argument {index + 1} is a seq, a whole number from 0")
    return value


def _key(call: TableFunction, index: int) -> bytes | None:
    """Key bytes given as hex text, None where they aren't given."""
    if index >= len(call.arguments):
        return None
    text = _text(call, index, "key bytes in hex")
    try:
        return bytes.fromhex(text)
    except ValueError as error:
        raise InvalidStatement(f"{call.name}(): {text[:80]!r} is no hex text") from error


# --- what is known at once ----------------------------------------------------------------------------


def _bare(call: TableFunction, schema: pa.Schema, rows: list[dict[str, object]]) -> Relation:
    _check_arguments(call, 0, 0)
    return _ready(schema, rows)


def ready(rows: pa.Table) -> Relation:
    """The relation of these rows."""
    return Relation(rows.schema, lambda view: rows)


def _ready(schema: pa.Schema, rows: list[dict[str, object]]) -> Relation:
    return ready(pa.Table.from_pylist(rows, schema))


def _information_relation(name: str, service: Service) -> Relation:
    is_read_only = service.read_only_reason is not None
    return ready(information_schema.table(name, service.tables(), is_read_only=is_read_only))


def _tables_row(entry: TableEntry) -> dict[str, object]:
    at = entry.position
    return {
        "table_name": entry.name,
        "lineage": str(at.lineage),
        "table_uuid": entry.table_uuid,
        "primary_key": list(entry.schema.primary_key) if entry.schema else None,
        "low_water": entry.low_water,
        "high_water": max(at.visible_seq, at.high_water),
        "commit_time": at.commit_time_us or None,
        "base_kind": entry.base_kind,
        "base_uri": entry.base_uri,
        "base_version": entry.base_version,
        "base_seq": entry.base_seq,
    }


def _status_row(entry: TableEntry) -> dict[str, object]:
    at = entry.position
    return {
        "table_name": entry.name,
        "state": entry.state,
        "reason": entry.reason,
        "lineage": str(at.lineage),
        "base_seq": at.base_seq,
        "visible_seq": at.visible_seq,
        "high_water": at.high_water,
        "low_water": entry.low_water,
        "lag_ms": at.lag_us / 1000 if at.lag_us >= 0 else None,
        "commit_time": at.commit_time_us or None,
    }


# --- digest -------------------------------------------------------------------------------------------


def _digest_relation(call: TableFunction, service: Service) -> Relation:
    _check_arguments(call, 1, 3)
    spelled = _text(call, 0, "a table's name")
    name = served_name(service, spelled)
    entry = next((entry for entry in service.tables() if entry.name == name), None)
    if entry is None:
        raise TableNotFound(f"there is no table {spelled!r}")
    schema = entry.schema
    if schema is None:
        reason = without_table(entry.name, entry.reason)
        raise Unavailable(f"table {entry.name!r} is {entry.state}: {reason}")
    start, end = _key(call, 1), _key(call, 2)

    def compute(view: View) -> pa.Table:
        sql = f"SELECT * FROM {quote(entry.name)}"
        at = next(position for position in view.positions if position.table == entry.name)
        planned = view.plan(sql)
        if len(planned) != len(schema.names):
            raise Unavailable(f"table {entry.name!r}: its schema has just changed, run the statement again")
        where, values = _near(schema, planned, start, end)
        rows = view.execute(sql + where, values, batch_rows=batch_rows(schema.arrow_schema))
        # By position: DuckDB gives a column another name where two differ only by case.
        named = (batch.rename_columns(schema.names) for batch in read_batches(rows))
        found = digest(named, schema, start, end)
        row = {"table_name": entry.name, "lineage": str(at.lineage), "seq": at.visible_seq}
        return pa.Table.from_pylist([row | {"row_count": found.row_count, "digest": found.value}], _DIGEST)

    return Relation(_DIGEST, compute)


def _near(
    schema: TableSchema, planned: pa.Schema, start: bytes | None, end: bytes | None
) -> tuple[str, list[object]]:
    """A condition, and its values, that every row with `start <= pk_bytes < end` meets; empty for none.

    So a range costs no scan of the whole table. `planned`: the columns as SQL has them.
    """
    place = schema.names.index(schema.primary_key[0])
    kind = schema.columns[place].type
    is_ordered_alike = pa.types.is_integer(kind) or pa.types.is_string(kind) or pa.types.is_binary(kind)
    if not is_ordered_alike or planned.field(place).type != kind:
        return "", []
    found = {">=": _first_part(schema, start), "<=": _first_part(schema, end)}
    bounds = {sign: value for sign, value in found.items() if value is not None}
    name = quote(planned.field(place).name)
    conditions = " AND ".join(f"{name} {sign} ?" for sign in bounds)
    return (f" WHERE {conditions}" if bounds else ""), list(bounds.values())


def _first_part(schema: TableSchema, key: bytes | None) -> object:
    """The first value of a key; None without one, or where the bytes aren't one whole key."""
    if key is None:
        return None
    try:
        return KeyCodec(schema).decode(pa.array([key], pa.binary()))[0][0].as_py()
    except FeedError:
        return None


# --- changes ------------------------------------------------------------------------------------------


def _changes_relation(call: TableFunction, service: Service, lineage: UUID | None) -> Relation:
    arguments = changes_of(call)
    if arguments.is_follow:
        raise InvalidStatement(
            f"a follow stream is exactly SELECT * FROM {CHANGES}('table', since, follow := true)"
        )
    feed = feed_of(service, arguments.table)
    feed_schema, mark = feeds.bounded(feed, arguments.since, lineage)
    names = _sql_names(feed.schema, feed_schema)
    schema = feed_schema.remove_metadata()
    renamed = pa.schema([field.with_name(name) for field, name in zip(schema, names, strict=True)])
    since = _raised_since(call, arguments.since, mark, names[0])

    def read(view: View) -> pa.RecordBatchReader:
        batches = feeds.bounded_batches(feed, since, mark.through, feed_schema)
        return pa.RecordBatchReader.from_batches(renamed, _renamed(batches, renamed))

    known = (entry.position for entry in service.tables() if entry.name == feed.table)
    return Relation(renamed, read, next((_as_far_as(mark, at) for at in known), None))


def _as_far_as(mark: FeedMark, at: TablePosition) -> TablePosition:
    """Where changes that end at the mark stand, of a table that stands at `at` now."""
    if at.visible_seq == mark.through:
        return at
    return replace(at, visible_seq=mark.through, commit_time_us=mark.commit_time_us, lag_us=-1)


def _sql_names(table: TableSchema, feed_schema: pa.Schema) -> list[str]:
    """Column names in SQL, where two can't be the same but for case."""
    names: list[str] = feed_schema.names
    own = names[:_FEED_COLUMNS]
    if {fold(name) for name in table.names} & set(own):
        own = [f"_{name}" for name in own]
    return own + names[_FEED_COLUMNS:]


def _raised_since(call: TableFunction, since: int, mark: FeedMark, seq_name: str) -> int:
    """Where reading begins: no row at or below a bound on seq in WHERE is wanted."""
    if call.seq_after is None or call.seq_name != seq_name:
        return since
    return max(since, min(call.seq_after, mark.through))


def _renamed(batches: Iterator[pa.RecordBatch], schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        yield pa.RecordBatch.from_arrays(batch.columns, schema=schema)
