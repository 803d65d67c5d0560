"""A server that writes down what its clients send: one line a call, in the order of arrival."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from google.protobuf.message import Message
from pyarrow import flight

from flight_replica.flightsql.commands import unpack
from flight_replica.flightsql.server import FlightSqlServer

RECORDINGS = Path(__file__).parents[2] / "clients" / "recordings"
RECORD = "FLIGHT_REPLICA_RECORD"  # set it to 1 to keep what is sent now as what is expected

# The base protocol's actions carry bare messages, not one of Flight SQL's.
_BARE_ACTIONS = frozenset({"SetSessionOptions", "GetSessionOptions", "CloseSession", "CancelFlightInfo"})
_TOLD_BY_HANDLERS = frozenset(
    {
        flight.FlightMethod.GET_FLIGHT_INFO,
        flight.FlightMethod.GET_SCHEMA,
        flight.FlightMethod.DO_GET,
        flight.FlightMethod.DO_PUT,
        flight.FlightMethod.DO_ACTION,
    }
)


class Calls:
    """The lines of all calls. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lines: list[str] = []

    def add(self, line: str) -> None:
        with self._lock:
            self._lines.append(line)

    @contextmanager
    def during(self) -> Iterator[list[str]]:
        """The list gets the lines of the calls that come in the block, at its end."""
        found: list[str] = []
        with self._lock:
            self._lines.clear()
        yield found
        with self._lock:
            found.extend(self._lines)


class _CallsWithoutCommand(flight.ServerMiddlewareFactory):  # type: ignore[misc]
    """Writes down the calls that no handler sees, with the kind of their credentials."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    def start_call(self, info: flight.CallInfo, headers: Mapping[str, Sequence[str]]) -> None:
        if info.method not in _TOLD_BY_HANDLERS:
            scheme = next((str(value).split()[0] for value in headers.get("authorization", ())), "nobody")
            self._calls.add(f"{info.method.name} {scheme}")


class _Recorded(flight.FlightServerBase):  # type: ignore[misc]
    """Stands below the server's own constructor, to add a middleware to its own ones."""

    calls: Calls

    def __init__(self, *arguments: object, middleware: Mapping[str, object], **options: object) -> None:
        given = {**middleware, "recording": _CallsWithoutCommand(self.calls)}
        super().__init__(*arguments, middleware=given, **options)


class RecordingServer(FlightSqlServer, _Recorded):
    """The real server; each handler first writes down its command."""

    def __init__(self, *arguments: object) -> None:
        self.calls = Calls()
        super().__init__(*arguments)  # type: ignore[arg-type]

    def get_flight_info(
        self, context: flight.ServerCallContext, descriptor: flight.FlightDescriptor
    ) -> flight.FlightInfo:
        self.calls.add(f"GetFlightInfo {_told(descriptor.command)}")
        return super().get_flight_info(context, descriptor)

    def get_schema(
        self, context: flight.ServerCallContext, descriptor: flight.FlightDescriptor
    ) -> flight.SchemaResult:
        self.calls.add(f"GetSchema {_told(descriptor.command)}")
        return super().get_schema(context, descriptor)

    def do_get(self, context: flight.ServerCallContext, ticket: flight.Ticket) -> flight.FlightDataStream:
        self.calls.add(f"DoGet {_told(ticket.ticket)}")
        return super().do_get(context, ticket)

    def do_put(
        self,
        context: flight.ServerCallContext,
        descriptor: flight.FlightDescriptor,
        reader: flight.MetadataRecordBatchReader,
        writer: flight.FlightMetadataWriter,
    ) -> None:
        self.calls.add(f"DoPut {_told(descriptor.command)}")
        super().do_put(context, descriptor, reader, writer)

    def do_action(self, context: flight.ServerCallContext, action: flight.Action) -> Iterator[flight.Result]:
        if action.type in _BARE_ACTIONS:
            self.calls.add(f"DoAction {action.type}")
        else:
            self.calls.add(f"DoAction {action.type}: {_told(action.body.to_pybytes())}")
        return super().do_action(context, action)


def _told(packed: bytes) -> str:
    """The message's name and which of its fields are set."""
    message: Message = unpack(packed, "a client's message")
    fields = " ".join(field.name for field, _ in message.ListFields())
    return f"{message.DESCRIPTOR.name}({fields})"


def check_recording(client: str, operation: str, lines: list[str]) -> None:
    """Compare with what is kept of this client; or keep it, where `RECORD` is set."""
    path = RECORDINGS / f"{client}.json"
    kept = json.loads(path.read_text()) if path.exists() else {}
    if os.environ.get(RECORD) == "1":
        kept[operation] = lines
        path.write_text(json.dumps(kept, indent=1, sort_keys=True) + "\n")
    assert lines == kept.get(operation), f"{client} does {operation} in another way; see {path.name}"
