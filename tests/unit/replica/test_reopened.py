"""Going on with what an earlier process left of a table, and when not."""

from __future__ import annotations

import logging
import resource
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from uuid import UUID

import duckdb
import pyarrow as pa
import pytest

from flight_replica.log.in_process import InProcessLogSource
from flight_replica.log.no_log import NoLog
from flight_replica.log.op_log import OpLog
from flight_replica.log.source import LogSource
from flight_replica.replica.published import Opening
from flight_replica.replica.reopened import reopened
from flight_replica.replica.replica import Replica
from flight_replica.replica.stats import ReplicaSettings
from flight_replica.replica.table import TableReplica, TableState
from flight_replica.schema import Column, TableSchema
from flight_replica.state import native_state
from flight_replica.state.state import StateKind
from flight_replica.state.workspace import Workspace
from tests.bases import ID_V, LINEAGE, SmallTable, put
from tests.processes import until

DISK_BYTES_MAX = 1 << 40
SETTINGS = ReplicaSettings(base_poll_seconds=3600)


@pytest.fixture
def primary(tmp_path: Path) -> SmallTable:
    """A table of three rows, of whose native state an earlier process has left a file at seq 4."""
    table = SmallTable(tmp_path / "base")
    for key in (1, 2, 3):
        table.commit(put(key, 10 * key))
    table.flush()
    table.commit(put(4, 40))
    with (
        workspace_in(tmp_path) as workspace,
        closing(Replica.open(table.base, table.log(), workspace=workspace)) as replica,
    ):
        replica.advance()
        replica.swaps.merge_on_apply()
    return table


@contextmanager
def workspace_in(directory: Path) -> Iterator[Workspace]:
    with closing(Workspace(directory / "data")) as workspace:
        yield workspace


@contextmanager
def served(
    primary: SmallTable, directory: Path, settings: ReplicaSettings = SETTINGS
) -> Iterator[TableReplica]:
    def origin() -> Opening:
        base_seq = primary.base.snapshot.base_seq
        return Opening(primary.log(), primary.base, lambda: base_seq, primary.seq)

    with (
        workspace_in(directory) as workspace,
        closing(TableReplica("t", origin, workspace, settings)) as table,
    ):
        until(lambda: table.state[0] is TableState.SERVING, "the table serves")
        yield table


def kept(directory: Path) -> list[str]:
    return [path.name for path in (directory / "data" / "native" / "t").glob("*.duckdb")]


def set_aside(directory: Path) -> int:
    return len(list((directory / "data" / "set-aside").glob("*.duckdb")))


def test_a_table_goes_on_without_its_base(primary: SmallTable, tmp_path: Path) -> None:
    primary.base.error = AssertionError("the base is loaded")
    primary.commit(put(5, 50))
    with served(primary, tmp_path) as table:
        replica = table.replica
        assert replica.state.kind is StateKind.MERGE_ON_APPLY
        assert (replica.base_seq, replica.visible_seq, replica.history.low_water) == (3, 5, 4)
        assert replica.query("SELECT * FROM t ORDER BY id").read_all().to_pydict() == {
            "id": [1, 2, 3, 4, 5],
            "v": [10, 20, 30, 40, 50],
        }


def test_a_table_answers_once_it_has_what_may_have_been_shown(primary: SmallTable, tmp_path: Path) -> None:
    def origin() -> Opening:
        return Opening(primary.log(), primary.base, lambda: 3, 5)

    with (
        workspace_in(tmp_path) as workspace,
        closing(TableReplica("t", origin, workspace, SETTINGS)) as table,
    ):
        until(lambda: "catching up from seq 4 to 5" in table.state[1], "the table catches up")
        primary.commit(put(5, 50))
        until(lambda: table.state[0] is TableState.SERVING, "the table serves")


def test_a_gap_behind_the_file_is_mended_by_a_newer_base(primary: SmallTable, tmp_path: Path) -> None:
    for key in (5, 6, 7):
        primary.commit(put(key, 10 * key))
    primary.flush(6)
    primary.feed.trim(5)
    with served(primary, tmp_path) as table:
        assert (table.replica.base_seq, table.replica.visible_seq) == (6, 7)
        assert table.replica.get(5) == {"id": 5, "v": 50}


def test_columns_that_were_added_meanwhile_have_their_defaults(primary: SmallTable, tmp_path: Path) -> None:
    primary.add_column(Column("w", pa.string(), True, "new"))
    primary.commit(put(5, 50, "x", schema=primary.schema))
    with served(primary, tmp_path) as table:
        assert table.replica.get(4) == {"id": 4, "v": 40, "w": "new"}
        assert table.replica.get(5) == {"id": 5, "v": 50, "w": "x"}


KEY_V = TableSchema((Column("id", pa.int64(), False), Column("v", pa.int64(), False)), ("v",))
OTHER_TYPE = TableSchema((Column("id", pa.int64(), False), Column("v", pa.int32())), ("id",))


@pytest.mark.parametrize(
    ("lineage", "schema", "reason"),
    [
        (UUID(int=7), ID_V, "it is of lineage"),
        (LINEAGE, KEY_V, "it has another schema"),
        (LINEAGE, OTHER_TYPE, "it has another schema"),
    ],
    ids=["lineage", "key", "schema"],
)
def test_a_file_of_another_lineage_key_or_schema_is_set_aside(
    lineage: UUID,
    schema: TableSchema,
    reason: str,
    primary: SmallTable,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    feed = OpLog("t", lineage, schema, bytes_max=1 << 30, clock_us=lambda: 1)
    with workspace_in(tmp_path) as workspace:
        assert reopened(workspace, "t", InProcessLogSource(feed), DISK_BYTES_MAX) is None
    assert (kept(tmp_path), set_aside(tmp_path)) == ([], 1)
    assert reason in caplog.text


@pytest.mark.parametrize("is_beyond_budget", [True, False], ids=["beyond the budget", "without a feed"])
def test_a_file_that_is_not_wanted_is_removed(
    is_beyond_budget: bool, primary: SmallTable, tmp_path: Path
) -> None:
    log: LogSource = primary.log() if is_beyond_budget else NoLog(LINEAGE, ID_V)
    with workspace_in(tmp_path) as workspace:
        assert reopened(workspace, "t", log, 1 if is_beyond_budget else DISK_BYTES_MAX) is None
        assert kept(tmp_path) == []
    assert set_aside(tmp_path) == 0


def test_after_merge_on_read_was_swapped_in_nothing_is_left_to_go_on_with(
    primary: SmallTable, tmp_path: Path
) -> None:
    with served(primary, tmp_path) as table:
        table.replica.swaps.rebase_hotswap()
        assert table.replica.state.kind is StateKind.MERGE_ON_READ
    assert kept(tmp_path) == []


def test_a_state_that_is_built_anew_takes_the_place_of_the_one_before(
    primary: SmallTable, tmp_path: Path
) -> None:
    (before,) = kept(tmp_path)
    with served(primary, tmp_path) as table:
        primary.commit(put(5, 50))
        until(lambda: table.replica.visible_seq == 5, "seq 5 is visible")
        table.replica.swaps.merge_on_apply()
        assert before not in kept(tmp_path)
    with served(primary, tmp_path) as table:
        assert table.replica.history.low_water == 5


def test_damage_that_is_found_while_it_is_served_gives_way_to_a_base(
    primary: SmallTable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A large file is read through only then; until that, each block is checked when it is read."""
    monkeypatch.setattr(native_state, "CHECKED_AT_ONCE_BYTES", 0)
    (name,) = kept(tmp_path)
    file = tmp_path / "data" / "native" / "t" / name
    with closing(duckdb.connect(str(file))) as connection:
        connection.execute("CHECKPOINT")
        ((block,),) = connection.execute(
            "SELECT max(block_id) FROM pragma_storage_info('rows') WHERE column_name = 'c1'"
        ).fetchall()
    content = bytearray(file.read_bytes())
    content[3 * 4096 + block * (256 << 10) + 100] ^= 0x55  # three headers, then blocks
    file.write_bytes(content)
    with caplog.at_level(logging.INFO), served(primary, tmp_path) as table:
        until(lambda: set_aside(tmp_path) == 1, "the damaged file is set aside")
        assert "native state reopened" in caplog.text
        assert table.replica.get(4) == {"id": 4, "v": 40}


def test_a_state_that_the_disk_has_no_room_for_gives_way_to_a_base(
    primary: SmallTable, tmp_path: Path
) -> None:
    """DuckDB refuses a database of which a checkpoint failed; nothing is wrong with what it had committed."""
    with served(primary, tmp_path) as table:
        state = table.replica.state
        with closing(table.replica.view()) as reader:
            limits = resource.getrlimit(resource.RLIMIT_FSIZE)
            resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))  # as where the disk is full
            try:
                with pytest.raises(duckdb.IOException, match="invalidated"):
                    _checkpoint(table)
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, limits)
            primary.commit(put(5, 50))
            until(lambda: table.replica.state is not state, "another state has taken its place")
            assert reader.positions[0].visible_seq == 4
        until(lambda: table.replica.get(5) == {"id": 5, "v": 50}, "what came is shown")
        until(lambda: table.replica.state.kind is StateKind.MERGE_ON_APPLY, "a native state is made anew")
        until(lambda: table.state == (TableState.SERVING, ""), "nothing is wrong any more")
        assert set_aside(tmp_path) == 0
        assert len(kept(tmp_path)) == 1


def _checkpoint(table: TableReplica) -> None:
    with closing(table.replica.view()) as view:
        names = view.execute("SELECT database_name FROM duckdb_databases() WHERE path IS NOT NULL").read_all()
    (name,) = names["database_name"].to_pylist()
    table._workspace.session().execute(f"CHECKPOINT {name}")
