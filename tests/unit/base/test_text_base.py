"""Bases of bytes served as text: live values are checked, dead ones don't matter, keys keep their bytes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from flight_replica.base.merutable import MerutableBase
from flight_replica.base.text_base import TextBase
from flight_replica.errors import ConfigError, InvalidText, LineageChanged
from flight_replica.log.no_log import NoLog
from flight_replica.replica.replica import Replica
from flight_replica.schema import Column, TableSchema
from flight_replica.state.workspace import Workspace
from flight_replica.text_columns import TextChoice, TextColumns
from tests import samples
from tests.catalogs import CatalogWriter

SCHEMA = TableSchema((Column("k", pa.binary(), False), Column("v", pa.binary())), ("k",))
Rows = list[tuple[bytes, bytes | None]]


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    with closing(Workspace(tmp_path / "data")) as workspace:
        yield workspace


def add(writer: CatalogWriter, first_seq: int, rows: Rows, puts: list[bool] | None = None) -> None:
    keys, values = zip(*rows, strict=True)
    table = pa.table({"k": pa.array(keys), "v": pa.array(values, pa.binary())}, SCHEMA.arrow_schema)
    seqs = first_seq + np.arange(len(rows))
    writer.add_file(table, seqs, is_put=None if puts is None else np.array(puts))
    writer.commit()


def text_base(writer: CatalogWriter, setting: str) -> TextBase:
    return TextBase(MerutableBase(writer.directory, table="t"), TextChoice(TextColumns.parse(setting)))


def answer(base: TextBase, workspace: Workspace, sql: str) -> list[tuple[object, ...]]:
    snapshot = base.load()
    with closing(
        Replica.open(base, NoLog(snapshot.lineage, snapshot.schema), workspace=workspace)
    ) as replica:
        return [tuple(row.values()) for row in replica.query(sql).read_all().to_pylist()]


def test_text_is_served_as_strings_key_and_value(tmp_path: Path, workspace: Workspace) -> None:
    writer = CatalogWriter(tmp_path / "catalog", SCHEMA)
    add(writer, 1, [(b"a\0b", b"x"), ("é".encode(), None), (b"", b"")])
    found = answer(text_base(writer, "*"), workspace, "SELECT k, v, typeof(k), typeof(v) FROM t ORDER BY k")
    assert found == [
        ("", "", "VARCHAR", "VARCHAR"),
        ("a\0b", "x", "VARCHAR", "VARCHAR"),
        ("é", None, "VARCHAR", "VARCHAR"),
    ]


def test_an_invalid_value_is_refused_with_column_and_key(tmp_path: Path) -> None:
    writer = CatalogWriter(tmp_path, SCHEMA)
    add(writer, 1, [(b"a", b"x"), (b"b", b"\xff\x00"), (b"c", b"\xfe")])
    with pytest.raises(InvalidText, match="text column 'v', key 620000: ff00 isn't UTF-8"):
        text_base(writer, "v").load()
    assert text_base(writer, "k").load().schema.columns[1].type == pa.binary()


def test_values_of_dead_rows_do_not_matter(tmp_path: Path, workspace: Workspace) -> None:
    """Superseded, deleted, and the pre-image in a tombstone; also when a query has to pass over them."""
    writer = CatalogWriter(tmp_path / "catalog", SCHEMA)
    add(writer, 1, [(b"a", b"\xff"), (b"b", b"\xff"), (b"c", b"c")])
    add(writer, 4, [(b"a", b"new"), (b"b", b"\xff")], [True, False])
    base = text_base(writer, "*")
    assert answer(base, workspace, "SELECT * FROM t ORDER BY k") == [("a", "new"), ("c", "c")]
    assert answer(base, workspace, "SELECT k FROM t WHERE v = 'new' OR length(v) > 100") == [("a",)]


def test_a_lenient_column_with_other_bytes_stays_bytes(tmp_path: Path, workspace: Workspace) -> None:
    writer = CatalogWriter(tmp_path / "catalog", SCHEMA)
    add(writer, 1, [(b"a", b"x"), (b"b", b"\xff")])
    found = answer(text_base(writer, "*?"), workspace, "SELECT k, v FROM t ORDER BY k")
    assert found == [("a", b"x"), ("b", b"\xff")]


def test_a_lenient_column_that_turns_to_bytes_begins_afresh(tmp_path: Path) -> None:
    writer = CatalogWriter(tmp_path, SCHEMA)
    add(writer, 1, [(b"a", b"x")])
    base = text_base(writer, "v?")
    assert base.load().schema.columns[1].type == pa.string()
    add(writer, 2, [(b"b", b"\xff")])
    with pytest.raises(LineageChanged, match="column 'v' turns from text to bytes"):
        base.load()
    assert base.load().schema.columns[1].type == pa.binary()


def test_a_name_that_the_table_lacks_is_refused(tmp_path: Path) -> None:
    writer = CatalogWriter(tmp_path, SCHEMA)
    add(writer, 1, [(b"a", b"x")])
    with pytest.raises(ConfigError, match="text column 'w' is none of the columns"):
        text_base(writer, "w").load()


def test_a_feed_s_strings_are_read_out_of_the_engine_s_bytes(tmp_path: Path) -> None:
    writer = CatalogWriter(tmp_path, SCHEMA)
    add(writer, 1, [(b"a", b"x"), (b"b", None)])
    columns = (Column("k", pa.string(), False), Column("v", pa.string()), Column("w", pa.string(), True, "é"))
    feed = TableSchema(columns, ("k",))
    assert MerutableBase(tmp_path, table="t", schema=feed).load().schema == feed
    add(writer, 3, [(b"c", b"\xff")])
    with pytest.raises(InvalidText, match="text column 'v', key 630000"):
        MerutableBase(tmp_path, table="t", schema=feed).load()


@samples.needs_samples
def test_text_of_the_engine_s_own_tables_is_its_bytes(tmp_path: Path, workspace: Workspace) -> None:
    checkpoint = samples.scenario("s01") / "checkpoints" / "c4_flushed_again"
    base = MerutableBase(samples.catalog(checkpoint, tmp_path / "catalog"), table="t")
    expected = samples.expected_base(checkpoint)
    wanted = [None if v is None else v.decode() for v in expected["name"].to_pylist()]
    found = answer(
        TextBase(base, TextChoice(TextColumns.parse("name"))), workspace, "SELECT name FROM t ORDER BY id"
    )
    assert [row[0] for row in found] == wanted
