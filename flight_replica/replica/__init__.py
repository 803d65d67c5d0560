"""A table's replica, by hand (`Replica`) or as a server (`ReplicaService`). Names are merutable's own."""

from flight_replica.replica.replica import Replica
from flight_replica.replica.stats import Advanced, AdvanceOutcome, Recovered, ReplicaSettings, ReplicaStats
from flight_replica.state.tail import ReplicaTail

__all__ = [
    "AdvanceOutcome",
    "Advanced",
    "Recovered",
    "Replica",
    "ReplicaSettings",
    "ReplicaStats",
    "ReplicaTail",
]
