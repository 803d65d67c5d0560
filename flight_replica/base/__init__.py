"""Where a replica's base comes from: Iceberg, the engine's own files, another server, or nowhere."""

from flight_replica.base.empty import EmptyBase
from flight_replica.base.flight import FlightBase
from flight_replica.base.iceberg import IcebergBase
from flight_replica.base.merutable import MerutableBase
from flight_replica.base.source import BaseFile, BaseSnapshot, BaseSource

__all__ = [
    "BaseFile",
    "BaseSnapshot",
    "BaseSource",
    "EmptyBase",
    "FlightBase",
    "IcebergBase",
    "MerutableBase",
]
