"""The whole line beside the real engine: feed server, replicas and readers, while it is killed and restarted.

Select with `-m engine`. `FLIGHT_REPLICA_ENGINE_SECONDS` says how long the long run lasts (30 s); the
engine is killed every quarter of it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from flight_replica.client import query
from tests.engine.driver import Engine, Truth, schema, until_true
from tests.engine.reading import rows_of_table
from tests.engine.watching import FeedFollower, TableWatcher
from tests.processes import Server, is_answered, position, rows, running, until

pytestmark = pytest.mark.engine

RUN_SECONDS = float(os.environ.get("FLIGHT_REPLICA_ENGINE_SECONDS", "30"))
LIVES = 4
RATE = 1000  # ops a second
WRITES = {"rate": RATE, "keys": 2000, "deletes": 0.15, "batch_max": 9, "flush_every": 1500}
CATCH_UP_SECONDS = 60.0


def feed_arguments(directory: Path, *arguments: str) -> list[str]:
    """The command of a feed server beside the engine in `directory`."""
    return ["feed", "--table", f"events={directory},{directory / 'wal'}", *arguments]


@contextmanager
def served(*arguments: str, listen: str = "127.0.0.1:0") -> Iterator[Server]:
    """A server of the table while the block runs, once it answers."""
    server = Server(*arguments, listen=listen)
    with running(server):
        until(is_answered(server.uri, "SELECT count(*) > 0 FROM events", [(True,)]), "the table is served")
        yield server


def assert_same(uri: str, engine: Engine, path: Path, table: str = "events") -> None:
    """The server shows what the engine itself reads, at the same seq. Nobody writes meanwhile."""
    scan = engine.scan(path)
    until(lambda: position(uri, table)["visible_seq"] >= scan.read_seq, f"{uri} at seq {scan.read_seq}")
    assert rows_of_table(query(uri, f"SELECT * FROM {table}"), engine.schema) == scan.rows
    assert position(uri, table)["visible_seq"] == scan.read_seq


def test_replicas_beside_an_engine_that_is_killed_show_exactly_what_it_reads(tmp_path: Path) -> None:
    directory, mirror = tmp_path / "t", tmp_path / "mirror"
    truth = Truth(schema("id"))
    options = {"mirror": str(mirror), "l0_compaction_trigger": 3, "memtable_mb": 1}
    engine = Engine(directory, truth=truth, **options)
    with ExitStack() as parts:
        parts.callback(lambda: engine.kill())
        engine.write(500, **{**WRITES, "rate": 0})
        engine.do("flush")
        engine.do("await_mirror")
        begun = truth.last_seq
        publish = "--publish", f"events=merutable:{mirror}"
        feeds = [
            parts.enter_context(served(*feed_arguments(directory, "--data", str(tmp_path / "feed")))),
            parts.enter_context(served(*feed_arguments(directory, *publish))),
        ]
        replicas = [parts.enter_context(served("serve", "--primary", feed.uri)) for feed in feeds]
        follower = FeedFollower(feeds[0].uri, "events", begun)
        watchers = [TableWatcher(server.uri, "events", truth) for server in (*feeds, *replicas)]
        for watching in (follower, *watchers):
            parts.enter_context(watching)

        for life in range(LIVES):
            if life:
                engine.kill()
                engine = Engine(directory, truth=truth, **options)
            engine.start_writing(**WRITES, seed=life)
            is_enough = truth.reaches(truth.last_seq + int(RUN_SECONDS / LIVES * RATE))
            until_true(is_enough, "enough ops", RUN_SECONDS + 60)
            for watcher in watchers:
                watcher.check()

        last_seq = engine.stop()
        assert truth.last_seq == last_seq
        for watching in (follower, *watchers):
            until_true(watching.has_seen(last_seq), f"seq {last_seq}", CATCH_UP_SECONDS)
        for server, watcher in zip((*feeds, *replicas), watchers, strict=True):
            watcher.check()
            assert watcher.answer_count > RUN_SECONDS
            assert_same(server.uri, engine, tmp_path / "scan")
        assert len({lineage for watcher in watchers for lineage in watcher.lineages}) == 1
        assert follower.ops(truth.schema) == [op for op in truth.ops() if op[0] > begun]


def test_a_feed_server_that_is_killed_goes_on_where_it_was(tmp_path: Path) -> None:
    truth = Truth(schema("id"))
    with Engine(tmp_path / "t", truth=truth, l0_compaction_trigger=2) as engine, ExitStack() as parts:
        engine.write(500, **{**WRITES, "rate": 0})
        engine.do("flush")
        arguments = feed_arguments(tmp_path / "t", "--data", str(tmp_path / "feed"))
        with served(*arguments) as feed:
            replica = parts.enter_context(served("serve", "--primary", feed.uri))
            watcher = TableWatcher(replica.uri, "events", truth)
            parts.enter_context(watcher)
        engine.start_writing(**{**WRITES, "flush_every": 700})
        for _ in range(3):  # while it is away, logs come and go, and files are compacted
            until_true(truth.has_grown(400), "400 commits")
            with served(*arguments, listen=feed.address) as feed:
                until_true(watcher.has_seen(truth.last_seq), "the replica follows again", CATCH_UP_SECONDS)
        last_seq = engine.stop()
        with served(*arguments, listen=feed.address) as feed:
            until_true(watcher.has_seen(last_seq), f"seq {last_seq}", CATCH_UP_SECONDS)
            watcher.check()
            assert_same(replica.uri, engine, tmp_path / "scan")
            assert_same(feed.uri, engine, tmp_path / "scan")
        assert len(watcher.lineages) == 1


@pytest.mark.parametrize(
    ("kind", "shape"),
    [
        pytest.param("id", {}, id="defaults"),
        pytest.param("types", {"level_target_bytes": [], "l0_compaction_trigger": 2}, id="no-tombstones"),
        pytest.param("composite", {"level_target_bytes": [4096], "l0_compaction_trigger": 2}, id="deep"),
    ],
)
def test_a_replica_joins_at_any_time_and_follows(kind: str, shape: dict[str, object], tmp_path: Path) -> None:
    """After the first flush, after compactions, and through a feed server that came late itself."""
    truth = Truth(schema(kind))
    writes = {"keys": 600, "deletes": 0.3, "batch_max": 9}
    with Engine(tmp_path / "t", truth=truth, kind=kind, **shape) as engine, ExitStack() as parts:
        engine.write(300, **writes)
        engine.do("flush")
        feed = parts.enter_context(served(*feed_arguments(tmp_path / "t")))
        replicas = []
        for seed in range(3):
            engine.write(500, **writes, seed=seed, flush_every=200)
            engine.do("flush")
            engine.do("compact")
            engine.write(50, **writes, seed=seed + 10)
            replicas.append(parts.enter_context(served("serve", "--primary", feed.uri)))
            for server in (feed, *replicas):
                assert_same(server.uri, engine, tmp_path / "scan")
        late = parts.enter_context(served(*feed_arguments(tmp_path / "t")))
        assert_same(late.uri, engine, tmp_path / "scan")
        digests = {
            rows(server.uri, "SELECT * FROM merutable_digest('events')")[0][2:]
            for server in (feed, late, *replicas)
        }
        assert len(digests) == 1
