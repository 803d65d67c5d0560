"""A replica inside a program: what `import flight_replica` offers (docs/library.md)."""

from __future__ import annotations

from flight_replica.library.opening import Access, Table, open
from flight_replica.library.replica import Freshness, Replica
from flight_replica.library.result import Result

__all__ = ["Access", "Freshness", "Replica", "Result", "Table", "open"]
