"""Byte columns that a feed server is told are text: strings in the feed, in the rows and at replicas."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from flight_replica.errors import ReplicaError
from flight_replica.text_columns import TextColumns
from tests import samples
from tests.engine_directory import changes, engine_at, engine_table, feed_of
from tests.log_writing import PUT, LogWriter, int_key, row
from tests.processes import Process, rows, running, until

pytestmark = samples.needs_samples


def checkpoint() -> Path:
    """Rows in level 0, in level 1 and in the log; `name` is text."""
    return samples.scenario("s04") / "checkpoints" / "c5b_reopened_and_one_put"


def test_a_text_column_is_a_string_in_every_op(tmp_path: Path) -> None:
    engine = engine_at(checkpoint(), tmp_path)
    with engine_table(engine, tmp_path / "data", texts=TextColumns.parse("name")) as table:
        found = changes(feed_of(table, 64), 0)
    assert found.schema.field("name").type == pa.string()
    written = samples.ops(samples.scenario("s04"))
    expected = dict(zip(written["seq"].to_pylist(), written["name"].to_pylist(), strict=True))
    for op in found.to_pylist():
        name = expected[op["seq"]]
        assert op["op"] == "DELETE" or op["name"] == (None if name is None else name.decode())


def test_bytes_that_are_no_text_stop_the_feed_with_column_and_key(tmp_path: Path) -> None:
    engine = engine_at(checkpoint(), tmp_path)
    number = 1 + max(int(path.stem) for path in engine.log.glob("*.wal"))
    writer = LogWriter(engine.log, number)
    with engine_table(engine, tmp_path / "data", texts=TextColumns.parse("name")) as table:
        feed = feed_of(table, 64)
        writer.write([(PUT, int_key(7), row(7, b"\xff\xfe", None, None))], first_seq=65)
        until(lambda: "name" in table.trouble and int_key(7).hex() in table.trouble, "the column is told")
        assert feed.high_water == 64
        assert not feed.read(64, None, 1000).mark.is_caught_up
    writer.close()


def test_bytes_that_become_text_from_one_run_to_the_next_begin_a_new_lineage(tmp_path: Path) -> None:
    engine = engine_at(checkpoint(), tmp_path)
    lineages = []
    for texts in ("name", "name", None):
        stated = {} if texts is None else {"texts": TextColumns.parse(texts)}
        with engine_table(engine, tmp_path / "data", **stated) as table:
            lineages.append(feed_of(table, 64).lineage)
    assert lineages[0] == lineages[1] != lineages[2]


def test_a_name_that_is_no_byte_column_is_told(tmp_path: Path) -> None:
    engine = engine_at(checkpoint(), tmp_path)
    with engine_table(engine, tmp_path / "data", texts=TextColumns.parse("qty")) as table:
        until(lambda: "only binary columns can be text" in table.trouble, "it says so")


@pytest.mark.parametrize("is_over_flight", [True, False], ids=["base over Flight", "base in files"])
def test_replicas_have_the_strings_too(is_over_flight: bool, tmp_path: Path) -> None:
    engine = engine_at(checkpoint(), tmp_path)
    publish = [] if is_over_flight else ["--publish", f"kv=merutable:{engine.catalog}"]
    place = f"kv={engine.catalog},{engine.log}"
    feed = Process("flight_replica", "feed", "--table", place, "--text", "kv=*", *publish)
    with running(feed):
        uri = feed.line().removeprefix("listening on ")
        replica = Process("flight_replica", "serve", "--primary", uri)
        with running(replica):
            end = replica.line().removeprefix("listening on ")
            for server in (uri, end):
                until(lambda server=server: has_rows(server), f"{server} has the rows")
                assert rows(server, "SELECT DISTINCT typeof(name) FROM kv") == [("VARCHAR",)]
            digest = "SELECT seq, row_count, digest FROM merutable_digest('kv')"
            assert rows(end, digest) == rows(uri, digest)


def has_rows(uri: str) -> bool:
    try:
        return rows(uri, "SELECT count(*) FROM kv") == [(35,)]
    except ReplicaError:
        return False


def test_a_lenient_text_column_is_refused_clearly(tmp_path: Path) -> None:
    engine = engine_at(checkpoint(), tmp_path)
    feed = Process(
        "flight_replica", "feed", "--table", f"kv={engine.catalog},{engine.log}", "--text", "kv=name?"
    )
    with running(feed):
        assert feed.wait() == 1
        assert "text or bytes for good" in feed.errors[0]
