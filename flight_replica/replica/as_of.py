"""Reading a table as it was at an older seq: its base once more, with the replica's own history up to there.

What is shown now can't tell what was before: a tail keeps only the newest op of each key, a native table only
the newest rows. The base and the history can, as long as the history reaches back to the base. Such a state
is made for one view and goes with it.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from contextlib import ExitStack

from flight_replica.base.on_demand import OnDemandBase
from flight_replica.base.source import BaseSnapshot
from flight_replica.errors import BaseError, Busy, InvalidStatement, LogGap
from flight_replica.replica.rebase import READ_BYTES
from flight_replica.replica.replica import Replica
from flight_replica.replica.view import Opening, open_view
from flight_replica.sql.view import View
from flight_replica.state.parquet_state import ParquetState
from flight_replica.state.state import ReplicaState
from flight_replica.state.workspace import Workspace

__all__ = ["AS_OF_VIEWS_MAX", "OlderViews"]

AS_OF_VIEWS_MAX = 4  # each may load a base, and holds its ops in memory


class OlderViews:
    """Opens views at older seqs; so many at once. Thread-safe, for one workspace."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._places = threading.Semaphore(AS_OF_VIEWS_MAX)

    def open(self, replicas: Mapping[str, Replica], seqs: Mapping[str, int]) -> View:
        """A view of each table in `seqs` as it was at its seq, and of the others as they are.

        Raises `InvalidStatement` that names what is held, for a seq that isn't; `Busy`.
        """
        view = open_view(self._workspace, replicas)
        older = {
            at.table: seqs[at.table]
            for at in view.positions
            if at.table in seqs and seqs[at.table] != at.visible_seq
        }
        if not older:
            return view
        view.close()
        if not self._places.acquire(blocking=False):
            raise Busy(f"{AS_OF_VIEWS_MAX} older seqs are being read already (as_of_views_max)")
        with ExitStack() as undo:
            undo.callback(self._places.release)
            states: dict[str, ReplicaState] = {}
            for table, seq in older.items():
                states[table] = _state_at(replicas[table], seq)
                undo.callback(states[table].close)
            opening = Opening(self._workspace, replicas, states, undo.pop_all().close)
        with ExitStack() as undo:
            undo.enter_context(opening)
            opening.begin()
            undo.pop_all()
        return opening.bound()


def _state_at(replica: Replica, seq: int) -> ReplicaState:
    """A state of its own at `seq`. Raises `InvalidStatement`."""
    with replica.pinned() as current:
        with replica.still():  # the history has by then what the state shows
            visible_seq = current.visible_seq
        snapshot = _base_of(replica, current)
        if snapshot is None or replica.history.low_water > snapshot.base_seq:
            raise _not_held(replica, seq, visible_seq, visible_seq)
        if not snapshot.base_seq <= seq <= visible_seq:
            raise _not_held(replica, seq, min(snapshot.base_seq, visible_seq), visible_seq)
        try:
            _check_commit_end(replica, seq, snapshot.base_seq)
            return _built(replica, snapshot, seq)
        except (LogGap, BaseError) as error:
            raise _not_held(replica, seq, visible_seq, visible_seq) from error


def _base_of(replica: Replica, current: ReplicaState) -> BaseSnapshot | None:
    """The base to begin with: the state's own, or loaded once more where it keeps none; None without one."""
    try:
        if isinstance(current, ParquetState):
            snapshot = current.snapshot
        elif isinstance(replica.base, OnDemandBase) and replica.base.poll() is None:
            return None  # it would be fetched, at a newer seq
        else:
            snapshot = replica.base.load()
    except BaseError:
        return None
    # A lower bound may hold ops that are newer than the seq asked for.
    return None if snapshot.is_lower_bound or snapshot.lineage != replica.lineage else snapshot


def _built(replica: Replica, snapshot: BaseSnapshot, seq: int) -> ReplicaState:
    """`snapshot` with the history up to `seq`. Raises `LogGap`, `BaseError` where its files are gone."""
    state = replica.new_state(snapshot)
    try:
        while state.visible_seq < seq:
            batch = replica.history.read(state.visible_seq, seq, READ_BYTES)
            state.apply(batch.ops, batch.mark.through, batch.mark.commit_time_us)
    except BaseException:
        state.close()
        raise
    return state


def _check_commit_end(replica: Replica, seq: int, base_seq: int) -> None:
    """Raise `InvalidStatement` where a commit isn't known to end at `seq`: none may be seen in part."""
    if seq == base_seq:
        return
    mark = replica.history.read(seq - 1, seq, 1).mark
    if mark.commit_through != seq:
        end = max(mark.commit_through, base_seq)
        raise InvalidStatement(
            f"as_of_seq {seq}: no commit of table {replica.table!r} is known to end there; the newest known "
            f"end before it is seq {end}"
        )


def _not_held(replica: Replica, seq: int, first: int, last: int) -> InvalidStatement:
    return InvalidStatement(
        f"as_of_seq {seq}: of table {replica.table!r} this replica holds the seqs from {first} to {last}"
    )
