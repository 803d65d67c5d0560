"""`information_schema`: the five tables that tools ask for, over exactly what is served.

Columns are DuckDB's, so that what is written for it works; where nothing is to be said they are null. The
server binds these relations as it binds its own (functions.py); DuckDB's, which would show how tables are
kept inside, are out of a client's reach.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pyarrow as pa

from flight_replica.flightsql.catalog import key_name
from flight_replica.flightsql.service import TableEntry
from flight_replica.flightsql.xdbc import sql_type_name
from flight_replica.schema import Column, TableSchema
from flight_replica.sql.names import CATALOG, DB_SCHEMA

__all__ = ["TABLES", "table"]

Row = dict[str, object]


def _schema(texts: str, **others: pa.DataType) -> pa.Schema:
    """Columns by name: texts, but for `others`."""
    return pa.schema([(name, others.get(name, pa.string())) for name in texts.split()])


_OF_CONSTRAINT = "constraint_catalog constraint_schema constraint_name table_catalog table_schema table_name"

TABLES = {
    "schemata": _schema(
        "catalog_name schema_name schema_owner default_character_set_catalog default_character_set_schema "
        "default_character_set_name sql_path"
    ),
    "tables": _schema(
        "table_catalog table_schema table_name table_type self_referencing_column_name reference_generation "
        "user_defined_type_catalog user_defined_type_schema user_defined_type_name is_insertable_into "
        "is_typed commit_action TABLE_COMMENT"
    ),
    "columns": _schema(
        "table_catalog table_schema table_name column_name ordinal_position column_default is_nullable "
        "data_type character_maximum_length character_octet_length numeric_precision "
        "numeric_precision_radix numeric_scale datetime_precision interval_type interval_precision "
        "character_set_catalog character_set_schema character_set_name collation_catalog collation_schema "
        "collation_name domain_catalog domain_schema domain_name udt_catalog udt_schema udt_name "
        "scope_catalog scope_schema scope_name maximum_cardinality dtd_identifier is_self_referencing "
        "is_identity identity_generation identity_start identity_increment identity_maximum "
        "identity_minimum identity_cycle is_generated generation_expression is_updatable COLUMN_COMMENT",
        ordinal_position=pa.int32(),
        character_maximum_length=pa.int32(),
        character_octet_length=pa.int32(),
        numeric_precision=pa.int32(),
        numeric_precision_radix=pa.int32(),
        numeric_scale=pa.int32(),
        datetime_precision=pa.int32(),
        interval_precision=pa.int32(),
        maximum_cardinality=pa.int64(),
        is_self_referencing=pa.bool_(),
        is_identity=pa.bool_(),
        identity_cycle=pa.bool_(),
        is_updatable=pa.bool_(),
    ),
    "table_constraints": _schema(
        f"{_OF_CONSTRAINT} constraint_type is_deferrable initially_deferred enforced nulls_distinct"
    ),
    "key_column_usage": _schema(
        f"{_OF_CONSTRAINT} column_name ordinal_position position_in_unique_constraint",
        ordinal_position=pa.int64(),
        position_in_unique_constraint=pa.int64(),
    ),
}

# precision, radix and scale of numbers
_NUMERIC = {
    "TINYINT": (8, 2, 0),
    "SMALLINT": (16, 2, 0),
    "INTEGER": (32, 2, 0),
    "BIGINT": (64, 2, 0),
    "UTINYINT": (8, 2, 0),
    "USMALLINT": (16, 2, 0),
    "UINTEGER": (32, 2, 0),
    "UBIGINT": (64, 2, 0),
    "FLOAT": (24, 2, 0),
    "DOUBLE": (53, 2, 0),
}


def table(name: str, entries: Sequence[TableEntry], *, is_read_only: bool) -> pa.Table:
    """The rows of one of `TABLES`. A table that still waits for its schema isn't in them."""
    known = [(entry.name, entry.schema) for entry in entries if entry.schema is not None]
    match name:
        case "schemata":
            rows: list[Row] = [{"catalog_name": CATALOG, "schema_name": DB_SCHEMA, "schema_owner": CATALOG}]
        case "tables":
            rows = [_table_row(of, is_read_only) for of, _ in known]
        case "columns":
            rows = [row for of, schema in known for row in _column_rows(of, schema, is_read_only)]
        case "table_constraints":
            rows = [row for of, schema in known for row in _constraint_rows(of, schema)]
        case _:
            rows = [row for of, schema in known for row in _key_rows(of, schema)]
    return pa.Table.from_pylist(rows, TABLES[name])


def _place(of: str) -> Row:
    return {"table_catalog": CATALOG, "table_schema": DB_SCHEMA, "table_name": of}


def _table_row(of: str, is_read_only: bool) -> Row:
    is_insertable = "NO" if is_read_only else "YES"
    return _place(of) | {"table_type": "BASE TABLE", "is_insertable_into": is_insertable, "is_typed": "NO"}


def _column_rows(of: str, schema: TableSchema, is_read_only: bool) -> Iterator[Row]:
    for number, column in enumerate(schema.columns, 1):
        name = sql_type_name(column.type)
        precision, radix, scale = _digits(column.type, name)
        yield _place(of) | {
            "column_name": column.name,
            "ordinal_position": number,
            "column_default": _default(column),
            "is_nullable": "YES" if column.nullable else "NO",
            "data_type": name,
            "numeric_precision": precision,
            "numeric_precision_radix": radix,
            "numeric_scale": scale,
            "is_identity": False,
            "is_generated": "NEVER",
            "is_updatable": not is_read_only,
        }


def _digits(kind: pa.DataType, name: str) -> tuple[int | None, int | None, int | None]:
    if pa.types.is_decimal(kind):
        return kind.precision, 10, kind.scale
    return _NUMERIC.get(name, (None, None, None))


def _default(column: Column) -> str | None:
    """The default as an SQL literal, nearly: what people look at."""
    value = column.default
    if value is None or isinstance(value, bool | int | float):
        return None if value is None else str(value).lower()
    text = value.hex() if isinstance(value, bytes) else str(value)
    return "'" + text.replace("'", "''") + "'"


def _constraint_rows(of: str, schema: TableSchema) -> Iterator[Row]:
    """The primary key, and each column that is NOT NULL: a check, as the standard has it."""
    not_null = [f"{of}_{column.name}_not_null" for column in schema.columns if not column.nullable]
    for name, kind in [(key_name(of), "PRIMARY KEY"), *((name, "CHECK") for name in not_null)]:
        yield _constraint(of, name) | {
            "constraint_type": kind,
            "is_deferrable": "NO",
            "initially_deferred": "NO",
            "enforced": "YES",
        }


def _key_rows(of: str, schema: TableSchema) -> Iterator[Row]:
    for number, column in enumerate(schema.primary_key, 1):
        yield _constraint(of, key_name(of)) | {"column_name": column, "ordinal_position": number}


def _constraint(of: str, name: str) -> Row:
    return {
        "constraint_catalog": CATALOG,
        "constraint_schema": DB_SCHEMA,
        "constraint_name": name,
    } | _place(of)
