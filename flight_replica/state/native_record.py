"""What a native state's file says of itself: whose rows it holds, and how far; committed with them.

Tables of the file: `rows` (columns `c0, c1, …`), `position` and `about`, of one row each. What changes
again and again is deleted and inserted: while anybody may read a row as it was before an UPDATE, DuckDB
doesn't take its write-ahead log into the file.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import version
from uuid import UUID

import duckdb

from flight_replica.errors import SchemaMismatch, StateNotUsable
from flight_replica.schema import TableSchema
from flight_replica.sql.types import sql_type

FORMAT = 2  # of the tables; raised with every change of them
_PROGRAM = f"flight-replica {version('flight-replica')}, DuckDB {duckdb.__version__}"


@dataclass(frozen=True, slots=True)
class StateRecord:
    """Whose rows they are, and on what base they stand."""

    lineage: UUID
    schema: TableSchema
    base_seq: int
    base_version: int
    is_lower_bound: bool


@dataclass(frozen=True, slots=True)
class AppliedThrough:
    """How far the rows are."""

    seq: int
    commit_time_us: int  # of seq; 0 unknown
    ops_applied: int  # since the base was adopted
    ops_since_copied: int  # since the rows were in key order throughout
    row_count: int


def create(
    session: duckdb.DuckDBPyConnection, database: str, record: StateRecord, at: AppliedThrough
) -> None:
    """Make `position` and `about`."""
    session.execute(
        f"CREATE TABLE {database}.position (seq UBIGINT, commit_time_us BIGINT, column_count BIGINT, "
        "ops_applied UBIGINT, ops_since_copied UBIGINT, row_count UBIGINT)"
    )
    session.execute(
        f"INSERT INTO {database}.position VALUES (?, ?, ?, ?, ?, ?)",
        [
            at.seq,
            at.commit_time_us,
            len(record.schema.columns),
            at.ops_applied,
            at.ops_since_copied,
            at.row_count,
        ],
    )
    session.execute(
        f"CREATE TABLE {database}.about (format INTEGER, program VARCHAR, lineage VARCHAR, "
        "table_schema VARCHAR, base_seq UBIGINT, base_version HUGEINT, is_lower_bound BOOLEAN)"
    )
    session.execute(
        f"INSERT INTO {database}.about VALUES (?, ?, ?, ?, ?, ?, ?)",
        [
            FORMAT,
            _PROGRAM,
            str(record.lineage),
            record.schema.to_json(),
            record.base_seq,
            record.base_version,
            record.is_lower_bound,
        ],
    )


def write_base(session: duckdb.DuckDBPyConnection, database: str, base_seq: int, base_version: int) -> None:
    ((*others, is_lower_bound),) = session.execute(
        f"DELETE FROM {database}.about RETURNING format, program, lineage, table_schema, is_lower_bound"
    ).fetchall()
    session.execute(
        f"INSERT INTO {database}.about VALUES (?, ?, ?, ?, ?, ?, ?)",
        [*others, base_seq, base_version, is_lower_bound],
    )


def write_position(
    session: duckdb.DuckDBPyConnection,
    database: str,
    seq: int,
    commit_time_us: int,
    op_count: int,
    row_count: int,
) -> None:
    """`op_count` ops more were applied."""
    ((columns, applied, since_copied),) = session.execute(
        f"DELETE FROM {database}.position RETURNING column_count, ops_applied, ops_since_copied"
    ).fetchall()
    session.execute(
        f"INSERT INTO {database}.position VALUES (?, ?, ?, ?, ?, ?)",
        [seq, commit_time_us, columns, applied + op_count, since_copied + op_count, row_count],
    )


def write_schema(session: duckdb.DuckDBPyConnection, database: str, schema: TableSchema) -> None:
    """To be called in the transaction that adds the columns."""
    session.execute(f"UPDATE {database}.about SET table_schema = ?", [schema.to_json()])
    session.execute(f"UPDATE {database}.position SET column_count = {len(schema.columns)}")


def read(session: duckdb.DuckDBPyConnection, database: str) -> tuple[StateRecord, AppliedThrough]:
    """What is written there, by this very program. Raises `StateNotUsable` with the reason."""
    try:
        made_by = session.execute(f"SELECT format, program FROM {database}.about").fetchall()
        if made_by != [(FORMAT, _PROGRAM)]:
            raise StateNotUsable(f"it was written by {made_by}, this is {(FORMAT, _PROGRAM)}")
        ((lineage, schema, *base),) = session.execute(
            f"SELECT lineage, table_schema, base_seq, base_version, is_lower_bound FROM {database}.about"
        ).fetchall()
        ((seq, time_us, column_count, *counts),) = session.execute(
            "SELECT seq, commit_time_us, column_count, ops_applied, ops_since_copied, row_count "
            f"FROM {database}.position"
        ).fetchall()
        record = StateRecord(UUID(lineage), TableSchema.from_json(schema), *base)
        _check_columns(session, database, record.schema, column_count)
    except duckdb.Error as error:
        raise StateNotUsable(str(error).partition("\n")[0]) from error
    except (SchemaMismatch, ValueError) as error:
        raise StateNotUsable(f"its record doesn't fit: {error}") from error
    return record, AppliedThrough(seq, time_us, *counts)


def _check_columns(
    session: duckdb.DuckDBPyConnection, database: str, schema: TableSchema, column_count: int
) -> None:
    described = session.execute(f"DESCRIBE {database}.rows").fetchall()
    found = [(name, kind) for name, kind, *_ in described]
    session.execute(
        "CREATE OR REPLACE TEMP TABLE expected ("
        + ", ".join(f"c{number} {sql_type(column.type)}" for number, column in enumerate(schema.columns))
        + ")"
    )
    expected = [(name, kind) for name, kind, *_ in session.execute("DESCRIBE expected").fetchall()]
    session.execute("DROP TABLE expected")
    if found != expected or column_count != len(expected):
        raise StateNotUsable(f"its columns are {found}, its schema says {expected}")
