"""Plans of statements that read: through a view, as fresh as the call demands, or straight from a feed."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Hashable, Mapping, Sequence
from uuid import UUID

import pyarrow as pa

from flight_replica.flightsql import explained, feeds
from flight_replica.flightsql.call import Call
from flight_replica.flightsql.checking import Query, parameter_keys
from flight_replica.flightsql.functions import Relation, changes_of, feed_of
from flight_replica.flightsql.inputs import Inputs
from flight_replica.flightsql.limits import ServerLimits
from flight_replica.flightsql.parameters import example_of
from flight_replica.flightsql.plans import BoundedChangesPlan, FollowPlan, Plan, QueryPlan
from flight_replica.flightsql.reads import Reads
from flight_replica.flightsql.service import Service
from flight_replica.flightsql.slots import Slots
from flight_replica.flightsql.streams import plain_schema
from flight_replica.sql.bound import kind_of_value, plain_value
from flight_replica.sql.key_filter import NO_KEYS, Keys
from flight_replica.sql.sandbox import EXPLAIN, Checked, TableFunction, bind_functions
from flight_replica.sql.view import Parameters, View

__all__ = ["QueryPlans", "Rewrite", "example", "keys_read", "schema_key"]

Rewrite = Callable[[str], str]


class QueryPlans:
    """Of the queries of one service. Thread-safe."""

    def __init__(
        self,
        service: Service,
        inputs: Inputs,
        reads: Reads,
        queries: Slots,
        follows: Slots,
        limits: ServerLimits,
    ) -> None:
        """`queries` and `follows`: how many of each may run at once."""
        self._service = service
        self._inputs = inputs
        self._reads = reads
        self._queries = queries
        self._follows = follows
        self._limits = limits

    def changes(self, function: TableFunction, lineage: UUID | None) -> Plan:
        """The plan of a call of `merutable_changes` that is a whole statement. Raises `LogGap`."""
        arguments = changes_of(function)
        feed = feed_of(self._service, arguments.table)
        if arguments.is_follow:
            schema = feeds.follow(feed, arguments.since, lineage)
            return FollowPlan(feed, arguments.since, schema, self._follows)
        schema, mark = feeds.bounded(feed, arguments.since, lineage)
        return BoundedChangesPlan(feed, schema, mark, self._queries, self._limits)

    def plan(
        self,
        query: Query,
        rows: Sequence[Parameters],
        lineage: UUID | None,
        call: Call,
        rewrite: Rewrite | None = None,
        *,
        is_run: bool = True,
    ) -> QueryPlan:
        """Planned with values out of `rows`; or with none, as `rewrite` changes the bound text.

        One that won't be run waits for nothing.
        """
        checked = query.checked
        demanding = call if is_run else None
        relations = [
            (
                f"${function.name}_{number}_{secrets.token_hex(4)}",
                self._inputs.relation(function, lineage, demanding),
            )
            for number, function in enumerate(checked.functions)
        ]
        view = self._open_view(checked, demanding, rows)
        try:
            if checked.positions:
                view.define_positions(dict(checked.positions))
            if (zone := call.options.time_zone) is not None:
                view.set_time_zone(zone)
            call.limit_to(self._limits.statement_seconds)
            call.on_end(view.interrupt)
            sql = _counted(checked, view) or bind_functions(checked, [name for name, _ in relations])
            parameters = example(checked, rows) if rewrite is None else ()
            planned = rewrite(sql) if rewrite is not None else sql

            def find_out() -> pa.Schema:
                return plain_schema(_planned_schema(view, planned, parameters, relations))

            if query.lasting is None or rewrite is not None or (checked.parameter_count and not rows):
                schema = find_out()
            else:
                schema = query.lasting.schemas.recall(view.made_of, schema_key(call, parameters), find_out)
            return QueryPlan(view, sql, rows, relations, schema, self._queries, self._limits)
        except BaseException:
            view.close()
            call.check()  # what it was interrupted for, not that it was
            raise

    def _open_view(self, checked: Checked, call: Call | None, rows: Sequence[Parameters]) -> View:
        """A view that is as fresh as the call demands; to look at a statement (None) any will do.

        `rows`: the parameters of each run.
        """
        tables = self._inputs.tables(checked)
        if call is None:
            return self._service.open_view(tables)
        options = call.options
        demands = [demand for demand in self._inputs.demands(checked, options) if demand.table in tables]
        as_of = options.as_of_seq.of(tables, self._inputs.served, "as_of_seq") if options.as_of_seq else {}
        return self._reads.open_view(self._service, tables, demands, as_of, call, keys_read(checked, rows))


def keys_read(checked: Checked, rows: Sequence[Parameters]) -> Keys:
    """The values that all rows have that the statement reads, where it is run once."""
    if checked.key is None or len(rows) != 1:
        return NO_KEYS
    (row,) = rows
    if not row:
        return {checked.key.table: checked.key.bound({})}
    named = row if isinstance(row, Mapping) else {str(n): value for n, value in enumerate(row, start=1)}
    bound = {name: plain_value(value) for name, value in named.items()}
    return {checked.key.table: checked.key.bound(bound)}


def example(checked: Checked, rows: Sequence[Parameters]) -> Parameters:
    """Values of the kinds that all rows have."""
    names = checked.parameter_names
    return example_of(rows, parameter_keys(checked.parameter_count, names), is_named=bool(names))


def schema_key(call: Call, parameters: Parameters) -> Hashable:
    """What a result's schema depends on besides statement and tables, if only by whether there is one."""
    if not parameters:
        return (call.options.time_zone,)
    values = parameters.values() if isinstance(parameters, Mapping) else parameters
    return call.options.time_zone, *map(kind_of_value, values)


def _counted(checked: Checked, view: View) -> str | None:
    """What answers a plain count of a table whose rows are counted; None for every other statement."""
    count = checked.count
    row_count = None if count is None else view.row_count(count.table)
    if count is None or row_count is None:
        return None
    view.take_up_nothing()
    return count.answer(row_count)


def _planned_schema(
    view: View, sql: str, parameters: Parameters, relations: Sequence[tuple[str, Relation]]
) -> pa.Schema:
    for name, found in relations:
        view.bind_data(name, found.schema.empty_table())
    for prefix in EXPLAIN:
        if sql.startswith(prefix):
            # To plan an EXPLAIN is to run it, so what it explains is planned instead.
            view.plan(sql.removeprefix(prefix), parameters)
            return explained.SCHEMA
    return view.plan(sql, parameters)
