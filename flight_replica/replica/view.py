"""Opening views: several tables of one process at one moment each, inside one DuckDB transaction."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import pyarrow as pa

from flight_replica.position import TablePosition
from flight_replica.sql.key_filter import NO_KEYS, Keys, key_in
from flight_replica.sql.parsed import Parsed
from flight_replica.sql.view import View
from flight_replica.state.state import KeyNow, ReplicaState, StateKind, StatePosition
from flight_replica.state.workspace import Workspace

if TYPE_CHECKING:
    from flight_replica.replica.replica import Replica

_BEGIN = Parsed("BEGIN TRANSACTION READ ONLY")


def open_view(
    workspace: Workspace,
    replicas: Mapping[str, Replica],
    keys: Keys = NO_KEYS,
    *,
    is_checked: bool = False,
) -> View:
    """A view in which each replica's table is bound by its name.

    Of a table in `keys`, only rows with these values need to be right. `is_checked`: its statements only
    read, as those do that the sandbox let through; then another view may go on with its session.
    """
    with ExitStack() as undo:
        opening = undo.enter_context(Opening(workspace, replicas, keys=keys, is_checked=is_checked))
        opening.begin()
        undo.pop_all()
    return opening.bound()


def open_views(workspace: Workspace, replicas: Mapping[str, Replica], count: int) -> Sequence[View]:
    """`count` views of the very same moment, which offer the tables: nothing is applied while they begin."""
    with ExitStack() as undo:
        with ExitStack() as still:
            for _, replica in sorted(replicas.items()):  # in one order, so that no two wait for each other
                still.enter_context(replica.still())
            openings = [undo.enter_context(Opening(workspace, replicas)) for _ in range(count)]
            for opening in openings:
                opening.begin(like=openings[0])
        undo.pop_all()
    return [opening.offered() for opening in openings]


class Opening:
    """A view in the making: states pinned, then a transaction begun, then tables bound.

    All states are pinned before the transaction begins, so their tables are there, and each position is
    read inside it, so it belongs to the rows. Lag comes first: what proves it later may not be in the view.
    As a context manager it lets go of everything.
    """

    def __init__(
        self,
        workspace: Workspace,
        replicas: Mapping[str, Replica],
        states: Mapping[str, ReplicaState] | None = None,
        release: Callable[[], None] | None = None,
        keys: Keys = NO_KEYS,
        *,
        is_checked: bool = False,
    ) -> None:
        """`states`: what to read instead of a replica's own state, for some tables; `release` is called in
        the end, and when this raises. `keys`, `is_checked`: see `open_view`."""
        self._replicas = replicas
        self._own = dict(states or {})
        self._keys = keys
        self._rows: dict[str, pa.Table] = {}  # of tables whose key is known without the transaction
        self._held = ExitStack()
        self._lags: dict[str, int] = {}
        self._states: dict[str, ReplicaState] = {}
        self._seen: dict[str, StatePosition] = {}
        with ExitStack() as undo:
            if release is not None:
                undo.callback(release)
            for name, replica in replicas.items():
                own = self._own.get(name)
                self._lags[name] = replica.lag_us() if own is None else -1
                self._states[name] = own or undo.enter_context(replica.pinned())
            self._standing = workspace.standing_sessions.take(replicas) if is_checked else None
            self._session = workspace.session() if self._standing is None else self._standing.connection
            self._held = undo.pop_all()

    def begin(self, like: Opening | None = None) -> None:
        """Take the snapshot; `like` has taken the same one, so that not every position is read again."""
        known = self._known()
        for name, state in self._states.items():
            if name not in known:
                state.settle()
        _BEGIN.run(self._session)
        if like is None or like is self:
            self._seen = {name: state.position(self._session) for name, state in self._states.items()}
            for name, now in known.items():
                self._take(name, now)
            return
        self._seen = like._seen
        # The first read of a database fixes what is seen of it; native states have one each, others share.
        kinds = {
            id(state) if state.kind is StateKind.MERGE_ON_APPLY else 0: state
            for state in self._states.values()
        }
        for state in kinds.values():
            state.position(self._session)

    def _known(self) -> dict[str, KeyNow]:
        """What is known of tables of which one key is read."""
        found = {}
        for name, values in self._keys.items():
            key = key_in(values, self._states[name].schema)
            if key is not None:
                found[name] = self._states[name].key_now(key)
        return found

    def _take(self, name: str, now: KeyNow) -> None:
        """Show the table as of `now`, unless the transaction sees a newer one."""
        seen = self._seen[name]
        if now.visible_seq < seen.visible_seq:
            return
        seen = replace(seen, visible_seq=now.visible_seq, commit_time_us=now.commit_time_us, row_count=None)
        if now.rows is not None:
            self._rows[name] = now.rows
            seen = replace(seen, column_count=now.rows.num_columns)  # one may just have been added
        self._seen[name] = seen

    def offered(self) -> View:
        """The view, which holds everything from now on; its tables are bound by `take_up`."""
        return self._view(is_made_later=False)

    def _view(self, *, is_made_later: bool) -> View:
        """`is_made_later`: what a table is in SQL, which may cost something, is told when it is bound."""
        positions = [self._position(name) for name in self._seen]
        view = View(self._session, positions, self._held.close, self._standing)
        for number, (name, state) in enumerate(self._states.items()):
            rows = None
            if name in self._rows:
                rows = f"$key_{number}"
                view.bind_data(rows, self._rows[name])
            seen = self._seen[name]
            relation = partial(state.relation, seen, rows, view.own_session)
            counter = partial(state.count_rows, seen, self._session)
            view.offer(name, relation if is_made_later else relation(), counter)
        view.made_of = self._made_of()
        return view

    def _made_of(self) -> Sequence[object] | None:
        """Kind and schema of each state; None where one has columns that the transaction doesn't see."""
        parts: list[object] = []
        for name, state in self._states.items():
            schema = state.schema
            if len(schema.columns) != self._seen[name].column_count:
                return None
            parts += [state.kind, schema]
        return parts

    def bound(self) -> View:
        """As `offered`, with all tables bound once a statement is looked at or run."""
        view = self._view(is_made_later=True)
        view.take_up_later()
        return view

    def _position(self, name: str) -> TablePosition:
        at = self._seen[name]
        replica = self._replicas[name]
        return replica.position_of(self._states[name], at.visible_seq, at.commit_time_us, self._lags[name])

    def __enter__(self) -> Opening:
        return self

    def __exit__(self, *_: object) -> None:
        with self._held:
            self._session.close()
