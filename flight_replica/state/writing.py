"""What every state does when it writes: one transaction, and Arrow rows under a name for its statements."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import duckdb
import pyarrow as pa

# Before the name of a state's own table: a served table may have that name, and is bound nearer by.
OWN = "memory.main."
_NAME = "incoming"


@contextmanager
def transaction(
    connection: duckdb.DuckDBPyConnection, committing: AbstractContextManager[None] | None = None
) -> Iterator[None]:
    """The block's statements are committed together, within `committing`, or undone when it raises."""
    connection.execute("BEGIN TRANSACTION")
    try:
        yield
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    with committing or nullcontext():
        connection.execute("COMMIT")


@contextmanager
def registered(connection: duckdb.DuckDBPyConnection, rows: pa.RecordBatch | pa.Table) -> Iterator[str]:
    """The name of `rows` for statements inside the block; one at a time on a connection."""
    connection.register(_NAME, rows)
    try:
        yield _NAME
    finally:
        connection.unregister(_NAME)
