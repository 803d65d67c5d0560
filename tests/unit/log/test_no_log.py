"""`NoLog`: it waits while it is followed, and is over once it is closed."""

from __future__ import annotations

from uuid import uuid4

import pytest

from flight_replica.errors import Closed
from flight_replica.log.no_log import NoLog
from tests.bases import ID_V


def test_a_closed_log_ends_its_stream_and_cannot_be_followed_again() -> None:
    log = NoLog(uuid4(), ID_V)
    stream = log.follow(7)
    log.close()
    assert list(stream) == []
    with pytest.raises(Closed):
        log.follow(7)
    with pytest.raises(Closed):
        log.stream(7)
