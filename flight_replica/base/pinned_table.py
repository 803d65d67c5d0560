"""`PinnedTable`: one table of a Flight SQL server at one moment, which a pin of the server's holds still.

Every statement goes with the same pin and is checked to be of the same moment: a server that was started
anew knows nothing of the pin and would answer with newer rows. Knows Flight, nothing of files or threads.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from uuid import UUID, uuid4

import pyarrow as pa

from flight_replica.base.key_ranges import Bound, KeyRanges, quoted
from flight_replica.errors import FeedError, ReplicaError, Unavailable
from flight_replica.log.change_feed import ChangeFeedLogSource
from flight_replica.log.feed_client import Endpoint, FeedClient
from flight_replica.log.wire import decode_positions
from flight_replica.position import TablePosition
from flight_replica.schema import TableSchema

__all__ = ["PinLost", "PinnedTable", "Reading", "ServerDigest"]

_log = logging.getLogger(__name__)

PIN_HEADER = "merutable-pin"
END_PIN = "merutable.EndPin"  # an action of our servers; elsewhere a pin ends when it isn't used
RPC_SECONDS = 10.0  # of a plan: the first one opens the pin, which waits for its turn on a busy server
END_SECONDS = 2.0  # to say goodbye; who doesn't hear it ends the pin by itself
WIDTH_ROWS = 64  # rows looked at to guess how wide all are


class PinLost(ReplicaError):
    """The server no longer has this moment: begin anew under another pin."""

    retryable = True


@dataclass(frozen=True, slots=True)
class ServerDigest:
    """What `merutable_digest` says of the table, or of a range of it."""

    row_count: int
    digest: int


Reading = Callable[[Callable[[], None]], None]
"""Told how to cancel what is being read; called with a no-op when it is over."""


class PinnedTable:
    """Opened by `pin`. Thread-safe: each call may come from another thread; `close` ends it."""

    def __init__(self, endpoint: Endpoint, table: str) -> None:
        """Pins nothing yet. `table` as the server spells it, or but for case."""
        self._pin = f"base-{uuid4().hex}"
        timeout = max(endpoint.rpc_timeout_seconds, RPC_SECONDS)
        self._bare = replace(endpoint, rpc_timeout_seconds=timeout)
        self._table = table
        headers = {**endpoint.headers, PIN_HEADER: self._pin}
        self._client = FeedClient(replace(self._bare, headers=headers))
        self._at: TablePosition | None = None  # the moment, once it is pinned
        self._names: tuple[str, ...] = ()  # of the columns, as SQL calls them
        self._schema: TableSchema | None = None

    def pin(self) -> TablePosition:
        """Take the newest moment. Raises `TableNotFound`, `Unavailable`, `ConfigError`, `FeedError`."""
        none = self.collect(f"SELECT * FROM {quoted(self._table)} LIMIT 0")
        self._names = tuple(none.schema.names)
        self._schema = self._schema_then(self.at.lineage)
        return self.at

    @property
    def at(self) -> TablePosition:
        """The pinned moment: lineage, and visible_seq, which is what its rows stand for."""
        assert self._at is not None, "nothing is pinned yet"
        return self._at

    @property
    def schema(self) -> TableSchema:
        """The table as it was at that moment."""
        assert self._schema is not None, "nothing is pinned yet"
        return self._schema

    def row_count(self) -> int:
        ((count,),) = _rows(self.collect(f"SELECT count(*) FROM {quoted(self._table)}"))
        assert isinstance(count, int), f"count(*) gave {count!r}"
        return count

    def width_bytes(self) -> float:
        """Arrow bytes of a row, guessed from a few."""
        some = self.collect(f"SELECT * FROM {quoted(self._table)} LIMIT {WIDTH_ROWS}")
        return float(some.nbytes / max(1, len(some)))

    @property
    def key_ranges(self) -> KeyRanges:
        """How the table is cut into ranges."""
        key = [self._names[self.schema.names.index(name)] for name in self.schema.primary_key]
        return KeyRanges(self._table, key)

    def ranges(self, row_count: int, range_bytes: int, ranges_max: int) -> list[str]:
        """A SELECT for each range of keys, of about `range_bytes` Arrow bytes each, at most so many."""
        count = min(ranges_max, max(1, round(row_count * self.width_bytes() / range_bytes)))
        ranges = self.key_ranges
        if count == 1:
            return ranges.select_sqls([], 1)
        keys = _rows(self.collect(ranges.sample_sql(row_count)))
        sample: list[Bound] = [tuple(map(str, key)) for key in keys]
        return ranges.select_sqls(sample, count)

    def read(self, sql: str, reading: Reading) -> Iterator[pa.RecordBatch]:
        """The rows of a statement over the table, as they come.

        Raises `PinLost`, and `Unavailable`, `StatementNotFound` where another try may work.
        """
        info = self._client.plan(sql)
        self._check(info.app_metadata)
        stream = self._client.open(info)
        reading(stream.cancel)
        try:
            while (chunk := self._client.next_chunk(stream)) is not None:
                if chunk.data is not None and chunk.data.num_rows:
                    yield chunk.data
        finally:
            reading(_nothing)

    def digest(self, reading: Reading, start: bytes | None = None, end: bytes | None = None) -> ServerDigest:
        """The server's own digest of this moment, of the rows with `start <= pk_bytes < end`.

        None is no bound. Takes the server about as long as a scan.
        """
        name = self._table.replace("'", "''")
        # An empty key is below all others, so it is no bound.
        bounds = "" if start is None and end is None else f", '{(start or b'').hex()}'"
        bounds += "" if end is None else f", '{end.hex()}'"
        sql = f"SELECT lineage, seq, row_count, digest FROM merutable_digest('{name}'{bounds})"
        batches = list(self.read(sql, reading))
        rows = _rows(pa.Table.from_batches(batches)) if batches else []
        if len(rows) != 1:
            raise FeedError(f"{self._bare.uri}: {sql} gave {len(rows)} rows, expected 1")
        ((lineage, seq, row_count, value),) = rows
        if (lineage, seq) != (str(self.at.lineage), self.at.visible_seq):
            raise PinLost(f"{self._bare.uri}: the digest is of seq {seq}, the pin of {self.at.visible_seq}")
        assert isinstance(row_count, int) and isinstance(value, int), f"digest row {rows[0]!r}"
        return ServerDigest(row_count, value)

    def is_answering(self) -> bool:
        """Whether the server is there, whatever has become of the pin."""
        try:
            with FeedClient(self._bare) as client:
                client.query("SELECT * FROM merutable_clock()")
        except ReplicaError:
            return False
        return True

    def close(self) -> None:
        """End the pin, so that the server needn't keep its moment any longer, and the connection."""
        self._client.close()
        try:
            with FeedClient(replace(self._bare, rpc_timeout_seconds=END_SECONDS)) as client:
                client.act(END_PIN, self._pin.encode())
        except ReplicaError as error:
            _log.debug("pin not ended table=%s error=%s", self._table, error)

    def collect(self, sql: str) -> pa.Table:
        """A whole small answer about the table, with its schema. Raises as `read`."""
        info = self._client.plan(sql)
        self._check(info.app_metadata)
        batches = []
        stream = self._client.open(info)
        while (chunk := self._client.next_chunk(stream)) is not None:
            if chunk.data is not None:
                batches.append(chunk.data)
        return pa.Table.from_batches(batches, stream.schema)

    def _check(self, app_metadata: bytes) -> None:
        """Raise `PinLost` unless an answer is of the pinned moment; the first one says which that is."""
        positions, _ = decode_positions(app_metadata)
        if len(positions) != 1:
            raise FeedError(
                f"{self._bare.uri}: an answer about table {self._table!r} states {len(positions)} positions"
            )
        (at,) = positions
        if self._at is None:
            self._at = at
        elif (at.lineage, at.visible_seq) != (self._at.lineage, self._at.visible_seq):
            raise PinLost(
                f"{self._bare.uri}: table {self._table!r} was pinned at seq {self._at.visible_seq} of "
                f"lineage {self._at.lineage}, the server answers at seq {at.visible_seq} of {at.lineage}"
            )

    def _schema_then(self, lineage: UUID) -> TableSchema:
        """The schema at the pinned moment: columns are only ever added, so the first ones of today's."""
        source = ChangeFeedLogSource(self._bare, self._table, lineage=lineage)
        try:
            today = source.schema
        finally:
            source.close()
        count = len(self._names)
        if count > len(today.columns):
            raise Unavailable(
                f"{self._bare.uri}: table {self._table!r} has {count} columns in SQL, "
                f"{len(today.columns)} in its feed"
            )
        return TableSchema(today.columns[:count], today.primary_key)


def _rows(table: pa.Table) -> list[tuple[object, ...]]:
    columns = [column.to_pylist() for column in table.columns]
    return list(zip(*columns, strict=True))


def _nothing() -> None:
    """What there is to cancel when nothing is read."""
