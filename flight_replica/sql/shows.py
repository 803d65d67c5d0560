"""SHOW and DESCRIBE as queries: DuckDB's own look into its catalog, where nothing of this stands.

The queries read the server's own relations and have the columns that DuckDB gives.
"""

from __future__ import annotations

from collections.abc import Sequence

from flight_replica.errors import NotAllowed
from flight_replica.sql.database import literal
from flight_replica.sql.names import CATALOG, DB_SCHEMA
from flight_replica.sql.statement import Token, fold, tokens, unquoted
from flight_replica.sql.walk import Resolve

__all__ = ["described", "shown"]

_TABLES = "SELECT table_name AS name FROM merutable_tables() ORDER BY name"
_ALL_TABLES = """
SELECT table_catalog AS "database", table_schema AS "schema", table_name AS "name",
    list(column_name ORDER BY ordinal_position) AS column_names,
    list(data_type ORDER BY ordinal_position) AS column_types, false AS "temporary"
FROM information_schema.columns GROUP BY ALL ORDER BY ALL
"""
_DATABASES = "SELECT catalog_name AS database_name FROM information_schema.schemata"
_SCHEMAS = """
SELECT catalog_name AS database_name, schema_name, true AS "current" FROM information_schema.schemata
"""
_COLUMNS = """
SELECT c.column_name, c.data_type AS column_type, c.is_nullable AS "null",
    CASE WHEN k.column_name IS NOT NULL THEN 'PRI' END AS "key",
    c.column_default AS "default", NULL::VARCHAR AS extra
FROM information_schema.columns c
LEFT JOIN information_schema.key_column_usage k USING (table_name, column_name)
WHERE c.table_name = {} ORDER BY c.ordinal_position
"""
_SPECIAL = {
    "show tables": _TABLES,
    "show all tables": _ALL_TABLES,
    "describe": _ALL_TABLES,
    "desc": _ALL_TABLES,
    "show databases": _DATABASES,
    "show schemas": _SCHEMAS,
}
_ABOUT_QUERIES = ("DESCRIBE", "DESC", "SUMMARIZE", "SHOW")
_SHOW_TABLES_FROM = ["show", "tables", "from"]


def shown(words: Sequence[Token], resolve: Resolve) -> str | None:
    """The query in the place of a SHOW or DESCRIBE; None for any other statement, or of what isn't served.

    Raises `NotAllowed` for the tables of another schema.
    """
    texts = [fold(word.text) for word in words]
    special = _SPECIAL.get(" ".join(texts))
    if special is not None:
        return special.strip()
    if texts[:3] == _SHOW_TABLES_FROM:
        return _tables_from(words[3:])
    if texts[0] not in ("describe", "desc", "show"):
        return None
    return _columns(words[2:] if len(words) > 2 and words[1].says("TABLE") else words[1:], resolve)


def described(sql: str) -> str:
    """The query that a DESCRIBE or SUMMARIZE is about; any other statement as it is."""
    first = tokens(sql)[0]
    return sql.encode()[first.end :].decode() if first.says(*_ABOUT_QUERIES) else sql


def _tables_from(words: Sequence[Token]) -> str:
    path = [fold(unquoted(word.text)) for word in words if not word.says(".")]
    if path not in ([DB_SCHEMA], [CATALOG], [CATALOG, DB_SCHEMA]):
        raise NotAllowed(f"SHOW TABLES FROM {'.'.join(path)}: the tables here are in {CATALOG}.{DB_SCHEMA}")
    return _TABLES


def _columns(words: Sequence[Token], resolve: Resolve) -> str | None:
    """The columns of one served table."""
    if len(words) == 3 and fold(unquoted(words[0].text)) == DB_SCHEMA and words[1].says("."):
        words = words[2:]
    is_name = len(words) == 1 and (words[0].is_word or words[0].text.startswith('"'))
    table = resolve(unquoted(words[0].text)) if is_name else None
    return _COLUMNS.format(literal(table)).strip() if table is not None else None
