"""Where a status comes from: the admin port, or `merutable_status()` where a Flight port was named."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pyarrow as pa

from flight_replica._pb import admin_pb2 as pb
from flight_replica.admin.client import AdminClient, NoAdminPort
from flight_replica.client import query
from flight_replica.connecting import adbc_options
from flight_replica.log.feed_client import Endpoint

STATUS_SQL = "SELECT * FROM merutable_status()"


class Statuses:
    """The statuses of one server. Ends with `close`."""

    def __init__(self, at: Endpoint) -> None:
        self._at = at
        self._client = AdminClient(at)
        self.rows: pa.Table | None = None  # of the last status, where it came by SQL

    def close(self) -> None:
        self._client.close()

    def now(self) -> pb.ServerStatus:
        """Raises `Unavailable`, `Unauthenticated`."""
        try:
            return self._client.status()
        except NoAdminPort:
            return self._by_sql()

    def watch(
        self, interval_seconds: float, wait: Callable[[float], None] = time.sleep
    ) -> Iterator[pb.ServerStatus]:
        """The status now and at each interval. Raises as `now`, when the server has gone."""
        try:
            yield from self._client.watch(interval_seconds)
        except NoAdminPort:
            while True:
                yield self._by_sql()
                wait(interval_seconds)

    def _by_sql(self) -> pb.ServerStatus:
        self.rows = query(self._at.uri, STATUS_SQL, adbc_options(self._at))
        server = pb.Server(product="server", addresses={"flight": self._at.uri})
        return pb.ServerStatus(server=server, tables=map(_table, self.rows.to_pylist()))


def _table(row: Mapping[str, Any]) -> pb.Table:
    return pb.Table(
        name=row["table_name"],
        state=row["state"],
        reason=row["reason"],
        lineage=row["lineage"],
        base_seq=row["base_seq"],
        visible_seq=row["visible_seq"],
        high_water=row["high_water"],
        lag_seqs=max(0, row["high_water"] - row["visible_seq"]),
        lag_us=round(row["lag_ms"] * 1000) if row["lag_ms"] is not None else -1,
    )
