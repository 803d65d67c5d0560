"""`RestrictedService` by itself: every way to a table is closed before the service behind it is asked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import UUID

import pyarrow as pa
import pytest

from flight_replica.errors import Forbidden, ReplicaError, TableNotFound
from flight_replica.flightsql.rights import RestrictedService, as_seen_by
from flight_replica.flightsql.service import IngestMode, TableEntry
from flight_replica.flightsql.users import ANYBODY, EVERY_TABLE, TableNames, User
from flight_replica.position import Demand, TablePosition
from flight_replica.schema import Column, TableSchema

SCHEMA = TableSchema((Column("id", pa.int64(), False),), ("id",))
NO_ROWS = pa.schema({"id": pa.int64()}).empty_table().to_reader()
USER = User("ann", TableNames(("orders", "items", "new*")), TableNames(("orders", "new*")), True)


class Behind:
    """A service, or its pending writes, that notes what it is asked for."""

    product = "test"
    read_only_reason = None

    def __init__(self) -> None:
        self.asked: list[str] = []

    def tables(self) -> list[TableEntry]:
        names = ("orders", "items", "hidden")
        return [
            TableEntry(name, SCHEMA, "", 0, TablePosition(name, UUID(int=1), 0, 0, high_water=0))
            for name in names
        ]

    def table_names(self) -> list[str]:
        return [entry.name for entry in self.tables()]

    def begin(self, snapshot: object = None) -> Behind:
        return self

    def __getattr__(self, name: str) -> Callable[..., str]:
        def noted(*arguments: object) -> str:
            self.asked.append(name)
            return name

        return noted


Call = Callable[[Any], object]

TO_A_TABLE: list[Callable[[Any, str], object]] = [
    lambda service, name: service.feed(name),
    lambda service, name: service.open_view([name]),
    lambda service, name: service.made_of([name]),
    lambda service, name: service.open_view(["orders", name]),
    lambda service, name: service.open_together([name], 2),
    lambda service, name: service.open_view_as_of([name], {}),
    lambda service, name: service.wait_for(Demand(name), 0.0, None),
    lambda service, name: service.write(f"DELETE FROM {name}"),
    lambda service, name: service.write(f"INSERT INTO orders SELECT * FROM {name}"),
    lambda service, name: service.write(f"DROP TABLE {name}"),
    lambda service, name: service.begin().write(f"DELETE FROM {name}"),
    lambda service, name: service.begin().write(f"INSERT INTO orders SELECT * FROM {name}"),
    lambda service, name: service.ingest(name, IngestMode.APPEND, NO_ROWS),
    lambda service, name: service.ingest(name, IngestMode.REPLACE, NO_ROWS),
]


@pytest.mark.parametrize("call", TO_A_TABLE)
def test_no_way_leads_to_a_table_that_may_not_be_read(call: Callable[[Any, str], object]) -> None:
    behind = Behind()
    service = RestrictedService(behind, USER)  # type: ignore[arg-type]
    texts = []
    for name in ("hidden", "absent"):
        with pytest.raises(TableNotFound) as caught:
            call(service, name)
        texts.append(str(caught.value).replace(name, "?"))
    assert behind.asked == []
    assert texts[0] == texts[1]


@pytest.mark.parametrize("call", TO_A_TABLE)
def test_every_way_leads_to_a_table_within_the_rights(call: Callable[[Any, str], object]) -> None:
    behind = Behind()
    call(RestrictedService(behind, USER), "orders")  # type: ignore[arg-type]
    assert len(behind.asked) == 1


@pytest.mark.parametrize(
    "call",
    [
        lambda service: service.write("DELETE FROM items"),
        lambda service: service.begin().write("DELETE FROM items"),
        lambda service: service.write("DROP TABLE items"),
        lambda service: service.write("CREATE TABLE other (id BIGINT PRIMARY KEY)"),
        lambda service: service.write("CREATE TABLE hidden (id BIGINT PRIMARY KEY)"),
        lambda service: service.ingest("items", IngestMode.APPEND, NO_ROWS),
        lambda service: service.ingest("hidden", IngestMode.CREATE, NO_ROWS),
        lambda service: service.ingest("other", IngestMode.CREATE_APPEND, NO_ROWS),
    ],
)
def test_nothing_is_written_beyond_the_rights(call: Call) -> None:
    behind = Behind()
    with pytest.raises(Forbidden):
        call(RestrictedService(behind, USER))  # type: ignore[arg-type]
    assert behind.asked == []


def test_a_user_without_ddl_changes_no_tables() -> None:
    service = RestrictedService(Behind(), User("bob", EVERY_TABLE, EVERY_TABLE))  # type: ignore[arg-type]
    for sql in ("DROP TABLE orders", "CREATE TABLE new (id BIGINT PRIMARY KEY)"):
        with pytest.raises(Forbidden):
            service.write(sql)
    assert service.read_only_reason is None


def test_what_is_no_statement_is_told_as_such() -> None:
    with pytest.raises(ReplicaError):
        RestrictedService(Behind(), USER).write("SELEKT")  # type: ignore[arg-type]


def test_who_may_do_all_gets_the_service_itself() -> None:
    behind = Behind()
    assert as_seen_by(ANYBODY, behind) is behind  # type: ignore[arg-type, comparison-overlap]
    assert isinstance(as_seen_by(USER, behind), RestrictedService)  # type: ignore[arg-type]
