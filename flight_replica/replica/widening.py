"""Columns that are added while a table is served: base, log and state learn of them at different times."""

from __future__ import annotations

from flight_replica.errors import SchemaMismatch
from flight_replica.schema import TableSchema
from flight_replica.state.state import ReplicaState


def wider(old: TableSchema, new: TableSchema) -> TableSchema:
    """Whichever of the two has all columns of the other and more; `old` when they have the same.

    Nullability and defaults don't count: bases don't always state them. Raises `SchemaMismatch` when
    the one isn't the other with columns appended.
    """
    (short, long) = (new, old) if len(new.columns) <= len(old.columns) else (old, new)
    is_prefix = all(
        (a.name, a.type) == (b.name, b.type) for a, b in zip(short.columns, long.columns, strict=False)
    )
    if not is_prefix or old.primary_key != new.primary_key:
        raise SchemaMismatch(
            f"columns {list(new.names)} with key {list(new.primary_key)} aren't "
            f"{list(old.names)} with key {list(old.primary_key)} and columns appended, or types differ"
        )
    return long


def widen(state: ReplicaState, schema: TableSchema) -> None:
    """Give `state` the columns of `schema` that it lacks. Raises `SchemaMismatch` as `wider`."""
    result = wider(state.schema, schema)
    if result is not state.schema:
        state.add_columns(result)
