"""Which columns a merutable table has, out of manifest, footers and what was stated.

A manifest keeps the table's first schema for ever; columns that were added since stand in the footers of
files written by a process that knew them, and nowhere while there is no such file. Source: merutable format,
sections 4.3 and 9.1.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from flight_replica.errors import BaseError, SchemaMismatch
from flight_replica.schema import Column, TableSchema


def effective_schema(
    first: TableSchema, written: Iterable[tuple[str, TableSchema]], stated: TableSchema | None, table: str
) -> TableSchema:
    """The widest schema known: of the manifest (`first`), of each file by its path, and as stated.

    Of two that are equally wide the later one's defaults count: they are the newer writer's. Raises
    `BaseError` for a file that contradicts the manifest, `SchemaMismatch` for any other contradiction.
    """
    widest = first
    for path, schema in written:
        if not _begins_with(schema, first):
            raise BaseError(f"file {path}: schema {schema.names} doesn't extend {first.names}")
        widest = _wider(widest, schema, f"file {path}")
    if stated is not None:
        widest = _wider(stated, widest, f"table {table!r}")
        for column, theirs in zip(stated.columns, first.columns, strict=False):
            if column.nullable != theirs.nullable:
                there, said = _shown(theirs), _shown(column)
                raise SchemaMismatch(f"table {table!r}: column {column.name!r} is {there}, stated as {said}")
        if not _begins_with(widest, first):
            raise SchemaMismatch(f"table {table!r}: {first.names} isn't what was stated, {stated.names}")
    return as_read(widest, len(first.columns))


def as_read(schema: TableSchema, first_count: int) -> TableSchema:
    """`schema` with nulls where rows can hold them: an added column that is NOT NULL but has no initial
    default is null in rows that are older than it, until a compaction makes zeros of them."""
    columns = [
        replace(column, nullable=True) if number >= first_count and column.default is None else column
        for number, column in enumerate(schema.columns)
    ]
    return TableSchema(tuple(columns), schema.primary_key)


def _begins_with(schema: TableSchema, first: TableSchema) -> bool:
    """Whether `schema` only appends columns. The engine compares no defaults, so they may differ."""
    pairs = zip(schema.columns, first.columns, strict=False)
    return (
        len(schema.columns) >= len(first.columns)
        and schema.primary_key == first.primary_key
        and all(_is_same(a, b) and a.nullable == b.nullable for a, b in pairs)
    )


def _wider(one: TableSchema, other: TableSchema, place: str) -> TableSchema:
    """The engine holds added columns to nothing between two processes, so NOT NULL may differ in them."""
    pairs = zip(one.columns, other.columns, strict=False)
    if one.primary_key != other.primary_key or not all(_is_same(a, b) for a, b in pairs):
        raise SchemaMismatch(f"{place}: schemas {one.names} and {other.names} don't extend each other")
    return other if len(other.columns) >= len(one.columns) else one


def _shown(column: Column) -> str:
    return "nullable" if column.nullable else "NOT NULL"


def _is_same(one: Column, other: Column) -> bool:
    return (one.name, one.type) == (other.name, other.type)
