"""`Publication`: where replicas find a table's base in files, and the seq that is vouched for it.

A mirror may be some versions behind its catalog, so what is published is what lies at the place itself, where
this host can read it; else what the catalog has. Source: change feed, section 4.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass

from flight_replica.base.merutable import MerutableBase
from flight_replica.beside.engine_feed import EngineFeed
from flight_replica.errors import ReplicaError

KIND = "merutable"
LOOK_SECONDS = 1.0  # between two looks at the place


@dataclass(frozen=True, slots=True)
class PublishedFiles:
    """What `merutable_tables()` says of a base; version and seq are None while nothing is there."""

    kind: str
    uri: str
    version: int | None
    seq: int | None


class Publication:
    """One table's base at `uri`, as replicas reach it. Thread-safe."""

    def __init__(self, table: str, uri: str) -> None:
        self._table = table
        self._uri = uri
        self._lock = threading.Lock()
        self._looked: tuple[float, PublishedFiles] | None = None

    def base(self, feed: EngineFeed) -> PublishedFiles:
        """What lies there, as of the last second."""
        with self._lock:
            now = time.monotonic()
            if self._looked is None or now - self._looked[0] >= LOOK_SECONDS:
                self._looked = (now, self._look(feed))
            return self._looked[1]

    def _look(self, feed: EngineFeed) -> PublishedFiles:
        newest = feed.newest_snapshot
        version, seq = newest if newest is not None else (None, None)
        try:
            found = MerutableBase(self._uri, table=self._table, schema=feed.schema).poll()
        except ReplicaError:  # replicas may reach it by a path that isn't this host's
            found = version
        if found is not None and found != version:
            version, seq = found, feed.vouched_seq(found)
        return PublishedFiles(KIND, self._uri, version, seq)
