"""`ReplicaSteering`: what an operator can do with the tables of a replica."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

from flight_replica.base.on_demand import OnDemandBase
from flight_replica.control.steering import NewTable, Rebased, TableDetails
from flight_replica.errors import Closed, Paused, Unavailable, Unsupported
from flight_replica.log.no_log import NoLog
from flight_replica.replica.replica import Replica
from flight_replica.replica.service import ReplicaService
from flight_replica.replica.table import Origin, TableReplica

StateTable = Callable[[str, Mapping[str, str]], Origin]
"""The origin of a table that options state, checked. Raises `ConfigError` and what its base raises."""


class ReplicaSteering:
    """Implements `Steering` over a `ReplicaService`, which it doesn't own. Thread-safe."""

    def __init__(self, service: ReplicaService, state_table: StateTable | None = None) -> None:
        self._service = service
        self._state_table = state_table

    def details(self) -> Sequence[TableDetails]:
        return [details_of(table) for table in self._service.every_table()]

    def pause(self, table: str, by: str) -> None:
        self._service.table(table).pause(by)

    def resume(self, table: str) -> None:
        self._service.table(table).resume()

    def rebase(self, table: str) -> Rebased:
        found = self._service.table(table)
        replica = found.replica
        if replica.is_held:
            raise Paused(f"table {table!r} is paused; resume it first")
        began = time.monotonic()
        if isinstance(replica.base, OnDemandBase):
            replica.base.want(replica.visible_seq)
        replica.swaps.rebase_beside()
        rebased = _now(table, replica, time.monotonic() - began)
        found.look_now()  # a native state is to be made of it, where one is wanted
        return rebased

    def compact(self, table: str) -> Rebased:
        replica = self._service.table(table).replica
        began = time.monotonic()
        reason = replica.swaps.native_states.why_not(replica.state)
        if reason:
            raise Unsupported(f"table {table!r} {reason}; rebase it instead")
        replica.swaps.merge_on_apply()
        return _now(table, replica, time.monotonic() - began)

    def add(self, table: NewTable) -> None:
        if not table.options:
            self._service.add_followed(table.name)
            return
        if self._state_table is None:
            raise Unsupported(f"table {table.name!r}: this server takes no stated tables at run time")
        self._service.add_stated(table.name, self._state_table(table.name, table.options))

    def remove(self, table: str) -> None:
        self._service.remove(table)


def _now(table: str, replica: Replica, seconds: float) -> Rebased:
    return Rebased(table, replica.base_seq, replica.visible_seq, str(replica.state.kind), seconds)


def details_of(table: TableReplica) -> TableDetails:
    """How a table is held now; with nothing but its name until it can be read."""
    try:
        replica = table.replica
        state, stats = replica.state, replica.stats
    except (Unavailable, Closed):
        return TableDetails(table.name)
    progress = replica.swaps.native_states.progress
    return TableDetails(
        table.name,
        build=str(progress) if progress is not None else "",
        state_kind=str(state.kind),
        base_version=state.base_version,
        ops_applied=state.ops_applied,
        tail_bytes=state.tail_bytes,
        history_bytes=replica.history.held_bytes,
        rebase_count=stats.rebase_count,
        last_rebase_at_us=replica.swaps.last_rebase_at_us,
        last_rebase_seconds=stats.last_rebase_warmup_millis / 1000,
        waiting=len(replica.waiters),
        paused_by=table.paused_by,
        is_followed=not isinstance(replica.log, NoLog),
    )


class FixedSteering:
    """Implements `Steering` for a server whose tables only tell how they are."""

    def __init__(self, service: ReplicaService) -> None:
        self._service = service

    def details(self) -> Sequence[TableDetails]:
        return [details_of(table) for table in self._service.every_table()]

    def pause(self, table: str, by: str) -> None:
        raise self._unsupported(f"pause table {table!r}")

    def resume(self, table: str) -> None:
        raise self._unsupported(f"resume table {table!r}")

    def rebase(self, table: str) -> Rebased:
        raise self._unsupported(f"rebase table {table!r}")

    def compact(self, table: str) -> Rebased:
        raise self._unsupported(f"compact table {table!r}")

    def add(self, table: NewTable) -> None:
        raise self._unsupported("add a table")

    def remove(self, table: str) -> None:
        raise self._unsupported(f"remove table {table!r}")

    def _unsupported(self, what: str) -> Unsupported:
        return Unsupported(f"a {self._service.product} can't {what}: that is for a replica")
