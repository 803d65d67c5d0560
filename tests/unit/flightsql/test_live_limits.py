"""Limits of a running server change, and count for what comes."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

import pytest

from flight_replica.errors import Busy
from flight_replica.flightsql.call import Call
from flight_replica.flightsql.limits import DEFAULT_LIMITS, LiveLimits, ServerLimits
from flight_replica.flightsql.slots import Slots


class _Waits:
    """The part of a call that its place is taken for."""

    def check(self) -> None:
        """It may go on."""

    @contextmanager
    def in_phase(self, phase: object) -> Iterator[None]:
        yield


CALL = cast(Call, _Waits())


def test_a_higher_limit_lets_in_who_waits_and_a_lower_one_nobody_more() -> None:
    limits = LiveLimits(ServerLimits(queries_max=1, query_wait_seconds=30.0))
    slots = Slots("queries_max", lambda: limits.queries_max, lambda: limits.query_wait_seconds)
    slots.take(CALL)
    waiting = threading.Thread(target=slots.take, args=(CALL,))
    waiting.start()
    limits.change(ServerLimits(queries_max=2, query_wait_seconds=0.0))
    waiting.join(30)
    assert slots.in_use == 2
    limits.change(ServerLimits(queries_max=1, query_wait_seconds=0.0))
    slots.give_back()
    with pytest.raises(Busy, match="queries_max: all 1 are in use"):
        slots.take(CALL)
    slots.give_back()
    slots.take(CALL)


def test_the_defaults_are_nobody_s_to_change() -> None:
    limits = LiveLimits(DEFAULT_LIMITS)
    limits.change(ServerLimits(pins_max=1))
    assert (limits.pins_max, DEFAULT_LIMITS.pins_max) == (1, 32)
