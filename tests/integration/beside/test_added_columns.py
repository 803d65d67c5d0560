"""Columns that are added while a feed server runs: the log has rows without names until a file tells them."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pyarrow.compute as pc
import pytest

from flight_replica.beside.history import EngineTableSettings, History
from flight_replica.errors import Unavailable
from flight_replica.log.in_process import InProcessLogSource
from tests import samples
from tests.engine_directory import SampleEngine, changes, checkpoints_in_order, engine_table, feed_of
from tests.processes import until

pytestmark = samples.needs_samples


def checkpoint(name: str) -> Path:
    return samples.scenario("s07_") / "checkpoints" / name


def test_rows_wider_than_any_file_wait_for_the_flush_that_says_their_columns(tmp_path: Path) -> None:
    engine = SampleEngine(tmp_path, samples.scenario("s07_"))
    engine.become(checkpoint("c2_reopened_one_more_nullable"))
    with engine_table(engine, tmp_path / "data") as table:
        feed = feed_of(table, 10)
        log = InProcessLogSource(feed)
        following = iter(log.follow(0))
        assert any(batch.mark.through == 10 for batch in following)
        engine.become(checkpoint("c3_unflushed_wide"))
        until(lambda: "wait for the flush" in table.trouble, "it says what it waits for")
        assert feed.high_water == 10
        mark = feed.read(10, None, 1000).mark
        assert mark.through == 10 < mark.high_water  # there is more, so nothing is proven
        engine.become(checkpoint("c4_flushed_wide"))
        until(lambda: feed.high_water == 14, "the flush said the columns")
        assert table.feed is feed
        assert feed.schema.names == ("id", "v", "c1")
        assert [batch.mark.through for batch in following][-1:] in ([], [10])  # it ends with the old schema
        found = changes(feed, 10)
        assert found.column("seq").to_pylist() == [11, 12, 13, 14]
        assert found.schema.names[3:] == ["id", "v", "c1"]
        until(lambda: table.trouble == "", "all is well again")


def test_a_stated_schema_tells_the_columns_at_once(tmp_path: Path) -> None:
    engine = SampleEngine(tmp_path, samples.scenario("s07_"))
    engine.become(checkpoint("c3_unflushed_wide"))
    with engine_table(engine, tmp_path / "data", engine.schema) as table:
        feed = feed_of(table, 14)
        assert feed.schema.names == engine.schema.names
        assert changes(feed, 10).column("seq").to_pylist() == [11, 12, 13, 14]


@pytest.mark.parametrize("scenario", ["s07_", "s07b"])
def test_every_schema_of_a_scenario_is_followed(scenario: str, tmp_path: Path) -> None:
    engine = SampleEngine(tmp_path, samples.scenario(scenario))
    with engine_table(engine, tmp_path / "data") as table:
        widths: list[int] = []
        for place in checkpoints_in_order(samples.scenario(scenario)):
            engine.become(place)
            base_seq, read_seq = samples.base_seq(samples.expected_base(place)), 0
            read_seq = samples.read_seq(samples.expected(place))

            def is_there(base_seq: int = base_seq) -> bool:
                try:
                    return table.feed.high_water >= base_seq
                except Unavailable:
                    return False

            until(is_there, f"the feed is at {base_seq}: {table.trouble}")
            assert table.feed.high_water <= read_seq
            widths.append(len(table.feed.schema.columns))
        until(lambda: len(table.feed.schema.columns) == len(engine.schema.columns), "the last schema")
        assert widths == sorted(widths)


def test_the_log_s_reader_may_be_the_first_to_see_the_files_that_add_columns(tmp_path: Path) -> None:
    """A log that came and went unread lets it read them itself, between two looks of the other thread."""
    scenario = samples.scenario("s07b")
    before, after = (scenario / "checkpoints" / name for name in ("c1_short_rows_in_log", "c3_flushed"))
    engine = SampleEngine(tmp_path, scenario)
    engine.become(before)
    settings = EngineTableSettings(engine.catalog, engine.log)
    with closing(History("t", settings, tmp_path, lambda: 0)) as history:
        history.look()
        while not history.is_served.is_set():
            history.step()
        assert (history.feed.high_water, history.feed.schema.names) == (7, ("id", "v"))
        engine.become(after)
        history.step()
        assert (history.feed.high_water, history.feed.schema.names) == (9, engine.schema.names)
        inserts = changes(history.feed, 7)
        rows = samples.expected_base(after).filter(pc.field("seq") > 7)
        assert inserts.column("op").to_pylist() == ["INSERT", "INSERT"]
        assert inserts.select(rows.column_names).to_pylist() == rows.to_pylist()
