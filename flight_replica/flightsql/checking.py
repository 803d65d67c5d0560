"""What a client's text is: a query, a write, or a change of its session; and what is known of its parameters.

How it is run: planning.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from flight_replica.errors import ReadOnly
from flight_replica.flightsql.call import Call
from flight_replica.flightsql.inputs import Inputs
from flight_replica.flightsql.limits import ServerLimits
from flight_replica.flightsql.parameter_types import Types, types_of_query, types_of_write
from flight_replica.flightsql.service import Service
from flight_replica.flightsql.session_sql import SessionChange, session_change
from flight_replica.sql.dml import parse_ddl, parse_dml
from flight_replica.sql.known_texts import KnownText, KnownTexts
from flight_replica.sql.names import plain
from flight_replica.sql.sandbox import Checked, check_select
from flight_replica.sql.statement import kind_of, single

__all__ = ["Checks", "Query", "Statement", "Write", "parameter_keys"]


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
        return parameter_keys(self.checked.parameter_count, self.checked.parameter_names)


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
        return parameter_keys(self.parameter_count, self.parameter_names)


Statement = Query | Write | SessionChange


def parameter_keys(count: int, names: tuple[str, ...]) -> tuple[str, ...]:
    """What each parameter is called: its name, or its number."""
    return names or tuple(str(number) for number in range(1, count + 1))


class Checks:
    """Checks texts against one service. Thread-safe."""

    def __init__(self, service: Service, inputs: Inputs, texts: KnownTexts, limits: ServerLimits) -> None:
        self._service = service
        self._inputs = inputs
        self._texts = texts
        self._limits = limits

    def check(self, sql: str) -> Statement:
        """What the text is. Raises `InvalidStatement`, `NotAllowed`, `TableNotFound`, `LimitExceeded`,
        `ReadOnly` for a write where none are taken."""
        known = self._texts.find(sql, self._inputs.resolve)
        if known is not None:
            return Query(known.of(sql), known=known)
        text = sql
        sql = plain(sql)
        change = session_change(sql)
        if change is not None:
            return change
        try:
            known = self._texts.learn(text, self._inputs.resolve, partial(check_select, sql))
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
        dml = parse_dml(sql, self._inputs.resolve)
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
        dml = parse_dml(statement.sql, self._inputs.resolve)
        return replace(statement, parameter_types=types_of_write(dml, keys, self._service, call))

    def _parameter_types(self, query: Query, keys: Sequence[str], call: Call) -> Types:
        checked = query.checked

        def find_out() -> Types:
            own = [self._inputs.relation(function, None, None).schema for function in checked.functions]
            return types_of_query(checked, keys, self._service, own, call)

        if query.lasting is None:
            return find_out()
        return query.lasting.types.recall(self._service.made_of(checked.tables), None, find_out)
