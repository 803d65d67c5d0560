"""Which moment a statement reads: the newest one, a pinned one, its transaction's, or an older seq.

Demands (`min_seq`, `max_staleness_ms`) are waited for where the newest rows are read; a moment that stands
already meets them or doesn't. Waiting: waits.py. Pinned moments: pins.py. Transactions: transactions.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from flight_replica.errors import InvalidStatement, Unavailable
from flight_replica.flightsql.call import Call
from flight_replica.flightsql.limits import ServerLimits
from flight_replica.flightsql.options import ReadOptions
from flight_replica.flightsql.pins import PinnedViews, Pins, open_all
from flight_replica.flightsql.service import Service
from flight_replica.flightsql.waits import Waits
from flight_replica.position import Demand, TablePosition
from flight_replica.sql.key_filter import NO_KEYS, Keys
from flight_replica.sql.view import View

__all__ = ["Reads"]


class Reads:
    """Opens the views of one server's statements. Thread-safe; owns the named pins."""

    def __init__(self, waits: Waits, limits: ServerLimits) -> None:
        self._waits = waits
        self._limits = limits
        self.pins = Pins(limits)

    def open_view(
        self,
        service: Service,
        tables: Sequence[str],
        demands: Sequence[Demand],
        as_of: Mapping[str, int],
        call: Call,
        keys: Keys = NO_KEYS,
    ) -> View:
        """The view that a call's statement over `tables` reads; `as_of` gives some tables an older seq.

        `keys`: as for `Service.open_view`.

        Raises `Unavailable` where a demand isn't met in time, `InvalidStatement` for a seq that isn't held
        or isn't the pinned one, `LimitExceeded`, `Conflict`.
        """
        options = call.options
        pinned = self._pinned(service, tables, demands, options, call)
        if pinned is not None:
            view = self._from_pinned(pinned, tables, demands, as_of, call)
        elif as_of:
            view = service.open_view_as_of(tables, as_of)
        else:
            view = self._waits.open_view(service, tables, demands, options.wait_timeout_ms, call, keys)
        # A pin is made by name and shows just that moment; else a transaction sees what it has changed.
        if call.transaction is not None and options.pin is None and not as_of:
            try:
                call.transaction.cover(view)
            except BaseException:
                view.close()
                raise
        return view

    def _pinned(
        self,
        service: Service,
        tables: Sequence[str],
        demands: Sequence[Demand],
        options: ReadOptions,
        call: Call,
    ) -> PinnedViews | None:
        """The standing moment that is read; the first statement makes it, as late as the demands say."""

        def open_views() -> Sequence[View]:
            self._waits.open_view(service, tables, demands, options.wait_timeout_ms, call).close()
            return open_all(service, self._limits)

        if options.pin is not None:
            return self.pins.named(call.user.name, options.pin, open_views)
        if call.transaction is not None:
            return call.transaction.pinned(open_views, options.isolation)
        return None

    def _from_pinned(
        self,
        pinned: PinnedViews,
        tables: Sequence[str],
        demands: Sequence[Demand],
        as_of: Mapping[str, int],
        call: Call,
    ) -> View:
        view = pinned.lend(tables, call)
        try:
            by_table = {at.table: at for at in view.positions}
            for table, seq in as_of.items():
                _check_seq(pinned, by_table[table], seq)
            for demand in demands:
                if not demand.is_met_by(by_table[demand.table]):
                    raise Unavailable(f"{pinned.what}: {demand.not_met(by_table[demand.table], 0.0)}")
        except BaseException:
            view.close()
            raise
        return view


def _check_seq(pinned: PinnedViews, at: TablePosition, seq: int) -> None:
    if at.visible_seq != seq:
        raise InvalidStatement(
            f"as_of_seq {seq}: in {pinned.what} table {at.table!r} is at seq {at.visible_seq}"
        )
