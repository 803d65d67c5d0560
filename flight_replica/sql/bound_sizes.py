"""How large a value a query's parameter may be bound to: as large as a literal, or a bit of nested data."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc

from flight_replica.errors import LimitExceeded
from flight_replica.sql.heavy import LITERAL_BYTES_MAX, NESTED_BYTES_MAX

__all__ = ["check_sizes"]


def check_sizes(bound: pa.Table) -> None:
    """Raise `LimitExceeded` for a value that functions would work on for too long, see `guards.py`.

    A text or blob has at most `LITERAL_BYTES_MAX` bytes, any other value `NESTED_BYTES_MAX` in Arrow.
    """
    for key, column in zip(bound.column_names, bound.columns, strict=True):
        kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
        limit = NESTED_BYTES_MAX if pa.types.is_nested(kind) else LITERAL_BYTES_MAX
        if column.nbytes > limit and (size := max(_sizes(column.cast(kind)), default=0)) > limit:
            raise LimitExceeded(f"parameter '{key}' is bound to {size} bytes, limit {limit} bytes")


def _sizes(column: pa.ChunkedArray) -> Iterator[int]:
    """Bytes of the values, or of the largest one where that is told at once."""
    kind = column.type
    if any(is_kind(kind) for is_kind in (pa.types.is_string, pa.types.is_binary, pa.types.is_large_string)):
        yield pc.max(pc.binary_length(column)).as_py() or 0
        return
    for chunk in column.chunks:
        for row in range(len(chunk)):  # one of few: the rows of a query's parameters
            yield chunk.slice(row, 1).nbytes
