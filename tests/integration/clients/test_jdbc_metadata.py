"""DatabaseMetaData through the JDBC driver: everything that it maps to Flight SQL.

The driver casts each SqlInfo value to the class it expects, and fails with a NullPointerException where one
is missing: so that no method fails says that all of them are there, with the right types.
"""

from __future__ import annotations

import pytest

from tests.integration.clients.conftest import Line
from tests.integration.clients.jdbc_client import Connection, Jdbc

ODD = "odd _%name"
NO_ROWS: list[dict[str, object]] = []


@pytest.fixture
def replica(jdbc: Jdbc, line: Line) -> Connection:
    return jdbc.connect(line.replica)


@pytest.fixture
def primary(jdbc: Jdbc, line: Line) -> Connection:
    return jdbc.connect(line.primary)


def test_no_method_without_arguments_fails(replica: Connection, primary: Connection) -> None:
    for connection in (replica, primary):
        answers = connection.every_metadata()
        assert {name: answer["error"] for name, answer in answers.items() if "error" in answer} == {}
        assert len(answers) > 130


@pytest.mark.parametrize(
    ("method", "answer"),
    [
        ("isReadOnly", True),
        ("getIdentifierQuoteString", '"'),
        ("getSearchStringEscape", "\\"),
        ("getCatalogTerm", "catalog"),
        ("getSchemaTerm", "schema"),
        ("isCatalogAtStart", True),
        ("nullPlusNonNullIsNull", True),
        ("supportsColumnAliasing", True),
        ("supportsGroupBy", True),
        ("supportsOuterJoins", True),
        ("supportsFullOuterJoins", True),
        ("supportsUnion", True),
        ("supportsUnionAll", True),
        ("supportsSubqueriesInExists", True),
        ("supportsCorrelatedSubqueries", True),
        ("supportsSelectForUpdate", False),
        ("supportsStoredProcedures", False),
        ("supportsSavepoints", False),
        ("supportsPositionedDelete", False),
    ],
)
def test_a_replica_says_the_truth_about_itself(replica: Connection, method: str, answer: object) -> None:
    assert replica.every_metadata()[method] == {"ok": answer}


def test_keywords_and_functions_are_those_of_the_engine(replica: Connection) -> None:
    answers = {name: str(answer.get("ok")).casefold() for name, answer in replica.every_metadata().items()}
    assert "qualify" in answers["getSQLKeywords"]
    assert "sqrt" in answers["getNumericFunctions"].split(", ")
    assert "substring" in answers["getStringFunctions"].split(", ")
    assert "date_trunc" in answers["getTimeDateFunctions"].split(", ")


def test_the_product_is_named_with_its_version(replica: Connection, primary: Connection) -> None:
    names = [c.every_metadata()["getDatabaseProductName"]["ok"] for c in (replica, primary)]
    assert [str(name).startswith("flight-replica") for name in names] == [True, True]
    assert str(replica.every_metadata()["getDatabaseProductVersion"]["ok"])[0].isdigit()


def test_the_primary_says_that_it_takes_writes(primary: Connection) -> None:
    assert primary.every_metadata()["isReadOnly"] == {"ok": False}


def test_catalogs_and_schemas_lead_to_the_tables(replica: Connection) -> None:
    (catalog,) = {row["TABLE_CAT"] for row in replica.metadata("getTables", None, None, "orders", ["TABLE"])}
    assert catalog in [row["TABLE_CAT"] for row in replica.metadata("getCatalogs")]
    schemas = replica.metadata("getSchemas", catalog, "mai%")
    assert [(row["TABLE_SCHEM"], row["TABLE_CATALOG"]) for row in schemas] == [("main", catalog)]
    types = [row["TABLE_TYPE"] for row in replica.metadata("getTableTypes")]
    assert {"TABLE", "VIEW", "SYSTEM TABLE"} <= set(types)
    assert types == sorted(map(str, types))


@pytest.mark.parametrize(
    ("pattern", "types", "names"),
    [
        ("%", ["TABLE"], [ODD, "orders"]),
        (None, ["TABLE"], [ODD, "orders"]),
        ("orders", None, ["orders"]),
        ("ORDERS", None, ["orders"]),  # the driver says that names are stored in upper case
        ("or_ers", None, ["orders"]),
        ("odd \\_\\%name", None, [ODD]),
        ("odd \\_\\%nam", None, []),
        ("odd\\__\\%name", None, []),
        ("o%", ["VIEW"], []),
        ("o%", ["TABLE", "VIEW"], [ODD, "orders"]),
        ("", None, []),
    ],
)
def test_tables_are_found_by_pattern_and_type(
    replica: Connection, pattern: str | None, types: list[str] | None, names: list[str]
) -> None:
    found = replica.metadata("getTables", None, None, pattern, types)
    ours = [row["TABLE_NAME"] for row in found if row["TABLE_NAME"] in (ODD, "orders")]
    assert sorted(map(str, ours)) == sorted(names)
    assert {row["TABLE_TYPE"] for row in found if row["TABLE_NAME"] in names} <= {"TABLE"}


def test_an_empty_catalog_or_schema_means_tables_without_one(replica: Connection) -> None:
    assert replica.metadata("getTables", "", None, "orders", None) == NO_ROWS
    assert replica.metadata("getTables", None, "", "orders", None) == NO_ROWS
    assert replica.metadata("getTables", "nowhere", None, "orders", None) == NO_ROWS
    assert replica.metadata("getTables", None, "MAIN", "orders", None) != NO_ROWS


def test_columns_say_type_size_scale_and_nullability(replica: Connection) -> None:
    found = replica.metadata("getColumns", None, None, "orders", None)
    columns = [
        (row["COLUMN_NAME"], row["TYPE_NAME"], row["COLUMN_SIZE"], row["DECIMAL_DIGITS"], row["IS_NULLABLE"])
        for row in found
    ]
    names = ["id", "item", "price", "weight", "paid", "ordered_at", "due", "opens", "blob_value"]
    assert [column[0] for column in columns] == names
    by_name = {column[0]: column[1:] for column in columns}
    assert by_name["id"][0] == "BIGINT" and by_name["id"][3] == "NO"
    assert by_name["price"] == ("DECIMAL(9,2)", 9, 2, "YES")
    assert [by_name[name][0] for name in names[3:]] == [
        "DOUBLE",
        "BOOLEAN",
        "TIMESTAMP",
        "DATE",
        "TIME",
        "BLOB",
    ]
    assert [row["ORDINAL_POSITION"] for row in found] == list(range(1, 10))
    assert {row["IS_AUTOINCREMENT"] for row in found} == {"NO"}


def test_columns_are_found_by_pattern(replica: Connection) -> None:
    found = replica.metadata("getColumns", None, "main", "ord%", "%e%")
    assert [row["COLUMN_NAME"] for row in found] == [
        "item",
        "price",
        "weight",
        "ordered_at",
        "due",
        "opens",
        "blob_value",
    ]


@pytest.mark.parametrize("table", ["orders", "ORDERS"])
def test_the_primary_key_is_the_real_one(replica: Connection, table: str) -> None:
    (key,) = replica.metadata("getPrimaryKeys", None, None, table)
    assert (key["TABLE_NAME"], key["COLUMN_NAME"], key["KEY_SEQ"]) == ("orders", "id", 1)


def test_a_key_of_two_columns_keeps_its_order(replica: Connection) -> None:
    found = replica.metadata("getPrimaryKeys", None, None, ODD)
    assert [(row["COLUMN_NAME"], row["KEY_SEQ"]) for row in found] == [("a", 1), ("b", 2)]


def test_there_are_no_foreign_keys(replica: Connection) -> None:
    for table in ("orders", ODD):
        assert replica.metadata("getImportedKeys", None, None, table) == NO_ROWS
        assert replica.metadata("getExportedKeys", None, None, table) == NO_ROWS
    assert replica.metadata("getCrossReference", None, None, "orders", None, None, ODD) == NO_ROWS
