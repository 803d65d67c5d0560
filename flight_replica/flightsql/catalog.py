"""The catalog commands: catalogs, schemas, tables, table types and keys, as Flight SQL wants them.

There is one catalog with one schema, and the served tables in it; SQL takes the same names in front of a
table. Clients compare the schemas of these replies exactly. Patterns ignore case, as names do here; `\\`
escapes. Asking for a catalog or schema "" is asking for what is in none: nothing.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import pyarrow as pa
from google.protobuf.message import Message

from flight_replica._pb import flight_sql_pb2 as pb
from flight_replica.flightsql import sql_info, xdbc
from flight_replica.flightsql.limits import ServerLimits
from flight_replica.flightsql.patterns import NamePattern
from flight_replica.flightsql.service import Service
from flight_replica.flightsql.status import Unimplemented
from flight_replica.schema import TableSchema
from flight_replica.sql.names import CATALOG, DB_SCHEMA
from flight_replica.sql.statement import fold

TABLE_TYPE = "TABLE"

_TABLE_TYPES = ("SYSTEM TABLE", TABLE_TYPE, "VIEW")  # there are tables alone; in the order of a reply
_BASE_TABLE = "BASE TABLE"  # what some tools call a table when they ask


def _schema(text: str) -> pa.Schema:
    """`name type` fields, `!` after the type for NOT NULL."""
    kinds = {"utf8": pa.string(), "int32": pa.int32(), "uint8": pa.uint8(), "binary": pa.binary()}
    fields = [entry.split() for entry in text.split(",")]
    return pa.schema(
        [pa.field(name, kinds[kind.rstrip("!")], not kind.endswith("!")) for name, kind in fields]
    )


_CATALOGS = _schema("catalog_name utf8!")
_DB_SCHEMAS = _schema("catalog_name utf8, db_schema_name utf8!")
_TABLES = _schema("catalog_name utf8, db_schema_name utf8, table_name utf8!, table_type utf8!")
_TABLES_WITH_SCHEMA = _TABLES.append(pa.field("table_schema", pa.binary(), False))
_TYPES = _schema("table_type utf8!")
_PRIMARY_KEYS = _schema(
    "catalog_name utf8, db_schema_name utf8, table_name utf8!, column_name utf8!,"
    "key_sequence int32!, key_name utf8"
)
_FOREIGN_KEYS = _schema(
    "pk_catalog_name utf8, pk_db_schema_name utf8, pk_table_name utf8!, pk_column_name utf8!,"
    "fk_catalog_name utf8, fk_db_schema_name utf8, fk_table_name utf8!, fk_column_name utf8!,"
    "key_sequence int32!, fk_key_name utf8, pk_key_name utf8, update_rule uint8!, delete_rule uint8!"
)


def schema_of(command: Message) -> pa.Schema:
    """The schema of the reply. Raises `Unimplemented` for what is no catalog command."""
    match command:
        case pb.CommandGetCatalogs():
            return _CATALOGS
        case pb.CommandGetDbSchemas():
            return _DB_SCHEMAS
        case pb.CommandGetTables():
            return _TABLES_WITH_SCHEMA if command.include_schema else _TABLES
        case pb.CommandGetTableTypes():
            return _TYPES
        case pb.CommandGetPrimaryKeys():
            return _PRIMARY_KEYS
        case pb.CommandGetImportedKeys() | pb.CommandGetExportedKeys() | pb.CommandGetCrossReference():
            return _FOREIGN_KEYS
        case pb.CommandGetXdbcTypeInfo():
            return xdbc.SCHEMA
        case pb.CommandGetSqlInfo():
            return sql_info.SCHEMA
    raise Unimplemented(f"{command.DESCRIPTOR.name} isn't served here")


def reply(command: Message, service: Service, limits: ServerLimits, actions: Collection[str]) -> pa.Table:
    """The rows of the reply, in one batch: ADBC reads only the first. `actions`: those that are served."""
    rows: list[dict[str, object]] = []
    match command:
        case pb.CommandGetSqlInfo():
            return sql_info.reply(sql_info.sql_info(service, limits, actions), list(command.info))
        case pb.CommandGetXdbcTypeInfo():
            return xdbc.reply(command.data_type if command.HasField("data_type") else None)
        case pb.CommandGetCatalogs():
            rows = [{"catalog_name": CATALOG}]
        case pb.CommandGetTableTypes():
            rows = [{"table_type": kind} for kind in _TABLE_TYPES]
        case pb.CommandGetDbSchemas():
            rows = _db_schemas(command)
        case pb.CommandGetTables():
            rows = [_table_row(table, service, command.include_schema) for table in _tables(command, service)]
        case pb.CommandGetPrimaryKeys():
            rows = _primary_keys(command, service)
    return pa.Table.from_pylist(rows, schema_of(command)).combine_chunks()


@dataclass(frozen=True, slots=True)
class _Table:
    name: str
    schema: TableSchema


def _known(service: Service) -> list[_Table]:
    """The tables whose schema is known; one that still waits for its first base can't be described."""
    return [_Table(entry.name, entry.schema) for entry in service.tables() if entry.schema is not None]


def _is_our_catalog(command: Message) -> bool:
    """Whether the command asks for all catalogs, or for the one there is."""
    return not command.HasField("catalog") or fold(command.catalog) == CATALOG


def _db_schemas(command: Message) -> list[dict[str, object]]:
    is_asked = _is_our_catalog(command) and _matches(command, "db_schema_filter_pattern", DB_SCHEMA)
    return [{"catalog_name": CATALOG, "db_schema_name": DB_SCHEMA}] if is_asked else []


def _tables(command: Message, service: Service) -> list[_Table]:
    kinds = set(command.table_types)
    if kinds and not kinds & {TABLE_TYPE, _BASE_TABLE}:
        return []
    if not _is_our_catalog(command) or not _matches(command, "db_schema_filter_pattern", DB_SCHEMA):
        return []
    found = _known(service)
    if command.HasField("table_name_filter_pattern"):
        wanted = NamePattern(command.table_name_filter_pattern)
        found = [table for table in found if wanted.matches(table.name)]
    # `_` in a plain name is a wildcard too: whoever reads one row should get the table of this very name.
    exact = re.sub(r"\\(.)", r"\1", command.table_name_filter_pattern)
    return sorted(found, key=lambda entry: (entry.name != exact, fold(entry.name) != fold(exact), entry.name))


def _matches(command: Message, field: str, name: str) -> bool:
    """Whether `name` matches the command's pattern; an absent one matches all."""
    if not command.HasField(field):
        return True
    return NamePattern(getattr(command, field)).matches(name)


def _table_row(table: _Table, service: Service, with_schema: bool) -> dict[str, object]:
    row: dict[str, object] = {
        "catalog_name": CATALOG,
        "db_schema_name": DB_SCHEMA,
        "table_name": table.name,
        "table_type": TABLE_TYPE,
    }
    if with_schema:
        schema = xdbc.described(
            table.name,
            table.schema.columns,
            table.schema.primary_key,
            is_read_only=service.read_only_reason is not None,
        )
        row["table_schema"] = schema.serialize().to_pybytes()
    return row


def _primary_keys(command: Message, service: Service) -> list[dict[str, object]]:
    if not _is_our_catalog(command):
        return []
    if command.HasField("db_schema") and fold(command.db_schema) != DB_SCHEMA:
        return []
    return [
        {
            "catalog_name": CATALOG,
            "db_schema_name": DB_SCHEMA,
            "table_name": entry.name,
            "column_name": column,
            "key_sequence": number,
            "key_name": key_name(entry.name),
        }
        for entry in _named(_known(service), command.table)
        for number, column in enumerate(entry.schema.primary_key, 1)
    ]


def key_name(table: str) -> str:
    """What a table's primary key is called."""
    return f"{table}_pkey"


def _named(entries: Sequence[_Table], name: str) -> list[_Table]:
    exact = [entry for entry in entries if entry.name == name]
    return exact or [entry for entry in entries if fold(entry.name) == fold(name)]
