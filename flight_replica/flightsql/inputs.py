"""`Inputs`: what a checked statement reads, as the server spells it, and where that has to be before it does.

Tables are read by views, which are opened where they have to be (reads.py); feeds and the server's own
relations are waited for here.
"""

from __future__ import annotations

import time
from uuid import UUID

import pyarrow as pa

from flight_replica.errors import TableNotFound
from flight_replica.flightsql.call import Call
from flight_replica.flightsql.functions import (
    CHANGES,
    WAIT,
    Relation,
    changes_of,
    digest_table,
    ready,
    relation,
    served_name,
    wait_of,
    wait_rows,
)
from flight_replica.flightsql.options import ReadOptions
from flight_replica.flightsql.service import Service
from flight_replica.flightsql.waits import Waits, demands_of
from flight_replica.position import Demand
from flight_replica.sql.sandbox import Checked, TableFunction


class Inputs:
    """Of the statements on one service. Thread-safe."""

    def __init__(self, service: Service, waits: Waits) -> None:
        self._service = service
        self._waits = waits

    # --- tables -----------------------------------------------------------------------------------

    def resolve(self, name: str) -> str | None:
        """The served table that a name stands for as it is spelled."""
        return served_name(self._service, name)

    def served(self, name: str) -> str:
        """As `resolve`. Raises `TableNotFound`."""
        served = self.resolve(name)
        if served is None:
            raise TableNotFound(f"table '{name}' isn't served here")
        return served

    def tables(self, checked: Checked) -> list[str]:
        """The tables to pin, each once, as the server spells them."""
        names = dict.fromkeys(checked.tables)
        for function in checked.functions:
            spelled = digest_table(function)
            if spelled is not None:
                names[self.resolve(spelled) or spelled] = None
        return list(names)

    def feeds(self, checked: Checked) -> list[str]:
        """The tables whose changes are read, as the server spells them."""
        changes = [changes_of(function) for function in checked.functions if function.name == CHANGES]
        return [self.served(found.table) for found in changes if not found.is_follow]

    # --- demands ----------------------------------------------------------------------------------

    def demands(self, checked: Checked, options: ReadOptions) -> list[Demand]:
        """What the client demands of all that is read."""
        if options.min_seq is None and options.max_staleness_ms is None:
            return []
        tables = dict.fromkeys([*self.tables(checked), *self.feeds(checked)])
        return demands_of(options, list(tables), self.served)

    def await_feeds(self, checked: Checked, call: Call) -> None:
        """Wait until the feeds that are read are where the call demands; views are opened so."""
        options, feeds = call.options, self.feeds(checked)
        demands = [demand for demand in self.demands(checked, options) if demand.table in feeds]
        if demands:
            self._waits.until_met(self._service, demands, options.wait_timeout_ms, call)

    # --- the server's own relations -----------------------------------------------------------------

    def relation(self, function: TableFunction, lineage: UUID | None, call: Call | None) -> Relation:
        """The relation of a call; a wait is over then, unless a statement is only looked at (call None)."""
        is_wait = function.name == WAIT
        return ready(self.wait(function, call)) if is_wait else relation(function, self._service, lineage)

    def wait(self, function: TableFunction, call: Call | None) -> pa.Table:
        """The row of a wait, which is over then, unless a statement is only looked at (call None)."""
        wait = wait_of(function)
        demand = Demand(self.served(wait.table), wait.seq)
        if call is None:
            return wait_rows(demand.table, 0, 0.0)
        timeout_ms = call.options.wait_timeout_ms if wait.timeout_ms is None else wait.timeout_ms
        began = time.monotonic()
        positions = self._waits.until_met(self._service, [demand], timeout_ms, call)
        (at,) = (position for position in positions if position.table == demand.table)
        return wait_rows(at.table, at.visible_seq, (time.monotonic() - began) * 1000)
