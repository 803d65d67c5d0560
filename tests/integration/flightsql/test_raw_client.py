"""Pins, streams, changes and errors, seen by a bare Flight client."""

from __future__ import annotations

import json
import threading
import time
from uuid import UUID

import pyarrow as pa
import pytest
from pyarrow import flight

from flight_replica._pb import flight_sql_pb2 as pb
from flight_replica.errors import Unavailable
from flight_replica.flightsql.commands import pack, unpack
from flight_replica.flightsql.limits import ServerLimits
from flight_replica.log.wire import decode_log_gap, decode_mark, decode_positions
from tests.integration.flightsql.clients import RawClient, descriptor, wait_until
from tests.integration.flightsql.conftest import Serve
from tests.integration.flightsql.memory_service import CLOCK_US, MemoryService

# Takes hours: joins 1e14 pairs, in a plan that an interrupt ends at any time.
ENDLESS = (
    "SELECT sum(a.range * b.range) FROM range(10000000) a, range(10000000) b "
    "WHERE a.range % 7 <> b.range % 11"
)


def _order(order_id: int) -> pa.Table:
    return pa.table({"id": [order_id], "item": ["new"], "price": [0.5]})


def _fill(service: MemoryService, count: int) -> None:
    ids = pa.array(range(100, 100 + count), pa.int64())
    service.put(
        "orders", pa.table({"id": ids, "item": pa.array(["x" * 100] * count), "price": ids.cast("float64")})
    )


# --- pins -------------------------------------------------------------------------------------------


def test_a_write_between_plan_and_fetch_is_not_seen(raw: RawClient, service: MemoryService) -> None:
    info = raw.info("SELECT id FROM orders")
    service.put("orders", _order(4))
    (position,), mark = decode_positions(info.app_metadata)
    assert (position.table, position.visible_seq, mark) == ("orders", 3, None)
    assert sorted(raw.open(info).read_all()["id"].to_pylist()) == [1, 2, 3]
    assert raw.rows("SELECT count(*) AS n FROM orders")["n"].to_pylist() == [4]


def test_the_same_position_stands_in_info_schema_and_stream(raw: RawClient) -> None:
    info = raw.info("SELECT id FROM Orders")
    stream = raw.open(info)
    told = json.loads(stream.schema.metadata[b"merutable.position"])
    assert told == json.loads(info.schema.metadata[b"merutable.position"])
    (position,), _ = decode_positions(info.app_metadata)
    assert told == {"tables": [position.as_json()]}


def test_a_pin_goes_when_the_stream_ends_fails_or_is_dropped(raw: RawClient, service: MemoryService) -> None:
    raw.rows("SELECT id FROM orders")
    wait_until(lambda: service.open_views == 0)
    with pytest.raises(pa.ArrowInvalid):
        raw.rows("SELECT item::INT FROM orders")
    wait_until(lambda: service.open_views == 0)
    _fill(service, 200_000)
    stream = raw.open(raw.info("SELECT * FROM orders"))
    stream.read_chunk()
    assert service.open_views == 1
    stream.cancel()
    wait_until(lambda: service.open_views == 0)


def test_a_plan_that_fails_leaves_no_pin(raw: RawClient, service: MemoryService) -> None:
    with pytest.raises(pa.ArrowInvalid, match="nope"):
        raw.info("SELECT nope FROM orders")
    assert service.open_views == 0


def test_an_unfetched_plan_lets_go_and_is_then_not_found(serve: Serve, service: MemoryService) -> None:
    server = serve(ServerLimits(planned_seconds=0.05))
    with flight.connect(f"grpc://127.0.0.1:{server.port}") as client:
        raw = RawClient(client)
        info = raw.info("SELECT id FROM orders")
        assert service.open_views == 1
        wait_until(lambda: service.open_views == 0)
        with pytest.raises(pa.ArrowKeyError, match="planned_seconds"):
            raw.open(info).read_all()


def test_a_ticket_is_good_for_one_fetch_and_cannot_be_forged(raw: RawClient) -> None:
    info = raw.info("SELECT id FROM orders")
    raw.open(info).read_all()
    with pytest.raises(pa.ArrowKeyError, match="fetched already"):
        raw.open(info).read_all()
    forged = pack(pb.TicketStatementQuery(statement_handle=b"\0" * 16))
    with pytest.raises(pa.ArrowKeyError, match="unknown"):
        raw.client.do_get(flight.Ticket(forged)).read_all()
    with pytest.raises(pa.ArrowInvalid, match="protobuf Any"):
        raw.client.do_get(flight.Ticket(b"\xff\xff")).read_all()
    with pytest.raises(pa.ArrowKeyError, match="prepared statement is unknown"):
        raw.command(pb.CommandPreparedStatementQuery(prepared_statement_handle=b"guess"))


def test_a_closed_prepared_statement_is_not_found(raw: RawClient) -> None:
    (body,) = raw.act(
        "CreatePreparedStatement", pb.ActionCreatePreparedStatementRequest(query="SELECT 1 AS one")
    )
    handle = unpack(body, "the result").prepared_statement_handle
    command = pb.CommandPreparedStatementQuery(prepared_statement_handle=handle)
    assert raw.open(raw.command(command)).read_all().to_pylist() == [{"one": 1}]
    raw.act(
        "ClosePreparedStatement", pb.ActionClosePreparedStatementRequest(prepared_statement_handle=handle)
    )
    with pytest.raises(pa.ArrowKeyError, match="closed"):
        raw.command(command)


# --- streams ----------------------------------------------------------------------------------------


def test_a_big_result_streams_in_batches_of_at_most_two_mib(raw: RawClient, service: MemoryService) -> None:
    _fill(service, 100_000)
    stream = raw.open(raw.info("SELECT * FROM orders"))
    sizes = [(chunk.data.num_rows, chunk.data.nbytes) for chunk in stream]
    assert sum(rows for rows, _ in sizes) == 100_003
    assert max(size for _, size in sizes) <= 2 << 20


def test_the_first_batch_comes_long_before_the_query_has_ended(raw: RawClient) -> None:
    stream = raw.open(raw.info("SELECT range AS n FROM range(10000000) WHERE range % 3 <> 1"))
    began = time.monotonic()
    stream.read_chunk()
    first = time.monotonic() - began
    for _ in stream:
        pass
    assert first < (time.monotonic() - began) / 2


def test_enum_columns_are_sent_as_text(raw: RawClient) -> None:
    found = raw.rows("SELECT 'a'::ENUM('a', 'b') AS e, ['b'::ENUM('a', 'b')] AS l, 1::UTINYINT AS n")
    assert found.schema.types[0] == pa.string() and found.schema.types[2] == pa.uint8()
    assert found.to_pylist() == [{"e": "a", "l": ["b"], "n": 1}]


def test_sessions_are_at_utc(raw: RawClient) -> None:
    found = raw.rows(
        "SELECT TIMESTAMPTZ '2020-06-01 12:00:00' AS t, hour(TIMESTAMPTZ '2020-06-01 12:00:00+02') AS h"
    )
    assert found.schema.field("t").type == pa.timestamp("us", "UTC")
    assert found["h"].to_pylist() == [10]


def test_explain_analyze_runs_when_it_is_fetched(raw: RawClient) -> None:
    info = raw.info("EXPLAIN ANALYZE SELECT * FROM orders")
    assert info.schema.names == ["explain_key", "explain_value"]
    assert raw.open(info).read_all()["explain_key"].to_pylist() == ["analyzed_plan"]


# --- cancel, deadlines, limits ----------------------------------------------------------------------


def test_a_cancelled_query_is_interrupted_within_a_second(
    raw: RawClient, service: MemoryService, query_begins: threading.Event
) -> None:
    stream = raw.open(raw.info(ENDLESS))
    assert query_begins.wait(5)
    stream.cancel()
    assert wait_until(lambda: service.open_views == 0) < 1.0


def test_a_statement_over_its_time_is_ended_with_the_limit_named(
    serve: Serve, service: MemoryService
) -> None:
    server = serve(ServerLimits(statement_seconds=0.2))
    with flight.connect(f"grpc://127.0.0.1:{server.port}") as client:
        began = time.monotonic()
        with pytest.raises(flight.FlightTimedOutError, match=r"statement_seconds, 0\.2 s"):
            RawClient(client).rows(ENDLESS)
        assert time.monotonic() - began < 1.2
        wait_until(lambda: service.open_views == 0)


def test_a_client_that_reads_nothing_loses_its_view_at_the_deadline(
    serve: Serve, service: MemoryService
) -> None:
    _fill(service, 400_000)  # more than the sockets between hold
    server = serve(ServerLimits(statement_seconds=0.3))
    with flight.connect(f"grpc://127.0.0.1:{server.port}") as client:
        raw = RawClient(client)
        stream = raw.open(raw.info("SELECT * FROM orders"))
        wait_until(lambda: service.open_views == 0)
        with pytest.raises(flight.FlightTimedOutError, match="statement_seconds"):
            stream.read_all()


def test_a_query_waits_for_its_turn_and_is_then_told_to_try_again(
    serve: Serve, service: MemoryService
) -> None:
    server = serve(ServerLimits(queries_max=1, query_wait_seconds=0.1))
    with flight.connect(f"grpc://127.0.0.1:{server.port}") as client:
        raw = RawClient(client)
        first = raw.open(raw.info(ENDLESS))
        with pytest.raises(flight.FlightUnavailableError, match="queries_max: all 1 are in use"):
            wait_until(lambda: raw.rows("SELECT 1") is None)
        first.cancel()
        wait_until(lambda: service.open_views == 0)
        assert raw.rows("SELECT 1 AS one").to_pylist() == [{"one": 1}]


def test_open_plans_and_prepared_statements_are_limited(serve: Serve) -> None:
    server = serve(ServerLimits(planned_max=1, prepared_max=1))
    with flight.connect(f"grpc://127.0.0.1:{server.port}") as client:
        raw = RawClient(client)
        raw.info("SELECT 1")
        with pytest.raises(flight.FlightUnavailableError, match=r"planned_max.*\(retryable\)"):
            raw.info("SELECT 1")
        request = pb.ActionCreatePreparedStatementRequest(query="SELECT 1")
        raw.act("CreatePreparedStatement", request)
        with pytest.raises(pa.ArrowInvalid, match="prepared_max"):
            raw.act("CreatePreparedStatement", request)


def test_the_wait_for_a_place_is_part_of_a_statements_time(serve: Serve, service: MemoryService) -> None:
    server = serve(ServerLimits(queries_max=1))
    with flight.connect(f"grpc://127.0.0.1:{server.port}") as client:
        raw = RawClient(client)
        first = raw.open(raw.info(ENDLESS))
        wait_until(lambda: server.stats.queries == 1)
        with pytest.raises(flight.FlightTimedOutError, match="statement_timeout_ms, 200 ms"):
            raw.rows("SELECT 1", merutable_statement_timeout_ms="200")
        first.cancel()
        wait_until(lambda: service.open_views == 0)


def test_calls_that_are_not_served_say_what_is(raw: RawClient) -> None:
    with pytest.raises(pa.ArrowNotImplementedError, match="ListFlights isn't served here"):
        list(raw.client.list_flights())
    writer, reader = raw.client.do_exchange(descriptor(pb.CommandStatementQuery(query="SELECT 1")))
    writer.done_writing()
    with pytest.raises(pa.ArrowNotImplementedError, match="DoExchange isn't served here"):
        reader.read_chunk()


def test_close_ends_running_queries_and_follow_streams_at_once(serve: Serve, service: MemoryService) -> None:
    server = serve()
    with flight.connect(f"grpc://127.0.0.1:{server.port}") as client:
        raw = RawClient(client)
        query = raw.open(raw.info(ENDLESS))
        follow = raw.open(raw.info("SELECT * FROM merutable_changes('orders', 0, follow := true)"))
        follow.read_chunk()
        began = time.monotonic()
        server.close()
        assert time.monotonic() - began < 2.0
        for stream in (query, follow):
            with pytest.raises(flight.FlightUnavailableError, match="shutting down"):
                stream.read_all()
    assert not [t for t in threading.enumerate() if t.name.startswith("flight-")]
    assert service.open_views == 0


# --- changes ----------------------------------------------------------------------------------------


def test_bounded_changes_carry_their_mark_and_end_where_they_were_planned(
    raw: RawClient, service: MemoryService
) -> None:
    info = raw.info("SELECT * FROM merutable_changes('orders', 1)")
    service.put("orders", _order(4))
    _, mark = decode_positions(info.app_metadata)
    assert mark is not None and (mark.after, mark.through, mark.high_water) == (1, 3, 3)
    found = raw.open(info).read_all()
    assert found["seq"].to_pylist() == [2, 3]
    assert found.schema.field("pk_bytes") == pa.field("pk_bytes", pa.binary(), False)
    assert json.loads(found.schema.metadata[b"merutable.primary_key"]) == ["id"]


def test_changes_in_sql_say_how_far_they_go(raw: RawClient, service: MemoryService) -> None:
    info = raw.info("SELECT count(*) AS n FROM merutable_changes('Orders', 1)")
    service.put("orders", _order(4))
    (at,), _ = decode_positions(info.app_metadata)
    assert (at.table, at.visible_seq) == ("orders", 3)
    rows = raw.open(info).read_all()
    assert rows.to_pylist() == [{"n": 2}]
    assert json.loads(rows.schema.metadata[b"merutable.position"])["tables"][0]["visible_seq"] == 3


def test_a_table_column_named_as_the_feeds_own_renames_those_in_sql_only(
    raw: RawClient, service: MemoryService
) -> None:
    service.put("odd", pa.table({"seq": pa.array([7, 8], pa.int32()), "op": ["p", "q"]}))
    whole = raw.rows("SELECT * FROM merutable_changes('odd', 0)")
    assert whole.column_names == ["seq", "op", "pk_bytes", "seq", "op"]
    in_sql = raw.rows("SELECT _seq, _op, seq, op FROM merutable_changes('odd', 0) WHERE _seq > 1 AND seq > 0")
    assert in_sql.to_pylist() == [{"_seq": 2, "_op": "INSERT", "seq": 8, "op": "q"}]


def test_the_lineage_header_is_checked(raw: RawClient, service: MemoryService) -> None:
    sql = "SELECT * FROM merutable_changes('orders', 0)"
    right = str(service.tables_by_name["orders"].lineage)
    assert raw.rows(sql, merutable_lineage=right).num_rows == 3
    with pytest.raises(flight.FlightServerError, match="has lineage") as found:
        raw.info(sql, merutable_lineage=str(UUID(int=1)))
    gap = decode_log_gap(found.value.extra_info)
    assert gap is not None and str(gap.lineage) == right
    with pytest.raises(pa.ArrowInvalid, match="no UUID"):
        raw.info(sql, merutable_lineage="x")


def test_a_gap_has_its_details_at_plan_and_at_fetch(raw: RawClient, service: MemoryService) -> None:
    planned = raw.info("SELECT * FROM merutable_changes('orders', 0)")
    in_sql = raw.info("SELECT count(*) FROM merutable_changes('orders', 0)")
    service.put("orders", _order(4))
    service.tables_by_name["orders"].log.trim(3)
    for fails in (
        lambda: raw.open(planned).read_all(),
        lambda: raw.open(in_sql).read_all(),
        lambda: raw.info("SELECT * FROM merutable_changes('orders', 0)"),
    ):
        with pytest.raises(flight.FlightServerError, match="keeps ops after 3 only") as found:
            fails()
        gap = decode_log_gap(found.value.extra_info)
        assert gap is not None and (gap.requested, gap.earliest_available) == (0, 3)
        assert "Traceback" not in str(found.value)


def test_a_follow_stream_gives_commits_as_they_happen_and_heartbeats(
    raw: RawClient, service: MemoryService
) -> None:
    stream = raw.open(raw.info("SELECT * FROM merutable_changes('Orders', 2, follow := true)"))
    first = stream.read_chunk()
    assert first.data["seq"].to_pylist() == [3]
    position = decode_mark(first.app_metadata.to_pybytes()).through
    heartbeat = stream.read_chunk()
    assert heartbeat.data.num_rows == 0
    service.put("orders", _order(4))
    while position < 4:
        chunk = stream.read_chunk()
        mark = decode_mark(chunk.app_metadata.to_pybytes())
        assert mark.after == position
        position = mark.through
    assert chunk.data["seq"].to_pylist() == [4]
    stream.cancel()


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT seq FROM merutable_changes('orders', 0, follow := true)",
        "SELECT * FROM merutable_changes('orders', 0, follow := true) LIMIT 1",
        "SELECT * FROM merutable_changes('orders', 0, follow := true) AS c WHERE seq > 1",
        "EXPLAIN SELECT * FROM merutable_changes('orders', 0, follow := true)",
        "SELECT * FROM merutable_changes('orders')",
        "SELECT * FROM merutable_changes('orders', -1)",
        "SELECT * FROM merutable_changes('orders', 'x')",
        "SELECT * FROM merutable_changes('orders', 0, behind := true)",
        "SELECT * FROM merutable_clock(1)",
        "SELECT * FROM merutable_digest('orders', 'zz')",
    ],
)
def test_other_forms_are_invalid(raw: RawClient, sql: str) -> None:
    with pytest.raises(pa.ArrowInvalid) as found:
        raw.info(sql)
    assert "Traceback" not in str(found.value)


def test_tables_status_and_clock_say_what_is_served(raw: RawClient, service: MemoryService) -> None:
    tables = raw.rows("SELECT * FROM merutable_tables()")
    columns = "table_name lineage table_uuid primary_key low_water high_water commit_time"
    columns += " base_kind base_uri base_version base_seq"
    assert " ".join(tables.schema.names) == columns
    orders = tables.to_pylist()[0]
    assert (orders["table_name"], orders["primary_key"], orders["high_water"]) == ("orders", ["id"], 3)
    assert raw.rows("SELECT lag_ms FROM merutable_status() WHERE state = 'serving'").num_rows == 2
    assert raw.rows("SELECT epoch_us(now) AS us FROM merutable_clock()")["us"].to_pylist() == [CLOCK_US]
    assert raw.rows("SHOW TABLES")["name"].to_pylist() == ["odd", "orders"]


def test_a_digest_belongs_to_the_pinned_view(raw: RawClient, service: MemoryService) -> None:
    info = raw.info("SELECT * FROM merutable_digest('ORDERS')")
    service.put("orders", _order(4))
    (before,) = raw.open(info).read_all().to_pylist()
    assert (before["table_name"], before["seq"], before["row_count"]) == ("orders", 3, 3)
    key = "8000000000000004"
    whole = raw.rows("SELECT * FROM merutable_digest('orders')").to_pylist()[0]
    low = raw.rows(f"SELECT * FROM merutable_digest('orders', '', '{key}')").to_pylist()[0]
    high = raw.rows(f"SELECT * FROM merutable_digest('orders', '{key}')").to_pylist()[0]
    assert low["digest"] == before["digest"] and high["row_count"] == 1
    assert whole["digest"] == (low["digest"] + high["digest"]) % 2**64


# --- writes and errors ------------------------------------------------------------------------------


def test_a_put_says_its_count_and_runs_once(raw: RawClient, service: MemoryService) -> None:
    command = descriptor(pb.CommandStatementUpdate(query="INSERT INTO orders VALUES (4, 'd', 1.0)"))
    writer, reader = raw.client.do_put(command, pa.schema([]))
    writer.done_writing()
    result = pb.DoPutUpdateResult()
    result.ParseFromString(reader.read().to_pybytes())
    writer.close()
    assert (result.record_count, service.writes_total) == (1, 1)


def test_a_table_that_is_not_ready_is_unavailable(
    raw: RawClient, service: MemoryService, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise Unavailable("table 'orders' is loading")

    monkeypatch.setattr(service, "open_view", refuse)
    with pytest.raises(flight.FlightUnavailableError, match="table 'orders' is loading"):
        raw.info("SELECT * FROM orders")


def test_an_error_that_is_not_ours_is_told_by_an_id_and_logged(
    raw: RawClient, service: MemoryService, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("a secret path /etc")

    monkeypatch.setattr(service, "open_view", fail)
    with pytest.raises(flight.FlightInternalError, match=r"internal error [0-9a-f]{16}") as found:
        raw.info("SELECT * FROM orders")
    assert "secret" not in str(found.value)
    (record,) = caplog.records
    assert record.exc_info is not None and "secret path" in str(record.exc_info[1])


def test_a_long_error_with_signs_beyond_ascii_still_arrives(raw: RawClient) -> None:
    with pytest.raises(pa.ArrowInvalid, match="é"):
        raw.info(f'SELECT "{"é" * 3000}" FROM orders')


@pytest.mark.parametrize("name", ["BeginSavepoint", "EndSavepoint"])
def test_actions_that_are_not_served_are_unimplemented(raw: RawClient, name: str) -> None:
    with pytest.raises(pa.ArrowNotImplementedError, match=f"{name} isn't served"):
        list(raw.client.do_action((name, b"")))


def test_unknown_actions_paths_and_commands_are_refused_clearly(raw: RawClient) -> None:
    with pytest.raises(pa.ArrowInvalid, match="no action 'Dance'"):
        list(raw.client.do_action(("Dance", b"")))
    with pytest.raises(pa.ArrowInvalid, match="takes commands"):
        raw.client.get_flight_info(flight.FlightDescriptor.for_path("orders"))
    with pytest.raises(pa.ArrowInvalid, match="no type"):
        raw.client.get_flight_info(flight.FlightDescriptor.for_command(b""))
    with pytest.raises(pa.ArrowNotImplementedError, match="CommandStatementSubstraitPlan"):
        raw.command(pb.CommandStatementSubstraitPlan())
    listed = {action.type for action in raw.client.list_actions()}
    assert {"CreatePreparedStatement", "ClosePreparedStatement", "CloseSession"} <= listed


def test_get_schema_tells_what_the_rows_will_be(raw: RawClient, service: MemoryService) -> None:
    result = raw.client.get_schema(descriptor(pb.CommandStatementQuery(query="SELECT id FROM orders")))
    assert result.schema.names == ["id"]
    assert service.open_views == 0
    with pytest.raises(pa.ArrowKeyError, match="nope"):
        raw.client.get_schema(descriptor(pb.CommandStatementQuery(query="SELECT * FROM nope")))
