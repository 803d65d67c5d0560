"""`HealthBook`: whether the server and each table is well, as probes ask it.

A table is serving where it can be read, is followed and nothing is wrong with it: loading, waiting, degraded
and paused are not. The server is serving once each of its tables could be read, as long as one of them still
can and it isn't ending: a table that is loading later, or is degraded, takes no traffic from the others.
"""

from __future__ import annotations

from enum import StrEnum

from flight_replica.control.control import Control

SERVER = ""  # as the health protocol names the server itself


class Health(StrEnum):
    """By the names of the gRPC health protocol."""

    SERVING = "SERVING"
    NOT_SERVING = "NOT_SERVING"
    UNKNOWN = "SERVICE_UNKNOWN"  # there is no such table


class HealthBook:
    """Of one server. Thread-safe."""

    def __init__(self, control: Control) -> None:
        self._control = control
        self._has_been_ready = False  # each of its tables could be read, at one time

    def names(self) -> list[str]:
        """Of the tables."""
        return [table.name for table in self._control.every_table()]

    def of(self, name: str) -> Health:
        """Of the table of this name, or of the server."""
        tables = self._control.every_table()
        if name == SERVER:
            readable = [table.is_readable for table in tables]
            self._has_been_ready = self._has_been_ready or all(readable)
            is_well = self._has_been_ready and (any(readable) or not tables)
        else:
            found = next((table for table in tables if table.name == name), None)
            if found is None:
                return Health.UNKNOWN
            is_well = found.is_well
        return Health.SERVING if is_well and not self._control.is_draining else Health.NOT_SERVING
