"""From a statement to its plan. What it is: checking.py; what it reads: inputs.py; how: query_plans.py."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from uuid import UUID

import pyarrow as pa

from flight_replica.errors import InvalidStatement
from flight_replica.flightsql.call import Call
from flight_replica.flightsql.checking import Checks, Query, Statement, Write
from flight_replica.flightsql.functions import CHANGES, WAIT, changes_of
from flight_replica.flightsql.inputs import Inputs
from flight_replica.flightsql.known import known_plan
from flight_replica.flightsql.limits import ServerLimits
from flight_replica.flightsql.observing import QueryKind
from flight_replica.flightsql.parameters import NO_PARAMETERS, in_order, rows_of
from flight_replica.flightsql.pins import Pins
from flight_replica.flightsql.plans import KnownPlan, Plan, SessionPlan, WrittenPlan
from flight_replica.flightsql.query_plans import QueryPlans, example, keys_read, schema_key
from flight_replica.flightsql.reads import Reads
from flight_replica.flightsql.result_schemas import ResultSchemas
from flight_replica.flightsql.service import Known, Service, WriteResult
from flight_replica.flightsql.session_sql import SessionChange
from flight_replica.flightsql.slots import Slots
from flight_replica.flightsql.waits import Waits
from flight_replica.log.wire import LINEAGE_HEADER
from flight_replica.sql.known_texts import KnownTexts
from flight_replica.sql.sandbox import Checked
from flight_replica.sql.view import Parameters


class Planner:
    """Plans statements against one service. Thread-safe; owns slots, and what it knows of texts."""

    def __init__(self, service: Service, limits: ServerLimits) -> None:
        self._limits = limits
        self._queries = Slots("queries_max", lambda: limits.queries_max, lambda: limits.query_wait_seconds)
        self._follows = Slots("follows_max", lambda: limits.follows_max, lambda: 0.0)
        self._texts = KnownTexts()
        self._waits = Waits(limits)
        self._reads = Reads(self._waits, limits)
        self._stand_on(service)

    def _stand_on(self, service: Service) -> None:
        self._service = service
        self._inputs = Inputs(service, self._waits)
        self.checks = Checks(service, self._inputs, self._texts, self._limits)
        self._plans = QueryPlans(
            service, self._inputs, self._reads, self._queries, self._follows, self._limits
        )
        self.schemas = ResultSchemas(service, self._inputs, self._plans)

    @property
    def queries(self) -> int:
        """Queries that run or stream now."""
        return self._queries.in_use

    @property
    def follows(self) -> int:
        """Follow streams open now."""
        return self._follows.in_use

    @property
    def pins(self) -> Pins:
        """The moments that statements share."""
        return self._reads.pins

    def over(self, service: Service) -> Planner:
        """The same, with the same slots and knowledge, over another service."""
        other = copy.copy(self)
        other._stand_on(service)
        return other

    def check_served(self, statement: Statement) -> None:
        """Raises `TableNotFound` where a table that a statement reads is gone since it was checked."""
        if isinstance(statement, Query):
            for table in self._inputs.tables(statement.checked):
                self._inputs.served(table)

    def plan(self, statement: Statement, bound: pa.Table, call: Call) -> Plan:
        """The statement with its parameters, ready to run, pinned where it reads. A write is done here.

        Raises as `Checks.check`, and `LogGap`, `Unavailable`.
        """
        if isinstance(statement, Write):
            # Run now: ADBC returns from execute() after GetFlightInfo, and a cursor closed then never
            # gets as far as DoGet. The ticket stands for the answer alone.
            return WrittenPlan(self.write(statement, call, bound))
        if isinstance(statement, SessionChange):
            call.change_session(statement.values)
            return SessionPlan()
        checked = statement.checked
        call.reads(_tables_named(checked) if checked.functions else checked.tables)
        rows = rows_of(
            bound, statement.parameter_keys, statement.parameter_types, is_named=bool(checked.parameter_names)
        )
        lineage = _lineage(call.header(LINEAGE_HEADER))
        if checked.functions:
            self._inputs.await_feeds(checked, call)
        if len(checked.functions) == 1 and checked.functions[0].is_whole_statement:
            (function,) = checked.functions
            if function.name == CHANGES:
                return self._plans.changes(function, lineage)
            if function.name == WAIT and _reads_newest(call):
                return _waited(self._inputs.wait(function, call))
        return self._plan_known(statement, rows, call) or self._plans.plan(statement, rows, lineage, call)

    def _plan_known(self, query: Query, rows: Sequence[Parameters], call: Call) -> Plan | None:
        """A plan that takes no view; None where it takes one."""
        options, checked = call.options, query.checked
        if query.lasting is None or len(rows) != 1 or not _reads_newest(call):
            return None

        def look(table: str, key: Sequence[object] | None) -> Known | None:
            demands = self._inputs.demands(checked, options)
            return self._waits.known(self._service, table, key, demands, options.wait_timeout_ms, call)

        return known_plan(
            self._service,
            checked,
            query.lasting,
            schema_key(call, example(checked, rows)),
            keys_read(checked, rows),
            look,
            self._limits.result_bytes_max,
        )

    def write(self, statement: Write, call: Call, bound: pa.Table = NO_PARAMETERS) -> WriteResult:
        """Run a write at once, inside the call's transaction where it has one.

        Raises `InvalidStatement`, `ConstraintViolation`, `Conflict`.
        """
        zone = call.options.time_zone
        if zone not in (None, "UTC"):
            # Nobody should have to find out which zone a text without one was taken to be in.
            raise InvalidStatement(f"time_zone is {zone}, and writes are done at UTC: unset it to write")
        for name in ("as_of_seq", "pin"):
            if getattr(call.options, name) is not None:
                raise InvalidStatement(
                    f"{name} is given, and writes are done on the newest rows: leave it out"
                )
        bound = in_order(bound, statement.parameter_keys, is_named=bool(statement.parameter_names))
        rows = bound if statement.parameter_count else None
        call.limit_to(self._limits.statement_seconds)
        if call.transaction is None:
            done = self._service.write(statement.sql, rows, call)
        else:
            isolation, is_ddl = call.options.isolation, statement.is_ddl
            done = call.transaction.write(self._service, statement.sql, rows, isolation, call, is_ddl=is_ddl)
        return call.wrote(QueryKind.WRITE, done)


def _waited(row: pa.Table) -> KnownPlan:
    return KnownPlan([], row.columns, row.schema)


def _reads_newest(call: Call) -> bool:
    """Whether a statement is of no moment that stands, nor makes one."""
    options = call.options
    return options.pin is None and not options.as_of_seq and call.transaction is None


def _tables_named(checked: Checked) -> Sequence[str]:
    """The tables that it reads by name or by their feed."""
    changes = (changes_of(function).table for function in checked.functions if function.name == CHANGES)
    return list(dict.fromkeys([*checked.tables, *changes]))


def _lineage(text: str | None) -> UUID | None:
    if text is None:
        return None
    try:
        return UUID(text)
    except ValueError as error:
        raise InvalidStatement(f"call header {LINEAGE_HEADER}: {text[:80]!r} is no UUID") from error
