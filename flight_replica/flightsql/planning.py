"""From a client's text to a plan: what is it, what does it read, which view answers it."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

import pyarrow as pa

from flight_replica.errors import InvalidStatement, ReadOnly, ReplicaError
from flight_replica.flightsql import feeds
from flight_replica.flightsql.calls import Call, Slots
from flight_replica.flightsql.functions import (
    CHANGES,
    Relation,
    changes_of,
    digest_table,
    feed_of,
    relation,
    served_name,
)
from flight_replica.flightsql.limits import ServerLimits
from flight_replica.flightsql.parameters import NO_PARAMETERS, row_of, unknown_values
from flight_replica.flightsql.plans import BoundedChangesPlan, FollowPlan, Plan, QueryPlan, WrittenPlan
from flight_replica.flightsql.service import Service, WriteResult
from flight_replica.flightsql.streams import plain_schema
from flight_replica.log.wire import LINEAGE_HEADER
from flight_replica.sql.dml import parse_ddl, parse_dml
from flight_replica.sql.sandbox import Checked, TableFunction, bind_functions, check_select
from flight_replica.sql.statement import kind_of, single
from flight_replica.sql.view import Parameters, View

_EXPLAIN = ("EXPLAIN ANALYZE ", "EXPLAIN ")  # how a checked EXPLAIN begins
_EXPLAIN_SCHEMA = pa.schema({"explain_key": pa.string(), "explain_value": pa.string()})


@dataclass(frozen=True, slots=True)
class Query:
    """A checked statement that reads."""

    checked: Checked

    @property
    def parameter_count(self) -> int:
        return self.checked.parameter_count


@dataclass(frozen=True, slots=True)
class Write:
    """A statement that changes rows or tables."""

    sql: str
    parameter_count: int


Statement = Query | Write


class Planner:
    """Plans statements against one service. Thread-safe, without state of its own but slots."""

    def __init__(self, service: Service, limits: ServerLimits) -> None:
        self._service = service
        self._limits = limits
        self._queries = Slots("queries_max", limits.queries_max, limits.query_wait_seconds)
        self._follows = Slots("follows_max", limits.follows_max, 0.0)

    def check(self, sql: str) -> Statement:
        """What the text is. Raises `InvalidStatement`, `NotAllowed`, `TableNotFound`, `LimitExceeded`,
        `ReadOnly` for a write where none are taken."""
        try:
            return Query(check_select(sql, self._resolve))
        except ReadOnly as error:
            reason = self._service.read_only_reason
            if reason is not None:
                raise ReadOnly(f"{error}: {reason}") from error
            return self._check_write(sql, error)

    def _check_write(self, sql: str, error: ReadOnly) -> Write:
        kind = kind_of(single(sql))
        if kind == "SELECT":  # a write hidden in a query
            raise error
        if kind in ("CREATE", "DROP", "ALTER"):
            parse_ddl(sql)
            return Write(sql, 0)
        return Write(sql, parse_dml(sql, self._resolve).parameter_count)

    def _resolve(self, name: str) -> str | None:
        return served_name(self._service, name)

    def plan(self, statement: Statement, bound: pa.Table, call: Call) -> Plan:
        """The statement with its parameters, ready to run, pinned where it reads. A write is done here.

        Raises as `check`, and `LogGap`, `Unavailable`.
        """
        if isinstance(statement, Write):
            # Run now: ADBC returns from execute() after GetFlightInfo, and a cursor closed then never
            # gets as far as DoGet. The ticket stands for the answer alone.
            return WrittenPlan(self.write(statement, bound))
        checked = statement.checked
        parameters = row_of(bound, checked.parameter_count, checked.parameter_names)
        lineage = _lineage(call.header(LINEAGE_HEADER))
        if len(checked.functions) == 1 and checked.functions[0].is_whole_statement:
            (function,) = checked.functions
            if function.name == CHANGES:
                return self._plan_changes(function, lineage)
        return self._plan_query(checked, parameters, lineage, call)

    def write(self, statement: Write, bound: pa.Table = NO_PARAMETERS) -> WriteResult:
        """Run a write at once. Raises `InvalidStatement`, `ConstraintViolation`."""
        self._check_bound(statement, bound)
        return self._service.write(statement.sql, bound if statement.parameter_count else None)

    def _check_bound(self, statement: Write, bound: pa.Table) -> None:
        if bound.num_columns != statement.parameter_count:
            raise InvalidStatement(
                f"the statement takes {statement.parameter_count} parameters, {bound.num_columns} were bound"
            )

    def result_schema(self, statement: Query) -> pa.Schema | None:
        """The schema the rows will have, None where it depends on parameters that aren't bound yet."""
        checked = statement.checked
        try:
            plan = self._plan_unbound(checked)
        except ReplicaError:
            if checked.parameter_count:
                return None
            raise
        plan.close()
        return plan.schema

    def _plan_unbound(self, checked: Checked) -> Plan:
        if len(checked.functions) == 1 and checked.functions[0].is_whole_statement:
            (function,) = checked.functions
            if function.name == CHANGES:
                return self._plan_changes(function, None)
        parameters = unknown_values(checked.parameter_count, checked.parameter_names)
        return self._plan_query(checked, parameters, None, None)

    def _plan_changes(self, function: TableFunction, lineage: UUID | None) -> Plan:
        arguments = changes_of(function)
        feed = feed_of(self._service, arguments.table)
        if arguments.is_follow:
            schema = feeds.follow(feed, arguments.since, lineage)
            return FollowPlan(feed, arguments.since, schema, self._follows)
        schema, mark = feeds.bounded(feed, arguments.since, lineage)
        return BoundedChangesPlan(feed, schema, mark, self._queries, self._limits)

    def _plan_query(
        self, checked: Checked, parameters: Parameters, lineage: UUID | None, call: Call | None
    ) -> Plan:
        relations = [
            (f"${function.name}_{number}_{secrets.token_hex(4)}", relation(function, self._service, lineage))
            for number, function in enumerate(checked.functions)
        ]
        view = self._service.open_view(self._tables_read(checked))
        try:
            if call is not None:
                call.on_end(view.interrupt)
            sql = bind_functions(checked, [name for name, _ in relations])
            schema = plain_schema(_planned_schema(view, sql, parameters, relations))
            return QueryPlan(view, sql, parameters, relations, schema, self._queries, self._limits)
        except BaseException:
            view.close()
            raise

    def _tables_read(self, checked: Checked) -> list[str]:
        """The tables to pin, each once, as the server spells them."""
        names = dict.fromkeys(checked.tables)
        for function in checked.functions:
            spelled = digest_table(function)
            if spelled is not None:
                names[self._resolve(spelled) or spelled] = None
        return list(names)


def _planned_schema(
    view: View, sql: str, parameters: Parameters, relations: Sequence[tuple[str, Relation]]
) -> pa.Schema:
    for name, found in relations:
        view.bind_data(name, found.schema.empty_table())
    for prefix in _EXPLAIN:
        if sql.startswith(prefix):
            # To plan an EXPLAIN is to run it, so what it explains is planned instead.
            view.plan(sql.removeprefix(prefix), parameters)
            return _EXPLAIN_SCHEMA
    return view.plan(sql, parameters)


def _lineage(text: str | None) -> UUID | None:
    if text is None:
        return None
    try:
        return UUID(text)
    except ValueError as error:
        raise InvalidStatement(f"call header {LINEAGE_HEADER}: {text[:80]!r} is no UUID") from error
