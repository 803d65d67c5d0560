"""Parameters over Flight: what is announced, what can be bound, and what several rows of them do."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, datetime
from decimal import Decimal

import adbc_driver_flightsql.dbapi as adbc
import pyarrow as pa
import pytest
from google.protobuf.message import Message
from pyarrow import flight

from flight_replica._pb import flight_sql_pb2 as pb
from flight_replica.flightsql.commands import unpack
from flight_replica.flightsql.limits import ServerLimits
from flight_replica.schema import Column, TableSchema
from tests.integration.flightsql.clients import RawClient, descriptor
from tests.integration.flightsql.conftest import Serve
from tests.integration.flightsql.memory_service import MemoryService

EVENTS = TableSchema(
    (
        Column("id", pa.int64(), False),
        Column("ts", pa.timestamp("us")),
        Column("seen", pa.timestamp("us", "UTC")),
        Column("day", pa.date32()),
        Column("time", pa.time64("us")),
        Column("price", pa.decimal128(9, 2)),
        Column("key", pa.uuid()),
        Column("raw", pa.binary()),
        Column("ok", pa.bool_()),
    ),
    ("id",),
)


@pytest.fixture(autouse=True)
def events(service: MemoryService) -> Iterator[None]:
    service.add_table("events", EVENTS)
    noon = datetime(2020, 2, 3, 12)
    rows = [{"id": 1, "ts": noon, "seen": noon, "day": noon.date(), "price": Decimal("1.50")}]
    service.put("events", pa.Table.from_pylist(rows, EVENTS.arrow_schema))
    yield


def _prepare(raw: RawClient, sql: str) -> Message:
    (body,) = raw.act("CreatePreparedStatement", pb.ActionCreatePreparedStatementRequest(query=sql))
    return unpack(body, "the result")


def _parameters(raw: RawClient, sql: str) -> list[tuple[str, str]]:
    schema = pa.ipc.read_schema(pa.py_buffer(_prepare(raw, sql).parameter_schema))
    assert all(field.nullable for field in schema)
    return [(field.name, str(field.type)) for field in schema]


class Prepared:
    """A prepared query of a raw client."""

    def __init__(self, raw: RawClient, sql: str) -> None:
        self._raw = raw
        self.result = _prepare(raw, sql)
        self._command = pb.CommandPreparedStatementQuery(
            prepared_statement_handle=self.result.prepared_statement_handle
        )

    def bind(self, rows: pa.Table) -> None:
        writer, reader = self._raw.client.do_put(descriptor(self._command), rows.schema)
        with writer:
            writer.write_table(rows)
            writer.done_writing()
            answer = pb.DoPutPreparedStatementResult.FromString(reader.read().to_pybytes())
        assert answer.prepared_statement_handle == self.result.prepared_statement_handle

    def rows(self) -> pa.Table:
        return self._raw.open(self._raw.command(self._command)).read_all()


# --- announced --------------------------------------------------------------------------------------


def test_parameters_are_announced_with_their_types_times_in_milliseconds(raw: RawClient) -> None:
    sql = """
    SELECT id FROM events WHERE id = ? AND ts >= ? AND seen < ? AND day = ? AND time > ? AND price = ?
        AND key = ? AND raw = ? AND ok = ? LIMIT ?
    """
    assert [kind for _, kind in _parameters(raw, sql)] == [
        *("int64", "timestamp[ms]", "timestamp[ms, tz=UTC]", "date32[day]", "time32[ms]"),
        *("decimal128(9, 2)", "string", "binary", "bool", "int64"),
    ]


def test_parameters_are_called_by_number_or_by_name(raw: RawClient) -> None:
    assert _parameters(raw, "SELECT $2 || item FROM orders WHERE id = $1") == [
        ("1", "int64"),
        ("2", "string"),
    ]
    assert _parameters(raw, "SELECT id FROM orders WHERE item = $what OR id = $id") == [
        ("what", "string"),
        ("id", "int64"),
    ]
    assert _parameters(raw, "SELECT 1") == []


def test_a_sums_parameter_takes_whole_numbers_and_an_unknown_one_text(raw: RawClient) -> None:
    sql = "SELECT item FROM orders GROUP BY item HAVING sum(id) > ? AND ? = ?"
    assert [kind for _, kind in _parameters(raw, sql)] == ["int64", "string", "string"]


def test_parameters_over_the_servers_own_relations_have_types(raw: RawClient) -> None:
    sql = "SELECT * FROM merutable_changes('orders', 0) WHERE seq > ? AND op = ?"
    assert [kind for _, kind in _parameters(raw, sql)] == ["uint64", "string"]
    sql = "SELECT * FROM information_schema.columns WHERE table_name = ? AND ordinal_position = ?"
    assert [kind for _, kind in _parameters(raw, sql)] == ["string", "int32"]


def test_parameters_of_writes_have_the_columns_types(raw: RawClient) -> None:
    assert _parameters(raw, "INSERT INTO orders VALUES (?, ?, ?)") == [
        ("1", "int64"),
        ("2", "string"),
        ("3", "double"),
    ]
    assert [kind for _, kind in _parameters(raw, "UPDATE orders SET price = ? WHERE id = ?")] == [
        "double",
        "int64",
    ]


@pytest.mark.parametrize(
    "sql",
    ["INSERT INTO orders VALUES (?, ?, ?)", "DELETE FROM orders", "CREATE TABLE t (id INT PRIMARY KEY)"],
)
def test_a_write_is_announced_as_an_update_without_rows(raw: RawClient, sql: str) -> None:
    result = _prepare(raw, sql)
    assert result.HasField("is_update") and result.is_update is True
    assert pa.ipc.read_schema(pa.py_buffer(result.dataset_schema)) == pa.schema([])


def test_the_result_of_an_unbound_query_has_the_types_of_a_bound_one(raw: RawClient) -> None:
    prepared = Prepared(raw, "SELECT ? AS a, id + ? AS b, price FROM events WHERE id = ?")
    announced = pa.ipc.read_schema(pa.py_buffer(prepared.result.dataset_schema))
    assert announced.types == [pa.string(), pa.int64(), pa.decimal128(9, 2)]
    prepared.bind(pa.table({"x": ["é"], "y": [2], "z": [1]}))
    rows = prepared.rows()
    assert rows.schema.remove_metadata() == announced.remove_metadata()
    assert rows.to_pylist() == [{"a": "é", "b": 3, "price": Decimal("1.50")}]


# --- bound ------------------------------------------------------------------------------------------


def test_values_are_taken_by_position_whatever_they_are_called(raw: RawClient) -> None:
    prepared = Prepared(raw, "SELECT $1 AS a, $2 AS b")
    same = pa.schema([pa.field("x", pa.int64(), False), pa.field("x", pa.string())])
    prepared.bind(pa.Table.from_arrays([pa.array([1]), pa.array(["b"])], schema=same))
    assert prepared.rows().to_pylist() == [{"a": 1, "b": "b"}]


def test_named_values_are_taken_by_name_and_else_by_position(raw: RawClient) -> None:
    prepared = Prepared(raw, "SELECT $a AS a, $b AS b")
    prepared.bind(pa.table({"b": [2], "a": [1]}))
    assert prepared.rows().to_pylist() == [{"a": 1, "b": 2}]
    prepared.bind(pa.table({"x": [3], "y": [4]}))
    assert prepared.rows().to_pylist() == [{"a": 3, "b": 4}]


def test_each_bind_replaces_the_one_before(raw: RawClient) -> None:
    prepared = Prepared(raw, "SELECT id FROM orders WHERE id = ?")
    for order_id in (1, 2, 1):
        prepared.bind(pa.table({"id": [order_id]}))
        assert prepared.rows()["id"].to_pylist() == [order_id]
    prepared.bind(pa.table({"id": pa.nulls(1)}))
    assert prepared.rows().num_rows == 0


@pytest.mark.parametrize(
    ("where", "values"),
    [
        ("id = ?", pa.array([1], pa.uint8())),
        ("id = ?", pa.array(["1"])),
        ("id < ?", pa.array([1.5])),
        ("price = ?", pa.array(["1.5"])),
        ("price = ?", pa.array([Decimal("1.500")])),
        ("ts = ?", pa.array([datetime(2020, 2, 3, 12)], pa.timestamp("ms"))),
        ("ts = ?", pa.array([datetime(2020, 2, 3, 12)], pa.timestamp("ns"))),
        ("ts = ?", pa.array(["2020-02-03 12:00:00"])),
        ("seen = ?", pa.array([datetime(2020, 2, 3, 12)], pa.timestamp("ms", "Asia/Tokyo"))),
        ("seen = ?", pa.array(["2020-02-03 13:00:00+01"])),
        ("day = ?", pa.array([date(2020, 2, 3)], pa.date64())),
        ("day = ?", pa.array(["2020-02-03"]).dictionary_encode()),
        ("day = ?::DATE", pa.array([datetime(2020, 2, 3, 5)])),
        ("? = 'x'", pa.array(["x"], pa.string_view())),
        ("ts > TIMESTAMP '2020-02-04' - ?", pa.array(["1 day"])),
    ],
    ids=str,
)
def test_values_of_other_types_are_cast_on_the_server(raw: RawClient, where: str, values: pa.Array) -> None:
    prepared = Prepared(raw, f"SELECT id FROM events WHERE {where}")
    prepared.bind(pa.table({"x": values}))
    assert prepared.rows()["id"].to_pylist() == [1]


def test_a_value_that_cannot_be_cast_is_a_clear_error(raw: RawClient) -> None:
    prepared = Prepared(raw, "SELECT id FROM orders WHERE id = ?")
    prepared.bind(pa.table({"x": ["zz"]}))
    with pytest.raises(pa.ArrowInvalid, match="Could not convert string 'zz'"):
        prepared.rows()


@pytest.mark.parametrize(
    ("sql", "kinds"),
    [
        ("SELECT strftime(?, ?)", ["string"]),
        ("SELECT list_transform([1], lambda x: x + ?)", None),
        ("SELECT map([?], [?])", None),
        ("SELECT map([], []) AS m", ["map<null, null>"]),
        ("SELECT ?1", ["string"]),
        ("SELECT ? + ?", None),
        ("SELECT list_contains(?, ?)", ["bool"]),
    ],
)
def test_what_a_statement_gives_is_always_announced(
    raw: RawClient, sql: str, kinds: list[str] | None
) -> None:
    prepared = Prepared(raw, sql)
    announced = pa.ipc.read_schema(pa.py_buffer(prepared.result.dataset_schema))
    assert (prepared.result.is_update, len(announced)) == (False, 1)
    assert kinds is None or [str(field.type) for field in announced] == kinds


def test_a_statement_whose_result_cannot_be_told_is_refused_with_a_way_out(raw: RawClient) -> None:
    with pytest.raises(pa.ArrowInvalid, match=r"write \?::TYPE"):
        Prepared(raw, "SELECT strftime(?, ?) + date_trunc(?, ?)")


def test_a_query_runs_once_for_each_bound_row_in_one_stream_of_one_view(
    raw: RawClient, service: MemoryService
) -> None:
    prepared = Prepared(raw, "SELECT ? AS run, id FROM orders WHERE id >= ? ORDER BY id")
    prepared.bind(pa.table({"run": [None, "b", "c"], "id": [2, 3, 9]}))
    info = raw.command(
        pb.CommandPreparedStatementQuery(prepared_statement_handle=prepared.result.prepared_statement_handle)
    )
    service.put("orders", pa.table({"id": [9], "item": ["late"], "price": [0.5]}))
    rows = raw.open(info).read_all()
    assert [tuple(row.values()) for row in rows.to_pylist()] == [(None, 2), (None, 3), ("b", 3)]
    assert rows.schema.field("run").type == pa.string()
    assert service.open_views == 0


def test_many_rows_over_the_servers_own_relations_read_them_anew(raw: RawClient) -> None:
    prepared = Prepared(raw, "SELECT op, seq FROM merutable_changes('orders', 0) WHERE seq = ?")
    prepared.bind(pa.table({"seq": [3, 1]}))
    assert prepared.rows()["seq"].to_pylist() == [3, 1]


def test_no_bound_rows_give_no_rows(raw: RawClient) -> None:
    prepared = Prepared(raw, "SELECT id FROM orders WHERE id = ?")
    prepared.bind(pa.table({"x": pa.array([], pa.int64())}))
    assert prepared.rows().schema.names == ["id"] and prepared.rows().num_rows == 0


def test_writes_take_values_by_position_too(raw: RawClient, service: MemoryService) -> None:
    result = _prepare(raw, "INSERT INTO orders VALUES (?, ?, ?)")
    command = pb.CommandPreparedStatementUpdate(prepared_statement_handle=result.prepared_statement_handle)
    schema = pa.schema([("x", pa.int64()), ("x", pa.string()), ("x", pa.float64())])
    rows = pa.Table.from_arrays([pa.array([7, 8]), pa.array(["p", "q"]), pa.array([0.5, 1.5])], schema=schema)
    writer, reader = raw.client.do_put(descriptor(command), schema)
    with writer:
        writer.write_table(rows)
        writer.done_writing()
        assert pb.DoPutUpdateResult.FromString(reader.read().to_pybytes()).record_count == 2
    assert raw.rows("SELECT item FROM orders WHERE id > 6 ORDER BY id")["item"].to_pylist() == ["p", "q"]


def test_adbc_reads_the_parameter_schema_and_binds_many_rows(connection: adbc.Connection) -> None:
    with connection.cursor() as cursor:
        schema = cursor.adbc_prepare("SELECT id FROM orders WHERE id = ? AND price > ?")
        assert schema.types == [pa.int64(), pa.float64()]
        cursor.execute("SELECT id FROM orders WHERE id = ?", pa.record_batch({"id": [3, 1]}))
        assert cursor.fetchall() == [(3,), (1,)]


def test_an_unbound_schema_can_be_asked_for(raw: RawClient) -> None:
    command = pb.CommandStatementQuery(query="SELECT id, ? AS x FROM orders WHERE id = ?")
    schema = raw.client.get_schema(flight.FlightDescriptor.for_command(descriptor(command).command)).schema
    assert schema.types == [pa.int64(), pa.string()]


def test_what_is_bound_to_all_prepared_statements_together_is_limited(serve: Serve) -> None:
    server = serve(ServerLimits(bound_bytes_total_max=1000))
    with flight.connect(f"grpc://127.0.0.1:{server.port}") as client:
        statements = [Prepared(RawClient(client), "SELECT ?") for _ in range(2)]
        statements[0].bind(pa.table({"x": ["a" * 600]}))
        with pytest.raises(pa.ArrowInvalid, match="bound_bytes_total_max is 1000 bytes"):
            statements[1].bind(pa.table({"x": ["b" * 600]}))
        statements[0].bind(pa.table({"x": ["a"]}))  # in the place of the other one
        statements[1].bind(pa.table({"x": ["b" * 600]}))
        assert statements[1].rows().num_rows == 1
