"""A base snapshot as an SQL query over its Parquet files, for merge on read.

Files of one physical layout share a scan; only files with deleted rows pay for leaving them out. Columns are
taken by their position in the file, since DuckDB can't tell names apart that differ only by case.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from flight_replica.base.source import BaseFile, BaseSnapshot
from flight_replica.schema import Column
from flight_replica.sql.database import literal
from flight_replica.sql.types import sql_type
from flight_replica.state.writing import OWN


@dataclass(frozen=True, slots=True)
class FileGroup:
    """Files that one `read_parquet` can read: same columns and types, all or none with deleted rows."""

    layout: pa.Schema  # physical columns, in file order
    files: tuple[BaseFile, ...]
    numbers: tuple[int, ...]  # of the files, as they stand in the snapshot
    deleted_table: str | None  # `(file, row)`; None: every row counts


class BaseFiles:
    """The base side of a state. Owns the tables `deleted_N_G` of rows to leave out; dropped by `close`."""

    def __init__(self, database: duckdb.DuckDBPyConnection, number: int, snapshot: BaseSnapshot) -> None:
        self._connection = database.cursor()
        self._groups: list[FileGroup] = []
        try:
            for numbers in _by_layout(snapshot.files):
                self._groups.append(self._group(number, snapshot.files, numbers))
        except BaseException:
            self.close()
            raise

    def _group(self, number: int, all_files: Sequence[BaseFile], numbers: Sequence[int]) -> FileGroup:
        files = tuple(all_files[file] for file in numbers)
        layout = pq.read_schema(files[0].path)
        if not len(files[0].deleted):
            return FileGroup(layout, files, tuple(numbers), None)
        table = f"{OWN}deleted_{number}_{len(self._groups)}"
        lengths = [len(file.deleted) for file in files]
        rows = pa.table(
            {
                "file": pa.array(np.repeat(np.arange(len(files), dtype=np.uint64), lengths)),
                "row": pa.array(np.concatenate([file.deleted for file in files]), pa.int64()),
            }
        )
        self._connection.register("incoming", rows)
        self._connection.execute(f"CREATE TABLE {table} AS SELECT * FROM incoming")
        self._connection.unregister("incoming")
        return FileGroup(layout, files, tuple(numbers), table)

    def relation(
        self,
        columns: Sequence[Column],
        default: Callable[[str], str],
        is_wanted: Callable[[int], bool] = lambda _: True,
    ) -> str | None:
        """`columns` of the snapshot's rows as `c0, c1, …`; None when there is no file.

        `default` gives the SQL of a column's default, for files that lack the column; of `is_wanted` depends
        which files are read, by their numbers in the snapshot.
        """
        scans = []
        for group in self._groups:
            places = [place for place, number in enumerate(group.numbers) if is_wanted(number)]
            if places:
                scans.append(_scan(group, places, columns, default))
        return " UNION ALL ".join(scans) or None

    def relation_without(
        self, hidden: Collection[int], bitmaps: str, columns: Sequence[Column], default: Callable[[str], str]
    ) -> str | None:
        """As `relation`, of the files `hidden`, without the rows whose bit is set.

        `bitmaps` is a table of one row with a bitmap a file, `b0, b1, …`, in which deleted rows are set too.
        """
        scans = []
        for group in self._groups:
            places = [place for place, number in enumerate(group.numbers) if number in hidden]
            if places:
                terms, source = _parts(group, places, columns, default)
                listed = ", ".join(f"b{group.numbers[place]}" for place in places)
                # A list, since DuckDB would copy a bitmap that stands alone for every 2048 rows.
                scans.append(
                    f"SELECT {terms} FROM {source}, (SELECT [{listed}] FROM {bitmaps}) h(bits) "
                    "WHERE get_bit(h.bits[f.file_index::BIGINT + 1], f.file_row_number::INTEGER) = 0"
                )
        return " UNION ALL ".join(scans) or None

    def keys_of(self, number: int, columns: Sequence[Column], key: str) -> str:
        """A query of the internal column `key` and the number of each row of a file, deleted ones too."""
        group = next(group for group in self._groups if number in group.numbers)
        terms, source = _parts(group, [group.numbers.index(number)], columns, lambda _: "NULL")
        return f"SELECT {key}, row FROM (SELECT {terms}, f.file_row_number AS row FROM {source})"

    def close(self) -> None:
        for group in self._groups:
            if group.deleted_table is not None:
                self._connection.execute(f"DROP TABLE {group.deleted_table}")
        self._connection.close()


def _by_layout(files: Sequence[BaseFile]) -> list[list[int]]:
    """The numbers of the files that one scan can read."""
    groups: dict[tuple[object, ...], list[int]] = {}
    for number, file in enumerate(files):
        layout = pq.read_schema(file.path)
        key = (tuple(layout.names), tuple(map(str, layout.types)), len(file.deleted) > 0, file.columns)
        groups.setdefault(key, []).append(number)
    return list(groups.values())


def _scan(
    group: FileGroup, places: Sequence[int], columns: Sequence[Column], default: Callable[[str], str]
) -> str:
    """The rows of the group's files at `places`."""
    terms, source = _parts(group, places, columns, default)
    if group.deleted_table is None:
        return f"SELECT {terms} FROM {source}"
    return (
        f"SELECT {terms} FROM {source} "
        f"ANTI JOIN {_deleted(group.deleted_table, places, len(group.files))} d "
        "ON (d.file = f.file_index AND d.row = f.file_row_number)"
    )


def _parts(
    group: FileGroup, places: Sequence[int], columns: Sequence[Column], default: Callable[[str], str]
) -> tuple[str, str]:
    """What is selected, and the files that it comes from, under the name `f`.

    DuckDB's own counters are reached by that name: a column of the file may be called as they are.
    """
    held = set(group.files[0].columns)
    physical = [f"p{number}" for number in range(len(group.layout))]
    terms = []
    for number, column in enumerate(columns):
        value = _value(group.layout, column) if column.name in held else default(f"c{number}")
        terms.append(f"{value} AS c{number}")
    paths = ", ".join(literal(group.files[place].path) for place in places)
    return ", ".join(terms), f"read_parquet([{paths}]) f({', '.join(physical)})"


def _deleted(table: str, places: Sequence[int], file_count: int) -> str:
    """The rows to leave out, by the files' places among those that are read."""
    if len(places) == file_count:
        return table
    cases = " ".join(f"WHEN {place} THEN {index}" for index, place in enumerate(places))
    listed = ", ".join(map(str, places))
    return f"(SELECT (CASE file {cases} END)::UBIGINT AS file, row FROM {table} WHERE file IN ({listed}))"


def _value(layout: pa.Schema, column: Column) -> str:
    """The column out of a file, in the table's type. Bytes that are text have been checked, but for rows that
    don't count, and DuckDB may look at these before it leaves them out: hence TRY."""
    index = layout.names.index(column.name)
    if pa.types.is_string(column.type) and pa.types.is_binary(layout.field(index).type):
        return f"TRY(decode(p{index}))"
    # By a column's statistics, which leave NaN out, DuckDB 2.0.1 leaves out row groups, and takes `isnan` for
    # false: TRY gives the value as it is, and keeps it from asking them.
    value = f"TRY(p{index})" if _may_hold_nan(layout.field(index).type) else f"p{index}"
    return f"{value}::{sql_type(column.type)}"


def _may_hold_nan(kind: pa.DataType) -> bool:
    fields = (kind.field(number) for number in range(kind.num_fields))
    return pa.types.is_floating(kind) or any(_may_hold_nan(field.type) for field in fields)
