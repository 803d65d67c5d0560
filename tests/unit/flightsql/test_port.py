"""A port changes hands: it can be seen whether somebody listens, and one of this process be stopped."""

from __future__ import annotations

import socket
from contextlib import closing

import pytest

from flight_replica.errors import Unavailable
from flight_replica.flightsql.port import check_free, stop_listening, wait_until_free


@pytest.mark.parametrize(("listens_at", "named"), [("127.0.0.1", "localhost"), ("0.0.0.0", "0.0.0.0")])
def test_a_listener_of_this_process_is_stopped_and_keeps_its_connections(listens_at: str, named: str) -> None:
    with closing(socket.create_server((listens_at, 0))) as listener:
        address = (named, int(listener.getsockname()[1]))
        with pytest.raises(OSError, match="in use"):
            check_free(address)
        with pytest.raises(Unavailable, match="in use"):
            wait_until_free(address, 0.01)
        with closing(socket.create_connection(("127.0.0.1", address[1]), 10)) as client:
            served, _ = listener.accept()
            with closing(served):
                assert stop_listening(address)
                wait_until_free(address, 10)
                check_free(address)
                served.sendall(b"on")
                assert client.recv(2) == b"on"
        assert not stop_listening(address)


def test_others_go_on_listening() -> None:
    with (
        closing(socket.create_server(("127.0.0.1", 0))) as one,
        closing(socket.create_server(("127.0.0.1", 0))) as other,
    ):
        assert stop_listening(one.getsockname())
        socket.create_connection(other.getsockname(), 10).close()
