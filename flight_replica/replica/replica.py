"""`Replica`: one table's life cycle. A log fills its state, newer ones replace it, readers pin it.

Two ways to drive it: by hand (`open`, `advance`, `swaps.rebase`, as merutable's own replica), or by a
`Follower` (follower.py) that calls `receive` as the feed arrives. What replaces a state: swaps.py. Many
tables in one process: service.py.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from uuid import UUID

import pyarrow as pa

from flight_replica.base.on_demand import OnDemandBase
from flight_replica.base.pages import FIRST_BYTES_MAX, NEWER_BYTES_MAX, PageCheck
from flight_replica.base.source import BaseSnapshot, BaseSource
from flight_replica.errors import (
    Closed,
    LimitExceeded,
    LineageChanged,
    LogGap,
    Paused,
    Unavailable,
)
from flight_replica.log.batches import between, concat
from flight_replica.log.no_log import NoLog
from flight_replica.log.op_log import OpLog
from flight_replica.log.source import FeedMark, LogSource, OpBatch
from flight_replica.position import TablePosition
from flight_replica.replica.commits import SEQ_MAX, CommitBuffer, Commits
from flight_replica.replica.measures import Applied, Holding, TableMeasures
from flight_replica.replica.rebase import catch_up, replay
from flight_replica.replica.slot import StateSlot
from flight_replica.replica.stats import (
    DEFAULT_SETTINGS,
    Advanced,
    AdvanceOutcome,
    Recovered,
    ReplicaSettings,
    ReplicaStats,
)
from flight_replica.replica.swaps import StateSwaps
from flight_replica.replica.view import open_view
from flight_replica.replica.waiters import Waiters
from flight_replica.replica.widening import widen, wider
from flight_replica.schema import TableSchema
from flight_replica.sql.view import View
from flight_replica.state.parquet_state import ParquetState
from flight_replica.state.state import ReplicaState, Row
from flight_replica.state.workspace import Workspace

_log = logging.getLogger(__name__)


class Replica:
    """One table at one seq that only grows while its lineage is the same. Thread-safe.

    `_writing` is held by whoever applies ops or swaps the state; readers never take it.
    """

    def __init__(
        self,
        table: str,
        base: BaseSource,
        log: LogSource,
        workspace: Workspace,
        *,
        start_seq: int,
        settings: ReplicaSettings = DEFAULT_SETTINGS,
    ) -> None:
        """A replica without a state yet: `receive` keeps what comes after `start_seq` until `load` joins it.

        `start_seq` is at most the seq of the base that `load` will find. The replica owns `log`; the
        workspace is its caller's.
        """
        self.table = table
        self.base = base
        self.log = log
        self.settings = settings
        self._workspace = workspace
        self.swaps = StateSwaps(self, workspace)
        self._owns_workspace = False
        self._writing = threading.RLock()
        self._slot = StateSlot(f"table {table!r} is loading")
        self._commits = CommitBuffer(settings.commit_bytes_max, start_seq)
        self.history = OpLog(
            table,
            log.lineage,
            log.schema,
            start=start_seq,
            bytes_max=settings.history_bytes_max,
            heartbeat_ms=settings.heartbeat_ms,
            clock_us=lambda: time.time_ns() // 1000,
            is_cascading=True,
        )
        self._pages = PageCheck()
        self._proof: FeedMark | None = None  # the newest applied mark that was caught up
        self.waiters = Waiters()
        self._is_held = False  # nothing may become visible; changed under `_writing`
        self.measures = TableMeasures()  # its owner's, where there is one who keeps them

    @classmethod
    def open(
        cls,
        base: BaseSource,
        log: LogSource,
        *,
        table: str = "t",
        workspace: Workspace | None = None,
        settings: ReplicaSettings = DEFAULT_SETTINGS,
    ) -> Replica:
        """A replica at the base's seq; the log isn't read yet. Raises what `base.load` raises."""
        own = workspace or Workspace()
        try:
            snapshot = base.load()
            replica = cls(table, base, log, own, start_seq=snapshot.base_seq, settings=settings)
            replica._owns_workspace = workspace is None
            replica.load(snapshot)
        except BaseException:
            if workspace is None:
                own.close()
            raise
        return replica

    def load(self, snapshot: BaseSnapshot | None = None) -> None:
        """Make the first state: the base's newest snapshot, joined with what was received meanwhile.

        Raises `LogGap` where the history no longer reaches back to the base, and what `base.load` raises.
        """
        self.begin_with(self.new_state(snapshot or self.base.load()))

    def begin_with(self, state: ReplicaState) -> None:
        """Make `state` the first one, joined with what was received meanwhile; closed when that fails."""
        self._swap_in(state, lambda: replay(self.history, state, self.settings.commit_bytes_max))

    def adopt(self, state: ReplicaState) -> tuple[int, int]:
        """Swap `state` in, once it has all that the old one shows; it is closed when that fails.

        Its (base_seq, visible_seq) then.
        """

        def catch_up_at_last() -> None:
            catch_up(self, state)
            if state.visible_seq > self.visible_seq:
                self._check_held()
            widen(state, self.history.schema)

        return self._swap_in(state, catch_up_at_last)

    def _swap_in(self, state: ReplicaState, make_ready: Callable[[], None]) -> tuple[int, int]:
        """Make `state` the current one, once it is ready; it is closed when that fails."""
        with self._writing:
            try:
                make_ready()
                if state.visible_seq > self.history.newest_seq:
                    self._restart_at(state.visible_seq)
                self.swaps.native_states.keep(state, is_followed=not isinstance(self.log, NoLog))
                self._slot.swap(state)
            except BaseException:
                state.close()
                raise
            self.change_schema(state.schema)
            self._publish_state()
            seqs = state.base_seq, state.visible_seq
        self.waiters.publish(seqs[1])
        return seqs

    def new_state(self, snapshot: BaseSnapshot) -> ReplicaState:
        """A state on files of its own at the snapshot's seq."""
        if snapshot.lineage != self.lineage:
            raise LineageChanged(
                f"table {self.table!r}: the base is of lineage {snapshot.lineage}, the log of {self.lineage}"
            )
        if snapshot.is_lower_bound and self.is_loaded:
            # The newer snapshot holds at least what the older one did, so its seq is no lower either.
            snapshot = replace(snapshot, base_seq=max(snapshot.base_seq, self.base_seq))
        number, directory = self._workspace.new_state()
        state = ParquetState(self._workspace.database, number, snapshot, directory)
        try:
            limit = NEWER_BYTES_MAX if self.is_loaded else FIRST_BYTES_MAX
            self._pages.check(snapshot.files, state.snapshot.files, limit)
            if snapshot.is_key_stated:
                state.check_key()
            widen(state, self.history.schema)
        except BaseException:
            state.close()
            raise
        return state

    # --- where it stands --------------------------------------------------------------------------

    @property
    def is_loaded(self) -> bool:
        """Whether there is a state to read."""
        return not self._slot.is_empty

    @property
    def base_version(self) -> int:
        """The version of the base that the state stands on."""
        return self._slot.current.base_version

    @property
    def state(self) -> ReplicaState:
        """The state that new readers get. To read it, `pin` it."""
        return self._slot.current

    @property
    def schema(self) -> TableSchema:
        return self._slot.current.schema

    @property
    def lineage(self) -> UUID:
        """Of log, history and every state: a replica lives within one."""
        return self.history.lineage

    @property
    def visible_seq(self) -> int:
        return self._slot.current.visible_seq

    @property
    def base_seq(self) -> int:
        return self._slot.current.base_seq

    @property
    def stats(self) -> ReplicaStats:
        state = self._slot.current
        return ReplicaStats(
            state.visible_seq,
            state.base_seq,
            state.ops_applied,
            self.swaps.rebase_count,
            self.swaps.last_rebase_millis,
        )

    @property
    def high_water(self) -> int:
        """The newest seq of the origin that this replica has heard of."""
        mark = self.log.last_mark
        return max(self.visible_seq, mark.high_water if mark is not None else 0)

    def origin_clock_us(self) -> int | None:
        """The origin's time (µs since 1970), at the latest that it can be; None while it isn't known."""
        offset, error = self.log.clock_offset_us, self.log.clock_error_us
        if offset is None or error is None:
            return None
        return int(time.monotonic() * 1_000_000) + offset + error

    def lag_us(self) -> int:
        """No op older than this is missing; −1 unknown. Proven by an applied caught-up mark, not contact."""
        proof, now = self._proof, self.origin_clock_us()
        return -1 if proof is None or now is None else max(0, now - proof.sent_time_us)

    def describe(self) -> TablePosition:
        """Where new readers stand now."""
        lag_us, state = self.lag_us(), self._slot.current
        return self.position_of(state, state.visible_seq, state.commit_time_us, lag_us)

    def position_of(
        self, state: ReplicaState, visible_seq: int, commit_time_us: int, lag_us: int
    ) -> TablePosition:
        """The position of a view on `state` at `visible_seq`; `lag_us` is from before the view's moment."""
        return TablePosition(
            table=self.table,
            lineage=state.lineage,
            base_seq=state.base_seq,
            visible_seq=visible_seq,
            commit_time_us=commit_time_us,
            lag_us=lag_us,
            high_water=max(self.high_water, visible_seq),
        )

    # --- reading ----------------------------------------------------------------------------------

    def pin(self) -> ReplicaState:
        """The current state, which lives at least until `release`."""
        return self._slot.pin()

    def release(self, state: ReplicaState) -> None:
        self._slot.release(state)

    @contextmanager
    def pinned(self) -> Iterator[ReplicaState]:
        state = self.pin()
        try:
            yield state
        finally:
            self.release(state)

    @contextmanager
    def still(self) -> Iterator[None]:
        """Nothing is applied or swapped inside the block; for milliseconds."""
        with self._writing:
            yield

    def get(self, *key: object) -> Row | None:
        """The row of one key (values in key order), None where there is none. Raises `SchemaMismatch`."""
        state = self.pin()
        try:
            return state.get(key)
        finally:
            self.release(state)

    def view(self) -> View:
        """This table alone, at one seq from now until the view is closed."""
        return open_view(self._workspace, {self.table: self})

    def query(self, sql: str, parameters: Sequence[object] = ()) -> pa.RecordBatchReader:
        """The rows of any SELECT over the table by its name, from one view, which ends with the reader.

        For trusted callers in this process; clients' SQL goes through `sql/sandbox.py`.
        """
        view = self.view()
        try:
            reader = view.execute(sql, parameters)
        except BaseException:
            view.close()
            raise

        def batches() -> Iterator[pa.RecordBatch | None]:
            with view:
                yield None  # a generator that was begun closes the view even if nobody reads on
                yield from reader

        begun = batches()
        next(begun)
        return pa.RecordBatchReader.from_batches(reader.schema, begun)

    # --- applying the log -------------------------------------------------------------------------

    def begin_following(self) -> int:
        """The seq to follow from; what was received beyond it is forgotten, since it comes again."""
        with self._writing:
            seq = self.visible_seq if self.is_loaded else self.history.high_water
            self._restart_at(seq)
            return seq

    @property
    def is_held(self) -> bool:
        """Whether nothing may become visible."""
        return self._is_held

    def hold(self) -> None:
        """From its return on nothing becomes visible, until `let_go`: neither ops nor a newer base."""
        with self._writing:
            self._is_held = True

    def let_go(self) -> None:
        """What `hold` held back may come."""
        with self._writing:
            self._is_held = False

    def settle(self) -> None:
        """Write what waits in memory (see `ReplicaState.settle`); nothing without a state."""
        if self.is_loaded:
            with self.pinned() as state:
                state.settle()

    def _settle_at_last(self) -> None:
        """As `settle`, where that can be: what isn't written comes again when a later process follows."""
        try:
            self.settle()
        except Closed:
            return
        except Unavailable as error:
            _log.warning("newest ops not written table=%s reason=%s", self.table, error)

    def _check_held(self) -> None:
        if self._is_held:
            raise Paused(f"table {self.table!r} is paused at seq {self.visible_seq}; resume it first")

    def receive(self, batch: OpBatch) -> None:
        """Take the next batch of the feed; whole commits become visible. All or nothing.

        Raises `Paused` while it is held, and has taken nothing then. After an error the feed must be read
        again from what is visible, as after `begin_following`.
        """
        with self._writing:
            self._check_held()
            proof = self._proof
            try:
                self._receive(self._unseen(batch))
            except BaseException:
                self.begin_following()
                raise
        self._resume_waiters(is_proof=self._proof is not proof)

    def _resume_waiters(self, *, is_proof: bool) -> None:
        """Let those go on who wait for what is visible now. `is_proof`: its age was proven just now."""
        if not self.is_loaded:
            return
        self.waiters.publish(self.visible_seq)
        if is_proof and (lag_us := self.lag_us()) >= 0:
            self.waiters.prove(lag_us)

    def _applied(
        self, ops: pa.RecordBatch, after: int, through: int, seconds: float, received: tuple[FeedMark, float]
    ) -> Applied:
        mark, received_at = received
        now_us, origin_us = time.time_ns() // 1000, self.origin_clock_us()
        return Applied(
            table=self.table,
            after=after,
            through=through,
            ops=ops.num_rows,
            bytes=ops.nbytes,
            sent_at_us=None if origin_us is None else now_us - max(0, origin_us - mark.sent_time_us),
            received_at_us=now_us - int((time.monotonic() - received_at) * 1e6),
            began_at_us=now_us - int(seconds * 1e6),
            visible_at_us=now_us,
        )

    def _receive(self, batch: OpBatch) -> None:
        received_at = time.monotonic()
        self._keep(batch)
        if not self.is_loaded and self.history.held_bytes > self.settings.history_bytes_max:
            raise LimitExceeded(
                f"table {self.table!r}: {self.history.held_bytes} bytes of ops arrived while the base "
                f"loads, limit {self.settings.history_bytes_max} bytes"
            )
        commits = self._commits.add(batch)
        if not self.is_loaded:
            return
        if commits is not None:
            self._apply(commits, (batch.mark, received_at))
        mark = batch.mark  # of a server that doesn't know how fresh it is itself, the time is 0
        if mark.is_caught_up and mark.sent_time_us > 0 and self.visible_seq >= mark.through:
            self._proof = mark

    def _unseen(self, batch: OpBatch) -> OpBatch:
        """The batch without what a newer base has already brought."""
        newest, mark = self.history.newest_seq, batch.mark
        if mark.after == newest:
            return batch
        assert mark.after < newest, f"table {self.table!r}: a batch after {mark.after}, received {newest}"
        through = max(mark.through, newest)
        clipped = replace(
            mark,
            after=newest,
            through=through,
            commit_through=max(mark.commit_through, self._commits.through),
        )
        return replace(batch, ops=between(batch.ops, newest, SEQ_MAX), mark=clipped)

    def _keep(self, batch: OpBatch) -> None:
        """Add the batch to the history that other replicas read."""
        mark = batch.mark
        self.history.append(
            batch.ops,
            through=mark.through,
            commit_through=mark.commit_through,
            commit_time_us=mark.commit_time_us,
            high_water=max(mark.high_water, mark.through),
            sent_time_us=mark.sent_time_us,
        )

    def _apply(self, commits: Commits, received: tuple[FeedMark, float]) -> None:
        """`received`: the last mark of them, and when it came in monotonic seconds."""
        state = self._slot.current
        if commits.through > state.visible_seq:
            after = state.visible_seq
            ops, began = between(commits.ops, after, SEQ_MAX), time.perf_counter()
            state.apply(ops, commits.through, commits.commit_time_us)
            seconds = time.perf_counter() - began
            self.measures.apply_seconds.observe(seconds)
            self.measures.apply_ops.observe(ops.num_rows)
            self.measures.apply_bytes.observe(ops.nbytes)
            if self.measures.on_applied is not None:
                self.measures.on_applied(self._applied(ops, after, commits.through, seconds, received))
        if commits.through > self.history.high_water:
            self.history.publish(commits.through)

    def _publish_state(self) -> None:
        """Let readers of the history see what a new state shows, whose base may know of more commit ends."""
        history, seq = self.history, self.visible_seq
        if seq > history.high_water:
            nothing = concat([], history.schema.feed_schema)
            history.append(nothing, through=history.newest_seq, commit_through=seq, commit_time_us=0)
            history.publish(seq)

    def advance(self) -> None:
        """Take all the log has after `visible_seq` now. Raises `LogGap`; whole batches before it stay."""
        with self._writing, closing(self.log.stream(self.begin_following())) as stream:
            self.change_schema(self.log.schema)
            for batch in stream:
                self.receive(batch)

    def advance_or_recover(self) -> AdvanceOutcome:
        """`advance`; where the log has a gap, adopt a newer base. Raises `NotCaughtUp` without one."""
        try:
            self.advance()
        except LogGap as gap:
            return Recovered(self.swaps.recover_from_log_gap(gap))
        return Advanced()

    def _restart_at(self, seq: int) -> None:
        """Let the feed be read from `seq` on: what was received beyond it will come again."""
        self._commits.restart(seq)
        self.history.restart(seq)

    def change_schema(self, schema: TableSchema) -> None:
        """Go on under `schema`, which must append columns to the present one. Raises `SchemaMismatch`."""
        with self._writing:
            if wider(self.history.schema, schema) is not self.history.schema:
                self.history.change_schema(schema)
            if self.is_loaded:
                widen(self._slot.current, schema)

    @property
    def is_followed(self) -> bool:
        """Whether there is a log that brings ops."""
        return not isinstance(self.log, NoLog)

    def holding(self) -> Holding | None:
        """How the table is held now; None without a state."""
        try:
            state = self._slot.current
        except (Unavailable, Closed):
            return None
        build = self.swaps.native_states.progress
        return Holding(
            state_kind=state.kind.name.lower(),
            tail_ops=state.ops_applied,
            tail_bytes=state.tail_bytes,
            history_bytes=self.history.held_bytes,
            waiters=len(self.waiters),
            old_states=self._slot.retired_count,
            build_share=build.share if build is not None else None,
        )

    def end_sources(self) -> None:
        """Let nothing more come: whoever waits for the log or the base hears that it is over. Idempotent."""
        self.log.close()
        self.swaps.native_states.end()
        if isinstance(self.base, OnDemandBase):
            self.base.close()

    def close(self) -> None:
        """End the sources and let go of the states; views that are open end with theirs. Idempotent."""
        self.end_sources()
        self.history.drop()
        self._settle_at_last()
        with self._writing:
            self._slot.close()
        self.waiters.close()
        if self._owns_workspace:
            self._owns_workspace = False
            self._workspace.close()
