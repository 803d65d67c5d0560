"""From a client's text to a plan: what is it, what does it read, which view answers it."""

from __future__ import annotations

import copy
import secrets
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from uuid import UUID

import pyarrow as pa

from flight_replica.errors import InvalidStatement, ReadOnly, ReplicaError, TableNotFound
from flight_replica.flightsql import explained, feeds
from flight_replica.flightsql.calls import Call, Slots
from flight_replica.flightsql.functions import (
    CHANGES,
    WAIT,
    Relation,
    changes_of,
    digest_table,
    feed_of,
    ready,
    relation,
    served_name,
    wait_of,
    wait_rows,
)
from flight_replica.flightsql.known import known_plan
from flight_replica.flightsql.limits import ServerLimits
from flight_replica.flightsql.observing import QueryKind
from flight_replica.flightsql.options import ReadOptions
from flight_replica.flightsql.parameter_types import Types, announced, types_of_query, types_of_write
from flight_replica.flightsql.parameters import NO_PARAMETERS, example_of, in_order, rows_of
from flight_replica.flightsql.pins import Pins
from flight_replica.flightsql.plans import (
    BoundedChangesPlan,
    FollowPlan,
    KnownPlan,
    Plan,
    QueryPlan,
    SessionPlan,
    WrittenPlan,
)
from flight_replica.flightsql.reads import Reads
from flight_replica.flightsql.service import Known, Service, WriteResult
from flight_replica.flightsql.session_sql import SessionChange, session_change
from flight_replica.flightsql.streams import plain_schema
from flight_replica.flightsql.waits import Waits, demands_of
from flight_replica.log.wire import LINEAGE_HEADER
from flight_replica.position import Demand
from flight_replica.sql.bound import kind_of_value, plain_value
from flight_replica.sql.dml import parse_ddl, parse_dml
from flight_replica.sql.key_filter import NO_KEYS, Keys
from flight_replica.sql.known_texts import KnownText, KnownTexts
from flight_replica.sql.names import plain
from flight_replica.sql.parameter_types import guesses, with_typed_nulls
from flight_replica.sql.sandbox import EXPLAIN, Checked, TableFunction, bind_functions, check_select
from flight_replica.sql.statement import kind_of, single
from flight_replica.sql.view import Parameters, View


@dataclass(frozen=True, slots=True)
class Query:
    """A checked statement that reads."""

    checked: Checked
    parameter_types: Types = ()  # as DuckDB has them; only of a prepared one
    known: KnownText | None = field(default=None, compare=False)  # what was found out about its text

    @property
    def lasting(self) -> KnownText | None:
        """What is known of its text, where that tells its columns."""
        return self.known if self.known is not None and self.known.has_lasting_columns else None

    @property
    def parameter_count(self) -> int:
        return self.checked.parameter_count

    @property
    def parameter_keys(self) -> tuple[str, ...]:
        return _keys(self.checked.parameter_count, self.checked.parameter_names)


@dataclass(frozen=True, slots=True)
class Write:
    """A statement that changes rows or tables."""

    sql: str
    parameter_count: int
    parameter_names: tuple[str, ...] = ()
    parameter_types: Types = ()
    is_ddl: bool = False

    @property
    def parameter_keys(self) -> tuple[str, ...]:
        return _keys(self.parameter_count, self.parameter_names)


Statement = Query | Write | SessionChange
Rewrite = Callable[[str], str]


def _keys(count: int, names: tuple[str, ...]) -> tuple[str, ...]:
    """What each parameter is called: its name, or its number."""
    return names or tuple(str(number) for number in range(1, count + 1))


class Planner:
    """Plans statements against one service. Thread-safe; owns slots, and what it knows of texts."""

    def __init__(self, service: Service, limits: ServerLimits) -> None:
        self._service = service
        self._limits = limits
        self._queries = Slots("queries_max", lambda: limits.queries_max, lambda: limits.query_wait_seconds)
        self._follows = Slots("follows_max", lambda: limits.follows_max, lambda: 0.0)
        self._texts = KnownTexts()
        self._waits = Waits(limits)
        self._reads = Reads(self._waits, limits)

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
        other._service = service
        return other

    def check(self, sql: str) -> Statement:
        """What the text is. Raises `InvalidStatement`, `NotAllowed`, `TableNotFound`, `LimitExceeded`,
        `ReadOnly` for a write where none are taken."""
        known = self._texts.find(sql, self._resolve)
        if known is not None:
            return Query(known.of(sql), known=known)
        text = sql
        sql = plain(sql)
        change = session_change(sql)
        if change is not None:
            return change
        try:
            known = self._texts.learn(text, self._resolve, partial(check_select, sql))
            return Query(known.checked, known=known)
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
            return Write(sql, 0, is_ddl=True)
        dml = parse_dml(sql, self._resolve)
        return Write(sql, dml.parameter_count, dml.parameter_names)

    def prepare(self, sql: str, call: Call) -> Statement:
        """As `check`, with the types of its parameters."""
        call.limit_to(self._limits.statement_seconds)
        statement = self.check(sql)
        if isinstance(statement, SessionChange) or not statement.parameter_count:
            return statement
        keys = statement.parameter_keys
        if isinstance(statement, Query):
            return replace(statement, parameter_types=self._parameter_types(statement, keys, call))
        dml = parse_dml(statement.sql, self._resolve)
        return replace(statement, parameter_types=types_of_write(dml, keys, self._service, call))

    def _parameter_types(self, query: Query, keys: Sequence[str], call: Call) -> Types:
        checked = query.checked

        def find_out() -> Types:
            own = [self._relation(function, None, None).schema for function in checked.functions]
            return types_of_query(checked, keys, self._service, own, call)

        if query.lasting is None:
            return find_out()
        return query.lasting.types.recall(self._service.made_of(checked.tables), None, find_out)

    def parameter_schema(self, statement: Statement) -> pa.Schema:
        """What a client is told of a prepared statement's parameters."""
        return announced(statement.parameter_keys, statement.parameter_types)

    def _resolve(self, name: str) -> str | None:
        return served_name(self._service, name)

    def check_served(self, statement: Statement) -> None:
        """Raises `TableNotFound` where a table that a statement reads is gone since it was checked."""
        if isinstance(statement, Query):
            for table in self._tables_read(statement.checked):
                self._served(table)

    def plan(self, statement: Statement, bound: pa.Table, call: Call) -> Plan:
        """The statement with its parameters, ready to run, pinned where it reads. A write is done here.

        Raises as `check`, and `LogGap`, `Unavailable`.
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
            self._await_feeds(checked, call)
        if len(checked.functions) == 1 and checked.functions[0].is_whole_statement:
            (function,) = checked.functions
            if function.name == CHANGES:
                return self._plan_changes(function, lineage)
            if function.name == WAIT and _reads_newest(call):
                return _waited(self._wait(function, call))
        return self._plan_known(statement, rows, call) or self._plan_query(statement, rows, lineage, call)

    def _plan_known(self, query: Query, rows: Sequence[Parameters], call: Call) -> Plan | None:
        """A plan that takes no view; None where it takes one."""
        options, checked = call.options, query.checked
        if query.lasting is None or len(rows) != 1 or not _reads_newest(call):
            return None

        def look(table: str, key: Sequence[object] | None) -> Known | None:
            demands = self._demands(checked, options)
            return self._waits.known(self._service, table, key, demands, options.wait_timeout_ms, call)

        return known_plan(
            self._service,
            checked,
            query.lasting,
            _schema_key(call, _example(checked, rows)),
            _keys_read(checked, rows),
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

    def result_schema(self, statement: Query | SessionChange, call: Call) -> pa.Schema:
        """The schema the rows will have, as far as that can be told before parameters are bound.

        Raises `InvalidStatement` where nothing can.
        """
        if isinstance(statement, SessionChange):
            return SessionPlan.schema
        if statement.lasting is None:
            return self._found_schema(statement, call)
        made_of = self._service.made_of(statement.checked.tables)
        if not statement.parameter_count:  # under the same key as when it is planned
            key: Hashable = _schema_key(call, ())
        else:
            key = "prepared", call.options.time_zone, statement.parameter_types
        return statement.lasting.schemas.recall(made_of, key, lambda: self._found_schema(statement, call))

    def _found_schema(self, statement: Query, call: Call) -> pa.Schema:
        checked = statement.checked
        if not checked.parameter_count:
            return self._schema(statement, call)
        keys, types = statement.parameter_keys, statement.parameter_types or (None,) * checked.parameter_count
        # With nulls of their types the columns have theirs, with bare ones their names: `$1`, not a cast's.
        typed = self._schema_or_none(statement, call, lambda sql: with_typed_nulls(sql, keys, types))
        bare = self._schema_or_none(statement, call)
        if typed is None and bare is None:
            return self._guessed_schema(statement, call, keys, types)
        if typed is None or bare is None or len(typed) != len(bare):
            return typed or bare
        fields = [field.with_name(name) for field, name in zip(typed, bare.names, strict=True)]
        return pa.schema(fields, typed.metadata)

    def _guessed_schema(self, query: Query, call: Call, keys: Sequence[str], types: Types) -> pa.Schema:
        """The schema with the first types of parameters that make a statement of it."""
        for guess in guesses(types):
            rewrite = partial(with_typed_nulls, keys=keys, types=guess)
            if (found := self._schema_or_none(query, call, rewrite)) is not None:
                return found
        raise InvalidStatement(
            "what the statement gives can't be told without the types of its parameters: write ?::TYPE"
        )

    def _schema_or_none(self, query: Query, call: Call, rewrite: Rewrite | None = None) -> pa.Schema | None:
        try:
            return self._schema(query, call, rewrite)
        except ReplicaError as error:
            call.check()
            if error.retryable:  # it isn't the statement that is wrong
                raise
            return None

    def _schema(self, query: Query, call: Call, rewrite: Rewrite | None = None) -> pa.Schema:
        """The schema with nulls for parameters, or as `rewrite` has them."""
        plan: Plan
        checked = query.checked
        if len(checked.functions) == 1 and checked.functions[0].is_whole_statement:
            (function,) = checked.functions
            if function.name == CHANGES:
                plan = self._plan_changes(function, None)
                plan.close()
                return plan.schema
            if function.name == WAIT:
                return _waited(self._wait(function, None)).schema
        plan = self._plan_query(query, [], None, call, rewrite, is_run=False)
        plan.close()
        return plan.schema

    def _plan_changes(self, function: TableFunction, lineage: UUID | None) -> Plan:
        arguments = changes_of(function)
        feed = feed_of(self._service, arguments.table)
        if arguments.is_follow:
            schema = feeds.follow(feed, arguments.since, lineage)
            return FollowPlan(feed, arguments.since, schema, self._follows)
        schema, mark = feeds.bounded(feed, arguments.since, lineage)
        return BoundedChangesPlan(feed, schema, mark, self._queries, self._limits)

    def _plan_query(
        self,
        query: Query,
        rows: Sequence[Parameters],
        lineage: UUID | None,
        call: Call,
        rewrite: Rewrite | None = None,
        *,
        is_run: bool = True,
    ) -> Plan:
        """Planned with values out of `rows`; or with none, as `rewrite` changes the bound text.

        One that won't be run waits for nothing.
        """
        checked = query.checked
        demanding = call if is_run else None
        relations = [
            (
                f"${function.name}_{number}_{secrets.token_hex(4)}",
                self._relation(function, lineage, demanding),
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
            parameters = _example(checked, rows) if rewrite is None else ()
            planned = rewrite(sql) if rewrite is not None else sql

            def find_out() -> pa.Schema:
                return plain_schema(_planned_schema(view, planned, parameters, relations))

            if query.lasting is None or rewrite is not None or (checked.parameter_count and not rows):
                schema = find_out()
            else:
                schema = query.lasting.schemas.recall(view.made_of, _schema_key(call, parameters), find_out)
            return QueryPlan(view, sql, rows, relations, schema, self._queries, self._limits)
        except BaseException:
            view.close()
            call.check()  # what it was interrupted for, not that it was
            raise

    def _open_view(self, checked: Checked, call: Call | None, rows: Sequence[Parameters]) -> View:
        """A view that is as fresh as the call demands; to look at a statement (None) any will do.

        `rows`: the parameters of each run.
        """
        tables = self._tables_read(checked)
        if call is None:
            return self._service.open_view(tables)
        options = call.options
        demands = [demand for demand in self._demands(checked, options) if demand.table in tables]
        as_of = options.as_of_seq.of(tables, self._served, "as_of_seq") if options.as_of_seq else {}
        return self._reads.open_view(self._service, tables, demands, as_of, call, _keys_read(checked, rows))

    def _served(self, name: str) -> str:
        served = self._resolve(name)
        if served is None:
            raise TableNotFound(f"table '{name}' isn't served here")
        return served

    def _relation(self, function: TableFunction, lineage: UUID | None, call: Call | None) -> Relation:
        """The relation of a call; a wait is over then, unless a statement is only looked at (call None)."""
        is_wait = function.name == WAIT
        return ready(self._wait(function, call)) if is_wait else relation(function, self._service, lineage)

    def _wait(self, function: TableFunction, call: Call | None) -> pa.Table:
        """The row of a wait, which is over then, unless a statement is only looked at (call None)."""
        wait = wait_of(function)
        demand = Demand(self._served(wait.table), wait.seq)
        if call is None:
            return wait_rows(demand.table, 0, 0.0)
        timeout_ms = call.options.wait_timeout_ms if wait.timeout_ms is None else wait.timeout_ms
        began = time.monotonic()
        positions = self._waits.until_met(self._service, [demand], timeout_ms, call)
        (at,) = (position for position in positions if position.table == demand.table)
        return wait_rows(at.table, at.visible_seq, (time.monotonic() - began) * 1000)

    def _await_feeds(self, checked: Checked, call: Call) -> None:
        """Wait until the feeds that are read are where the call demands; views are opened so."""
        options, feeds = call.options, self._feeds_read(checked)
        demands = [demand for demand in self._demands(checked, options) if demand.table in feeds]
        if demands:
            self._waits.until_met(self._service, demands, options.wait_timeout_ms, call)

    def _demands(self, checked: Checked, options: ReadOptions) -> list[Demand]:
        if options.min_seq is None and options.max_staleness_ms is None:
            return []
        tables = dict.fromkeys([*self._tables_read(checked), *self._feeds_read(checked)])
        return demands_of(options, list(tables), self._served)

    def _feeds_read(self, checked: Checked) -> list[str]:
        """The tables whose changes are read, as the server spells them."""
        changes = [changes_of(function) for function in checked.functions if function.name == CHANGES]
        return [self._served(found.table) for found in changes if not found.is_follow]

    def _tables_read(self, checked: Checked) -> list[str]:
        """The tables to pin, each once, as the server spells them."""
        names = dict.fromkeys(checked.tables)
        for function in checked.functions:
            spelled = digest_table(function)
            if spelled is not None:
                names[self._resolve(spelled) or spelled] = None
        return list(names)


def _waited(row: pa.Table) -> KnownPlan:
    return KnownPlan([], row.columns, row.schema)


def _reads_newest(call: Call) -> bool:
    """Whether a statement is of no moment that stands, nor makes one."""
    options = call.options
    return options.pin is None and not options.as_of_seq and call.transaction is None


def _keys_read(checked: Checked, rows: Sequence[Parameters]) -> Keys:
    """The values that all rows have that the statement reads, where it is run once."""
    if checked.key is None or len(rows) != 1:
        return NO_KEYS
    (row,) = rows
    if not row:
        return {checked.key.table: checked.key.bound({})}
    named = row if isinstance(row, Mapping) else {str(n): value for n, value in enumerate(row, start=1)}
    bound = {name: plain_value(value) for name, value in named.items()}
    return {checked.key.table: checked.key.bound(bound)}


def _tables_named(checked: Checked) -> Sequence[str]:
    """The tables that it reads by name or by their feed."""
    changes = (changes_of(function).table for function in checked.functions if function.name == CHANGES)
    return list(dict.fromkeys([*checked.tables, *changes]))


def _example(checked: Checked, rows: Sequence[Parameters]) -> Parameters:
    names = checked.parameter_names
    return example_of(rows, _keys(checked.parameter_count, names), is_named=bool(names))


def _counted(checked: Checked, view: View) -> str | None:
    """What answers a plain count of a table whose rows are counted; None for every other statement."""
    count = checked.count
    row_count = None if count is None else view.row_count(count.table)
    if count is None or row_count is None:
        return None
    view.take_up_nothing()
    return count.answer(row_count)


def _schema_key(call: Call, parameters: Parameters) -> Hashable:
    """What a result's schema depends on besides statement and tables, if only by whether there is one."""
    if not parameters:
        return (call.options.time_zone,)
    values = parameters.values() if isinstance(parameters, Mapping) else parameters
    return call.options.time_zone, *map(kind_of_value, values)


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


def _lineage(text: str | None) -> UUID | None:
    if text is None:
        return None
    try:
        return UUID(text)
    except ValueError as error:
        raise InvalidStatement(f"call header {LINEAGE_HEADER}: {text[:80]!r} is no UUID") from error
