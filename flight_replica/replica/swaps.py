"""`StateSwaps`: what takes the place of a table's state while that serves, and when.

A newer base (rebase.py); a native state of the same rows (native_states.py); a base again, where a native
state is damaged or too large. One at a time.
"""

from __future__ import annotations

import logging
import threading
import time
from contextlib import closing
from typing import TYPE_CHECKING

from flight_replica.base.on_demand import OnDemandBase
from flight_replica.errors import LogGap, NotCaughtUp, StateNotUsable, Unavailable
from flight_replica.log.no_log import NoLog
from flight_replica.replica.commits import SEQ_MAX
from flight_replica.replica.native_states import NativeStates
from flight_replica.replica.rebase import Rebase, catch_up, drain
from flight_replica.state.native_state import NativeState
from flight_replica.state.state import ReplicaState
from flight_replica.state.workspace import Workspace

if TYPE_CHECKING:
    from flight_replica.replica.replica import Replica

__all__ = ["StateSwaps"]

_log = logging.getLogger(__name__)

_NEAR_OPS = 5000  # that a new state may be behind when it is swapped in; applied in some 10 ms
_STOP_SECONDS = 0.1  # how often a rebase asks a native state that is being made to end


class StateSwaps:
    """Of one `Replica`, which owns it. Thread-safe. What fails leaves the old state serving."""

    def __init__(self, replica: Replica, workspace: Workspace) -> None:
        self._replica = replica
        self.native_states = NativeStates(replica.table, workspace, replica.settings)
        self._swapping = threading.Lock()
        self.rebase_timeout_seconds = replica.settings.rebase_timeout_seconds  # of a rebase; None: no limit
        self.rebase_count = 0
        self.last_rebase_millis = 0
        self.last_rebase_at_us = 0  # µs since 1970; 0 before the first

    # --- newer bases ------------------------------------------------------------------------------

    def rebase(self) -> None:
        """Adopt the newest base and drain the log, as `rebase_hotswap`, but not counted as one.

        Raises `NotCaughtUp` where only an older state is to be had, `TimedOut`, or what base and log
        raise; the old state then goes on serving.
        """
        self._swap_to_newer("rebase")

    def rebase_hotswap(self) -> tuple[int, int]:
        """Adopt the newest base while the old state serves; (base_seq, visible_seq) of the new one.

        Raises as `rebase`.
        """
        return self._hotswap("rebase_hotswap")

    def rebase_beside(self) -> tuple[int, int]:
        """As `rebase_hotswap`, without a way over merge on read where a native state serves well.

        That one goes on answering until another one is made of the base and has caught up with it, which
        takes as long as a build. Raises as `rebase` and `merge_on_apply`.
        """
        return self._hotswap("rebase_beside", is_native=True)

    def recover_from_log_gap(self, gap: LogGap | None = None) -> int:
        """Hot-swap whatever the log says; the new base_seq. Raises as `rebase`.

        Where the log has a gap, `NotCaughtUp` also if the replica's own history could make up for an
        older base: that would change nothing about the gap. A base that is fetched on demand is fetched
        anew where the one that is there is older than `gap` says the log is.
        """
        replica = self._replica
        if gap is not None and isinstance(replica.base, OnDemandBase):
            replica.base.want(max(replica.visible_seq, gap.earliest_available or 0))
        return self._hotswap("recover_from_log_gap", needs_newer_base=True)[0]

    def _hotswap(
        self, what: str, *, needs_newer_base: bool = False, is_native: bool = False
    ) -> tuple[int, int]:
        began = time.monotonic()
        seqs = self._swap_to_newer(what, needs_newer_base=needs_newer_base, is_native=is_native)
        seconds = time.monotonic() - began
        self.rebase_count += 1
        self.last_rebase_at_us = time.time_ns() // 1000
        self.last_rebase_millis = int(seconds * 1000)
        self._replica.measures.rebase_seconds.observe(seconds)
        return seqs

    def _swap_to_newer(
        self, what: str, *, needs_newer_base: bool = False, is_native: bool = False
    ) -> tuple[int, int]:
        """The new state's (base_seq, visible_seq). One rebase at a time, so that base_seq never goes back.

        `is_native`: a native state stays one, if nothing is wrong with it and there is room.

        A native state in the making, which may take minutes, isn't waited for: another one is made later.
        """
        while not self._swapping.acquire(timeout=_STOP_SECONDS):
            self.native_states.stop()
        try:
            is_beside = is_native and self._serves_well
            rebase = Rebase(
                self._replica,
                what,
                self.rebase_timeout_seconds,
                needs_newer_base=needs_newer_base,
                catches_up_later=is_beside,
            )
            state = rebase.run()
            return self._replica.adopt(self._beside(state) if is_beside else state)
        finally:
            self._swapping.release()

    def _beside(self, source: ReplicaState) -> ReplicaState:
        """A native state of what `source`, then closed, shows; or itself where there is no room for one."""
        if not self.native_states.why_not(source):
            with closing(source):
                return self._native_of(source)
        try:
            self._follow_up(source)
        except BaseException:
            source.close()
            raise
        return source

    @property
    def _serves_well(self) -> bool:
        """Whether there is a native state, and nothing is wrong with it."""
        state = self._replica.state
        return (
            isinstance(state, NativeState)
            and not _wants_examining(state)
            and not self.native_states.is_outgrown(state)
        )

    def outgrow_base(self) -> None:
        """Ask for a newer base where the tail is beyond its budget, if none comes without asking."""
        replica = self._replica
        if not isinstance(replica.base, OnDemandBase) or self.wants_merge_on_apply:
            return
        if replica.state.tail_bytes > replica.settings.tail_bytes_max:
            replica.base.want(replica.base_seq + 1)

    def stand_on_newer_base(self) -> None:
        """Take the newest base: only its name where the log has brought every op of it, else a hot swap."""
        replica = self._replica
        state = replica.state
        if isinstance(state, NativeState) and not isinstance(replica.log, NoLog):
            snapshot = replica.base.load()
            with self._swapping, replica.still():
                if replica.base_version == snapshot.version:  # another rebase has taken it meanwhile
                    return
                is_covered = snapshot.lineage == replica.lineage and snapshot.base_seq <= state.visible_seq
                if state is replica.state and is_covered:
                    state.stand_on(max(snapshot.base_seq, state.base_seq), snapshot.version)
                    return
        self.rebase_hotswap()

    # --- native states ----------------------------------------------------------------------------

    def merge_on_apply(self) -> None:
        """Swap in a native state, in key order, made of what is shown now; nobody notices but by the speed.

        What comes meanwhile is out of the history, or out of the log where that holds no more of it. Raises
        `NotCaughtUp` where neither does, and `Closed`; the old state serves on.
        """
        with self._swapping:
            with self._replica.pinned() as source:
                state = self._native_of(source)
            self._replica.adopt(state)

    def _native_of(self, source: ReplicaState) -> NativeState:
        """A native state of what `source` shows, which nearly has what is shown now."""
        is_native = isinstance(self._replica.state, NativeState)
        # Not on the way from merge on read, where queries cost more the longer it takes.
        state = self.native_states.build(source, gives_way=is_native)
        try:
            self._follow_up(state)
        except BaseException:
            state.close()
            raise
        return state

    def keep_within_budget(self) -> None:
        """Go back to merge on read, on the newest base, where the native state has outgrown its budget.

        A hot swap as any, so nothing is lost meanwhile and no reader goes back. Raises as `rebase` where
        that can't be, and `Closed`; the native state serves on.
        """
        replica = self._replica
        state = replica.state
        if not self.native_states.is_outgrown(state):
            return
        if isinstance(replica.base, OnDemandBase):
            replica.base.want(replica.visible_seq)
        self.native_states.give_back(state, lambda: self._hotswap("keep_within_budget"))

    def examine(self) -> None:
        """Read a native state that isn't proven sound through, once; a base takes the place of a damaged one.

        That is one of an earlier process, and one that couldn't be written. Where what waits in it still
        can't be, as on a full disk, a base takes its place, too.

        Raises as `rebase` where that can't be; then the state goes on answering what it can.
        """
        replica = self._replica
        with replica.pinned() as state:
            if not isinstance(state, NativeState) or not _wants_examining(state):
                return
            try:
                if not state.is_checked:
                    state.check()
                state.settle()
                state.can_be_written = True
                return
            except StateNotUsable as error:
                state.give_up(str(error))
            except Unavailable as error:
                _log.warning("native state can't be written table=%s reason=%s", replica.table, error)
        if isinstance(replica.base, OnDemandBase):
            replica.base.want(replica.visible_seq)
        self._hotswap("examine")

    def _follow_up(self, state: ReplicaState) -> None:
        """Bring `state` nearly to what is shown, before anything has to wait."""
        replica = self._replica
        try:
            catch_up(replica, state)
        except NotCaughtUp:
            drain(replica.log, state, replica.settings.commit_bytes_max)
            catch_up(replica, state)
        behind, before = replica.visible_seq - state.visible_seq, SEQ_MAX
        while _NEAR_OPS < behind < before:  # each turn has less to do than the one before, or they end
            catch_up(replica, state)
            behind, before = replica.visible_seq - state.visible_seq, behind

    @property
    def wants_examining(self) -> bool:
        """Whether `examine` has something to do."""
        state = self._replica.state
        return isinstance(state, NativeState) and _wants_examining(state)

    @property
    def wants_merge_on_apply(self) -> bool:
        """Whether a native state is to be made: the first one, or one in key order again."""
        return self.native_states.wants(self._replica.state, self._missing_ops)

    @property
    def is_worn(self) -> bool:
        """Whether there is a native state, and another one, in key order again, is to take its place."""
        return self._replica.is_loaded and self.native_states.is_worn(self._replica.state, self._missing_ops)

    @property
    def _missing_ops(self) -> int:
        """Of those that are known of."""
        return self._replica.high_water - self._replica.visible_seq


def _wants_examining(state: NativeState) -> bool:
    return not (state.is_checked and state.can_be_written)
