"""`FlightBase`: a base taken over Flight SQL itself, from a primary, a feed server or another replica.

One pinned moment of the table is fetched by ranges of its key into local Parquet files, and compared with
the server's own digest of that moment before anybody sees it. Nothing but a port is needed. The moment:
pinned_table.py; ranges: key_ranges.py; the transfer: fetch.py; files: fetched_file.py.
"""

from __future__ import annotations

import logging
import shutil
import tempfile
import threading
import time
from pathlib import Path
from urllib.parse import unquote, urlsplit
from uuid import UUID

from flight_replica.base.fetch import Fetch
from flight_replica.base.pinned_table import PinLost, PinnedTable
from flight_replica.base.source import BaseSnapshot
from flight_replica.errors import BaseNotUsable, Closed, ConfigError, LineageChanged
from flight_replica.log.feed_client import Endpoint

__all__ = ["FlightBase", "server_and_table"]

_log = logging.getLogger(__name__)

RANGE_BYTES = 64 << 20  # Arrow bytes of a range: what a cut costs at most
PINS_MAX = 3  # moments tried in one load, before the caller hears of it


class FlightBase:
    """A `BaseSource` of one table behind an endpoint. Thread-safe; one load at a time.

    It never offers a newer snapshot by itself: to fetch a table again is dear, and what is fetched holds
    for as long as the feed is followed from it. A newer one comes after `want`. Files lie in `directory`,
    which it makes and removes.
    """

    def __init__(
        self,
        at: Endpoint | str,
        table: str,
        directory: Path | None = None,
        *,
        serve_as: str | None = None,
        lineage: UUID | None = None,
        range_bytes: int = RANGE_BYTES,
    ) -> None:
        """`at` may be a bare URI, `directory` None a temporary one.

        `table` is its name there, `serve_as` the one here; `lineage`, if given, must be the table's.
        """
        self._endpoint = Endpoint(at) if isinstance(at, str) else at
        self._table = table
        self._served_name = serve_as or table
        self._lineage = lineage
        self._directory = directory or Path(tempfile.mkdtemp(prefix="flight-base-"))
        self._range_bytes = range_bytes
        self._loading = threading.Lock()
        self._closed = threading.Event()
        self._fetch: Fetch | None = None  # begun, and not over
        self._fetch_count = 0
        self._kept: BaseSnapshot | None = None
        self._wanted_seq = 0

    @property
    def place(self) -> str:
        """Where it comes from, for people."""
        return f"{self._endpoint.uri}/{self._table}"

    def begin(self) -> BaseSnapshot:
        """Choose the moment that `load` will fetch: the snapshot without its files.

        The feed is to be followed from its base_seq. Raises `TableNotFound`, `Unavailable`, `LineageChanged`.
        """
        with self._loading:
            if self._kept is not None:
                return self._kept
            if self._fetch is None:
                self._fetch = self._new_fetch()
            return self._fetch.snapshot(())

    def resume(self) -> None:
        """Give back the moment that `begin` chose, if it did."""
        with self._loading:
            self._drop()

    def poll(self) -> int | None:
        """The version of what was fetched, until something newer is wanted. A version is the base_seq."""
        kept = self._kept
        if kept is None:
            return self._wanted_seq or None
        return max(kept.version, self._wanted_seq)

    def want(self, seq: int) -> None:
        self._wanted_seq = max(self._wanted_seq, seq)

    def load(self) -> BaseSnapshot:
        """The snapshot that was fetched, or a newer one where that is wanted; fetches it first.

        Raises `BaseNotUsable` where the server has nothing as new as wanted or doesn't answer for long,
        `BaseError` where what came isn't what the server counts, `LineageChanged`, `TableNotFound`, `Closed`.
        """
        with self._loading:
            if self._kept is None or self._kept.base_seq < self._wanted_seq:
                former, self._kept = self._kept, self._fetch_one()
                if former is not None:
                    _remove_files(former)
            return self._kept

    @property
    def progress(self) -> str:
        fetch = self._fetch
        return fetch.progress if fetch is not None else ""

    @property
    def remark(self) -> str:
        return ""

    def close(self) -> None:
        """End a load that is under way, which raises `Closed`, and remove the files. Idempotent."""
        self._closed.set()
        fetch = self._fetch
        if fetch is not None:
            fetch.interrupt()
        with self._loading:
            self._drop()
            shutil.rmtree(self._directory, ignore_errors=True)

    def _fetch_one(self) -> BaseSnapshot:
        for _ in range(PINS_MAX):
            if self._fetch is not None and self._fetch.snapshot(()).base_seq < self._wanted_seq:
                self._drop()
            fetch = self._fetch = self._fetch or self._new_fetch()
            began = time.monotonic()
            try:
                snapshot = fetch.run()
            except PinLost as error:
                self._drop()
                lost = error
                _log.warning("base begun anew table=%s error=%s", self._served_name, error)
                continue
            except BaseException:
                self._drop()
                raise
            self._fetch = None
            fetch.close()
            _log.info(
                "base fetched table=%s from=%s base_seq=%d rows=%d seconds=%.3f",
                self._served_name,
                self.place,
                snapshot.base_seq,
                snapshot.row_count,
                time.monotonic() - began,
            )
            return snapshot
        raise BaseNotUsable(
            f"table {self._served_name!r}: {self.place} let go of {PINS_MAX} pins one after another: {lost}"
        ) from lost

    def _new_fetch(self) -> Fetch:
        if self._closed.is_set():
            raise Closed(f"the base of table {self._served_name!r} is closed")
        pinned = PinnedTable(self._endpoint, self._table)
        try:
            at = pinned.pin()
            if self._lineage is not None and at.lineage != self._lineage:
                raise LineageChanged(
                    f"table {self._served_name!r}: {self.place} is of lineage {at.lineage}, "
                    f"expected {self._lineage}"
                )
            if at.visible_seq < self._wanted_seq:
                raise BaseNotUsable(
                    f"table {self._served_name!r}: {self.place} is at seq {at.visible_seq}, "
                    f"needed is {self._wanted_seq}"
                )
        except BaseException:
            pinned.close()
            raise
        self._lineage = at.lineage
        self._fetch_count += 1
        directory = self._directory / f"{self._fetch_count:04d}"
        return Fetch(pinned, self._served_name, self.place, directory, self._range_bytes, self._closed)

    def _drop(self) -> None:
        """Forget what was begun; nothing of it is used."""
        fetch, self._fetch = self._fetch, None
        if fetch is not None:
            fetch.discard()


def server_and_table(place: str, table: str) -> tuple[str, str]:
    """Server and table of `grpc://HOST:PORT[/TABLE]`; `table` where the place names none.

    Raises `ConfigError` for a place that can't be one.
    """
    parts = urlsplit(place)
    if not parts.scheme.startswith("grpc") or not parts.netloc or parts.query or parts.fragment:
        raise ConfigError(f"{place}: expected grpc://HOST:PORT[/TABLE], or grpc+tls:")
    return f"{parts.scheme}://{parts.netloc}", unquote(parts.path.strip("/")) or table


def _remove_files(snapshot: BaseSnapshot) -> None:
    """Whoever adopted them has links of their own."""
    for file in snapshot.files:
        Path(file.path).unlink(missing_ok=True)
