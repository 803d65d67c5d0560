"""The primary's DuckDB file: its format, the catalog of tables, and the three tables behind each of them.

`$meta` has the format, `$tables` one row a table, and for table id n there are `$rows_n` (the user's columns
under their own names, `$pk_bytes` and `$updated`), `$ops_n` (`seq, op, pk_bytes, c0, c1, …`) and `$commits_n`
(`through`, `commit_time_us`: where each commit ends, but for the newest, which `$tables` has). No user's name
starts with a $. Functions here run inside the caller's transaction.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from uuid import UUID, uuid4

import duckdb
import pyarrow as pa

from flight_replica.errors import ConfigError
from flight_replica.folder_lock import FolderLock
from flight_replica.schema import Column, TableSchema
from flight_replica.sql.database import literal, open_database, quote
from flight_replica.sql.types import sql_type

logger = logging.getLogger(__name__)

FORMAT_VERSION = 3  # a newest commit may be in redo_file.py's file alone
FORMAT_WITHOUT_REDO = 2  # is taken over
FILE_NAME = "primary.duckdb"
LOCK_NAME = "primary.lock"
WAL_SUFFIX = ".wal"  # of the file beside, which has what was committed since the last checkpoint
# Commits wait for a checkpoint, which takes less than three times as long for eight times the WAL
# (benchmarks/results/commit.json): so it comes rarely while writes go on, and sooner when there are none.
WAL_BYTES_MAX = 256 << 20
IDLE_WAL_BYTES = 16 << 20  # with nobody writing, less isn't worth a checkpoint
# Hidden columns of rows_n; no user's column can start with a $.
PK_BYTES = '"$pk_bytes"'
UPDATED = '"$updated"'  # which UPDATE wrote the row: the first seq that it could give; null: none did
_CATALOG = """
    CREATE TABLE "$meta" (format_version INTEGER NOT NULL);
    INSERT INTO "$meta" VALUES ({version});
    CREATE SEQUENCE "$table_ids";
    CREATE TABLE "$tables" (
        id BIGINT NOT NULL, name VARCHAR NOT NULL, schema VARCHAR NOT NULL, schema_version BIGINT NOT NULL,
        lineage VARCHAR NOT NULL, table_uuid VARCHAR NOT NULL,
        high_water UBIGINT NOT NULL, low_water UBIGINT NOT NULL, commit_time_us BIGINT NOT NULL);
"""


@dataclass(frozen=True, slots=True)
class TableRecord:
    """One table as `$tables` has it. `high_water`: the newest seq handed out in this lineage."""

    id: int
    name: str
    schema: TableSchema
    schema_version: int
    lineage: UUID
    table_uuid: UUID
    high_water: int = 0
    low_water: int = 0
    commit_time_us: int = 0  # of high_water; 0: nothing written yet

    @property
    def rows_name(self) -> str:
        return f"$rows_{self.id}"

    @property
    def rows(self) -> str:
        """The table of the rows, quoted; likewise `ops` and `commits`."""
        return quote(self.rows_name)

    @property
    def ops(self) -> str:
        return quote(f"$ops_{self.id}")

    @property
    def commits(self) -> str:
        return quote(f"$commits_{self.id}")

    @property
    def commit_ends(self) -> str:
        """Where each commit ends and when: `through, commit_time_us`, for a FROM. Some may be twice."""
        newest = (
            f'SELECT high_water, commit_time_us FROM "$tables" WHERE id = {self.id} AND commit_time_us > 0'
        )
        return f"(SELECT through, commit_time_us FROM {self.commits} UNION ALL {newest})"

    @property
    def columns_sql(self) -> str:
        """The user's columns, for a SELECT."""
        return ", ".join(quote(name) for name in self.schema.names)


# --- the file ---------------------------------------------------------------------------------------


@contextmanager
def lock_directory(directory: Path) -> Iterator[None]:
    """Hold `directory` for this process alone.

    Raises `ConfigError` when another holds it, or when it holds files that aren't a primary's.
    """
    names = set(os.listdir(directory))
    if names and not names & {LOCK_NAME, FILE_NAME}:
        raise ConfigError(f"data directory {directory} holds other files; give an empty or new one")
    lock = FolderLock(directory / LOCK_NAME, f"data directory {directory}")
    try:
        yield
    finally:
        lock.release()


def open_store(directory: Path, memory_limit: str | None = None) -> duckdb.DuckDBPyConnection:
    """The database of a data directory that the caller has locked; made where there is none.

    Raises `ConfigError` for a file of another format version, or one that isn't a primary's.
    """
    path = directory / FILE_NAME
    try:
        connection = open_database(
            path,
            memory_limit=memory_limit,
            settings=[f"SET GLOBAL checkpoint_threshold = '{WAL_BYTES_MAX // 1024}KiB'"],
        )
    except duckdb.Error as error:
        raise ConfigError(f"{path} can't be opened: {_first_line(error)}") from error
    try:
        _check_format(connection, path)
    except BaseException:
        connection.close()
        raise
    return connection


def _check_format(connection: duckdb.DuckDBPyConnection, path: Path) -> None:
    query = "SELECT table_name FROM information_schema.tables"
    found = {name for (name,) in connection.execute(query).fetchall()}
    if not found:
        connection.execute("BEGIN TRANSACTION")
        connection.execute(_CATALOG.format(version=FORMAT_VERSION))
        connection.execute("COMMIT")
    elif "$meta" not in found:
        raise ConfigError(f"{path} is a database, but not a primary's")
    ((version,),) = connection.execute('SELECT format_version FROM "$meta"').fetchall()
    if version == FORMAT_WITHOUT_REDO:
        connection.execute('UPDATE "$meta" SET format_version = ?', [FORMAT_VERSION])
    elif version != FORMAT_VERSION:
        raise ConfigError(f"{path} has format version {version}, this program reads {FORMAT_VERSION}")


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]


def checkpoint(connection: duckdb.DuckDBPyConnection, directory: Path) -> bool:
    """Take the log into the file, where that is worth it and nobody is in the way; whether it was taken.

    A checkpoint for which the disk has no room ends the database, so it waits until the file has room twice.
    """
    try:
        wal_bytes = (directory / (FILE_NAME + WAL_SUFFIX)).stat().st_size
    except FileNotFoundError:
        return False
    if wal_bytes < IDLE_WAL_BYTES:
        return False
    if shutil.disk_usage(directory).free < (directory / FILE_NAME).stat().st_size + wal_bytes:
        logger.debug("checkpoint put off reason=%s", "the disk has no room for it")
        return False
    try:
        connection.execute("CHECKPOINT")
    except duckdb.TransactionException as error:
        logger.debug("checkpoint put off reason=%s", error)
        return False
    return True


# --- the catalog ------------------------------------------------------------------------------------


def read_tables(connection: duckdb.DuckDBPyConnection) -> list[TableRecord]:
    """Every table as the transaction on `connection` sees it, by id."""
    query = """SELECT id, name, schema, schema_version, lineage, table_uuid, high_water, low_water,
        commit_time_us FROM "$tables" ORDER BY id"""
    return [
        TableRecord(row[0], row[1], _schema_of(row[2]), row[3], UUID(row[4]), UUID(row[5]), *row[6:])
        for row in connection.execute(query).fetchall()
    ]


_schema_of = lru_cache(maxsize=4096)(TableSchema.from_json)  # read anew for every view


def create_table(connection: duckdb.DuckDBPyConnection, name: str, schema: TableSchema) -> TableRecord:
    """The record of a new, empty table. Names and schema are checked by the caller."""
    ((id_,),) = connection.execute("SELECT nextval('\"$table_ids\"')").fetchall()
    record = TableRecord(id_, name, schema, 1, uuid4(), uuid4())
    columns = ", ".join(f"{quote(column.name)} {sql_type(column.type)}" for column in schema.columns)
    # A plain index: a handful of keys is found in 0.3 ms instead of 26 ms among 1 M scattered rows. Deleting
    # reads each indexed value once more, which takes 33 µs where the column is compressed and 0.6 where not.
    connection.execute(
        f"CREATE TABLE {record.rows} "
        f"({columns}, {PK_BYTES} BLOB USING COMPRESSION uncompressed, {UPDATED} UBIGINT)"
    )
    connection.execute(f"CREATE INDEX {quote(f'$key_{id_}')} ON {record.rows} ({PK_BYTES})")
    ops = "".join(f", c{number} {sql_type(c.type)}" for number, c in enumerate(schema.columns))
    connection.execute(f"CREATE TABLE {record.ops} (seq UBIGINT, op VARCHAR, pk_bytes BLOB{ops})")
    connection.execute(f"CREATE TABLE {record.commits} (through UBIGINT, commit_time_us BIGINT)")
    connection.execute(
        'INSERT INTO "$tables" VALUES (?, ?, ?, 1, ?, ?, 0, 0, 0)',
        [id_, name, schema.to_json(), str(record.lineage), str(record.table_uuid)],
    )
    return record


def drop_table(connection: duckdb.DuckDBPyConnection, record: TableRecord) -> None:
    for table in (record.rows, record.ops, record.commits):
        connection.execute(f"DROP TABLE {table}")
    connection.execute('DELETE FROM "$tables" WHERE id = ?', [record.id])


def add_column(connection: duckdb.DuckDBPyConnection, record: TableRecord, column: Column) -> TableRecord:
    """The record with `column` at the end; older rows and ops have its default."""
    schema = TableSchema((*record.schema.columns, column), record.schema.primary_key)
    default = default_sql(column)
    kind = sql_type(column.type)
    number = len(record.schema.columns)
    connection.execute(f"ALTER TABLE {record.rows} ADD COLUMN {quote(column.name)} {kind} DEFAULT {default}")
    connection.execute(f"ALTER TABLE {record.ops} ADD COLUMN c{number} {kind} DEFAULT {default}")
    altered = replace(record, schema=schema, schema_version=record.schema_version + 1)
    connection.execute(
        'UPDATE "$tables" SET schema = ?, schema_version = ? WHERE id = ?',
        [schema.to_json(), altered.schema_version, record.id],
    )
    return altered


def default_sql(column: Column) -> str:
    """The column's default as an SQL expression of exactly its value."""
    value, kind = column.default, sql_type(column.type)
    if value is None:
        return "NULL"
    if isinstance(value, bytes):
        text = "".join(f"\\x{byte:02x}" for byte in value)
    elif isinstance(value, str | UUID):
        text = str(value)
    else:
        text = str(pa.scalar(value, column.type).cast(pa.string()).as_py())
    return f"CAST({literal(text)} AS {kind})"


def save_position(connection: duckdb.DuckDBPyConnection, record: TableRecord) -> None:
    """Write the record's high and low water, lineage and commit time."""
    connection.execute(
        """UPDATE "$tables" SET high_water = ?, low_water = ?, commit_time_us = ?, lineage = ?
            WHERE id = ?""",
        [record.high_water, record.low_water, record.commit_time_us, str(record.lineage), record.id],
    )


def clear_ops(connection: duckdb.DuckDBPyConnection, record: TableRecord, through: int) -> None:
    """Forget every op up to `through`."""
    connection.execute(f"DELETE FROM {record.ops} WHERE seq <= ?", [through])
    connection.execute(f"DELETE FROM {record.commits} WHERE through <= ?", [through])
