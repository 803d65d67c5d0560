"""`served_pair`: a primary and a replica of it in this process, each on a port, with both `Control`s."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from flight_replica.control.control import Control
from flight_replica.flightsql.server import FlightSqlServer
from flight_replica.log.feed_client import Endpoint
from flight_replica.logs.setup import OURS
from flight_replica.primary.service import PrimaryService
from flight_replica.primary.settings import PrimarySettings
from flight_replica.replica.service import ReplicaService
from flight_replica.replica.steering import ReplicaSteering
from flight_replica.replica.upstream import Upstream
from flight_replica.state.workspace import Workspace
from tests.processes import until


@dataclass
class Pair:
    """Both servers. `orders` has an id and an item; more tables are made by `primary.write`."""

    primary: PrimaryService
    primary_uri: str
    primary_control: Control
    replica: ReplicaService
    server: FlightSqlServer
    control: Control

    @property
    def uri(self) -> str:
        return f"grpc://127.0.0.1:{self.server.port}"

    def write(self, *statements: str) -> None:
        for statement in statements:
            self.primary.write(statement)

    def state(self, table: str) -> str:
        """How the replica's table is; "" where it has none."""
        return next((found.state for found in self.control.every_table() if found.name == table), "")

    def wait_serving(self, table: str) -> None:
        until(lambda: self.state(table) == "serving", f"{table} is served")

    def seq(self, table: str) -> int:
        (found,) = (found for found in self.control.every_table() if found.name == table)
        return found.visible_seq


@contextmanager
def served_pair(directory: Path) -> Iterator[Pair]:
    with ExitStack() as stack:
        primary = stack.enter_context(
            closing(PrimaryService.open(directory / "primary", PrimarySettings(publish_seconds=3600)))
        )
        origin = stack.enter_context(closing(FlightSqlServer(primary, "127.0.0.1", 0)))
        primary.write("CREATE TABLE orders (id BIGINT PRIMARY KEY, item VARCHAR)")
        primary.write("INSERT INTO orders SELECT range, 'item ' || range FROM range(100)")
        uri = f"grpc://127.0.0.1:{origin.port}"
        workspace = Workspace(directory / "replica")
        replica = stack.enter_context(closing(ReplicaService(workspace, upstream=Upstream(Endpoint(uri)))))
        server = stack.enter_context(closing(FlightSqlServer(replica, "127.0.0.1", 0)))
        control = Control(server, replica, ReplicaSteering(replica))
        found = Pair(primary, uri, Control(origin, primary, None), replica, server, control)
        found.wait_serving("orders")
        yield found


@contextmanager
def log_levels_kept() -> Iterator[None]:
    """What the block does to the levels of this process's log is undone."""
    loggers = [logging.getLogger(), logging.getLogger(OURS)]
    levels = [found.level for found in loggers]
    try:
        yield
    finally:
        for found, level in zip(loggers, levels, strict=True):
            found.setLevel(level)
