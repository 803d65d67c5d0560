"""Blocking until a table is where a reader wants it. Who is resumed when: waiters.py."""

from __future__ import annotations

import time

from flight_replica.errors import Unavailable
from flight_replica.flightsql.service import Ending
from flight_replica.position import Demand
from flight_replica.replica.replica import Replica
from flight_replica.replica.waiters import Gate, Waiter

__all__ = ["wait_for"]


def wait_for(replica: Replica, demand: Demand, deadline: float, ending: Ending) -> None:
    """Return when `replica` meets `demand`, at `deadline` (monotonic seconds), or when `ending` has ended.

    Nothing is polled. Raises `Unavailable` where an age is demanded and the origin's clock isn't known,
    `Closed` when the replica is closed meanwhile.
    """
    gate = Gate()
    ending.on_end(gate.open)
    while not (demand.is_met_by(replica.describe()) or ending.is_ended or time.monotonic() >= deadline):
        _check_provable(replica, demand)
        waiter = _join(replica, demand, gate)
        try:
            # A proof may have come between the look above and the place in the queue.
            if not demand.is_met_by(replica.describe()):
                gate.wait(deadline - time.monotonic())
        finally:
            replica.waiters.leave(waiter)


def _check_provable(replica: Replica, demand: Demand) -> None:
    if demand.max_staleness_ms is not None and replica.origin_clock_us() is None:
        raise Unavailable(
            f"table {demand.table!r}: max_staleness_ms {demand.max_staleness_ms:g} can't be proven, since "
            "the offset to the origin's clock isn't known"
        )


def _join(replica: Replica, demand: Demand, gate: Gate) -> Waiter:
    """A place in the queue for what is missing first: the seq, then the age."""
    if replica.visible_seq < demand.min_seq:
        return replica.waiters.until_seq(demand.min_seq, gate.open)
    return replica.waiters.until_lag(demand.lag_us_max, gate.open)
