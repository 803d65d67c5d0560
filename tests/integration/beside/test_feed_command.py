"""`flight-replica feed` as a process beside an engine's directories, with ADBC clients and replicas on it."""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import UUID

import pytest

from flight_replica.errors import ReplicaError
from tests import samples
from tests.engine_directory import EngineDirectory, SampleEngine, checkpoints_in_order, engine_at
from tests.processes import Process, position, rows, running, status, until

pytestmark = samples.needs_samples


def feed_server(engine: EngineDirectory, *options: str, name: str = "kv") -> Process:
    place = ",".join(str(path).replace(",", "%2C") for path in (engine.catalog, engine.log))
    return Process("flight_replica", "feed", "--table", f"{name}={place}", *options)


def schema_file(scenario: Path, directory: Path) -> Path:
    """The table's schema in the engine's own form."""
    path = directory / "schema.json"
    path.write_text(json.dumps(json.loads((scenario / "schema.json").read_text())["engine_schema"]))
    return path


def uri_of(process: Process) -> str:
    return process.line().removeprefix("listening on ")


def digest(uri: str, table: str = "kv") -> tuple[object, ...]:
    """Lineage, seq, row count and digest of the rows."""
    ((_, *found),) = rows(uri, f"SELECT * FROM merutable_digest('{table}')")
    return tuple(found)


def is_at(uri: str, seq: int, table: str = "kv") -> bool:
    try:
        found = rows(uri, f"SELECT merutable_seq('{table}')")
    except ReplicaError:
        return False
    return found == [(seq,)]


def refusal(uri: str, statement: str) -> str:
    """What the server says to it, empty when it answers."""
    try:
        rows(uri, statement)
    except ReplicaError as error:
        return str(error)
    return ""


@contextmanager
def unwritable(engine: EngineDirectory) -> Iterator[dict[Path, tuple[int, int]]]:
    """Fails when anything was made, removed or changed in the engine's directories."""

    def seen() -> dict[Path, tuple[int, int, int]]:
        paths = [p for root in (engine.catalog, engine.log) for p in (root, *root.rglob("*"))]
        return {p: (p.stat().st_mtime_ns, p.stat().st_size, stat.S_IMODE(p.stat().st_mode)) for p in paths}

    before = seen()
    yield {}
    assert seen() == before


def test_a_client_asks_and_a_replica_follows_while_the_engine_writes_flushes_and_compacts(
    tmp_path: Path,
) -> None:
    scenario = samples.scenario("s04")
    engine = SampleEngine(tmp_path, scenario)
    feed = feed_server(engine, "--schema", f"kv={schema_file(scenario, tmp_path)}")
    with running(feed):
        uri = uri_of(feed)
        until(lambda: is_at(uri, 0), "the feed server has read the log")
        replica = Process("flight_replica", "serve", "--primary", uri)
        with running(replica):
            end = uri_of(replica)
            for checkpoint in checkpoints_in_order(scenario):
                engine.become(checkpoint)
                expected = samples.expected(checkpoint)
                seq = samples.read_seq(expected)
                until(lambda seq=seq: is_at(uri, seq) and is_at(end, seq), f"both are at {seq}")
                assert digest(uri) == digest(end)
                assert digest(end)[1:3] == (seq, len(expected))
            until(lambda: status(end, "kv")["lag_ms"] is not None, "freshness is proven")
            (changes,) = rows(end, "SELECT count(*) FROM merutable_changes('kv', 64)")
            assert changes == (2,)


def test_the_list_of_tables_says_where_the_base_is_and_vouches_for_its_seq(tmp_path: Path) -> None:
    checkpoint = samples.scenario("s04") / "checkpoints" / "c7_new_ops_in_log"
    engine = engine_at(checkpoint, tmp_path)
    catalog = f"merutable:{engine.catalog}"
    feed = feed_server(engine, "--publish", f"kv={catalog}")
    with running(feed):
        uri = uri_of(feed)
        until(lambda: is_at(uri, 66), "the feed server has read the log")
        ((lineage, uuid, key, low, high, kind, place, version, seq),) = rows(
            uri,
            "SELECT lineage, table_uuid, primary_key, low_water, high_water, base_kind, base_uri, "
            "base_version, base_seq FROM merutable_tables()",
        )
        assert lineage == uuid == str(UUID(str(uuid)))
        assert (key, low, high) == (["id"], 63, 66)
        assert (kind, place, version, seq) == ("merutable", str(engine.catalog), 11, 63)
        replica = Process("flight_replica", "serve", "--primary", uri)
        with running(replica):
            end = uri_of(replica)
            until(lambda: is_at(end, 66), "a replica has joined base and feed")
            assert position(end, "kv")["base_seq"] == 63
            assert digest(end) == digest(uri)


def test_a_mirror_is_published_with_the_version_that_lies_there(tmp_path: Path) -> None:
    checkpoint = samples.scenario("s08") / "checkpoints" / "c9_one_behind"
    engine = engine_at(checkpoint, tmp_path)
    mirror = checkpoint / "mirror"
    feed = feed_server(engine, "--publish", f"kv=merutable:{mirror}")
    with running(feed):
        uri = uri_of(feed)
        read_seq = samples.read_seq(samples.expected(checkpoint))
        until(lambda: is_at(uri, read_seq), "the feed server has read the log")
        ((version,),) = rows(uri, "SELECT base_version FROM merutable_tables()")
        assert version == samples.checkpoint_facts(checkpoint)["mirror"]["payload_snapshot_id"]
        replica = Process("flight_replica", "serve", "--primary", uri)
        with running(replica):
            end = uri_of(replica)
            until(lambda: is_at(end, read_seq), "a replica has joined mirror and feed")
            assert digest(end) == digest(uri)


def test_a_restart_resumes_from_its_data_and_replicas_notice_nothing(tmp_path: Path) -> None:
    scenario = samples.scenario("s04")
    first, second, third, *_ = checkpoints_in_order(scenario)
    engine = SampleEngine(tmp_path, scenario)
    engine.become(first)
    data = ("--data", str(tmp_path / "data"))
    feed = feed_server(engine, *data)
    with running(feed):
        uri = uri_of(feed)
        until(lambda: is_at(uri, 54), "the feed server has read the log")
        lineage = digest(uri)[0]
        replica = Process("flight_replica", "serve", "--primary", uri)
        with running(replica):
            end = uri_of(replica)
            until(lambda: is_at(end, 54), "a replica follows")
            feed.kill()
            engine.become(second)
            engine.become(third)
            again = feed_server(engine, *data, "--listen", uri.removeprefix("grpc://"))
            with running(again):
                uri_of(again)
                until(lambda: is_at(end, 58) and is_at(uri, 58), "both have caught up")
                assert digest(end) == digest(uri)
                assert digest(end)[0] == lineage
                assert rows(uri, "SELECT min(seq), count(*) FROM merutable_changes('kv', 52)") == [(53, 6)]


def test_nothing_is_written_where_the_engine_writes(tmp_path: Path) -> None:
    checkpoint = samples.scenario("s04") / "checkpoints" / "c3_l1_and_two_l0"
    engine = engine_at(checkpoint, tmp_path)
    for root in (engine.catalog, engine.log):
        for path in (root, *root.rglob("*")):
            os.chmod(path, 0o555 if path.is_dir() else 0o444)
    with unwritable(engine):
        feed = feed_server(engine)
        with running(feed):
            uri = uri_of(feed)
            until(lambda: is_at(uri, 58), "the feed server has read the log")
            rows(uri, "SELECT * FROM merutable_changes('kv', 0)")
            assert feed.terminate() == 0
            assert feed.left == []
    for root in (engine.catalog, engine.log):
        for path in (root, *root.rglob("*")):
            os.chmod(path, 0o755 if path.is_dir() else 0o644)


def test_a_table_without_a_commit_is_served_by_its_stated_schema(tmp_path: Path) -> None:
    scenario = samples.scenario("s01")
    engine = engine_at(scenario / "checkpoints" / "c0_log_only", tmp_path / "a, b")
    feed = feed_server(engine, "--schema", f"kv={schema_file(scenario, tmp_path)}")
    with running(feed):
        uri = uri_of(feed)
        until(lambda: is_at(uri, 20), "the feed server has read the log")
        assert rows(uri, "SELECT count(*) FROM kv") == [(20,)]


def test_a_table_that_cannot_be_told_yet_says_what_it_waits_for(tmp_path: Path) -> None:
    engine = engine_at(samples.scenario("s01") / "checkpoints" / "c0_log_only", tmp_path)
    feed = feed_server(engine)
    with running(feed):
        uri = uri_of(feed)
        until(lambda: "waiting for a flush" in str(status(uri, "kv")["reason"]), "it says so")
        with pytest.raises(ReplicaError, match="waiting for a flush"):
            rows(uri, "SELECT * FROM merutable_changes('kv', 0)")
        # The replica of its rows hears of it a moment after its feed.
        until(lambda: "table 'kv' is waiting: catalog " in refusal(uri, "SELECT * FROM kv"), "for rows too")
        assert str(status(uri, "kv")["reason"]).startswith("table 'kv': catalog ")


def test_over_a_damaged_log_nothing_is_served_and_no_retry_is_promised(tmp_path: Path) -> None:
    crash = samples.scenario("s11") / "checkpoints"
    engine = engine_at(crash / "t06_flipped_payload_byte_older_log", tmp_path)
    engine.commit(
        crash
        / samples.checkpoint_facts(crash / "t06_flipped_payload_byte_older_log")["crash"]["catalog_from"]
    )
    feed = feed_server(engine)
    with running(feed):
        uri = uri_of(feed)
        until(lambda: "checksum" in str(status(uri, "kv")["reason"]), "it says so")
        assert status(uri, "kv")["state"] == "loading"
        is_told = re.compile(r"table 'kv' is loading: log \d+.wal, offset .* the newest$")
        until(lambda: is_told.search(refusal(uri, "SELECT * FROM kv")) is not None, "for rows too")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--table", "kv"], "--table kv: expected NAME=…"),
        (["--table", "kv=/tmp"], "expected NAME=CATALOG_DIR,WAL_DIR"),
        (["--table", "kv=/nowhere,/tmp"], "the catalog directory /nowhere doesn't exist"),
        (["--table", "kv=/tmp,/nowhere"], "the log directory /nowhere doesn't exist"),
        (["--table", "kv=/tmp,/tmp", "--publish", "other=flight"], "there is no --table other=…"),
        (["--table", "kv=/tmp,/tmp", "--publish", "kv=iceberg:/x"], "expected merutable:URI or flight"),
        (["--table", "kv=/tmp,/tmp", "--level-targets", "kv=many"], "'many' isn't a number"),
        (["--table", "kv=/tmp,/tmp", "--schema", "kv=/nowhere"], "schema file /nowhere can't be read"),
        (["--table", "kv=/tmp,/tmp", "--level-targets", "kv=²"], "'²' isn't a number"),
        (["--table", "kv=/tmp,/tmp", "--memory-limit", "lots"], "--memory-limit lots: expected a size"),
        (["--table", "kv=/tmp,/tmp", "--listen", "0.0.0.0:0"], "without --auth everybody"),
    ],
)
def test_a_wrong_option_is_one_clear_line(options: list[str], message: str) -> None:
    feed = Process("flight_replica", "feed", *options)
    with running(feed):
        assert feed.wait() == 1
        (line,) = feed.errors
        assert line.startswith("flight-replica: ") and message in line


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{}", "not an engine schema: 'columns' is missing in {}"),
        (
            '{"columns": [], "primary_key": [0]}',
            "not an engine schema: primary_key has 0, there are 0 columns",
        ),
        ('{"columns": [7], "primary_key": [0]}', "expected an object with 'name', found 7"),
        (json.dumps([{"note": "x" * 500}]), "expected an object with 'columns', found [{'note': 'xxxxx"),
        ("columns", "can't be read: it isn't JSON ("),
    ],
)
def test_a_file_that_is_no_schema_is_one_line_that_names_it(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "schema.json"
    path.write_text(text)
    feed = Process("flight_replica", "feed", "--table", "kv=/tmp,/tmp", "--schema", f"kv={path}")
    with running(feed):
        assert feed.wait() == 1
        (line,) = feed.errors
        assert f"--schema kv=…: schema file {path}" in line and message in line
        assert len(line) < 300 and "Error" not in line


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--text", "kv=nope"], "table 'kv': text column 'nope' is none of the columns"),
        (["--text", "kv=id"], "table 'kv': text column 'id' is int64"),
        (["--level-targets", "kv=0"], "table 'kv': --level-targets says 0, but its files are compacted to"),
    ],
)
def test_what_the_files_contradict_is_told_at_the_start(
    options: list[str], message: str, tmp_path: Path
) -> None:
    engine = engine_at(checkpoints_in_order(samples.scenario("s04"))[-1], tmp_path)
    feed = feed_server(engine, *options)
    with running(feed):
        assert feed.wait() == 1
        (line,) = feed.errors
        assert line.startswith("flight-replica: ") and message in line


def test_a_catalog_in_the_place_of_the_log_is_one_clear_line(tmp_path: Path) -> None:
    engine = engine_at(checkpoints_in_order(samples.scenario("s04"))[-1], tmp_path)
    for catalog in (engine.catalog, engine.log):
        feed = Process("flight_replica", "feed", "--table", f"kv={catalog},{engine.catalog}")
        with running(feed):
            assert feed.wait() == 1
            (line,) = feed.errors
            assert f"the log directory {engine.catalog} holds metadata/" in line


def test_a_directory_without_a_log_is_said_and_proves_no_freshness(tmp_path: Path) -> None:
    engine = engine_at(checkpoints_in_order(samples.scenario("s04"))[-1], tmp_path)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    feed = Process("flight_replica", "feed", "--table", f"kv={engine.catalog},{elsewhere}")
    with running(feed):
        uri = uri_of(feed)
        until(lambda: status(uri, "kv")["state"] == "degraded", "it is served as the files have it")
        found = status(uri, "kv")
        assert f"there is no log file in {elsewhere}" in str(found["reason"])
        assert found["lag_ms"] in (None, -1)
