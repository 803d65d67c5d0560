"""The primary as a service: views that agree with their seq under writing, and the table list."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from flight_replica.errors import Closed, TableNotFound
from flight_replica.primary.service import PrimaryService
from flight_replica.primary.settings import PrimarySettings
from tests.model import TableModel


@pytest.fixture
def service(tmp_path: Path) -> Iterator[PrimaryService]:
    service = PrimaryService.open(tmp_path, PrimarySettings(publish_seconds=3600))
    service.write("CREATE TABLE t (id BIGINT PRIMARY KEY, a BIGINT)")
    yield service
    service.close()


def test_rows_and_position_of_a_view_agree_while_others_write(service: PrimaryService) -> None:
    """Every statement adds the same to both rows, so that a commit seen in part would show."""
    service.write("INSERT INTO t VALUES (1, 0), (2, 0)")
    is_over = threading.Event()

    def write() -> None:
        while not is_over.is_set():
            service.write("UPDATE t SET a = a + 1")

    writers = [threading.Thread(target=write) for _ in range(2)]
    for writer in writers:
        writer.start()
    views: list[tuple[int, list[dict[str, object]], list[dict[str, object]]]] = []
    for _ in range(40):
        with service.open_view(["T"]) as view:
            first = view.execute("SELECT * FROM t ORDER BY id").read_all().to_pylist()
            second = view.execute("SELECT * FROM t ORDER BY id").read_all().to_pylist()
            views.append((view.positions[0].visible_seq, first, second))
    is_over.set()
    for writer in writers:
        writer.join()
    model, feed = TableModel(), service.feed("t")
    while model.visible_seq < feed.high_water:
        model.apply_batch(feed.read(model.visible_seq, None, 1 << 20))
    for seq, first, second in views:
        assert first == second == model.as_of(seq).sorted_rows()


def test_a_view_joins_tables_and_gives_each_position(service: PrimaryService) -> None:
    service.write("CREATE TABLE u (id BIGINT PRIMARY KEY)")
    service.write("INSERT INTO t VALUES (1, 10), (2, 20)")
    service.write("INSERT INTO u VALUES (2)")
    with service.open_view(["t", "u"]) as view:
        assert view.execute("SELECT sum(a) AS s FROM t JOIN u USING (id)").read_all().to_pylist() == [
            {"s": 20}
        ]
        assert [(p.table, p.visible_seq, p.high_water, p.lag_us) for p in view.positions] == [
            ("t", 2, 2, 0),
            ("u", 1, 1, 0),
        ]


def test_a_view_outlives_a_drop_of_its_table(service: PrimaryService) -> None:
    service.write("INSERT INTO t VALUES (1, 10)")
    with service.open_view(["t"]) as view:
        service.write("DROP TABLE t")
        assert view.execute("SELECT * FROM t").read_all().num_rows == 1
    with pytest.raises(TableNotFound):
        service.open_view(["t"])


def test_a_view_shows_no_hidden_column(service: PrimaryService) -> None:
    with service.open_view(["t"]) as view:
        assert view.plan("SELECT * FROM t").names == ["id", "a"]


def test_the_table_list_says_positions(service: PrimaryService) -> None:
    service.write("INSERT INTO t VALUES (1, 10)")
    (entry,) = service.tables()
    assert (entry.name, entry.low_water, entry.position.high_water) == ("t", 0, 1)
    assert entry.position.commit_time_us > 0
    assert entry.schema.primary_key == ("id",)
    assert (service.product, service.read_only_reason) == ("primary", None)


@pytest.mark.statement(111)
def test_a_closed_service_says_so(service: PrimaryService) -> None:
    service.close()
    with pytest.raises(Closed):
        service.open_view(["t"])
