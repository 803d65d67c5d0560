"""What can be set about a primary: retention of ops, the pace of the published base, memory."""

from __future__ import annotations

from dataclasses import dataclass, fields

from flight_replica.errors import ConfigError


@dataclass(frozen=True, slots=True)
class PrimarySettings:
    """Limits and intervals of one primary. Raises `ConfigError` for a value that can't work.

    An op is kept while it is one of the newest `retention_ops` and younger than `retention_seconds`.
    """

    retention_ops: int = 2_000_000  # ops per table
    retention_seconds: float = 24 * 3600.0
    retention_interval_seconds: float = 5.0
    recent_ops_bytes: int = 64 << 20  # ops per table kept in memory for followers
    publish_seconds: float = 10.0  # between two commits to a table's base
    publish_ops: int = 100_000  # newer ops than the base has, after which it is published at once
    base_grace_seconds: float = 600.0  # old snapshots and dropped tables' files stay this long
    ingest_bytes_max: int = 1 << 30  # Arrow bytes of one ingest, which is one commit in memory
    transaction_bytes_max: int = 256 << 20  # Arrow bytes of the ops of one write transaction, in memory
    group_writes_max: int = 256  # writes that share one durable commit
    memory_limit: str | None = None  # DuckDB's, such as '4GB'

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, int | float) and not value >= 0:  # NaN neither
                raise ConfigError(f"{field.name} is {value}, it must be at least 0")
        for name in ("recent_ops_bytes", "ingest_bytes_max", "group_writes_max"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}, it must be at least 1")
