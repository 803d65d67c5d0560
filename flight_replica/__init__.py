"""A live read replica for merutable tables that speaks Arrow Flight SQL.

As a library:

    with flight_replica.open("grpc://127.0.0.1:4711") as replica:
        table = replica.query("SELECT * FROM orders").arrow()

The names in `__all__` are what is public; they are loaded when they are first used (docs/library.md).
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from flight_replica import errors
from flight_replica.errors import ReplicaError

if TYPE_CHECKING:
    from flight_replica.library import Access, Freshness, Replica, Result, Table, open

    __version__: str

__all__ = [
    "Access",
    "Freshness",
    "Replica",
    "ReplicaError",
    "Result",
    "Table",
    "__version__",
    "errors",
    "open",
]

_LIBRARY = ("Access", "Freshness", "Replica", "Result", "Table", "open")


def __getattr__(name: str) -> object:
    if name in _LIBRARY:
        found = getattr(import_module("flight_replica.library"), name)
    elif name == "__version__":
        found = import_module("importlib.metadata").version("flight-replica")
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted(__all__)
