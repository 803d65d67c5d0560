"""What metrics need of a service besides what its clients ask."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

from flight_replica.flightsql.service import Service
from flight_replica.replica.measures import MeasuredTable
from flight_replica.sql.memory import DatabaseMemory


class MeasuredService(Service, Protocol):
    """Thread-safe."""

    @property
    def data_directory(self) -> Path:
        """Where its files are."""
        ...

    def memory(self) -> DatabaseMemory:
        """What its database uses now. Raises `DatabaseLost`."""
        ...


@runtime_checkable
class FollowsFeeds(Protocol):
    """A service that applies ops to tables: a replica."""

    def measured(self) -> Sequence[MeasuredTable]:
        """What has happened to each table."""
        ...
