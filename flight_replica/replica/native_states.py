"""`NativeStates`: when a table gets a native state, or one in key order again, and how far it is."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from flight_replica.errors import Closed
from flight_replica.replica.stats import ReplicaSettings
from flight_replica.state.native_build import NativeBuild, StateProgress
from flight_replica.state.native_state import NativeState
from flight_replica.state.parquet_state import ParquetState
from flight_replica.state.state import ReplicaState
from flight_replica.state.workspace import Workspace

__all__ = ["NativeStates", "worn_ops"]

TELL_SECONDS = 5.0  # between two lines in the log about one that is being made

_log = logging.getLogger(__name__)

# A native table is built anew, in key order, when so many ops have been applied to it: at least so many …
REBUILD_OPS_MIN = 500_000
REBUILD_SHARE = 2  # … and this part of its rows; or only the next part, since a sum of 10 M rows takes
EARLY_SHARE = 20  # twice as long after 10 000 ops already (benchmarks/results/scan.json), where builds …
BUILD_TIME_SHARE = 20  # … have taken no more than this part of the time since the last one began.
# While it lacks more ops than this they come first, since it would soon be built anew once more …
BEHIND_OPS = 250_000
BEHIND_PATIENCE = 4  # … until so many times as many have been applied: it may never get there
# DuckDB takes the write-ahead log into the file at 16 MiB, but not while somebody reads what is older than an
# UPDATE, as of a column that was added (native_record.py). A new file bounds it then, once it is larger than
# this and than this part of the table's file.
LOG_BYTES_MIN = 24 << 20
LOG_SHARE = 6  # it goes on growing while the new file is written
NATIVE_GROWTH = 3  # a native copy takes up to this times its Parquet files, and as much while it is rebuilt


class NativeStates:
    """Of one table; owned by its `Replica`. `build` is called by one thread at a time, the rest by any."""

    def __init__(self, table: str, workspace: Workspace, settings: ReplicaSettings) -> None:
        self._table = table
        self._workspace = workspace
        self._settings = settings
        self._folder = workspace.native_folder(table)
        self._lock = threading.Lock()
        self._is_over = False
        self._stopped_count = 0  # of `stop`
        self._build: NativeBuild | None = None  # under way
        self._remark = ""
        self._outgrown_bytes = 0  # of the native state that had to go, 0: none had
        self._early_at = 0.0  # monotonic seconds, from when on builds have taken little of the time

    def wants(self, state: ReplicaState, missing_ops: int) -> bool:
        """Whether one is to be made in place of `state`, which lacks that many of the ops that there are."""
        if isinstance(state, NativeState):
            return not self.is_outgrown(state) and self.is_worn(state, missing_ops)  # else it is to go
        reason = self.why_not(state)
        if self._is_news(reason):
            _log.warning("no native state table=%s reason=%s", self._table, reason)
        return not reason

    def is_worn(self, state: ReplicaState, missing_ops: int) -> bool:
        """Whether `state` is a native one that isn't what it was when it was made."""
        if not isinstance(state, NativeState):
            return False
        if missing_ops > BEHIND_OPS:
            ops = BEHIND_PATIENCE * worn_ops(state.row_count)
        else:
            ops = worn_ops(state.row_count, is_early=time.monotonic() >= self._early_at)
        return state.ops_since_copied > ops or _is_log_long(state)

    def _is_news(self, reason: str) -> bool:
        """Keep `reason`; whether it is a new one. Empty: there is nothing to be said."""
        kind = reason.partition(":")[0]  # numbers change with each look
        with self._lock:
            is_news, self._remark = kind != self._remark.partition(":")[0], reason
        return is_news and bool(reason)

    @property
    def remark(self) -> str:
        """What is to be known of how the table is held, as it was when that was looked at; else empty."""
        progress = self.progress
        return f"its native state is being made: {progress}" if progress is not None else self._remark

    def why_not(self, state: ReplicaState) -> str:
        """Why `state` stays on merge on read; empty where it doesn't."""
        if isinstance(state, NativeState):
            return ""
        assert isinstance(state, ParquetState), f"a state of kind {state.kind}"
        others = self._workspace.native_bytes(besides=self._table)
        needed = max(state.file_bytes * NATIVE_GROWTH, self._outgrown_bytes)
        limit = self._settings.native_disk_bytes_max
        if others + needed <= limit:
            return ""
        return (
            f"stays on merge on read: its native copy may take {needed} bytes, those of other tables take "
            f"{others}, limit {limit} (native_disk_bytes_max)"
        )

    def _grown(self, state: NativeState) -> str:
        """That `state` has grown beyond the budget, which is looked at before one is made; else empty."""
        own, others = state.file.byte_count, self._workspace.native_bytes(besides=self._table)
        limit = self._settings.native_disk_bytes_max
        if own + others <= limit:
            return ""
        return (
            f"its native state has outgrown the budget: it takes {own} bytes, those of other tables "
            f"{others}, limit {limit} (native_disk_bytes_max)"
        )

    def is_outgrown(self, state: ReplicaState) -> bool:
        """Whether `state` has to go, since its file has grown beyond the budget. Says so, once."""
        if not isinstance(state, NativeState):
            return False
        grown = self._grown(state)
        if self._is_news(grown):
            _log.warning("native state beyond its budget table=%s reason=%s", self._table, grown)
        return bool(grown)

    def give_back(self, state: ReplicaState, go: Callable[[], object]) -> None:
        """`go` takes the table away from `state`, where it still has to be once it is this table's turn.

        One table after the other, so that no more of them go than have to. This one gets a native state
        again where there is room for the one that it had.
        """
        with self._turn():
            if isinstance(state, NativeState) and self.is_outgrown(state):
                byte_count = state.file.byte_count  # before its file goes with it
                go()
                self._outgrown_bytes = byte_count
                _log.info("native state given back table=%s bytes=%d", self._table, byte_count)

    def build(self, source: ReplicaState, *, gives_way: bool) -> NativeState:
        """All that `source`, which is pinned, shows at one seq; once it is this table's turn.

        Where it `gives_way` it takes what processor time queries and applies leave. Raises `Closed` after
        `end`, and at a `stop`.
        """
        with self._turn() as check:
            build = NativeBuild(
                self._workspace.database,
                self._workspace.new_number(),
                self._folder.new_file(),
                source,
                gives_way=gives_way,
            )
            with self._lock:
                self._build = build
            built = threading.Event()
            teller = threading.Thread(target=self._tell, args=(build, built), name=f"build-{self._table}")
            teller.start()
            began = time.monotonic()
            try:
                check()
                return build.run()
            finally:
                self._early_at = began + BUILD_TIME_SHARE * (time.monotonic() - began)
                with self._lock:
                    self._build = None
                built.set()
                teller.join()

    @contextmanager
    def _turn(self) -> Iterator[Callable[[], None]]:
        """The only table in the block. Waiting for that, and what it is given, raise `Closed` as `build`."""
        with self._lock:
            stopped_count = self._stopped_count

        def check() -> None:
            if self._is_over:
                raise Closed(f"table {self._table!r} is closed")
            if self._stopped_count != stopped_count:
                raise Closed(f"table {self._table!r}: its native state gives way to a base")

        with self._workspace.one_build(check):
            yield check

    def _tell(self, build: NativeBuild, built: threading.Event) -> None:
        """Log how far it is, now and then."""
        while not built.wait(TELL_SECONDS):
            _log.info("native state is being made table=%s progress=%s", self._table, build.progress)

    @property
    def progress(self) -> StateProgress | None:
        """Of the one that is being made; None where there is none."""
        with self._lock:
            build = self._build
        return build.progress if build is not None else None

    def keep(self, state: ReplicaState, *, is_followed: bool) -> None:
        """A later process is to go on with `state`, which is about to be swapped in, if it has a file.

        Whenever this process is killed, one of the two files counts. Without a log nothing could tell a
        later process that the base has changed.
        """
        if not isinstance(state, NativeState):
            self._folder.forget()
        elif is_followed:
            state.file.keep()

    def stop(self) -> None:
        """Give up what is being made or waits for its turn, now and not later.

        A build that is just between two statements goes on, so repeat it.
        """
        with self._lock:
            self._stopped_count += 1
            build = self._build
        if build is not None:
            build.interrupt()

    def end(self) -> None:
        """Give up what is being made, now and later. Idempotent."""
        with self._lock:
            self._is_over = True
        self.stop()


def worn_ops(row_count: int, *, is_early: bool = False) -> int:
    """The most ops that a native state of so many rows takes before it is to be built anew."""
    return max(REBUILD_OPS_MIN, row_count // (EARLY_SHARE if is_early else REBUILD_SHARE))


def _is_log_long(state: NativeState) -> bool:
    log_bytes = state.file.log_byte_count
    return log_bytes > max(LOG_BYTES_MIN, (state.file.byte_count - log_bytes) // LOG_SHARE)
