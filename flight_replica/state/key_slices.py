"""`key_slices`: a native state's table in slices of its key, so that a build sorts one after the other.

A sort holds all rows that it sorts; this way they are a few million. A table is mostly in key order, so that
DuckDB reads little that isn't of the slice, and of what came later all keys for each.
"""

from __future__ import annotations

import duckdb

from flight_replica.schema import TableSchema
from flight_replica.sql.database import literal
from flight_replica.sql.types import sql_type

SLICE_ROWS = 2_500_000  # about as many are in one …
SLICES_MAX = 16  # … or more: each slice reads all keys of what isn't in order
SAMPLE_ROWS = 2048  # one row in so many is looked at to find where slices end
BOUND_CHARS = 64  # a text's first ones tell it from others well enough


def key_slices(
    session: duckdb.DuckDBPyConnection, table: str, schema: TableSchema, row_count: int
) -> list[str]:
    """An SQL condition for each slice, ascending; each row of `table` (`c0, c1, …`) meets one of them.

    Slices end between two values of the key's first column, so they are larger where many rows share one.
    `session` is in the transaction that the slices will be read in.
    """
    count = min(-(-row_count // SLICE_ROWS), SLICES_MAX)
    if count <= 1:
        return ["true"]
    column = schema.key_columns[0]
    name, kind = f"c{schema.names.index(column.name)}", sql_type(column.type)
    text, value = f"{name}::VARCHAR", f"{{}}::{kind}"
    if kind == "VARCHAR":  # it may have a zero, which no literal has
        text, value = f"hex(encode(left({name}, {BOUND_CHARS})))", "decode(unhex({}))"
    elif kind == "BLOB":
        text, value = f"left(hex({name}), {2 * BOUND_CHARS})", "unhex({})"
    sample = session.execute(
        f"SELECT {text} FROM {table} WHERE rowid % {SAMPLE_ROWS} = 0 ORDER BY {name}"
    ).fetchall()
    # A text stands for its value, or one near it; the same one ends a slice and begins the next.
    ends = dict.fromkeys(sample[len(sample) * number // count][0] for number in range(1, count) if sample)
    bounds = [value.format(literal(end)) for end in ends]
    below = [f"{name} < {bound}" for bound in bounds]
    from_on = [f"{name} >= {bound}" for bound in bounds]
    return [" AND ".join(both) for both in zip(["true", *from_on], [*below, "true"], strict=True)]
