"""Reading a table as it was at an older seq: its base once more, with the replica's own history up to there.

The tail keeps only the newest op of each key, so it can't tell what was before. The base under it and the
history can, as long as that reaches back to the base. Such a state is made for one view and goes with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack

from flight_replica.errors import InvalidStatement, LogGap
from flight_replica.replica.rebase import READ_BYTES
from flight_replica.replica.replica import Replica
from flight_replica.replica.view import Opening, open_view
from flight_replica.sql.view import View
from flight_replica.state.parquet_state import ParquetState
from flight_replica.state.state import ReplicaState
from flight_replica.state.workspace import Workspace

__all__ = ["open_view_as_of"]


def open_view_as_of(workspace: Workspace, replicas: Mapping[str, Replica], seqs: Mapping[str, int]) -> View:
    """A view of each table in `seqs` as it was at its seq, and of the others as they are.

    Raises `InvalidStatement` that names what is held, for a seq that isn't.
    """
    view = open_view(workspace, replicas)
    older = {at.table: seqs[at.table] for at in view.positions if seqs.get(at.table) != at.visible_seq}
    older = {table: seq for table, seq in older.items() if table in seqs}
    if not older:
        return view
    view.close()
    with ExitStack() as undo:
        states: dict[str, ReplicaState] = {}
        for table, seq in older.items():
            states[table] = _state_at(replicas[table], seq)
            undo.callback(states[table].close)
        undo.pop_all()
    with ExitStack() as undo:
        opening = undo.enter_context(Opening(workspace, replicas, states))
        opening.begin()
        undo.pop_all()
    return opening.bound()


def _state_at(replica: Replica, seq: int) -> ReplicaState:
    """A state of its own at `seq`. Raises `InvalidStatement`."""
    with replica.pinned() as current:
        with replica.still():  # the history has by then what the state shows
            visible_seq = current.visible_seq
        is_held = replica.history.low_water <= current.base_seq
        if not isinstance(current, ParquetState) or current.snapshot.is_lower_bound or not is_held:
            raise _not_held(replica, seq, visible_seq, visible_seq)
        if not current.base_seq <= seq <= visible_seq:
            raise _not_held(replica, seq, current.base_seq, visible_seq)
        try:
            _check_commit_end(replica, seq, current.base_seq)
            state = replica.new_state(current.snapshot)
        except LogGap as gap:
            raise _not_held(replica, seq, visible_seq, visible_seq) from gap
        try:
            _replay(replica, state, seq)
        except LogGap as gap:
            state.close()
            raise _not_held(replica, seq, visible_seq, visible_seq) from gap
        except BaseException:
            state.close()
            raise
        return state


def _replay(replica: Replica, state: ReplicaState, through: int) -> None:
    while state.visible_seq < through:
        batch = replica.history.read(state.visible_seq, through, READ_BYTES)
        state.apply(batch.ops, batch.mark.through, batch.mark.commit_time_us)


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
