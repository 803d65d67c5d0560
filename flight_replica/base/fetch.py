"""`Fetch`: one moment of a table on its way here, by ranges of its key; goes on after a cut.

A range that was cut is fetched again from its beginning; those that are whole stay. The server counts its
digest meanwhile, and what came is compared with it at the end.
"""

from __future__ import annotations

import logging
import shutil
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import TypeVar

from flight_replica.base.fetched_file import FetchedFile, Part
from flight_replica.base.pinned_table import PinLost, PinnedTable, ServerDigest
from flight_replica.base.source import BaseFile, BaseSnapshot
from flight_replica.errors import (
    BaseError,
    BaseNotUsable,
    Closed,
    ReplicaError,
    StatementNotFound,
    Unavailable,
)
from flight_replica.log.backoff import Backoff, BackoffConfig

__all__ = ["Fetch"]

_log = logging.getLogger(__name__)
_T = TypeVar("_T")

STREAMS = 2  # ranges fetched at once: one is written while the other one is awaited
RANGES_MAX = 64  # each is a scan of the key column where the server's rows aren't in key order
PATIENCE_SECONDS = 600.0  # without a word; a pin that nobody uses ends then (pin_idle_seconds)
REFUSALS_MAX = 3  # by a server that is there: it has let go of the pin
LOG_SECONDS = 5.0  # between log lines of a fetch that takes long


class Fetch:
    """Owns `pinned` and `directory`, and in `run`, which is called once, its threads `base-TABLE`."""

    def __init__(
        self,
        pinned: PinnedTable,
        table: str,
        place: str,
        directory: Path,
        range_bytes: int,
        closed: threading.Event,
    ) -> None:
        self._pinned = pinned
        self._table = table
        self._place = place
        self._directory = directory
        self._range_bytes = range_bytes
        self._closed = closed
        self._ranges: list[str] | None = None  # SELECTs, once they are known
        self._row_count = 0  # of all
        self._lock = threading.Lock()
        # Everything below is guarded by `_lock`.
        self._whole = 0  # ranges
        self._rows = 0  # of whole and of begun ranges
        self._cancel_by_job: dict[str, Callable[[], None]] = {}
        self._is_over = False
        self._word_at = time.monotonic()  # when something came last
        self._logged_at = self._word_at
        self._trouble = ""

    def snapshot(self, files: tuple[BaseFile, ...]) -> BaseSnapshot:
        at = self._pinned.at
        return BaseSnapshot(
            table=self._table,
            lineage=at.lineage,
            base_seq=at.visible_seq,
            version=at.visible_seq,
            schema=self._pinned.schema,
            files=files,
            commit_time_us=at.commit_time_us,
        )

    @property
    def progress(self) -> str:
        with self._lock:
            whole, rows, trouble = self._whole, self._rows, self._trouble
        ranges = self._ranges
        if ranges is None:
            return f"asking {self._place} for seq {self._pinned.at.visible_seq}; {trouble}".removesuffix("; ")
        text = f"{rows} of {self._row_count} rows, {whole} of {len(ranges)} ranges from {self._place}"
        return f"{text}; {trouble}".removesuffix("; ")

    def run(self) -> BaseSnapshot:
        """The whole snapshot, compared. Raises `PinLost`, `BaseNotUsable`, `BaseError`, `Closed`."""
        ranges = self._ranges = self._patiently("plan", self._plan)
        with ThreadPoolExecutor(STREAMS + 1, f"base-{self._table}") as workers:
            digest: Future[ServerDigest] = workers.submit(self._fetch_digest)
            parts: list[Future[Part]] = [
                workers.submit(self._fetch_range, number, sql) for number, sql in enumerate(ranges)
            ]
            jobs: list[Future[Part] | Future[ServerDigest]] = [digest, *parts]
            for job in as_completed(jobs):
                if job.exception() is not None:
                    self._end_all()
        self._raise_first([error for job in jobs if (error := job.exception()) is not None])
        return self._compared([part.result() for part in parts], digest.result())

    def interrupt(self) -> None:
        """Let `run` end, wherever it waits; `closed` is set by then."""
        self._end_all()

    def discard(self) -> None:
        """Let go of the pin and remove what came."""
        self.close()
        shutil.rmtree(self._directory, ignore_errors=True)

    def close(self) -> None:
        """Let go of the pin."""
        self._pinned.close()

    # --- jobs -------------------------------------------------------------------------------------

    def _plan(self, job: str) -> list[str]:
        self._row_count = self._pinned.row_count()
        return self._pinned.ranges(self._row_count, self._range_bytes, RANGES_MAX)

    def _fetch_digest(self) -> ServerDigest:
        return self._patiently(
            "digest", lambda job: self._pinned.digest(lambda cancel: self._reads(job, cancel))
        )

    def _fetch_range(self, number: int, sql: str) -> Part:
        path = self._directory / f"{number:05d}.parquet"
        part = self._patiently(f"range {number + 1}", lambda job: self._read_range(job, sql, path))
        with self._lock:
            self._whole += 1
        return part

    def _read_range(self, job: str, sql: str, path: Path) -> Part:
        rows = 0
        try:
            with FetchedFile(path, self._pinned.schema) as file:
                for batch in self._pinned.read(sql, lambda cancel: self._reads(job, cancel)):
                    self._check()
                    file.add(batch)
                    rows += batch.num_rows
                    self._came(batch.num_rows)
                return file.finish()
        except BaseException:
            self._came(-rows)  # the range begins anew, if it does
            raise

    def _patiently(self, job: str, work: Callable[[str], _T]) -> _T:
        """`work` done, begun again after whatever may pass.

        Raises `PinLost` when the server is there and has no such pin, `BaseNotUsable` after a long silence.
        """
        backoff = Backoff(BackoffConfig(max_seconds=5.0))
        refusals = 0
        while True:
            self._check()
            try:
                return work(job)
            except (Unavailable, StatementNotFound) as error:
                self._check()
                refusals = self._interrupted(job, error, refusals)
            self._closed.wait(backoff.next_seconds())

    def _interrupted(self, job: str, error: ReplicaError, refusals: int) -> int:
        """Log a failed try and count it where the server is there."""
        with self._lock:
            self._trouble = f"{job} was interrupted: {error}"
            silent_seconds = time.monotonic() - self._word_at
        _log.warning("base interrupted table=%s job=%s error=%s", self._table, job, error)
        if silent_seconds > PATIENCE_SECONDS:
            raise BaseNotUsable(
                f"table {self._table!r}: nothing came from {self._place} for {silent_seconds:.0f} s: {error}"
            ) from error
        if not self._pinned.is_answering():
            return refusals
        if refusals + 1 >= REFUSALS_MAX:
            raise PinLost(str(error)) from error
        return refusals + 1

    # --- what threads tell each other -------------------------------------------------------------

    def _reads(self, job: str, cancel: Callable[[], None]) -> None:
        with self._lock:
            self._cancel_by_job[job] = cancel
            is_over = self._is_over
        if is_over:
            cancel()

    def _came(self, rows: int) -> None:
        now = time.monotonic()
        with self._lock:
            self._rows += rows
            self._word_at = now
            if rows > 0:
                self._trouble = ""
            is_due = now - self._logged_at >= LOG_SECONDS
            if is_due:
                self._logged_at = now
        if is_due:
            _log.info("base arriving table=%s progress=%s", self._table, self.progress)

    def _end_all(self) -> None:
        """End every job: one has failed, or nobody waits for them any more."""
        with self._lock:
            self._is_over = True
            cancels = list(self._cancel_by_job.values())
        for cancel in cancels:
            cancel()

    def _check(self) -> None:
        if self._closed.is_set():
            raise Closed(f"the base of table {self._table!r} is closed")
        with self._lock:
            is_over = self._is_over
        if is_over:
            raise _GivenUp("another part of the fetch has failed")

    def _raise_first(self, errors: list[BaseException]) -> None:
        """The one that says most: what others were given up for."""
        own = [error for error in errors if not isinstance(error, _GivenUp)]
        if own:
            raise own[0]
        if errors:
            raise errors[0]

    def _compared(self, parts: list[Part], server: ServerDigest) -> BaseSnapshot:
        count, value = sum(part.row_count for part in parts), sum(part.digest for part in parts) % 2**64
        if (count, value) != (server.row_count, server.digest):
            raise BaseError(
                f"table {self._table!r}: {count} rows with digest {value} came from {self._place} at seq "
                f"{self._pinned.at.visible_seq}, the server counts {server.row_count} with {server.digest}"
            )
        return self.snapshot(tuple(part.file for part in parts if part.file is not None))


class _GivenUp(ReplicaError):
    """Not the reason, only its consequence."""
