"""A primary of one table in this process, its server, and a proxy in front of that: what bases come from."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from flight_replica.base.flight import RANGE_BYTES, FlightBase
from flight_replica.base.source import BaseSnapshot
from flight_replica.digest import Digest, digest
from flight_replica.flightsql.limits import DEFAULT_LIMITS, ServerLimits
from flight_replica.flightsql.server import FlightSqlServer
from flight_replica.log.feed_client import Endpoint
from flight_replica.primary.service import PrimaryService
from flight_replica.primary.settings import PrimarySettings
from tests.faults import TcpProxy


class FlightPrimary:
    """The table `t` behind `proxy`. Ends with `close`."""

    def __init__(self, folder: Path, limits: ServerLimits = DEFAULT_LIMITS) -> None:
        self.folder = folder
        self._limits = limits
        self._held = ExitStack()
        self.service = PrimaryService.open(folder / "primary", PrimarySettings(publish_seconds=3600))
        self._held.callback(self.service.close)
        self.server = self._serve()
        self._held.callback(lambda: self.server.close())
        self.proxy = self._held.enter_context(TcpProxy(self.server.port))
        self._bases = 0

    def _serve(self) -> FlightSqlServer:
        return FlightSqlServer(self.service, "127.0.0.1", 0, self._limits)

    @property
    def uri(self) -> str:
        return f"grpc://127.0.0.1:{self.proxy.port}"

    def restart_server(self) -> None:
        """Put another server in the old one's place: the same tables, but it knows no pin."""
        old, self.server = self.server, self._serve()
        self.proxy.lead_to(self.server.port)
        self.proxy.cut()
        old.close()

    def write(self, sql: str) -> int:
        """The seq of the commit; 0 for one that has none."""
        return self.service.write(sql).seq or 0

    def write_rows(self, count: int) -> int:
        """Make `t` with so many rows, in no order; the seq."""
        self.write("CREATE TABLE t (id BIGINT PRIMARY KEY, v VARCHAR, x DOUBLE)")
        shuffled = f"SELECT i * 7919 % {count}, 'v' || i, i / 7 FROM range({count}) r(i)"
        return self.write(f"INSERT INTO t {shuffled}")

    def base(self, range_bytes: int = RANGE_BYTES) -> FlightBase:
        self._bases += 1
        directory = self.folder / f"base{self._bases}"
        return FlightBase(Endpoint(self.uri), "t", directory, range_bytes=range_bytes)

    def counted(self) -> Digest:
        """The table as it is now, counted from its rows here."""
        with self.service.open_view(["t"]) as view:
            return digest(view.execute("SELECT * FROM t"), self.service.engine.table("t").schema)

    def close(self) -> None:
        self._held.close()


def rows_of(snapshot: BaseSnapshot) -> pa.Table:
    """What lies in the snapshot's files, whose rows all count."""
    assert not any(len(file.deleted) for file in snapshot.files)
    empty = snapshot.schema.arrow_schema.empty_table()
    tables = [pq.read_table(file.path).cast(empty.schema) for file in snapshot.files]
    return pa.concat_tables([empty, *tables])


def counted(snapshot: BaseSnapshot) -> Digest:
    """The digest of what lies in the snapshot's files."""
    return digest(rows_of(snapshot).to_batches(), snapshot.schema)
