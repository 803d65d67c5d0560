"""A native state in a later process: at the seq that it had, bit for bit, or set aside with its reason.

That a killed process leaves such a file: integration/test_restarts.py.
"""

from __future__ import annotations

import json
import logging
import random
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from uuid import UUID

import duckdb
import numpy as np
import pyarrow as pa
import pytest

from flight_replica.errors import StateNotUsable
from flight_replica.schema import Column, TableSchema
from flight_replica.state.native_build import NativeBuild
from flight_replica.state.native_files import SET_ASIDE_MAX
from flight_replica.state.native_record import StateRecord
from flight_replica.state.native_state import NativeState, reopen_native
from flight_replica.state.parquet_state import ParquetState
from flight_replica.state.workspace import Workspace
from tests.bases import ID_V, LINEAGE, ParquetBase, assert_same, delete, op_batch, put, sorted_by_key
from tests.unit.state.test_parquet_state import EXAMPLES, NAN_BITS, NESTED, rows_of, table_of

Damage = Callable[[Path], object]


@contextmanager
def workspace_in(directory: Path) -> Iterator[Workspace]:
    with closing(Workspace(directory / "data")) as workspace:
        yield workspace


def build(workspace: Workspace, base: ParquetBase, table: str = "t") -> NativeState:
    """The table's native state, which a later process is to go on with."""
    number, directory = workspace.new_state()
    with closing(ParquetState(workspace.database, number, base.snapshot, directory)) as source:
        file = workspace.native_folder(table).new_file()
        state = NativeBuild(workspace.database, workspace.new_number(), file, source).run()
    file.keep()
    return state


def leave(directory: Path, count: int = 100) -> None:
    """What a process leaves of a table of `count` rows, closed in order."""
    base = ParquetBase(directory / "base", ID_V)
    ids = pa.array(range(count), pa.int64())
    base.publish([(table_of(ID_V, ids, ids), ())], 1)
    with workspace_in(directory) as workspace, closing(build(workspace, base)) as state:
        state.apply(op_batch(ID_V, [(2, *put(0, 7))]), 2, 77)
        state.settle()


def reopen(
    workspace: Workspace, check: Callable[[StateRecord], None] = lambda _: None, table: str = "t"
) -> NativeState | None:
    """None: there is nothing to go on with. Raises `StateNotUsable`."""
    file = workspace.native_folder(table).take_up()
    if file is None:
        return None
    return reopen_native(workspace.database, workspace.new_number(), file, check)


def file_of(directory: Path) -> Path:
    (found,) = (directory / "data" / "native" / "t").glob("*.duckdb")
    return found


def leave_as_killed(directory: Path) -> None:
    """In `directory`/killed, what the process that is at work in `directory` would leave."""
    killed = directory / "killed" / "data"
    killed.mkdir(parents=True)
    for path in (directory / "data").rglob("*"):
        if path.is_file() and path.name != "flight-replica.lock":
            target = killed / path.relative_to(directory / "data")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    (killed / "flight-replica.lock").touch()


def set_aside(directory: Path) -> list[str]:
    return sorted(path.name for path in (directory / "data" / "set-aside").glob("*.duckdb"))


def test_every_type_comes_through_a_file_that_is_reopened_and_applied_to(tmp_path: Path) -> None:
    kinds = [*EXAMPLES, *NESTED]
    longest = max(len(values) for _, values in kinds)
    columns = [Column(f"x{number}", kind) for number, (kind, _) in enumerate(kinds)]
    nans = pa.array([*np.array(NAN_BITS, np.uint64).view(np.float64), 1.5], pa.float64())
    schema = TableSchema((Column("id", pa.int64(), False), *columns, Column("nan", pa.float64())), ("id",))
    rows = [[*values, *[None] * (longest - len(values))] for _, values in kinds]
    arrays = [pa.array(values, kind) for values, (kind, _) in zip(rows, kinds, strict=True)]
    ids = pa.array(range(longest), pa.int64())
    assert len(nans) == longest
    expected = table_of(schema, ids, *arrays, nans)
    base = ParquetBase(tmp_path / "base", schema)
    base.publish([(expected, ())], 1)
    with workspace_in(tmp_path) as workspace, closing(build(workspace, base)) as state:
        again = expected.slice(0, 2).combine_chunks().to_batches()[0]
        head = op_batch(ID_V, [(2 + n, *put(n, n)) for n in range(2)]).columns[:3]
        state.apply(pa.RecordBatch.from_arrays([*head, *again.columns], schema=schema.feed_schema), 9)
        state.settle()
    with workspace_in(tmp_path) as workspace:
        reopened = reopen(workspace)
        assert reopened is not None
        with closing(reopened):
            assert_same(rows_of(reopened, workspace.database), expected)
            assert reopened.schema == schema


def test_it_goes_on_with_all_that_it_knew(tmp_path: Path) -> None:
    leave(tmp_path)
    with workspace_in(tmp_path) as workspace:
        state = reopen(workspace)
        assert state is not None
        with closing(state):
            assert (state.lineage, state.schema) == (LINEAGE, ID_V)
            assert (state.base_seq, state.base_version, state.visible_seq) == (1, 1, 2)
            assert (state.commit_time_us, state.ops_applied, state.ops_since_copied) == (77, 1, 1)
            state.stand_on(2, 5)
            wider = TableSchema((*ID_V.columns, Column("w", pa.string(), True, "new")), ("id",))
            state.add_columns(wider)
            state.apply(op_batch(wider, [(3, *put(1, 1, "x", schema=wider))]), 3)
            state.settle()
            assert state.row_count == 100
    with workspace_in(tmp_path) as workspace:
        state = reopen(workspace)
        assert state is not None
        with closing(state):
            assert (state.base_seq, state.base_version, state.visible_seq) == (2, 5, 3)
            assert state.row_count == 100
            assert state.schema == wider
            assert [state.get([key]) for key in (0, 1)] == [
                {"id": 0, "v": 7, "w": "new"},
                {"id": 1, "v": 1, "w": "x"},
            ]


def test_what_waited_in_memory_is_there_again(tmp_path: Path) -> None:
    leave(tmp_path)
    wider = TableSchema((*ID_V.columns, Column("w", pa.string(), True, "new")), ("id",))
    with workspace_in(tmp_path) as workspace:
        state = reopen(workspace)
        assert state is not None
        with closing(state):
            state.apply(op_batch(ID_V, [(3, *put(1, 3))]), 3)
            state.settle()
            state.apply(op_batch(ID_V, [(4, *put(2, 4)), (5, *delete(3))]), 6, 88)
            state.add_columns(wider)
            state.apply(op_batch(wider, [(7, *put(4, 7, "x", schema=wider))]), 7, 99)
            leave_as_killed(tmp_path)
    with workspace_in(tmp_path / "killed") as workspace:
        state = reopen(workspace)
        assert state is not None
        with closing(state):
            assert (state.visible_seq, state.commit_time_us, state.ops_applied) == (7, 99, 5)
            keys = (0, 1, 2, 3, 4)
            expected = [7, 3, 4, None, 7]
            assert [(state.get([key]) or {}).get("v") for key in keys] == expected
            assert [(state.get([key]) or {}).get("w") for key in (2, 4)] == ["new", "x"]
            assert state.row_count == 99
    journal = list((tmp_path / "killed").rglob("*.ops*"))
    assert [path.stat().st_size for path in journal] in ([0], [0, 0])


def test_what_was_not_committed_is_not_there(tmp_path: Path) -> None:
    leave(tmp_path)
    with workspace_in(tmp_path) as workspace:
        state = reopen(workspace)
        assert state is not None
        with closing(state):
            state._connection.execute("BEGIN TRANSACTION")
            state._connection.execute(f"DELETE FROM {state._database}.rows")
            state._connection.execute("ROLLBACK")
    with workspace_in(tmp_path) as workspace:
        state = reopen(workspace)
        assert state is not None
        with closing(state):
            assert (state.row_count, state.visible_seq) == (100, 2)


def _flip(path: Path) -> None:
    """Change a byte in each block; what none of them holds may differ, nothing else."""
    content = bytearray(path.read_bytes())
    for place in range(4096 * 3 + 100, len(content), 4096):
        content[place] ^= 0x55
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda path: path.write_bytes(b""), "not a valid DuckDB"),
        (lambda path: path.write_bytes(random.Random(1).randbytes(1 << 16)), "not a valid DuckDB"),
        (lambda path: path.write_bytes(path.read_bytes()[:5000]), "[Cc]hecksum|read enough bytes"),
        (lambda path: path.write_bytes(path.read_bytes()[:-4096]), "read enough bytes"),
        (_flip, "checksum"),
    ],
    ids=["empty", "garbage", "cut short", "cut at the end", "bytes changed"],
)
def test_a_damaged_file_is_set_aside_and_the_database_lives_on(
    damage: Damage, reason: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    leave(tmp_path, count=100_000)
    checkpoint(tmp_path)
    damage(file_of(tmp_path))
    with workspace_in(tmp_path) as workspace, caplog.at_level(logging.WARNING):
        with pytest.raises(StateNotUsable, match=reason):
            reopen(workspace)
        assert workspace.database.execute("SELECT 1").fetchall() == [(1,)]
        assert reopen(workspace) is None
    assert len(set_aside(tmp_path)) == 1
    assert f"native state set aside table=t file={set_aside(tmp_path)[0]} reason=" in caplog.text


@pytest.mark.parametrize("cut", [0, 1, 100, 1000])
def test_a_log_of_writes_that_is_cut_leaves_an_older_seq_whole(cut: int, tmp_path: Path) -> None:
    """Rows and seq are one commit: whatever end of the file is missing, they fit."""
    leave(tmp_path)
    with workspace_in(tmp_path) as workspace:
        state = reopen(workspace)
        assert state is not None
        for seq in range(3, 40):
            state.apply(op_batch(ID_V, [(seq, *put(seq, seq))]), seq)
            state.settle()
        leave_as_killed(tmp_path)
        state.close()
    wal = file_of(tmp_path / "killed").with_suffix(".duckdb.wal")
    wal.write_bytes(wal.read_bytes()[: wal.stat().st_size - cut])
    with workspace_in(tmp_path / "killed") as workspace:
        state = reopen(workspace)
        assert state is not None
        with closing(state):
            seq = state.visible_seq
            assert (seq == 39) is (cut == 0) and seq >= 2
            found = rows_of(state, workspace.database)
            newest = {0: 7} | {key: key for key in range(3, seq + 1)}
            ids = pa.array(range(100), pa.int64())
            values = pa.array([newest.get(key, key) for key in range(100)], pa.int64())
            assert_same(sorted_by_key(found, ID_V), table_of(ID_V, ids, values))


def test_a_file_without_its_log_of_writes_is_older_and_whole(tmp_path: Path) -> None:
    leave(tmp_path)
    checkpoint(tmp_path)
    with workspace_in(tmp_path) as workspace:
        state = reopen(workspace)
        assert state is not None
        with closing(state):
            state.apply(op_batch(ID_V, [(3, *put(0, 8))]), 3)
            state.settle()
    file_of(tmp_path).with_suffix(".duckdb.wal").unlink()
    with workspace_in(tmp_path) as workspace:
        state = reopen(workspace)
        assert state is not None
        with closing(state):
            assert (state.visible_seq, state.get([0])) == (2, {"id": 0, "v": 7})


def checkpoint(directory: Path) -> None:
    """Write everything into the file itself, as happens now and then."""
    with closing(duckdb.connect(str(file_of(directory)))) as connection:
        connection.execute("CHECKPOINT")


def test_a_file_whose_rows_were_in_its_lost_log_of_writes_is_set_aside(tmp_path: Path) -> None:
    leave(tmp_path)
    file_of(tmp_path).with_suffix(".duckdb.wal").unlink()
    with workspace_in(tmp_path) as workspace, pytest.raises(StateNotUsable, match="about"):
        reopen(workspace)


@pytest.mark.parametrize("what", ["format", "program"])
def test_a_file_of_another_program_is_set_aside(what: str, tmp_path: Path) -> None:
    leave(tmp_path)
    with closing(duckdb.connect(str(file_of(tmp_path)))) as connection:
        connection.execute(f"UPDATE about SET {what} = '99'")
    with workspace_in(tmp_path) as workspace, pytest.raises(StateNotUsable, match="it was written by"):
        reopen(workspace)
    assert len(set_aside(tmp_path)) == 1


def test_a_file_whose_columns_are_not_those_of_its_record_is_set_aside(tmp_path: Path) -> None:
    leave(tmp_path)
    with closing(duckdb.connect(str(file_of(tmp_path)))) as connection:
        connection.execute("ALTER TABLE rows ALTER c1 TYPE INTEGER")
    with workspace_in(tmp_path) as workspace, pytest.raises(StateNotUsable, match="its columns are"):
        reopen(workspace)


def test_a_file_with_other_rows_than_its_record_counts_is_set_aside(tmp_path: Path) -> None:
    leave(tmp_path)
    with closing(duckdb.connect(str(file_of(tmp_path)))) as connection:
        connection.execute("DELETE FROM rows WHERE c0 = 5")
    with workspace_in(tmp_path) as workspace, pytest.raises(StateNotUsable, match=r"99 rows, .* says 100"):
        reopen(workspace)
    assert len(set_aside(tmp_path)) == 1


def test_a_file_that_its_reader_refuses_is_set_aside(tmp_path: Path) -> None:
    leave(tmp_path)

    def refuse(record: StateRecord) -> None:
        raise StateNotUsable(f"not {record.lineage}")

    with workspace_in(tmp_path) as workspace, pytest.raises(StateNotUsable, match=str(LINEAGE)):
        reopen(workspace, refuse)
    assert len(set_aside(tmp_path)) == 1


@pytest.mark.parametrize(
    ("is_clean", "boot", "is_trusted"),
    [(True, "another", True), (False, "another", False), (False, "", False), (True, "", True)],
)
def test_after_the_machine_stopped_only_what_was_closed_in_order_counts(
    is_clean: bool, boot: str, is_trusted: bool, tmp_path: Path
) -> None:
    leave(tmp_path)
    pointer = tmp_path / "data" / "native" / "t" / "current.json"
    told = json.loads(pointer.read_text())
    assert told["is_clean"]
    pointer.write_text(json.dumps({**told, "boot": boot, "is_clean": is_clean}))
    with workspace_in(tmp_path) as workspace:
        state = reopen(workspace)
        assert (state is not None) is is_trusted
        if state is not None:
            assert not json.loads(pointer.read_text())["is_clean"]
            state.close()
    assert len(set_aside(tmp_path)) == (0 if is_trusted else 1)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"file": 1}', '{"file": "../../x", "boot": "", "is_clean": true}']
)
def test_a_damaged_pointer_is_as_good_as_none(text: str, tmp_path: Path) -> None:
    leave(tmp_path)
    (tmp_path / "data" / "native" / "t" / "current.json").write_text(text)
    with workspace_in(tmp_path) as workspace:
        assert reopen(workspace) is None
        assert list((tmp_path / "data" / "native" / "t").iterdir()) == []


def test_a_file_that_was_never_finished_goes(tmp_path: Path) -> None:
    leave(tmp_path)
    beside = file_of(tmp_path).with_name("000999.duckdb")
    beside.write_bytes(b"half")
    beside.with_name("000999.duckdb.wal").write_bytes(b"half")
    with workspace_in(tmp_path) as workspace:
        state = reopen(workspace)
        assert state is not None
        assert int(workspace.native_folder("t").new_file().path.stem) > 999
        state.close()
    assert not beside.exists()


def test_only_the_newest_files_are_kept_aside(tmp_path: Path) -> None:
    for _ in range(SET_ASIDE_MAX + 2):
        leave(tmp_path)
        file_of(tmp_path).write_bytes(b"")
        with workspace_in(tmp_path) as workspace, pytest.raises(StateNotUsable):
            reopen(workspace)
    assert len(set_aside(tmp_path)) == SET_ASIDE_MAX


def test_a_newer_file_takes_the_place_of_the_old_one_which_goes_with_its_reader(tmp_path: Path) -> None:
    leave(tmp_path)
    with workspace_in(tmp_path) as workspace:
        old = reopen(workspace)
        assert old is not None
        with closing(build(workspace, ParquetBase(tmp_path / "base", ID_V))):
            assert old.file.path.exists()
            assert old.row_count == 100
            old.close()
            assert not old.file.path.exists()
    with workspace_in(tmp_path) as workspace:
        newer = reopen(workspace)
        assert newer is not None
        with closing(newer):
            assert newer.row_count == 0


def test_a_forgotten_file_goes_with_its_reader(tmp_path: Path) -> None:
    leave(tmp_path)
    with workspace_in(tmp_path) as workspace:
        state = reopen(workspace)
        assert state is not None
        workspace.native_folder("t").forget()
        assert state.row_count == 100
        state.close()
        assert not state.file.path.exists()
        assert reopen(workspace) is None


def test_a_file_in_use_is_not_taken_up_twice(tmp_path: Path) -> None:
    leave(tmp_path)
    with workspace_in(tmp_path) as workspace:
        state = reopen(workspace)
        assert state is not None
        assert reopen(workspace) is None
        state.close()


@pytest.mark.parametrize("name", ["a/b", "..", "ß" * 100, "A", "x y", "%2E"])
def test_any_name_of_a_table_has_a_folder_of_its_own(name: str, tmp_path: Path) -> None:
    base = ParquetBase(tmp_path / "base", ID_V, lineage=UUID(int=9))
    with workspace_in(tmp_path) as workspace:
        build(workspace, base, name).close()
        build(workspace, base, "t").close()
        (folder,) = (p for p in (tmp_path / "data" / "native").iterdir() if p.name != "t")
        assert (folder / "current.json").exists()
    with workspace_in(tmp_path) as workspace:
        state = reopen(workspace, table=name)
        assert state is not None and state.lineage == UUID(int=9)
        state.close()


def test_a_temporary_workspace_keeps_no_file(tmp_path: Path) -> None:
    with closing(Workspace()) as workspace:
        state = build(workspace, ParquetBase(tmp_path / "base", ID_V))
        state.close()
        assert not state.file.path.exists()


def test_what_is_left_of_a_table_that_is_gone_goes_too(tmp_path: Path) -> None:
    """It would count in the budget of all tables else."""
    leave(tmp_path)
    with workspace_in(tmp_path) as workspace:
        workspace.forget_others({"t"})
        assert workspace.native_bytes(besides="u") > 0
        workspace.forget_others({"u"})
        assert workspace.native_bytes(besides="u") == 0
    leave(tmp_path)
    with workspace_in(tmp_path) as workspace:
        state = reopen(workspace)
        assert state is not None
        workspace.forget_others(())  # one that this process knows of stays
        state.close()
        assert file_of(tmp_path).exists()
