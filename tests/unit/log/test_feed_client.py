"""Errors of a Flight call, in our tree."""

from __future__ import annotations

import pytest
from pyarrow import flight

from flight_replica.errors import Unavailable
from flight_replica.log.feed_client import in_our_terms


@pytest.mark.parametrize("added", ["", ". Detail: Failed", ". Detail: Unavailable"])
def test_what_pyarrow_appends_to_a_text_is_left_out(added: str) -> None:
    found = in_our_terms(flight.FlightUnavailableError(f"waited for seq 7{added}"), "grpc://h:1")
    assert isinstance(found, Unavailable)
    assert str(found) == "grpc://h:1: waited for seq 7"
