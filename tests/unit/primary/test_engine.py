"""The engine: its directory, its feeds, retention, lineages and reopening."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from uuid import uuid4

import duckdb
import pyarrow as pa
import pytest

from flight_replica.errors import Closed, ConfigError, LogGap, TableNotFound, Unavailable
from flight_replica.flightsql.service import IngestMode
from flight_replica.log.source import Op
from flight_replica.primary import store
from flight_replica.primary.engine import Engine
from flight_replica.primary.retention import trim_all
from flight_replica.primary.settings import PrimarySettings
from tests.faults import full_disk
from tests.model import TableModel

BYTES = 1 << 20
CREATE = "CREATE TABLE t (id BIGINT PRIMARY KEY, a VARCHAR)"


class Clock:
    """µs since 1970, moved by hand."""

    def __init__(self) -> None:
        self.now = 1_000_000_000

    def __call__(self) -> int:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def engine(tmp_path: Path, clock: Clock) -> Iterator[Engine]:
    engine = Engine.open(tmp_path, PrimarySettings(retention_ops=4), clock_us=clock)
    yield engine
    engine.close()


def reopen(engine: Engine, settings: PrimarySettings | None = None, **options: object) -> Engine:
    engine.close()
    return Engine.open(engine.directory, settings or engine.settings, clock_us=engine.clock_us, **options)  # type: ignore[arg-type]


def replay(engine: Engine, table: str = "t", byte_limit: int = BYTES) -> TableModel:
    """The table's whole feed, applied to the model."""
    feed, model = engine.feed(table), TableModel()
    while model.visible_seq < feed.high_water:
        model.apply_batch(feed.read(model.visible_seq, None, byte_limit))
    return model


def ids(engine: Engine) -> list[object]:
    session = engine.session()
    rows = session.execute(f"SELECT id FROM {engine.table('t').rows} ORDER BY id").fetchall()
    session.close()
    return [row[0] for row in rows]


# --- the directory ----------------------------------------------------------------------------------


def test_a_directory_is_made_where_there_is_none(tmp_path: Path) -> None:
    with_parents = tmp_path / "a" / "b"
    Engine.open(with_parents).close()
    assert (with_parents / "primary.duckdb").is_file()


def test_a_directory_is_refused_while_another_primary_has_it(engine: Engine) -> None:
    with pytest.raises(ConfigError, match="is in use by another process: pid"):
        Engine.open(engine.directory)
    program = f"""
from pathlib import Path
from flight_replica.errors import ConfigError
from flight_replica.primary.engine import Engine
try: Engine.open(Path({str(engine.directory)!r}))
except ConfigError as error: print(error)
"""
    other = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "is in use by another process: pid" in other.stdout


def test_a_directory_can_be_taken_again_after_close(engine: Engine) -> None:
    engine.close()
    Engine.open(engine.directory).close()


def test_a_file_of_another_format_version_is_refused(engine: Engine) -> None:
    engine.close()
    with duckdb.connect(str(engine.directory / "primary.duckdb")) as connection:
        connection.execute('UPDATE "$meta" SET format_version = 99')
    with pytest.raises(ConfigError, match="has format version 99, this program reads 3"):
        Engine.open(engine.directory)


def test_another_database_is_refused(tmp_path: Path) -> None:
    with duckdb.connect(str(tmp_path / "primary.duckdb")) as connection:
        connection.execute("CREATE TABLE somebody (elses INT)")
    with pytest.raises(ConfigError, match="not a primary's"):
        Engine.open(tmp_path)


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "primary.duckdb").write_bytes(b"text" * 1000)
    with pytest.raises(ConfigError, match="can't be opened"):
        Engine.open(tmp_path)


def test_a_path_below_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="can't be used"):
        Engine.open(tmp_path / "file" / "data")


@pytest.mark.parametrize(
    "setting", [{"retention_ops": -1}, {"ingest_bytes_max": 0}, {"publish_seconds": float("nan")}]
)
def test_a_setting_that_cant_work_is_refused(setting: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(setting))):
        PrimarySettings(**setting)  # type: ignore[arg-type]


@pytest.mark.statement(111)
def test_a_closed_engine_refuses_writes(engine: Engine) -> None:
    engine.close()
    engine.close()
    with pytest.raises(Closed):
        engine.write(CREATE)


# --- feeds ------------------------------------------------------------------------------------------


@pytest.mark.statement(78, 81)
def test_ops_have_consecutive_seqs_and_a_statement_is_one_commit(engine: Engine) -> None:
    engine.write(CREATE)
    assert engine.write("INSERT INTO t VALUES (1, 'a'), (2, 'b'), (3, 'c')").seq == 3
    assert engine.write("DELETE FROM t WHERE id < 3").seq == 5
    feed = engine.feed("t")
    batch = feed.read(0, None, BYTES)
    assert [(r.seq, r.op) for r in batch.records()] == [
        (1, Op.INSERT),
        (2, Op.INSERT),
        (3, Op.INSERT),
        (4, Op.DELETE),
        (5, Op.DELETE),
    ]
    assert batch.ops.schema.equals(feed.schema.feed_schema)
    assert feed.read(0, 2, BYTES).mark.commit_through == 0
    assert feed.read(0, 4, BYTES).mark.commit_through == 3
    assert (batch.mark.through, batch.mark.commit_through, batch.mark.high_water) == (5, 5, 5)


@pytest.mark.statement(109, 110)
def test_seqs_begin_with_1_and_a_write_is_answered_with_the_last_one_of_its_commit(engine: Engine) -> None:
    engine.write(CREATE)
    feed = engine.feed("t")
    assert feed.high_water == 0
    assert (engine.write("INSERT INTO t VALUES (1, '')").seq, feed.high_water) == (1, 1)
    assert engine.write("INSERT INTO t VALUES (2, ''), (3, ''), (4, ''), (5, '')").seq == 5
    assert (feed.high_water, feed.read(1, None, BYTES).ops["seq"].to_pylist()) == (5, [2, 3, 4, 5])
    assert engine.write("INSERT INTO t SELECT 6, '' WHERE false").seq == 5
    assert engine.write("DELETE FROM t WHERE id = 1").seq == 6


@pytest.mark.statement(85, 90)
def test_a_delete_carries_the_row_that_it_removed(engine: Engine) -> None:
    engine.write(CREATE)
    engine.write("INSERT INTO t VALUES (1, 'a')")
    engine.write("DELETE FROM t")
    *_, last = engine.feed("t").read(0, None, BYTES).records()
    assert (last.op, last.row) == (Op.DELETE, {"id": 1, "a": "a"})


@pytest.mark.parametrize("recent_bytes", [1, BYTES])
def test_a_feed_reads_the_same_from_memory_and_store(tmp_path: Path, clock: Clock, recent_bytes: int) -> None:
    engine = Engine.open(tmp_path, PrimarySettings(recent_ops_bytes=recent_bytes), clock_us=clock)
    engine.write(CREATE)
    engine.write("INSERT INTO t SELECT range, 'x' || range FROM range(5000)")
    for number in range(4):
        clock.now += 10
        engine.write(f"UPDATE t SET a = 'y' WHERE id = {number}")
    before = [engine.feed("t").read(since, None, 4096) for since in (0, 5, 4999, 5000, 5001, 5004)]
    engine = reopen(engine)
    after = [engine.feed("t").read(since, None, 4096) for since in (0, 5, 4999, 5000, 5001, 5004)]
    for old, new in zip(before, after, strict=True):
        size = min(old.ops.num_rows, new.ops.num_rows)
        assert size > 0 or old.mark.after == 5004
        assert old.ops.slice(0, size) == new.ops.slice(0, size)
        if old.mark.through == new.mark.through:
            assert old.mark == new.mark
    assert replay(engine, byte_limit=2000).sorted_rows() == replay(engine).sorted_rows()
    engine.close()


def test_marks_of_stored_ops_say_their_commits_end_and_time(engine: Engine, clock: Clock) -> None:
    engine.write(CREATE)
    for number in (1, 2):
        clock.now += 100
        engine.write(f"INSERT INTO t VALUES ({10 * number}, ''), ({10 * number + 1}, '')")
    engine = reopen(engine)
    feed, start = engine.feed("t"), clock.now - 200
    marks = [feed.read(0, through, BYTES).mark for through in (1, 2, 3, 4)]
    assert [mark.commit_through for mark in marks] == [0, 2, 2, 4]
    assert [mark.commit_time_us - start for mark in marks] == [100, 100, 200, 200]
    assert feed.read(4, None, BYTES).mark.commit_time_us == start + 200
    clock.now += 100
    engine.write("INSERT INTO t VALUES (30, ''), (31, '')")
    engine = reopen(engine)
    marks = [engine.feed("t").read(0, through, BYTES).mark for through in range(1, 7)]
    assert [mark.commit_through for mark in marks] == [0, 2, 2, 4, 4, 6]
    assert [mark.commit_time_us - start for mark in marks] == [100, 100, 200, 200, 300, 300]
    engine.close()


def test_commit_times_never_go_back(engine: Engine, clock: Clock) -> None:
    engine.write(CREATE)
    engine.write("INSERT INTO t VALUES (1, '')")
    clock.now -= 500_000
    engine.write("INSERT INTO t VALUES (2, '')")
    assert engine.feed("t").read(0, None, BYTES).mark.commit_time_us == clock.now + 500_000


def test_a_wait_ends_with_the_next_commit(engine: Engine) -> None:
    engine.write(CREATE)
    assert not engine.feed("t").wait(0, timeout_seconds=0.0)
    engine.write("INSERT INTO t VALUES (1, '')")
    assert engine.feed("t").wait(0, timeout_seconds=10.0)


@pytest.mark.statement(4)
def test_a_since_above_the_newest_seq_is_a_gap(engine: Engine) -> None:
    engine.write(CREATE)
    engine.write("INSERT INTO t VALUES (1, '')")
    with pytest.raises(LogGap) as caught:
        engine.feed("t").check_since(2, None)
    assert (caught.value.requested, caught.value.earliest_available) == (2, 0)


def test_another_lineage_is_a_gap(engine: Engine) -> None:
    engine.write(CREATE)
    feed = engine.feed("t")
    feed.check_since(0, feed.lineage)
    with pytest.raises(LogGap) as caught:
        feed.check_since(0, uuid4())
    assert caught.value.lineage == feed.lineage


# --- retention --------------------------------------------------------------------------------------


def write_commits(engine: Engine, count: int) -> None:
    engine.write(CREATE)
    for number in range(count):
        engine.write(f"INSERT INTO t VALUES ({2 * number}, ''), ({2 * number + 1}, '')")


@pytest.mark.statement(79, 80)
def test_retention_by_count_trims_to_the_end_of_a_commit(engine: Engine) -> None:
    write_commits(engine, 5)
    engine.write("INSERT INTO t VALUES (100, '')")  # 11 ops, 4 are kept, and what their commit has besides
    trim_all(engine)
    feed = engine.feed("t")
    assert (feed.low_water, feed.high_water, engine.table("t").low_water) == (6, 11, 6)
    with pytest.raises(LogGap) as caught:
        feed.read(5, None, BYTES)
    assert caught.value.earliest_available == 6
    assert [record.seq for record in feed.read(6, None, BYTES).records()] == [7, 8, 9, 10, 11]


def test_retention_by_age_trims_what_is_old(tmp_path: Path, clock: Clock) -> None:
    engine = Engine.open(tmp_path, PrimarySettings(retention_seconds=10), clock_us=clock)
    write_commits(engine, 2)
    clock.now += 5_000_000
    engine.write("INSERT INTO t VALUES (100, '')")
    trim_all(engine)
    assert engine.feed("t").low_water == 0
    clock.now += 6_000_000
    trim_all(engine)
    assert engine.feed("t").low_water == 4
    engine.close()


def test_low_water_outlives_a_restart(engine: Engine) -> None:
    write_commits(engine, 5)
    trim_all(engine)
    engine = reopen(engine)
    feed = engine.feed("t")
    assert feed.low_water == 6
    with pytest.raises(LogGap):
        feed.read(5, None, BYTES)
    assert feed.read(6, 7, BYTES).mark.commit_through == 6
    engine.close()


@pytest.mark.statement("72a")
def test_a_reader_overtaken_by_retention_gets_a_gap_before_anything_is_trimmed(engine: Engine) -> None:
    write_commits(engine, 5)
    feed = engine.feed("t")
    feed.raise_low_water(6)
    stored = engine.session().execute(f"SELECT count(*) FROM {engine.table('t').ops}").fetchall()
    assert stored == [(10,)]
    with pytest.raises(LogGap):
        feed.read(2, None, BYTES)


# --- tables and lineages ----------------------------------------------------------------------------


def test_a_dropped_tables_feed_ends_and_a_new_one_has_another_lineage(engine: Engine) -> None:
    engine.write(CREATE)
    engine.write("INSERT INTO t VALUES (1, '')")
    old = engine.feed("t")
    engine.write("DROP TABLE t")
    with pytest.raises(TableNotFound):
        old.read(0, None, BYTES)
    with pytest.raises(TableNotFound):
        engine.feed("t")
    engine.write(CREATE)
    new = engine.feed("t")
    assert (new.lineage != old.lineage, new.high_water) == (True, 0)


def test_an_added_column_fills_older_ops_with_its_default(engine: Engine) -> None:
    engine.write(CREATE)
    engine.write("INSERT INTO t VALUES (1, 'a')")
    feed = engine.feed("t")
    old = feed.schema_version
    engine.write("ALTER TABLE t ADD COLUMN b INTEGER DEFAULT 7")
    engine.write("INSERT INTO t(id) VALUES (2)")
    assert (feed.schema_version, feed.schema_end(old)) == (old + 1, 1)
    assert feed.read(0, None, BYTES, old).ops.schema.names == ["seq", "op", "pk_bytes", "id", "a"]
    assert feed.read(0, None, BYTES, old).mark.through == 1
    for _ in range(2):
        rows = [record.row for record in engine.feed("t").read(0, None, BYTES).records()]
        assert rows == [{"id": 1, "a": "a", "b": 7}, {"id": 2, "a": None, "b": 7}]
        engine = reopen(engine)
    engine.close()


@pytest.mark.statement(112)
def test_rows_ops_and_seqs_outlive_a_restart(engine: Engine) -> None:
    write_commits(engine, 2)
    lineage = engine.feed("t").lineage
    engine = reopen(engine)
    assert (ids(engine), engine.feed("t").lineage) == ([0, 1, 2, 3], lineage)
    assert engine.write("INSERT INTO t VALUES (9, '')").seq == 5
    assert replay(engine).visible_seq == 5
    engine.close()


def test_a_new_lineage_keeps_the_rows_and_serves_no_older_op(engine: Engine) -> None:
    write_commits(engine, 2)
    old = engine.feed("t").lineage
    engine = reopen(engine, new_lineage=True)
    feed = engine.feed("t")
    assert (feed.low_water, feed.high_water, ids(engine)) == (4, 4, [0, 1, 2, 3])
    with pytest.raises(LogGap):
        feed.check_since(4, old)
    with pytest.raises(LogGap):
        feed.check_since(3, None)
    assert engine.write("INSERT INTO t VALUES (9, '')").seq == 5
    engine = reopen(engine)
    assert engine.feed("t").lineage == feed.lineage
    engine.close()


def test_a_base_ahead_of_the_log_begins_a_new_lineage(engine: Engine) -> None:
    write_commits(engine, 2)
    old = engine.feed("t").lineage
    engine = reopen(engine, published_base_seq=lambda record: 4)
    assert engine.feed("t").lineage == old
    engine = reopen(engine, published_base_seq=lambda record: 5)
    assert engine.feed("t").lineage != old
    engine.close()


def test_where_one_base_is_ahead_every_table_begins_a_new_lineage(engine: Engine) -> None:
    """The others may have lost commits that no base has yet, and their seqs would be handed out twice."""
    write_commits(engine, 1)
    engine.write("CREATE TABLE u (id BIGINT PRIMARY KEY)")
    engine.write("INSERT INTO u VALUES (1)")
    old = {record.name: record.lineage for record in engine.tables}
    engine = reopen(engine, published_base_seq=lambda record: 99 if record.name == "t" else 0)
    assert all(record.lineage != old[record.name] for record in engine.tables)
    with pytest.raises(LogGap):
        engine.feed("u").check_since(1, old["u"])
    engine.close()


def test_names_are_found_whatever_their_case(engine: Engine) -> None:
    engine.write('CREATE TABLE "Orders" (id BIGINT PRIMARY KEY)')
    engine.write("INSERT INTO orders VALUES (1)")
    assert engine.table("ORDERS").name == "Orders"
    assert engine.feed("orders").high_water == 1


@pytest.mark.statement(122)
def test_bound_floats_keep_the_sign_of_zero(engine: Engine) -> None:
    engine.write("CREATE TABLE f (d DOUBLE PRIMARY KEY)")
    engine.write("INSERT INTO f VALUES (?)", pa.table({"d": [0.0, -0.0]}))
    assert len(replay(engine, "f").rows) == 2


def test_a_directory_with_other_files_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("mine")
    with pytest.raises(ConfigError, match="holds other files"):
        Engine.open(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["letter.txt"]


@pytest.mark.parametrize("key_count", [100, 500, 2500], ids=["few", "by the index", "by a join"])
def test_a_put_says_of_each_key_whether_it_was_there(tmp_path: Path, key_count: int) -> None:
    """Over 250,000 rows, which are more than a row group."""

    def put(ids: pa.Array) -> None:
        batch = pa.record_batch({"id": ids, "a": pa.repeat("x", len(ids))})
        engine.ingest("t", IngestMode.APPEND, pa.RecordBatchReader.from_batches(batch.schema, [batch]))

    with closing(Engine.open(tmp_path)) as engine:
        engine.write(CREATE)
        put(pa.array(range(0, 500_000, 2), pa.int64()))
        before = engine.feed("t").high_water
        ids = range(1, 500_000, 500_000 // key_count + 1)  # odd and even ones in turn
        put(pa.array(ids, pa.int64()))
        ops = engine.feed("t").read(before, None, 1 << 30).ops
        assert ops.column("id").to_pylist() == list(ids)
        expected = [Op.INSERT.value if id_ % 2 else Op.UPDATE.value for id_ in ids]
        assert set(expected) == {"INSERT", "UPDATE"} and ops.column(1).to_pylist() == expected


def test_a_log_that_nobody_adds_to_is_taken_into_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wal = tmp_path / (store.FILE_NAME + store.WAL_SUFFIX)
    with closing(Engine.open(tmp_path)) as engine:
        engine.write(CREATE)
        engine.write("INSERT INTO t SELECT range, 'x' FROM range(300)")
        assert wal.stat().st_size > 0 and not engine.checkpoint(), "as little isn't worth it"
        monkeypatch.setattr(store, "IDLE_WAL_BYTES", 1000)
        session = engine.session()
        session.execute("BEGIN TRANSACTION")
        session.execute('UPDATE "$meta" SET format_version = 2')
        assert not engine.checkpoint(), "somebody writes"
        session.execute("ROLLBACK")
        session.close()
        assert engine.checkpoint()
        assert not wal.exists() or wal.stat().st_size == 0
        assert len(replay(engine).sorted_rows()) == len(ids(engine)) == 300


def test_a_log_stays_where_the_disk_has_no_room_for_its_file_once_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "IDLE_WAL_BYTES", 1000)
    usage = shutil.disk_usage(tmp_path)
    with closing(Engine.open(tmp_path)) as engine:
        engine.write(CREATE)
        engine.write("INSERT INTO t SELECT range, 'x' FROM range(300)")
        needed = sum((tmp_path / name).stat().st_size for name in (store.FILE_NAME, store.FILE_NAME + ".wal"))
        with monkeypatch.context() as full:
            full.setattr(shutil, "disk_usage", lambda _: usage._replace(free=needed - 1))
            assert not engine.checkpoint()
        assert len(ids(engine)) == 300 and engine.checkpoint()


def test_a_write_that_the_disk_has_no_room_for_changes_nothing_and_ends_nothing(engine: Engine) -> None:
    engine.write(CREATE)
    before = engine.write("INSERT INTO t VALUES (1, 'x')").seq
    assert before is not None
    with full_disk(), pytest.raises(Unavailable, match="the primary's store failed"):
        engine.write("INSERT INTO t VALUES (2, 'x')")
    assert ids(engine) == [1] and engine.feed("t").high_water == before
    assert engine.write("INSERT INTO t VALUES (3, 'x')").seq == before + 1
    engine = reopen(engine)
    assert ids(engine) == [1, 3] and [row["id"] for row in replay(engine).sorted_rows()] == [1, 3]
    engine.close()
