from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
import pytest

from flight_replica.errors import Busy, StatementNotFound
from flight_replica.flightsql.call import Call
from flight_replica.flightsql.checking import Write
from flight_replica.flightsql.limits import ServerLimits
from flight_replica.flightsql.plans import Item
from flight_replica.flightsql.statements import Statements


class FakePlan:
    schema = pa.schema({})
    app_metadata = b""

    def __init__(self) -> None:
        self.is_closed = False

    def batches(self, call: Call) -> Iterator[Item]:
        return iter(())

    def close(self) -> None:
        self.is_closed = True


class Clock:
    seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def test_a_plan_is_handed_out_once_and_then_its_callers_to_close() -> None:
    statements, plan = Statements(ServerLimits()), FakePlan()
    handle = statements.keep(plan)
    assert statements.fetch(handle) is plan
    with pytest.raises(StatementNotFound):
        statements.fetch(handle)
    statements.close()
    assert not plan.is_closed


def test_handles_cannot_be_guessed_from_one_another() -> None:
    statements = Statements(ServerLimits())
    handles = {statements.keep(FakePlan()) for _ in range(100)}
    assert len(handles) == 100 and {len(handle) for handle in handles} == {16}


def test_plans_expire_exactly_when_their_time_is_over() -> None:
    clock, plan = Clock(), FakePlan()
    statements = Statements(ServerLimits(planned_seconds=30.0), clock)
    handle = statements.keep(plan)
    clock.seconds = 29.9
    statements.expire()
    assert not plan.is_closed
    clock.seconds = 30.0
    statements.expire()
    assert plan.is_closed
    with pytest.raises(StatementNotFound, match="30 s"):
        statements.fetch(handle)


def test_a_prepared_statement_in_use_stays_an_idle_one_goes() -> None:
    clock = Clock()
    statements = Statements(ServerLimits(prepared_idle_seconds=100.0), clock)
    used, idle = (statements.prepare(Write("DELETE FROM t", 0)) for _ in range(2))
    clock.seconds = 99.0
    statements.prepared(used)
    clock.seconds = 101.0
    statements.expire()
    assert statements.prepared(used).statement == Write("DELETE FROM t", 0)
    with pytest.raises(StatementNotFound):
        statements.prepared(idle)


def test_a_plan_beyond_the_limit_is_refused_and_closed() -> None:
    statements, plan = Statements(ServerLimits(planned_max=1)), FakePlan()
    statements.keep(FakePlan())
    with pytest.raises(Busy, match="planned_max"):
        statements.keep(plan)
    assert plan.is_closed


def test_close_lets_go_of_what_was_never_fetched() -> None:
    statements, plan = Statements(ServerLimits()), FakePlan()
    statements.keep(plan)
    statements.close()
    assert plan.is_closed
