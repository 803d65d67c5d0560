"""`TableReplica`: one name of a server, through loading, waiting, trouble and re-creation."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

import pytest

from flight_replica.errors import BaseNotUsable, TableNotFound, Unavailable
from flight_replica.log.op_log import OpLog
from flight_replica.replica.published import Opening
from flight_replica.replica.stats import ReplicaSettings
from flight_replica.replica.table import TableReplica, TableState
from flight_replica.state.workspace import Workspace
from tests.bases import ID_V, ParquetBase, SmallTable, put
from tests.processes import until

SETTINGS = ReplicaSettings(base_poll_seconds=3600)


@dataclass
class Origin:
    """Opens whatever table it is told to, or raises what it is told."""

    primary: SmallTable
    error: Exception | None = None
    reach_seq: int = 0
    before: Callable[[], object] = field(default=lambda: None)

    def __call__(self) -> Opening:
        self.before()
        if self.error is not None:
            raise self.error
        base = self.primary.base
        return Opening(self.primary.log(), base, lambda: base.snapshot.base_seq, self.reach_seq)


@pytest.fixture
def origin(primary: SmallTable) -> Origin:
    return Origin(primary)


def is_(table: TableReplica, state: TableState) -> Callable[[], bool]:
    return lambda: table.state[0] is state


@pytest.fixture
def table(origin: Origin, workspace: Workspace) -> Iterator[TableReplica]:
    with closing(TableReplica("t", origin, workspace, SETTINGS)) as table:
        yield table


def test_a_table_serves_once_its_base_is_loaded(table: TableReplica, primary: SmallTable) -> None:
    until(is_(table, TableState.SERVING), "the table serves")
    assert table.replica.get(1) == {"id": 1, "v": 10}
    primary.commit(put(4, 40))
    until(lambda: table.replica.visible_seq == 4, "seq 4 is visible")


@pytest.mark.parametrize(
    ("error", "state"),
    [
        (Unavailable("no route"), TableState.LOADING),
        (BaseNotUsable("no base yet"), TableState.WAITING),
        (TableNotFound("no such table"), TableState.WAITING),
        (OSError("odd"), TableState.LOADING),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_table_that_cannot_be_opened_says_why_and_tries_again(
    error: Exception, state: TableState, origin: Origin, workspace: Workspace
) -> None:
    origin.error = error
    gone: list[str] = []
    with closing(TableReplica("t", origin, workspace, SETTINGS, gone.append)) as table:
        until(lambda: table.state == (state, str(error)), "the reason is told")
        with pytest.raises(Unavailable, match=f"table 't' is {state}: {error}"):
            _ = table.replica
        origin.error = None
        until(is_(table, TableState.SERVING), "the table serves")
        assert bool(gone) is isinstance(error, TableNotFound)


def test_a_table_waits_until_it_reaches_what_was_shown_before(
    origin: Origin, primary: SmallTable, workspace: Workspace
) -> None:
    origin.reach_seq = 4
    with closing(TableReplica("t", origin, workspace, SETTINGS)) as table:
        until(lambda: "catching up from seq 3 to 4" in table.state[1], "the table catches up")
        with pytest.raises(Unavailable):
            _ = table.replica
        primary.commit(put(4, 40))
        until(is_(table, TableState.SERVING), "the table serves")
        assert table.replica.visible_seq == 4


def test_a_gap_without_a_base_is_degraded_until_there_is_one(
    table: TableReplica, primary: SmallTable
) -> None:
    until(is_(table, TableState.SERVING), "the table serves")
    primary.feed.restart(10)  # ops 4 to 10 are nowhere
    primary.commit(put(11, 11), first_seq=11)
    until(is_(table, TableState.DEGRADED), "the table is degraded")
    assert "log gap" in table.state[1]
    assert table.replica.get(1) == {"id": 1, "v": 10}
    primary.flush()
    until(is_(table, TableState.SERVING), "the table serves again")
    assert table.replica.base_seq == 11


def test_a_table_created_anew_starts_afresh(
    table: TableReplica, origin: Origin, tmp_path: Path, workspace: Workspace
) -> None:
    until(is_(table, TableState.SERVING), "the table serves")
    old, again = origin.primary, SmallTable(tmp_path / "again")
    lineage = UUID(int=7)
    again.feed = OpLog("t", lineage, ID_V, bytes_max=1 << 30, clock_us=lambda: 1)
    again.base = ParquetBase(tmp_path / "again", ID_V, lineage=lineage)
    again.commit(put(1, 77))
    origin.primary = again
    old.feed.drop()

    def is_new() -> bool:
        try:
            return table.replica.get(1) == {"id": 1, "v": 77}
        except Unavailable:
            return False

    until(is_new, "the new table is served")
    assert table.replica.lineage == lineage


def test_a_table_can_be_closed_at_any_moment(origin: Origin, workspace: Workspace) -> None:
    opening, go_on = threading.Event(), threading.Event()
    origin.before = lambda: (opening.set(), go_on.wait(10))
    table = TableReplica("t", origin, workspace, SETTINGS)
    assert opening.wait(10)
    closer = threading.Thread(target=table.close)
    closer.start()
    until(table._stop.is_set, "close has begun")
    go_on.set()
    closer.join(10)
    assert not closer.is_alive()
