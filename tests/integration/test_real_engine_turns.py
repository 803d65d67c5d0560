"""What an operator or an accident does to a real engine's table while replicas follow it.

Select with `-m engine`. The long run with kills is in `test_real_engine_live.py`.
"""

from __future__ import annotations

import json
import shutil
from contextlib import ExitStack
from pathlib import Path

import pytest

from flight_replica.errors import ReplicaError
from tests.engine.driver import Engine, Truth, engine_schema, schema, until_true
from tests.engine.watching import TableWatcher
from tests.integration.test_real_engine_live import assert_same, feed_arguments, served
from tests.processes import Server, is_answered, position, running, until

pytestmark = pytest.mark.engine

WRITES = {"keys": 500, "deletes": 0.2, "batch_max": 9}
CATCH_UP_SECONDS = 60.0


def lineage(uri: str) -> str:
    return str(position(uri, "events")["lineage"])


def test_a_table_is_served_before_its_first_flush_where_its_schema_is_stated(tmp_path: Path) -> None:
    stated = tmp_path / "schema.json"
    stated.write_text(json.dumps(engine_schema("composite")))
    with Engine(tmp_path / "t", kind="composite") as engine, ExitStack() as parts:
        engine.write(50, **WRITES)
        arguments = feed_arguments(
            tmp_path / "t", "--data", str(tmp_path / "feed"), "--schema", f"events={stated}"
        )
        feed = parts.enter_context(served(*arguments))
        replica = parts.enter_context(served("serve", "--primary", feed.uri))
        for verb in ("stats", "flush", "compact"):
            engine.do(verb)
            engine.write(100, **WRITES)
            assert_same(feed.uri, engine, tmp_path / "scan")
            assert_same(replica.uri, engine, tmp_path / "scan")


def test_columns_that_are_added_reach_replicas_that_follow(tmp_path: Path) -> None:
    with ExitStack() as parts:
        with Engine(tmp_path / "t") as engine:
            engine.write(300, **WRITES)
            engine.do("flush")
            feed = parts.enter_context(
                served(*feed_arguments(tmp_path / "t", "--data", str(tmp_path / "feed")))
            )
            replica = parts.enter_context(served("serve", "--primary", feed.uri))
            assert_same(replica.uri, engine, tmp_path / "scan")
            engine.do("add_column", number=0)
            engine.close()
        for added in (1, 2, 3):
            with Engine(tmp_path / "t", added_columns=added) as engine:
                engine.write(200, **WRITES, seed=added)
                engine.do("flush")
                engine.write(100, **WRITES, seed=added + 10)
                for server in (feed, replica):
                    until(
                        is_answered(
                            server.uri,
                            "SELECT count(*) FROM (DESCRIBE events)",
                            [(len(engine.schema.columns),)],
                        ),
                        f"{added} more columns",
                    )
                    assert_same(server.uri, engine, tmp_path / "scan")
                engine.close()


def test_seqs_that_are_given_out_again_after_a_lost_end_of_the_log_start_a_new_lineage(
    tmp_path: Path,
) -> None:
    """A power cut, in small: the end of the log is gone when the engine is started again."""
    directory = tmp_path / "t"
    with ExitStack() as parts:
        with Engine(directory) as engine:
            engine.write(300, **WRITES)
            engine.do("flush")
            feed = parts.enter_context(served(*feed_arguments(directory, "--data", str(tmp_path / "feed"))))
            replica = parts.enter_context(served("serve", "--primary", feed.uri))
            engine.write(200, **WRITES)
            assert_same(replica.uri, engine, tmp_path / "scan")
            engine.kill()
        before = lineage(replica.uri)
        newest = max((directory / "wal").iterdir())
        with newest.open("r+b") as log:
            log.truncate(newest.stat().st_size // 2)
        with Engine(directory) as engine:
            assert engine.opened_at < 500
            engine.write(300, **WRITES, seed=2)
            until(
                lambda: lineage_or_none(replica.uri) not in (None, before), "a new lineage", CATCH_UP_SECONDS
            )
            assert_same(feed.uri, engine, tmp_path / "scan")
            assert_same(replica.uri, engine, tmp_path / "scan")


def lineage_or_none(uri: str) -> str | None:
    """None while the table isn't served."""
    try:
        return lineage(uri)
    except ReplicaError:
        return None


def test_a_table_that_is_made_anew_is_a_new_lineage(tmp_path: Path) -> None:
    directory = tmp_path / "t"
    with ExitStack() as parts:
        with Engine(directory) as engine:
            engine.write(500, **WRITES)
            engine.do("flush")
            feed = parts.enter_context(served(*feed_arguments(directory, "--data", str(tmp_path / "feed"))))
            replica = parts.enter_context(served("serve", "--primary", feed.uri))
            assert_same(replica.uri, engine, tmp_path / "scan")
            engine.close()
        before = lineage(replica.uri)
        shutil.rmtree(directory)
        with Engine(directory) as engine:
            engine.write(100, **WRITES, seed=2)
            engine.do("flush")
            engine.write(100, **WRITES, seed=3)
            until(
                lambda: lineage_or_none(replica.uri) not in (None, before), "a new lineage", CATCH_UP_SECONDS
            )
            assert_same(feed.uri, engine, tmp_path / "scan")
            assert_same(replica.uri, engine, tmp_path / "scan")


def test_a_replica_that_stood_still_over_flushes_and_compactions_catches_up(tmp_path: Path) -> None:
    truth = Truth(schema("id"))
    with Engine(tmp_path / "t", truth=truth, l0_compaction_trigger=2) as engine, ExitStack() as parts:
        engine.write(500, **WRITES)
        engine.do("flush")
        feed = parts.enter_context(served(*feed_arguments(tmp_path / "t")))
        replica = parts.enter_context(served("serve", "--primary", feed.uri))
        with replica.stopped():
            engine.write(6000, **WRITES, flush_every=500, seed=2)
            engine.do("compact")
            assert_same(feed.uri, engine, tmp_path / "scan")
        watcher = TableWatcher(replica.uri, "events", truth)
        parts.enter_context(watcher)
        until_true(watcher.has_seen(truth.last_seq), "the newest seq", CATCH_UP_SECONDS)
        watcher.check()
        assert_same(replica.uri, engine, tmp_path / "scan")


def test_two_tables_of_two_engines_are_served_by_one_feed_server(tmp_path: Path) -> None:
    with ExitStack() as parts:
        engines = {
            name: parts.enter_context(Engine(tmp_path / name, kind=kind, table=name))
            for name, kind in (("pears", "id"), ("plums", "types"))
        }
        arguments = ["feed"]
        for name, engine in engines.items():
            engine.write(300, **WRITES)
            engine.do("flush")
            arguments += ["--table", f"{name}={tmp_path / name},{tmp_path / name / 'wal'}"]
        feed = Server(*arguments)
        parts.enter_context(running(feed))
        replica = Server("serve", "--primary", feed.uri)
        parts.enter_context(running(replica))
        for name, engine in engines.items():
            engine.write(300, **WRITES, seed=2)
            until(is_answered(replica.uri, f"SELECT count(*) > 0 FROM {name}", [(True,)]), name)
            assert_same(replica.uri, engine, tmp_path / "scan", name)
