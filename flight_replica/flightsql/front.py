"""`Front`: the parts of a server that calls work with, and the same within one user's rights."""

from __future__ import annotations

import copy

from flight_replica.flightsql.limits import ServerLimits
from flight_replica.flightsql.planning import Planner
from flight_replica.flightsql.rights import as_seen_by
from flight_replica.flightsql.service import Service
from flight_replica.flightsql.statements import Statements
from flight_replica.flightsql.users import ANYBODY, User
from flight_replica.flightsql.writes import Puts


class Front:
    """Thread-safe."""

    def __init__(self, service: Service, statements: Statements, limits: ServerLimits) -> None:
        self.service = service
        self._statements = statements
        self.planner = Planner(service, limits)
        self.handles = statements.of(ANYBODY.name)
        self.puts = Puts(service, self.planner, self.handles, limits)

    def seen_by(self, user: User) -> Front:
        """The same as `user` has it: tables that he may read, handles that are his. Cheap, once a call."""
        if user is ANYBODY:
            return self
        other = copy.copy(self)
        other.service = as_seen_by(user, self.service)
        other.planner = self.planner.over(other.service)
        other.handles = self._statements.of(user.name, user.read)
        other.puts = self.puts.over(other.service, other.planner, other.handles)
        return other
