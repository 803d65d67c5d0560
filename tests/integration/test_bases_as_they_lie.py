"""`serve --base`: tables without a primary, from merutable catalogs and Iceberg metadata files."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pytest
from pyiceberg import types as ice
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.schema import Schema

from flight_replica.client import query
from flight_replica.errors import ReplicaError, Unavailable
from flight_replica.keys import KeyCodec
from flight_replica.schema import TableSchema
from tests import samples
from tests.processes import Server, is_answered, position, rows, running, status, until


@contextmanager
def serving(*arguments: str) -> Iterator[str]:
    """The address of a replica of these bases."""
    server = Server("serve", *arguments)
    with running(server):
        yield server.uri


def waits(uri: str, table: str) -> bool:
    return status(uri, table).get("state") == "waiting"


# --- merutable catalogs -------------------------------------------------------------------------------

CATALOGS = {  # one scenario for each name that a catalog has
    "s04": "c5_after_second_compaction",
    "s05_": "c5_compacted",
    "s05b": "c3_flushed",
    "s06_all_types_row_blob": "c4_flushed",
    "s10": "c1_large_dv_on_l1",
    "s15": "c7",
}


@samples.needs_samples
def test_catalogs_are_served_as_the_engine_reads_their_files(tmp_path: Path) -> None:
    found = {}
    for scenario, checkpoint in CATALOGS.items():
        directory = samples.scenario(scenario)
        found[samples.table_name(directory)] = directory / "checkpoints" / checkpoint
    bases = [
        f"--base={name}=merutable:{samples.catalog(checkpoint, tmp_path / name)}"
        for name, checkpoint in found.items()
    ]
    with serving(*bases) as uri:
        for name, checkpoint in found.items():
            until(lambda name=name: status(uri, name).get("state") == "serving", f"{name} is served")
            expected, schema = samples.expected_base(checkpoint), samples.session_schema(checkpoint)
            assert by_key(query(uri, f"SELECT * FROM {name}"), schema) == by_key(expected, schema), name
            assert position(uri, name)["visible_seq"] == samples.base_seq(expected), name
            assert "lower bound" in str(status(uri, name)["reason"])


def by_key(table: pa.Table, schema: TableSchema) -> dict[bytes, str]:
    """`pk_bytes` -> the row's exact text."""
    fitted = table.select(schema.names).cast(pa.schema([(c.name, c.type) for c in schema.columns]))
    keys = KeyCodec(schema).encode([fitted[name] for name in schema.primary_key]).to_pylist()
    found = dict(zip(keys, map(repr, fitted.to_pylist()), strict=True))
    assert len(found) == len(table), "a key is there twice"
    return found


@samples.needs_samples
def test_a_catalog_without_a_commit_is_waited_for_and_appears_by_itself(tmp_path: Path) -> None:
    checkpoint = samples.scenario("s01") / "checkpoints" / "c1_one_file"
    place = samples.catalog(checkpoint.parent / "c0_log_only", tmp_path / "catalog")
    with serving(f"--base=events=merutable:{place}") as uri:
        until(lambda: waits(uri, "events"), "the table is listed as waiting")
        assert "waiting for a flush" in str(status(uri, "events")["reason"])
        with pytest.raises(Unavailable, match=r"'events' is waiting.*no commit yet"):
            query(uri, "SELECT * FROM events")
        _flush(checkpoint, place)
        until(is_answered(uri, "SELECT count(*) FROM events", [(20,)]), "the flushed rows appear")


@samples.needs_samples
def test_a_server_of_bases_ends_when_it_is_asked_to(tmp_path: Path) -> None:
    checkpoints = samples.scenario("s01") / "checkpoints"
    place = samples.catalog(checkpoints / "c1_one_file", tmp_path / "catalog")
    server = Server(
        "serve", f"--base=events=merutable:{place}", f"--base=later=merutable:{tmp_path / 'later'}"
    )
    with running(server):
        until(is_answered(server.uri, "SELECT count(*) FROM events", [(20,)]), "the table is served")
        until(lambda: waits(server.uri, "later"), "the other one waits")
        assert server.terminate() == 0
        assert server.left == []


@samples.needs_samples
def test_a_stated_schema_serves_a_catalog_without_a_commit_as_empty(tmp_path: Path) -> None:
    directory = samples.scenario("s01")
    place = samples.catalog(directory / "checkpoints" / "c0_log_only", tmp_path / "catalog")
    schema = tmp_path / "events.json"
    schema.write_text(json.dumps(json.loads((directory / "schema.json").read_text())["engine_schema"]))
    with serving(f"--base=events=merutable:{place}", f"--schema=events={schema}") as uri:
        until(is_answered(uri, "SELECT * FROM events", []), "an empty table is served")
        assert query(uri, "SELECT * FROM events").schema.names == ["id", "name", "qty", "price"]
        _flush(directory / "checkpoints" / "c1_one_file", place)
        until(is_answered(uri, "SELECT count(*) FROM events", [(20,)]), "the flushed rows appear")


@pytest.mark.statement(116)
@samples.needs_samples
def test_a_newer_commit_of_a_catalog_is_adopted(tmp_path: Path) -> None:
    checkpoints = samples.scenario("s01") / "checkpoints"
    place = samples.catalog(checkpoints / "c1_one_file", tmp_path / "catalog")
    with serving(f"--base=events=merutable:{place.as_uri()}") as uri:
        until(is_answered(uri, "SELECT count(*) FROM events", [(20,)]), "the first commit")
        _flush(checkpoints / "c4_flushed_again", place)
        until(is_answered(uri, "SELECT count(*) FROM events", [(50,)]), "the newest commit")


def _flush(checkpoint: Path, place: Path) -> None:
    """Make the catalog in `place` that of the checkpoint, as the engine does: the version hint comes last."""
    hint = "version-hint.text"
    shutil.copytree(checkpoint / "catalog", place, dirs_exist_ok=True, ignore=shutil.ignore_patterns(hint))
    shutil.copy(checkpoint / "catalog" / hint, place / f"{hint}.new")
    (place / f"{hint}.new").rename(place / hint)


# --- Iceberg ------------------------------------------------------------------------------------------


def test_an_iceberg_table_that_states_its_seq_is_served_as_it_lies(tmp_path: Path) -> None:
    primary = Server("primary", "--data", str(tmp_path / "primary"), "--base-seconds", "0.2")
    with running(primary):
        rows(primary.uri, "CREATE TABLE t (id BIGINT PRIMARY KEY, v VARCHAR)")
        rows(primary.uri, "INSERT INTO t SELECT i, 'v' || i FROM range(100) r(i)")
        rows(primary.uri, "DELETE FROM t WHERE id < 10")
        published = "SELECT base_seq FROM merutable_tables()"
        until(is_answered(primary.uri, published, [(110,)]), "the base holds every op")
        ((metadata,),) = rows(primary.uri, "SELECT base_uri FROM merutable_tables()")
    with serving(f"--base=t=iceberg:{metadata}") as uri:
        until(is_answered(uri, "SELECT count(*), min(v) FROM t", [(90, "v10")]), "the table is served")
        assert position(uri, "t")["visible_seq"] == 110


def test_an_iceberg_table_of_others_needs_its_key_and_seq_stated(tmp_path: Path) -> None:
    metadata = _iceberg_table(tmp_path, [{"id": 1, "v": "a"}, {"id": 2, "v": None}])
    with serving(f"--base=t=iceberg:{metadata}", "--key=t=id", "--base-seq=t=42") as uri:
        until(is_answered(uri, "SELECT * FROM t ORDER BY id", [(1, "a"), (2, None)]), "the table is served")
        assert position(uri, "t")["visible_seq"] == 42
    with serving(f"--base=t=iceberg:{metadata}") as uri:
        until(lambda: "merutable." in str(status(uri, "t").get("reason")), "the reason names what is missing")
        with pytest.raises(ReplicaError, match=r"table 't' is .*merutable\."):
            query(uri, "SELECT * FROM t")


def _iceberg_table(folder: Path, values: Sequence[dict[str, object]]) -> str:
    """The metadata file of a table that another writer made."""
    catalog = SqlCatalog("c", uri=f"sqlite:///{folder}/catalog.db", warehouse=str(folder))
    try:
        catalog.create_namespace("n")
        columns = (
            ice.NestedField(1, "id", ice.LongType(), required=True),
            ice.NestedField(2, "v", ice.StringType()),
        )
        table = catalog.create_table("n.t", Schema(*columns))
        table.append(pa.Table.from_pylist(list(values), table.schema().as_arrow()))
        return str(table.metadata_location)
    finally:
        catalog.close()


def test_a_base_that_is_no_table_says_so_without_ending_the_others(tmp_path: Path) -> None:
    metadata = _iceberg_table(tmp_path, [{"id": 1, "v": "a"}])
    broken = tmp_path / "broken.metadata.json"
    broken.write_text("{")
    with serving(
        f"--base=t=iceberg:{metadata}",
        "--key=t=id",
        "--base-seq=t=1",
        f"--base=broken=iceberg:{broken}",
        f"--base=none=merutable:{tmp_path}/nowhere",
    ) as uri:
        until(is_answered(uri, "SELECT id FROM t", [(1,)]), "the sound table is served")
        until(lambda: waits(uri, "none"), "the absent catalog is waited for")
        assert "does not exist" in str(status(uri, "none")["reason"])
        assert status(uri, "broken")["state"] != "serving"
        with pytest.raises(ReplicaError, match="table 'broken' is "):
            query(uri, "SELECT * FROM broken")
