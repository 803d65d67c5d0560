"""What Python has of gRPC's threads: kept for a call, and gone with it."""

from __future__ import annotations

import threading
import weakref

import pyarrow as pa
import pytest
from pyarrow import flight

from flight_replica.flightsql.calls import Call
from flight_replica.flightsql.server import FlightSqlServer
from tests.integration.flightsql.clients import RawClient, wait_until
from tests.integration.flightsql.test_cancel import OUTER_SECONDS, client_of


class Kept:
    """Something that a thread keeps."""


Seen = list["weakref.ref[Kept] | None"]  # a call that has ended -> what its thread had; None: nothing


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Seen:
    """What each thread still had at its call's end of what it was given at the headers of the reply."""
    local, seen = threading.local(), Seen()
    sending_headers, call_completed = Call.sending_headers, Call.call_completed

    def beginning(self: Call) -> dict[str, str]:
        local.kept = Kept()
        return sending_headers(self)

    def ending(self: Call, exception: Exception | None) -> None:
        seen.append(weakref.ref(local.kept) if hasattr(local, "kept") else None)
        call_completed(self, exception)

    monkeypatch.setattr(Call, "sending_headers", beginning)
    monkeypatch.setattr(Call, "call_completed", ending)
    return seen


def test_a_thread_keeps_its_state_for_a_call_and_no_longer(server: FlightSqlServer, seen: Seen) -> None:
    with client_of(server) as client:
        raw = RawClient(client)
        rows = [raw.rows(f"SELECT * FROM orders WHERE id = {number}") for number in (1, 2, 3)]
        assert pa.concat_tables(rows).column("id").to_pylist() == [1, 2, 3]
        with pytest.raises(KeyError):
            raw.rows("SELECT * FROM nothing")
    wait_until(lambda: len(seen) == 7, OUTER_SECONDS)
    assert None not in seen
    wait_until(lambda: all(kept is None or kept() is None for kept in seen), OUTER_SECONDS)


def test_a_call_that_is_refused_keeps_nothing(
    server: FlightSqlServer, seen: Seen, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: list[Call] = []
    monkeypatch.setattr(Call, "hold_thread", held.append)
    server.drain()
    with client_of(server) as client, pytest.raises(flight.FlightUnavailableError):
        RawClient(client).rows("SELECT 1")
    assert (seen, held) == ([], [])
