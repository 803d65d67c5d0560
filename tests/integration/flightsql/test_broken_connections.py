"""What the server does when the network between breaks."""

from __future__ import annotations

import pyarrow as pa
import pytest
from pyarrow import flight

from flight_replica._pb import flight_sql_pb2 as pb
from flight_replica.errors import TimedOut
from flight_replica.flightsql.service import Ending, IngestMode, WriteResult
from tests.faults import TcpProxy
from tests.integration.flightsql.clients import RawClient, descriptor, wait_until
from tests.integration.flightsql.conftest import Serve
from tests.integration.flightsql.memory_service import MemoryService


def test_an_ingestion_cut_off_in_its_middle_writes_nothing(
    serve: Serve, service: MemoryService, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches: list[pa.RecordBatch] = []
    errors: list[Exception] = []

    def ingest(table: str, mode: IngestMode, data: pa.RecordBatchReader, ending: Ending) -> WriteResult:
        try:
            batches.extend(data)
        except Exception as error:
            errors.append(error)
            raise
        return WriteResult(0, table, 0)

    monkeypatch.setattr(service, "ingest", ingest)
    options = pb.CommandStatementIngest.TableDefinitionOptions(if_not_exist=2, if_exists=2)
    command = pb.CommandStatementIngest(table="orders", table_definition_options=options)
    batch = pa.record_batch({"id": [4], "item": ["d"], "price": [1.0]})
    with TcpProxy(serve().port) as proxy, flight.connect(f"grpc://127.0.0.1:{proxy.port}") as client:
        writer, _ = client.do_put(descriptor(command), batch.schema)
        writer.write_batch(batch)
        wait_until(lambda: len(batches) == 1)
        proxy.cut()
        wait_until(lambda: len(errors) == 1)
        with pytest.raises(flight.FlightError):
            writer.close()
    assert "went away" in str(errors[0]) or isinstance(errors[0], TimedOut)


def test_a_cut_connection_lets_go_of_the_view(serve: Serve, service: MemoryService) -> None:
    with TcpProxy(serve().port) as proxy, flight.connect(f"grpc://127.0.0.1:{proxy.port}") as client:
        raw = RawClient(client)
        stream = raw.open(raw.info("SELECT range AS n FROM range(10000000)"))
        stream.read_chunk()
        assert service.open_views == 1
        proxy.cut()
        assert wait_until(lambda: service.open_views == 0) < 1.0
        with pytest.raises(flight.FlightError):
            stream.read_all()
