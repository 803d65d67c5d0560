"""A rebase: load the newest base, drain the log into it, and hand over a state that is not behind.

Or one that is, where something else is made of it first, which takes ops faster.

The work runs in a thread of its own, so that a base or log that never answers costs its caller no more than
the deadline; what is given up cleans up after itself.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import closing
from typing import TYPE_CHECKING

from flight_replica.errors import Closed, LogGap, NotCaughtUp, TimedOut
from flight_replica.log.op_log import OpLog
from flight_replica.log.source import LogSource, OpStream
from flight_replica.replica.commits import CommitBuffer
from flight_replica.replica.widening import widen
from flight_replica.state.state import ReplicaState

if TYPE_CHECKING:
    from flight_replica.replica.replica import Replica

READ_BYTES = 16 << 20  # of the replica's own history at a time


class Rebase:
    """One attempt. `run` gives the warmed-up state to its caller, or raises and leaves nothing behind."""

    def __init__(
        self,
        replica: Replica,
        what: str,
        timeout_seconds: float | None,
        *,
        needs_newer_base: bool = False,
        catches_up_later: bool = False,
    ) -> None:
        """`needs_newer_base`: where the log has a gap, the replica's own history doesn't help an old base.

        `catches_up_later`: the state may be behind as far as the replica's own history reaches back.
        """
        self._catches_up_later = catches_up_later
        self._replica = replica
        self._needs_newer_base = needs_newer_base
        self._what = what
        self._timeout_seconds = timeout_seconds
        self._lock = threading.Lock()
        self._is_given_up = False
        self._stream: OpStream | None = None
        self._state: ReplicaState | None = None
        self._error: BaseException | None = None

    def run(self) -> ReplicaState:
        """Raises `TimedOut`, `NotCaughtUp`, or what base and log raise."""
        worker = threading.Thread(target=self._work, name=f"{self._what}-{self._replica.table}", daemon=True)
        worker.start()
        worker.join(self._timeout_seconds)
        if worker.is_alive() and self._give_up():
            raise TimedOut(
                f"table {self._replica.table!r}: {self._what} timed out after {self._timeout_seconds} s"
            )
        worker.join()
        if self._error is not None:
            raise self._error
        assert self._state is not None, "a rebase ended without state or error"
        return self._state

    def _give_up(self) -> bool:
        """Whether the worker was still at it; it then ends by itself."""
        with self._lock:
            if self._state is not None or self._error is not None:
                return False
            self._is_given_up = True
            stream = self._stream  # one that is opened later ends at once
        if stream is not None:
            stream.close()
        return True

    def _work(self) -> None:
        state: ReplicaState | None = None
        error: BaseException | None = None
        try:
            state = self._replica.new_state(self._replica.base.load())
            self._warm_up(state)
        except BaseException as raised:  # the caller's, whatever it is
            error = raised
        with self._lock:
            self._error = error
            if error is None and not self._is_given_up:
                self._state, state = state, None
        if state is not None:
            state.close()

    def _warm_up(self, state: ReplicaState) -> None:
        """Drain the log as far as it goes: a gap doesn't matter where the base is new enough."""
        if self._catches_up_later and self._replica.history.low_water <= state.visible_seq:
            return
        try:
            self._drain(state)
        except LogGap as gap:
            if self._needs_newer_base and state.visible_seq < self._replica.visible_seq:
                raise not_caught_up(self._replica, state, gap) from gap
            catch_up(self._replica, state, gap)
        catch_up(self._replica, state)

    def _drain(self, state: ReplicaState) -> None:
        drain(self._replica.log, state, self._replica.settings.commit_bytes_max, self._begin)

    def _begin(self, stream: OpStream | None) -> None:
        """Go on with what comes of `stream`, unless the attempt was given up."""
        with self._lock:
            self._stream = stream or self._stream
            if self._is_given_up:
                raise Closed("the rebase was given up")


def drain(
    log: LogSource,
    state: ReplicaState,
    commit_bytes_max: int,
    go_on: Callable[[OpStream | None], None] = lambda _: None,
) -> None:
    """Apply every whole commit that `log` holds after the state's seq now. Raises what the log raises.

    `go_on` hears of the stream, then of each batch (None); what it raises ends it.
    """
    commits = CommitBuffer(commit_bytes_max, state.visible_seq)
    with closing(log.stream(state.visible_seq)) as stream:
        go_on(stream)
        widen(state, log.schema)
        for batch in stream:
            go_on(None)
            if (whole := commits.add(batch)) is not None:
                state.apply(whole.ops, whole.through, whole.commit_time_us)


def catch_up(replica: Replica, state: ReplicaState, cause: LogGap | None = None) -> None:
    """Bring `state` to what `replica` shows, out of the replica's own history.

    Raises `NotCaughtUp` where the history doesn't reach back to the state (from `cause`, if it is known
    why the log couldn't do it).
    """
    target = replica.visible_seq
    if state.visible_seq >= target:
        return
    try:
        replay(replica.history, state, replica.settings.commit_bytes_max)
    except LogGap as gap:
        raise not_caught_up(replica, state, cause or gap) from (cause or gap)
    if state.visible_seq < target:
        raise not_caught_up(replica, state, cause)


def not_caught_up(replica: Replica, state: ReplicaState, cause: LogGap | None) -> NotCaughtUp:
    return NotCaughtUp(
        f"table {replica.table!r}: {cause or 'the log ends too early'}",
        served_seq=replica.visible_seq,
        offered_seq=state.visible_seq,
    )


def replay(history: OpLog, state: ReplicaState, commit_bytes_max: int) -> None:
    """Apply every whole commit that `history` has received by now after the state's seq. Raises `LogGap`."""
    commits = CommitBuffer(commit_bytes_max, state.visible_seq)
    position, newest = state.visible_seq, history.newest_seq  # what comes meanwhile is another turn's
    widen(state, history.schema)
    while position < newest:
        batch = history.read_received(position, READ_BYTES)
        widen(state, history.schema)  # columns may be added while it is read
        position = batch.mark.through
        if (whole := commits.add(batch)) is not None:
            state.apply(whole.ops, whole.through, whole.commit_time_us)
