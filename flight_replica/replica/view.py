"""Opening a view: several tables of one process at one moment each, inside one DuckDB transaction."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING

from flight_replica.sql.view import View
from flight_replica.state.workspace import Workspace

if TYPE_CHECKING:
    from flight_replica.replica.replica import Replica


def open_view(workspace: Workspace, replicas: Mapping[str, Replica]) -> View:
    """A view in which each replica's table is bound by its name.

    All states are pinned before the transaction begins, so their tables are there, and each position is
    read inside it, so it belongs to the rows.
    """
    with ExitStack() as undo:
        states = {}
        for name, replica in replicas.items():
            states[name] = undo.enter_context(replica.pinned())
        session = workspace.session()
        undo.callback(session.close)
        session.execute("BEGIN TRANSACTION READ ONLY")
        seen = {name: state.position(session) for name, state in states.items()}
        positions = [
            replicas[name].position_of(states[name], at.visible_seq, at.commit_time_us)
            for name, at in seen.items()
        ]
        kept = ExitStack()
        view = View(session, positions, kept.close)
        for name, state in states.items():
            view.bind(name, state.relation(seen[name]))
        kept.push(undo.pop_all())
        return view
