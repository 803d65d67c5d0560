"""The schema that a statement's rows will have, as far as that can be told before parameters are bound."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from functools import partial

import pyarrow as pa

from flight_replica.errors import InvalidStatement, ReplicaError
from flight_replica.flightsql.call import Call
from flight_replica.flightsql.checking import Query
from flight_replica.flightsql.functions import CHANGES, WAIT
from flight_replica.flightsql.inputs import Inputs
from flight_replica.flightsql.parameter_types import Types
from flight_replica.flightsql.plans import Plan, SessionPlan
from flight_replica.flightsql.query_plans import QueryPlans, Rewrite, schema_key
from flight_replica.flightsql.service import Service
from flight_replica.flightsql.session_sql import SessionChange
from flight_replica.sql.parameter_types import guesses, with_typed_nulls

__all__ = ["ResultSchemas"]


class ResultSchemas:
    """Of the statements on one service. Thread-safe."""

    def __init__(self, service: Service, inputs: Inputs, plans: QueryPlans) -> None:
        self._service = service
        self._inputs = inputs
        self._plans = plans

    def of(self, statement: Query | SessionChange, call: Call) -> pa.Schema:
        """Raises `InvalidStatement` where nothing can."""
        if isinstance(statement, SessionChange):
            return SessionPlan.schema
        if statement.lasting is None:
            return self._found_schema(statement, call)
        made_of = self._service.made_of(statement.checked.tables)
        if not statement.parameter_count:  # under the same key as when it is planned
            key: Hashable = schema_key(call, ())
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
                plan = self._plans.changes(function, None)
                plan.close()
                return plan.schema
            if function.name == WAIT:
                return self._inputs.wait(function, None).schema
        plan = self._plans.plan(query, [], None, call, rewrite, is_run=False)
        plan.close()
        return plan.schema
