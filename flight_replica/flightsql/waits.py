"""Reads that wait: a view is opened, and opened again, until its own position meets what the client demands.

So what is promised is what the answer's position says. A waiting call holds a thread of the server; how many
may is a limit. Demands: options.py. How a table waits: the service.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from flight_replica.errors import TableNotFound, Unavailable
from flight_replica.flightsql.call import Call
from flight_replica.flightsql.limits import ServerLimits
from flight_replica.flightsql.observing import Phase
from flight_replica.flightsql.options import ReadOptions, Resolve
from flight_replica.flightsql.service import Known, Service
from flight_replica.position import Demand, TablePosition
from flight_replica.sql.key_filter import NO_KEYS, Keys
from flight_replica.sql.view import View

__all__ = ["Waits", "demands_of"]

T = TypeVar("T")


def demands_of(options: ReadOptions, tables: Sequence[str], resolve: Resolve) -> list[Demand]:
    """What the options demand of a read of `tables`. Raises `InvalidStatement`, `TableNotFound`."""
    seqs = options.min_seq.of(tables, resolve, "min_seq") if options.min_seq is not None else {}
    if options.max_staleness_ms is None:
        return [Demand(table, seq) for table, seq in seqs.items()]
    return [Demand(table, seqs.get(table, 0), options.max_staleness_ms) for table in tables]


class Waits:
    """The calls of one server that wait. Thread-safe."""

    def __init__(self, limits: ServerLimits) -> None:
        self._limits = limits
        self._lock = threading.Lock()
        self._waiting = 0

    @property
    def count(self) -> int:
        """Calls that wait now."""
        return self._waiting

    def open_view(
        self,
        service: Service,
        tables: Sequence[str],
        demands: Sequence[Demand],
        timeout_ms: float,
        call: Call,
        keys: Keys = NO_KEYS,
    ) -> View:
        """A view of `tables` that meets `demands`; `keys` as for `Service.open_view`.

        Raises `Unavailable` with the position reached when the time is up, or when too many wait.
        """

        def look() -> tuple[View, Sequence[TablePosition]]:
            view = service.open_view(tables, keys)
            return view, view.positions

        return self._until_met(service, look, View.close, demands, timeout_ms, call)

    def known(
        self,
        service: Service,
        table: str,
        key: Sequence[object] | None,
        demands: Sequence[Demand],
        timeout_ms: float,
        call: Call,
    ) -> Known | None:
        """As `Service.known`, once that meets `demands`. Raises as `open_view`."""

        def look() -> tuple[Known | None, Sequence[TablePosition]]:
            found = service.known(table, key)
            return found, () if found is None else [found.position]

        return self._until_met(service, look, lambda _: None, demands, timeout_ms, call)

    def until_met(
        self, service: Service, demands: Sequence[Demand], timeout_ms: float, call: Call
    ) -> Sequence[TablePosition]:
        """Wait for tables that no view reads; where all tables are then. Raises as `open_view`."""

        def look() -> tuple[Sequence[TablePosition], Sequence[TablePosition]]:
            positions = [entry.position for entry in service.tables()]
            return positions, positions

        return self._until_met(service, look, lambda _: None, demands, timeout_ms, call)

    def _until_met(
        self,
        service: Service,
        look: Callable[[], tuple[T, Sequence[TablePosition]]],
        drop: Callable[[T], None],
        demands: Sequence[Demand],
        timeout_ms: float,
        call: Call,
    ) -> T:
        """What `look` found when it met the demands, or None as soon as it finds nothing; what it found
        before is dropped."""
        if not demands:
            return look()[0]
        began = time.monotonic()
        deadline = began + timeout_ms / 1000
        while True:
            found, positions = look()
            if found is None:
                return found
            unmet = _unmet(demands, positions)
            if unmet is None:
                return found
            drop(found)
            demand, at = unmet
            if time.monotonic() >= deadline:
                raise Unavailable(demand.not_met(at, (time.monotonic() - began) * 1000))
            with self._place(), call.in_phase(Phase.WAITING):
                service.wait_for(demand, deadline - time.monotonic(), call)
            call.check()

    @contextmanager
    def _place(self) -> Iterator[None]:
        with self._lock:
            if self._waiting >= self._limits.waits_max:
                raise Unavailable(
                    f"{self._waiting} calls wait for a position already (waits_max); try again later, or "
                    "with wait_timeout_ms 0"
                )
            self._waiting += 1
        try:
            yield
        finally:
            with self._lock:
                self._waiting -= 1


def _unmet(
    demands: Sequence[Demand], positions: Sequence[TablePosition]
) -> tuple[Demand, TablePosition] | None:
    """A demand that isn't met, and where its table is."""
    by_table = {at.table: at for at in positions}
    for demand in demands:
        at = by_table.get(demand.table)
        if at is None:
            raise TableNotFound(f"there is no table {demand.table!r}")
        if not demand.is_met_by(at):
            return demand, at
    return None
