"""The metadata commands, seen by a bare Flight client: exact schemas, values, order and filters."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
import pytest

from flight_replica._pb import flight_sql_pb2 as pb
from flight_replica.flightsql.limits import DEFAULT_LIMITS
from flight_replica.schema import Column, TableSchema
from flight_replica.sql import dialect
from tests.integration.flightsql.clients import RawClient, descriptor
from tests.integration.flightsql.memory_service import MemoryService

WIDE = TableSchema(
    (
        Column("k", pa.int32(), False),
        Column("name", pa.string(), False),
        Column("price", pa.decimal128(9, 2)),
        Column("at", pa.timestamp("us", "UTC")),
        Column("id", pa.uuid()),
        Column("tags", pa.list_(pa.string())),
    ),
    ("name", "k"),
)
REQUIRED = False  # of a field: not nullable


@pytest.fixture(autouse=True)
def more_tables(service: MemoryService) -> Iterator[None]:
    service.add_table("Wide_1", WIDE)
    service.add_table("wideX1", WIDE)
    yield


def _schema(*fields: tuple[str, pa.DataType] | tuple[str, pa.DataType, bool]) -> pa.Schema:
    return pa.schema([pa.field(*field) for field in fields])


TABLES = _schema(
    ("catalog_name", pa.string()),
    ("db_schema_name", pa.string()),
    ("table_name", pa.string(), REQUIRED),
    ("table_type", pa.string(), REQUIRED),
)
KEYS = _schema(
    ("pk_catalog_name", pa.string()),
    ("pk_db_schema_name", pa.string()),
    ("pk_table_name", pa.string(), REQUIRED),
    ("pk_column_name", pa.string(), REQUIRED),
    ("fk_catalog_name", pa.string()),
    ("fk_db_schema_name", pa.string()),
    ("fk_table_name", pa.string(), REQUIRED),
    ("fk_column_name", pa.string(), REQUIRED),
    ("key_sequence", pa.int32(), REQUIRED),
    ("fk_key_name", pa.string()),
    ("pk_key_name", pa.string()),
    ("update_rule", pa.uint8(), REQUIRED),
    ("delete_rule", pa.uint8(), REQUIRED),
)
XDBC = _schema(
    ("type_name", pa.string(), REQUIRED),
    ("data_type", pa.int32(), REQUIRED),
    ("column_size", pa.int32()),
    ("literal_prefix", pa.string()),
    ("literal_suffix", pa.string()),
    ("create_params", pa.list_(pa.field("item", pa.string(), REQUIRED))),
    ("nullable", pa.int32(), REQUIRED),
    ("case_sensitive", pa.bool_(), REQUIRED),
    ("searchable", pa.int32(), REQUIRED),
    ("unsigned_attribute", pa.bool_()),
    ("fixed_prec_scale", pa.bool_(), REQUIRED),
    ("auto_increment", pa.bool_()),
    ("local_type_name", pa.string()),
    ("minimum_scale", pa.int32()),
    ("maximum_scale", pa.int32()),
    ("sql_data_type", pa.int32(), REQUIRED),
    ("datetime_subcode", pa.int32()),
    ("num_prec_radix", pa.int32()),
    ("interval_precision", pa.int32()),
)
SQL_INFO = _schema(
    ("info_name", pa.uint32(), REQUIRED),
    (
        "value",
        pa.dense_union(
            [
                pa.field("string_value", pa.string(), REQUIRED),
                pa.field("bool_value", pa.bool_(), REQUIRED),
                pa.field("bigint_value", pa.int64(), REQUIRED),
                pa.field("int32_bitmask", pa.int32(), REQUIRED),
                pa.field("string_list", pa.list_(pa.string()), REQUIRED),
                pa.field("int32_to_int32_list_map", pa.map_(pa.int32(), pa.list_(pa.int32())), REQUIRED),
            ]
        ),
        REQUIRED,
    ),
)


@pytest.mark.parametrize(
    ("command", "schema"),
    [
        (pb.CommandGetCatalogs(), _schema(("catalog_name", pa.string(), REQUIRED))),
        (
            pb.CommandGetDbSchemas(),
            _schema(("catalog_name", pa.string()), ("db_schema_name", pa.string(), REQUIRED)),
        ),
        (pb.CommandGetTables(), TABLES),
        (
            pb.CommandGetTables(include_schema=True),
            TABLES.append(pa.field("table_schema", pa.binary(), REQUIRED)),
        ),
        (pb.CommandGetTableTypes(), _schema(("table_type", pa.string(), REQUIRED))),
        (
            pb.CommandGetPrimaryKeys(table="orders"),
            _schema(
                ("catalog_name", pa.string()),
                ("db_schema_name", pa.string()),
                ("table_name", pa.string(), REQUIRED),
                ("column_name", pa.string(), REQUIRED),
                ("key_sequence", pa.int32(), REQUIRED),
                ("key_name", pa.string()),
            ),
        ),
        (pb.CommandGetExportedKeys(table="orders"), KEYS),
        (pb.CommandGetImportedKeys(table="orders"), KEYS),
        (pb.CommandGetCrossReference(pk_table="orders", fk_table="odd"), KEYS),
        (pb.CommandGetXdbcTypeInfo(), XDBC),
        (pb.CommandGetSqlInfo(), SQL_INFO),
    ],
    ids=lambda value: value.DESCRIPTOR.name if hasattr(value, "DESCRIPTOR") else "",
)
def test_each_reply_has_exactly_the_protocols_schema(
    raw: RawClient, command: object, schema: pa.Schema
) -> None:
    told = raw.client.get_schema(descriptor(command)).schema
    reply = raw.reply(command)
    assert told.equals(schema, check_metadata=True)
    assert reply.schema.equals(schema, check_metadata=True)
    assert [field.nullable for field in reply.schema] == [field.nullable for field in schema]


def test_there_is_one_catalog_with_one_schema(raw: RawClient) -> None:
    assert raw.reply(pb.CommandGetCatalogs()).to_pylist() == [{"catalog_name": "merutable"}]
    expected = [{"catalog_name": "merutable", "db_schema_name": "main"}]
    for command in (
        pb.CommandGetDbSchemas(),
        pb.CommandGetDbSchemas(catalog="MERUTABLE", db_schema_filter_pattern="M_i%"),
    ):
        assert raw.reply(command).to_pylist() == expected


@pytest.mark.parametrize(
    "filters",
    [
        {"catalog": ""},
        {"catalog": "memory"},
        {"db_schema_filter_pattern": ""},
        {"db_schema_filter_pattern": "x%"},
    ],
    ids=str,
)
def test_another_catalog_or_schema_and_none_at_all_are_empty(raw: RawClient, filters: dict[str, str]) -> None:
    assert raw.reply(pb.CommandGetDbSchemas(**filters)).num_rows == 0
    assert raw.reply(pb.CommandGetTables(**filters)).num_rows == 0
    assert raw.reply(pb.CommandGetTables(include_schema=True, **filters)).num_rows == 0


def test_table_types_come_in_order(raw: RawClient) -> None:
    types = raw.reply(pb.CommandGetTableTypes())["table_type"].to_pylist()
    assert types == ["SYSTEM TABLE", "TABLE", "VIEW"]


@pytest.mark.parametrize(
    ("filters", "names"),
    [
        ({}, ["Wide_1", "odd", "orders", "wideX1"]),
        ({"table_name_filter_pattern": "%"}, ["Wide_1", "odd", "orders", "wideX1"]),
        ({"table_name_filter_pattern": "o%"}, ["odd", "orders"]),
        ({"table_name_filter_pattern": "ORDERS"}, ["orders"]),
        ({"table_name_filter_pattern": "wide_1"}, ["Wide_1", "wideX1"]),
        ({"table_name_filter_pattern": "wideX1"}, ["wideX1"]),
        ({"table_name_filter_pattern": r"wide\_1"}, ["Wide_1"]),
        ({"table_name_filter_pattern": "Wide_1"}, ["Wide_1", "wideX1"]),
        ({"table_name_filter_pattern": ""}, []),
        ({"catalog": "merutable", "db_schema_filter_pattern": "MAIN"}, ["Wide_1", "odd", "orders", "wideX1"]),
        ({"table_types": ["TABLE"]}, ["Wide_1", "odd", "orders", "wideX1"]),
        ({"table_types": ["VIEW", "BASE TABLE"]}, ["Wide_1", "odd", "orders", "wideX1"]),
        ({"table_types": ["VIEW", "SYSTEM TABLE"]}, []),
    ],
    ids=str,
)
def test_tables_are_found_by_pattern_without_regard_to_case_exact_names_first(
    raw: RawClient, filters: dict[str, object], names: list[str]
) -> None:
    found = raw.reply(pb.CommandGetTables(**filters))
    assert found["table_name"].to_pylist() == names
    places = {(row["catalog_name"], row["db_schema_name"], row["table_type"]) for row in found.to_pylist()}
    assert places <= {("merutable", "main", "TABLE")}


def test_of_two_names_that_differ_only_by_case_the_exact_one_comes_first(
    raw: RawClient, service: MemoryService
) -> None:
    service.add_table("ORDERS", TableSchema((Column("k", pa.int32(), False),), ("k",)))
    for name, others in (("orders", "ORDERS"), ("ORDERS", "orders")):
        found = raw.reply(pb.CommandGetTables(table_name_filter_pattern=name))
        assert found["table_name"].to_pylist() == [name, others]
        keys = raw.reply(pb.CommandGetPrimaryKeys(table=name))
        assert keys.select(["table_name", "column_name"]).to_pylist() == [
            {"table_name": name, "column_name": {"orders": "id", "ORDERS": "k"}[name]}
        ]
        assert raw.rows(f'SELECT * FROM "{name}"').schema.names[0] == {"orders": "id", "ORDERS": "k"}[name]


def _described(raw: RawClient, table: str) -> pa.Schema:
    (row,) = raw.reply(pb.CommandGetTables(table_name_filter_pattern=table, include_schema=True)).to_pylist()
    return pa.ipc.read_schema(pa.py_buffer(row["table_schema"]))


def test_a_tables_schema_describes_its_columns(raw: RawClient) -> None:
    schema = _described(raw, r"Wide\_1")
    assert [(field.name, str(field.type), field.nullable) for field in schema] == [
        ("k", "int32", False),
        ("name", "string", False),
        ("price", "decimal128(9, 2)", True),
        ("at", "timestamp[us, tz=UTC]", True),
        ("id", "string", True),
        ("tags", "list<item: string>", True),
    ]
    said = [
        {
            key.decode().removeprefix("ARROW:FLIGHT:SQL:"): value.decode()
            for key, value in field.metadata.items()
        }
        for field in schema
    ]
    place = {"CATALOG_NAME": "merutable", "SCHEMA_NAME": "main", "DB_SCHEMA_NAME": "main"}
    flags = {"IS_AUTO_INCREMENT": "0", "IS_READ_ONLY": "0", "IS_SEARCHABLE": "1"}
    always = place | flags | {"TABLE_NAME": "Wide_1", "REMARKS": "", "IS_CASE_SENSITIVE": "0"}
    is_key = {"REMARKS": "primary key"}
    assert said == [
        always | is_key | {"TYPE_NAME": "INTEGER", "PRECISION": "10", "SCALE": "0"},
        always | is_key | {"TYPE_NAME": "VARCHAR", "IS_CASE_SENSITIVE": "1"},
        always | {"TYPE_NAME": "DECIMAL(9,2)", "PRECISION": "9", "SCALE": "2"},
        always | {"TYPE_NAME": "TIMESTAMP WITH TIME ZONE", "PRECISION": "32", "SCALE": "6"},
        always | {"TYPE_NAME": "UUID", "PRECISION": "36"},
        always | {"TYPE_NAME": "VARCHAR[]"},
    ]


def test_a_tables_schema_has_the_types_of_its_rows(raw: RawClient) -> None:
    rows = raw.rows('SELECT * FROM "Wide_1"')
    assert [field.type for field in _described(raw, r"Wide\_1")] == rows.schema.types


def test_columns_are_read_only_where_no_writes_are_taken(raw: RawClient, service: MemoryService) -> None:
    service.read_only_reason = "this is a replica"
    assert {field.metadata[b"ARROW:FLIGHT:SQL:IS_READ_ONLY"] for field in _described(raw, "orders")} == {b"1"}


@pytest.mark.parametrize(
    "command",
    [
        pb.CommandGetPrimaryKeys(table="Wide_1"),
        pb.CommandGetPrimaryKeys(table="WIDE_1", catalog="Merutable", db_schema="MAIN"),
    ],
)
def test_primary_keys_come_in_key_order(raw: RawClient, command: object) -> None:
    place = {"catalog_name": "merutable", "db_schema_name": "main", "table_name": "Wide_1"}
    assert raw.reply(command).to_pylist() == [
        place | {"column_name": "name", "key_sequence": 1, "key_name": "Wide_1_pkey"},
        place | {"column_name": "k", "key_sequence": 2, "key_name": "Wide_1_pkey"},
    ]


@pytest.mark.parametrize(
    "command",
    [
        pb.CommandGetPrimaryKeys(table="nothing"),
        pb.CommandGetPrimaryKeys(table="Wide%"),
        pb.CommandGetPrimaryKeys(table="Wide_1", catalog=""),
        pb.CommandGetPrimaryKeys(table="Wide_1", db_schema=""),
        pb.CommandGetExportedKeys(table="orders"),
        pb.CommandGetImportedKeys(table="orders", db_schema="main"),
        pb.CommandGetCrossReference(pk_table="orders", fk_table="odd"),
    ],
    ids=lambda value: value.DESCRIPTOR.name,
)
def test_keys_that_are_not_there_are_empty_replies(raw: RawClient, command: object) -> None:
    assert raw.reply(command).num_rows == 0


# --- types and infos --------------------------------------------------------------------------------


def test_types_come_in_the_order_of_their_codes_and_are_filtered_by_one(raw: RawClient) -> None:
    rows = raw.reply(pb.CommandGetXdbcTypeInfo()).to_pylist()
    order = [(row["data_type"], row["type_name"]) for row in rows]
    assert order == sorted(order) and len(order) == len(set(order)) == 21
    bigints = raw.reply(pb.CommandGetXdbcTypeInfo(data_type=-5)).to_pylist()
    assert [row["type_name"] for row in bigints] == ["BIGINT", "UINTEGER"]
    assert raw.reply(pb.CommandGetXdbcTypeInfo(data_type=0)).num_rows == 0
    (decimal,) = raw.reply(pb.CommandGetXdbcTypeInfo(data_type=3)).to_pylist()
    assert (decimal["column_size"], decimal["create_params"]) == (38, ["precision", "scale"])
    (stamp,) = (row for row in rows if row["type_name"] == "TIMESTAMP")
    assert (stamp["sql_data_type"], stamp["datetime_subcode"]) == (9, 3)


def test_literals_of_each_type_are_written_as_told(raw: RawClient) -> None:
    texts = {91: "2020-02-03", 92: "01:02:03", 93: "2020-02-03 01:02:03", -3: "x", 12: "x", 1: str(0)}
    for row in raw.reply(pb.CommandGetXdbcTypeInfo()).to_pylist():
        if row["literal_prefix"] is None or row["type_name"] == "UUID":
            continue
        literal = row["literal_prefix"] + texts[row["data_type"]] + row["literal_suffix"]
        kind = raw.rows(f"SELECT typeof({literal}) AS kind")["kind"][0].as_py()
        assert kind == row["type_name"], literal


# Codes and the union child that clients read, whatever the protocol's text says (503, 505, 507, 562).
STRINGS = [0, 1, 2, 6, 7, 504, 513, 514, 529, 530, 531]
BOOLEANS = [3, 4, 5, 9, 10, 11, 500, 501, 502, 506, 515, 516, 518, 519, 520, 521, 523, 524, 527, 532, 536]
BOOLEANS += [537, 539, 556, 563, 565, 566, 572, 573, 574, 575, 576]
BIGINTS = [503, 505, 507, *range(541, 556), *range(557, 563)]
BITMASKS = [8, 100, 101, 522, 525, 526, 528, 533, 534, 535, 538, 540, 564, *range(567, 572)]
LISTS = [508, 509, 510, 511, 512]
CHILDREN = [(STRINGS, 0), (BOOLEANS, 1), (BIGINTS, 2), (BITMASKS, 3), (LISTS, 4), ([517], 5)]


def _infos(raw: RawClient, *codes: int) -> dict[int, object]:
    table = raw.reply(pb.CommandGetSqlInfo(info=codes))
    return dict(zip(table["info_name"].to_pylist(), table["value"].to_pylist(), strict=True))


def test_every_info_is_answered_in_the_child_that_clients_read(raw: RawClient) -> None:
    table = raw.reply(pb.CommandGetSqlInfo())
    codes = table["info_name"].to_pylist()
    assert codes == [*range(12), 100, 101, *range(500, 577)]
    (values,) = table["value"].chunks
    children = dict(zip(codes, values.type_codes.to_pylist(), strict=True))
    assert children == {code: child for group, child in CHILDREN for code in group}
    assert None not in table["value"].to_pylist()


def test_infos_are_chosen_by_code_and_unknown_ones_left_out(raw: RawClient) -> None:
    assert _infos(raw, 504, 77, 0) == {504: '"', 0: "flight-replica test"}


def test_infos_about_writes_follow_whether_writes_are_taken(raw: RawClient, service: MemoryService) -> None:
    about_writes = (3, 10, 502, 572)
    assert _infos(raw, *about_writes) == {3: False, 10: True, 502: True, 572: True}
    service.read_only_reason = "this is a replica"
    assert _infos(raw, *about_writes) == {3: True, 10: False, 502: False, 572: False}


def test_infos_about_transactions_and_cancelling_follow_the_actions_that_are_served(raw: RawClient) -> None:
    actions = {action.type for action in raw.client.list_actions()}
    infos = _infos(raw, 8, 9, 563, 564, 573, 562)
    begins, savepoints = "BeginTransaction" in actions, "BeginSavepoint" in actions
    assert infos[8] == 2 * savepoints + begins * (not savepoints)
    assert infos[9] is bool(actions & {"CancelFlightInfo", "CancelQuery"})
    assert (infos[563], infos[573]) == (begins, savepoints)
    assert (infos[562], infos[564]) == (2, 0b1100 if begins else 0b0100)


def test_what_the_infos_say_of_sql_is_so(raw: RawClient) -> None:
    infos = _infos(raw)
    answers = {
        505: 'SELECT "ID" AS n FROM "Orders" LIMIT 1',  # quoted names ignore case
        514: "SELECT a$b AS n FROM (SELECT 1 AS a$b)",
        516: "SELECT 1 AS n WHERE (NULL || 'x') IS NULL",
        520: "SELECT id AS n FROM orders ORDER BY id * 2",
        521: "SELECT id AS n FROM orders ORDER BY price",
        523: r"SELECT 1 AS n WHERE 'a_b' LIKE 'a\_b' ESCAPE '\'",
        538: "SELECT 1 AS n WHERE 1 = ANY (SELECT id FROM orders) AND EXISTS (FROM orders)",
        539: "SELECT 1 AS n FROM orders o WHERE id = (SELECT max(id) FROM orders i WHERE i.id = o.id)",
        540: "SELECT id AS n FROM orders UNION SELECT 1 UNION ALL SELECT 2",
        528: "SELECT 1 AS n FROM orders a FULL OUTER JOIN orders b ON a.id = b.id + 1",
    }
    for code, sql in answers.items():
        assert infos[code] and raw.rows(sql).num_rows > 0, code
    for order in ("", "DESC"):  # 507: nulls sort at the end either way
        last = raw.rows(f"SELECT item FROM orders ORDER BY item {order}")["item"].to_pylist()[-1]
        assert infos[507] == 3 and last is None
    assert infos[557] == 1_000_000 and infos[558] == DEFAULT_LIMITS.prepared_max


def test_functions_and_keywords_are_duckdbs_and_can_be_called(raw: RawClient) -> None:
    infos = _infos(raw)
    assert {"SELECT", "QUALIFY", "PIVOT"} <= set(infos[508])
    assert "abs" in infos[509] and "upper" in infos[510] and "version" in infos[511] and "now" in infos[512]
    every = [name for code in (509, 510, 511, 512) for name in infos[code]]
    assert not {"getenv", "read_csv", "current_setting", "pg_sleep"} & set(every)


def test_conversions_are_what_duckdb_casts(raw: RawClient) -> None:
    numbers = dict(_infos(raw)[517])
    order = list(dialect.CONVERTED)
    to = {order[code]: {order[other] for other in others} for code, others in numbers.items()}
    assert set(to) == set(order)
    assert "TIMESTAMP" in to["DATE"] and "DATE" in to["TIMESTAMP"]
    assert "DATE" not in to["INTEGER"] and "INTEGER" not in to["BINARY"]
    assert to["VARCHAR"] == set(order)
