"""A newer snapshot that is damaged never displaces the one that is served, and the status says so."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from flight_replica.schema import Column, TableSchema
from tests.catalogs import CatalogWriter
from tests.processes import Server, is_answered, rows, running, status, until

SCHEMA = TableSchema((Column("id", pa.int64(), False), Column("v", pa.int64())), ("id",))


def put(writer: CatalogWriter, seq: int) -> Path:
    """A file of one row; its place."""
    entry = writer.add_file(pa.table({"id": [seq], "v": [seq]}, SCHEMA.arrow_schema), [seq])
    return writer.directory / entry.path


def test_a_damaged_snapshot_leaves_the_old_one_served_and_degraded_until_it_is_mended(tmp_path: Path) -> None:
    writer = CatalogWriter(tmp_path, SCHEMA)
    put(writer, 1)
    writer.commit()
    server = Server("serve", f"--base=t=merutable:{tmp_path}")
    with running(server):
        until(is_answered(server.uri, "SELECT count(*) FROM t", [(1,)]), "the first snapshot is served")

        file = put(writer, 2)
        whole = file.read_bytes()
        file.write_bytes(whole[: len(whole) // 2])
        writer.commit()
        until(lambda: status(server.uri, "t")["state"] == "degraded", "the damage shows")
        assert "the newest base can't be taken" in str(status(server.uri, "t")["reason"])
        assert "bytes, expected" in str(status(server.uri, "t")["reason"])
        assert rows(server.uri, "SELECT id FROM t") == [(1,)]

        file.write_bytes(whole)
        until(is_answered(server.uri, "SELECT count(*) FROM t", [(2,)]), "the mended snapshot is adopted")
        until(lambda: status(server.uri, "t")["state"] == "serving", "all is well again")


def test_a_snapshot_with_a_page_that_cannot_be_decoded_does_not_displace_the_one_that_is_served(
    tmp_path: Path,
) -> None:
    writer = CatalogWriter(tmp_path, SCHEMA)
    put(writer, 1)
    writer.commit()
    with running(server := Server("serve", f"--base=t=merutable:{tmp_path}")):
        until(is_answered(server.uri, "SELECT count(*) FROM t", [(1,)]), "the first snapshot is served")
        file = put(writer, 2)
        with file.open("r+b") as opened:
            column = pq.ParquetFile(file).metadata.row_group(0).column(4)
            opened.seek(column.data_page_offset)
            opened.write(b"\xff" * 12)
        writer.commit()
        until(lambda: "can't be decoded" in str(status(server.uri, "t")["reason"]), "the damage shows")
        assert status(server.uri, "t")["state"] == "degraded"
        assert rows(server.uri, "SELECT v FROM t") == [(1,)]


def test_a_table_that_goes_back_to_an_older_snapshot_is_not_shown_as_the_newer_one(tmp_path: Path) -> None:
    writer = CatalogWriter(tmp_path, SCHEMA)
    for seq in (1, 2):
        put(writer, seq)
        writer.commit()
    with running(server := Server("serve", f"--base=t=merutable:{tmp_path}")):
        until(is_answered(server.uri, "SELECT count(*) FROM t", [(2,)]), "the second snapshot is served")
        (tmp_path / "version-hint.text").write_text("1")
        until(lambda: "snapshot 1 now, after 2" in str(status(server.uri, "t")["reason"]), "it is said")
        assert rows(server.uri, "SELECT count(*) FROM t") == [(2,)]
