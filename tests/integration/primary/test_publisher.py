"""The published base: what pyiceberg itself reads from it, against the table."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pyarrow as pa
import pytest
from pyiceberg.table import StaticTable

from flight_replica.primary import publisher as publisher_module
from flight_replica.primary.engine import Engine
from flight_replica.primary.publisher import Publisher, mirror_directory, published_base_seq
from flight_replica.primary.retention import trim_all
from flight_replica.primary.service import PrimaryService
from flight_replica.primary.settings import PrimarySettings


def wait_until(is_so: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline, f"not so after {seconds} s"
        time.sleep(0.01)


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    engine = Engine.open(tmp_path, PrimarySettings(retention_ops=2, base_grace_seconds=0))
    engine.write("CREATE TABLE t (id BIGINT PRIMARY KEY, a VARCHAR)")
    yield engine
    engine.close()


@pytest.fixture
def publisher(engine: Engine) -> Iterator[Publisher]:
    publisher = Publisher(engine)
    yield publisher
    publisher.close()


def base_rows(publisher: Publisher, engine: Engine) -> list[dict[str, object]]:
    base = publisher.published(engine.table("t").id)
    assert base is not None
    table = StaticTable.from_metadata(base.uri)
    snapshot = table.current_snapshot()
    assert snapshot is not None and snapshot.snapshot_id == base.version and snapshot.summary is not None
    assert snapshot.summary.additional_properties["merutable.base-seq"] == str(base.base_seq)
    return sorted(table.scan().to_arrow().to_pylist(), key=lambda row: row["id"])


def rows(engine: Engine) -> list[dict[str, object]]:
    record, session = engine.table("t"), engine.session()
    found: pa.Table = session.sql(
        f"SELECT {record.columns_sql} FROM {record.rows} ORDER BY id"
    ).to_arrow_table()
    session.close()
    return found.to_pylist()


def test_each_publication_holds_exactly_the_rows_at_its_seq(engine: Engine, publisher: Publisher) -> None:
    for sql in (
        "INSERT INTO t SELECT range, 'a' || range FROM range(100)",
        "UPDATE t SET a = 'new' WHERE id % 7 = 0",
        "DELETE FROM t WHERE id > 90",
        "UPDATE t SET id = id + 1000 WHERE id < 10",
        "INSERT OR REPLACE INTO t VALUES (5, 'back'), (50, 'x')",
        "ALTER TABLE t ADD COLUMN b INTEGER DEFAULT 7",
        "INSERT INTO t(id) VALUES (2000)",
    ):
        seq = engine.write(sql).seq
        publisher.publish_all()
        base = publisher.published(engine.table("t").id)
        assert base is not None and base.base_seq == seq
        assert base_rows(publisher, engine) == rows(engine)


@pytest.mark.statement(86, 87, 88, 90, 91)
def test_a_publication_changes_nothing_of_the_feed(engine: Engine, publisher: Publisher) -> None:
    """The engine's own feed loses and relabels ops when it flushes."""
    expected = []
    for op, sql, key, value in (
        ("INSERT", "INSERT INTO t VALUES (1, 'a')", 1, "a"),
        ("INSERT", "INSERT INTO t VALUES (2, 'b')", 2, "b"),
        ("UPDATE", "UPDATE t SET a = 'c' WHERE id = 1", 1, "c"),
        ("DELETE", "DELETE FROM t WHERE id = 1", 1, "c"),
        ("INSERT", "INSERT INTO t VALUES (1, 'd')", 1, "d"),
    ):
        before = engine.feed("t").high_water
        engine.write(sql)
        expected.append((op, key, value))
        assert ops_after(engine, before) == expected[-1:]
        publisher.publish_all()
        assert ops_after(engine, before) == expected[-1:]
        assert ops_after(engine, 0) == expected


def ops_after(engine: Engine, since: int) -> list[tuple[object, ...]]:
    """`(op, id, a)` of each op, whose seqs come one after the other."""
    ops = engine.feed("t").read(since, None, 1 << 20).ops.to_pylist()
    assert [op["seq"] for op in ops] == list(range(since + 1, since + 1 + len(ops)))
    return [(op["op"], op["id"], op["a"]) for op in ops]


def test_a_mirror_goes_on_after_a_restart(engine: Engine, publisher: Publisher) -> None:
    engine.write("INSERT INTO t VALUES (1, 'a')")
    publisher.publish_all()
    engine.write("UPDATE t SET a = 'b'")
    publisher.close()
    again = Publisher(engine)
    again.publish_all()
    assert base_rows(again, engine) == rows(engine)
    assert len(list((engine.directory / "base").iterdir())) == 1
    again.close()


def test_a_mirror_that_ops_dont_reach_begins_anew(engine: Engine, publisher: Publisher) -> None:
    engine.write("INSERT INTO t VALUES (1, 'a')")
    publisher.publish_all()
    first = mirror_directory(engine.directory, engine.table("t"))
    engine.write("DELETE FROM t")
    for number in range(5):
        engine.write(f"INSERT INTO t VALUES ({10 + number}, 'a')")
    trim_all(engine)
    publisher.publish_all()
    assert base_rows(publisher, engine) == rows(engine)
    assert mirror_directory(engine.directory, engine.table("t")) != first
    publisher._clear_up()
    publisher._clear_up()
    assert not first.exists()


def test_a_damaged_mirror_is_replaced(engine: Engine, publisher: Publisher) -> None:
    engine.write("INSERT INTO t VALUES (1, 'a')")
    publisher.publish_all()
    publisher.close()
    folder = mirror_directory(engine.directory, engine.table("t"))
    for file in (folder / "metadata").iterdir():
        file.write_bytes(b"")
    again = Publisher(engine)
    again.publish_all()
    assert base_rows(again, engine) == rows(engine)
    again.close()


def test_a_primary_behind_its_own_base_begins_a_new_lineage(engine: Engine, publisher: Publisher) -> None:
    engine.write("INSERT INTO t VALUES (1, 'a')")
    engine.close()
    file = engine.directory / "primary.duckdb"
    backup = file.read_bytes()
    ahead = Engine.open(engine.directory)
    for key in (2, 3):  # the last one alone would be taken up again
        ahead.write(f"INSERT INTO t VALUES ({key}, 'lost')")
    late = Publisher(ahead)
    late.publish_all()
    late.close()
    ahead.close()
    file.write_bytes(backup)
    restored = Engine.open(engine.directory, published_base_seq=partial(published_base_seq, engine.directory))
    assert restored.feed("t").lineage != engine.feed("t").lineage
    assert (restored.feed("t").low_water, restored.feed("t").high_water) == (1, 1)
    fresh = Publisher(restored)
    fresh.publish_all()
    assert base_rows(fresh, restored) == rows(restored) == [{"id": 1, "a": "a"}]
    fresh.close()
    restored.close()


def test_an_empty_table_has_no_base(engine: Engine, publisher: Publisher) -> None:
    publisher.publish_all()
    assert publisher.published(engine.table("t").id) is None


def test_a_service_publishes_by_itself_and_survives_failures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fails = [True]
    copy: Callable[..., object] = publisher_module._copy

    def sometimes(*arguments: object) -> object:
        if fails[0]:
            raise OSError("disk is full")
        return copy(*arguments)

    monkeypatch.setattr(publisher_module, "_copy", sometimes)
    service = PrimaryService.open(tmp_path / "service", PrimarySettings(publish_ops=1, base_grace_seconds=0))
    service.write("CREATE TABLE t (id BIGINT PRIMARY KEY, a VARCHAR)")
    service.write("INSERT INTO t VALUES (1, 'a')")
    wait_until(lambda: service.publisher.failures_total > 0, seconds=10)
    assert service.tables()[0].base_seq is None
    fails[0] = False
    wait_until(lambda: service.tables()[0].base_seq == 1, seconds=10)
    service.write("INSERT INTO t VALUES (2, 'b')")
    wait_until(lambda: service.tables()[0].base_seq == 2, seconds=10)
    assert service.tables()[0].base_kind == "iceberg"
    service.write("DROP TABLE t")
    wait_until(lambda: not list((tmp_path / "service" / "base").iterdir()), seconds=10)
    service.close()
