"""Merutable catalogs and mirrors written by ourselves, for sizes and histories that no sample has.

`CatalogWriter` lays out what the engine lays out; what a reader doesn't need (bloom filters, page index,
row blobs) is left out, so every file is columnar.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from uuid import UUID

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyroaring import BitMap

from flight_replica._pb import manifest_pb2
from flight_replica.keys import KeyCodec
from flight_replica.schema import TableSchema

TABLE_UUID = UUID("3f0a6d52-7d1e-4a3b-8c55-0b6f1f6f9a01")

_ENGINE_TYPES = {
    pa.bool_(): "Boolean",
    pa.int32(): "Int32",
    pa.int64(): "Int64",
    pa.float32(): "Float",
    pa.float64(): "Double",
    pa.binary(): "ByteArray",
}


def engine_schema(schema: TableSchema, name: str = "events") -> dict[str, object]:
    """The engine's JSON of a table without defaults."""
    columns = [
        {
            "name": column.name,
            "col_type": _ENGINE_TYPES.get(column.type) or {"FixedLenByteArray": column.type.byte_width},
            "nullable": column.nullable,
            "field_id": number + 1,
            "initial_default": None,
            "write_default": None,
        }
        for number, column in enumerate(schema.columns)
    ]
    key = [schema.names.index(part) for part in schema.primary_key]
    last = len(columns)
    return {
        "table_name": name,
        "columns": columns,
        "primary_key": key,
        "schema_id": 0,
        "last_column_id": last,
    }


def internal_keys(keys: pa.BinaryArray, seqs: np.ndarray, is_put: np.ndarray) -> pa.BinaryArray:
    tags = (np.uint64(2**56 - 1) - seqs.astype(np.uint64)) << np.uint64(8) | is_put.astype(np.uint64)
    trailers = pa.Array.from_buffers(pa.binary(8), len(tags), [None, pa.py_buffer(tags.astype(">u8"))])
    return pc.binary_join_element_wise(keys, trailers.cast(pa.binary()), b"")


class CatalogWriter:
    """One table's catalog in `directory`, commit by commit."""

    def __init__(self, directory: Path, schema: TableSchema, table_uuid: UUID = TABLE_UUID) -> None:
        self.directory = directory
        self.schema = schema
        self.table_uuid = table_uuid
        self.files: list[manifest_pb2.DataFileRef] = []  # live ones
        self.snapshot_id = 0
        self.properties: dict[str, str] = {}  # of the manifest, besides the schema
        self._codec = KeyCodec(schema)
        self._file_count = 0
        (directory / "metadata").mkdir(parents=True, exist_ok=True)

    def add_file(
        self,
        rows: pa.Table,
        seqs: Sequence[int] | np.ndarray,
        *,
        level: int = 0,
        is_put: np.ndarray | None = None,
        row_group_rows: int = 16_384,
    ) -> manifest_pb2.DataFileRef:
        """Write the versions in key order to a file, which the next commit names. One row a version."""
        numbers = np.asarray(seqs, np.int64)
        puts = np.ones(len(numbers), np.bool_) if is_put is None else is_put
        keys = self._codec.encode([rows[name] for name in self.schema.primary_key])
        ikeys = internal_keys(keys, numbers, puts)
        order = pc.sort_indices(ikeys)
        table = pa.table(
            [ikeys, pa.array(numbers), pa.array(puts.astype(np.int32)), *rows.columns],
            schema=pa.schema(
                [
                    pa.field("_merutable_ikey", pa.binary(), False),
                    pa.field("_merutable_seq", pa.int64(), False),
                    pa.field("_merutable_op", pa.int32(), False),
                    *self.schema.arrow_schema,
                ]
            ),
        ).take(order)
        bounds = keys[order[0].as_py()].as_py(), keys[order[-1].as_py()].as_py()
        return self._write(table, numbers, bounds, level, row_group_rows)

    def _write(
        self, table: pa.Table, seqs: np.ndarray, bounds: tuple[bytes, bytes], level: int, row_group_rows: int
    ) -> manifest_pb2.DataFileRef:
        self._file_count += 1
        path = f"data/L{level}/{self._file_count:08d}.parquet"
        place = self.directory / path
        place.parent.mkdir(parents=True, exist_ok=True)
        meta = {
            "level": level,
            "seq_min": int(seqs.min()),
            "seq_max": int(seqs.max()),
            "key_min": bounds[0].hex(),
            "key_max": bounds[1].hex(),
            "num_rows": len(table),
            "file_size": 0,
            "format": "columnar",
        }
        footer = {
            "merutable.meta": json.dumps(meta),
            "merutable.schema": json.dumps(engine_schema(self.schema)),
        }
        pq.write_table(table.replace_schema_metadata(footer), place, row_group_size=row_group_rows)
        entry = manifest_pb2.DataFileRef(
            path=path,
            file_size=place.stat().st_size,
            num_rows=len(table),
            level=level,
            seq_min=meta["seq_min"],
            seq_max=meta["seq_max"],
            key_min=bounds[0],
            key_max=bounds[1],
            status=1,
            format=0,
        )
        self.files.append(entry)
        return entry

    def mask(self, entry: manifest_pb2.DataFileRef, positions: Sequence[int]) -> None:
        """Give the file a deletion vector in place of any older one."""
        path = f"{entry.path.removesuffix('.parquet')}.dv-{self.snapshot_id + 1}.puffin"
        bitmap = BitMap(positions)
        bitmap.run_optimize()
        summed = bytes.fromhex("d1d33964") + struct.pack("<QI", 1, 0) + bitmap.serialize()
        blob = struct.pack(">I", len(summed) + 4) + summed + struct.pack(">I", zlib.crc32(summed))
        (self.directory / path).write_bytes(b"PFA1" + blob + b"{}" + struct.pack("<i", 2) + b"PFA1")
        entry.dv_path, entry.dv_offset, entry.dv_length = path, 4, len(blob)

    def manifest(self) -> bytes:
        """The next commit's manifest."""
        message = manifest_pb2.Manifest(
            snapshot_id=self.snapshot_id + 1,
            table_uuid=str(self.table_uuid),
            properties={"merutable.schema.json": json.dumps(engine_schema(self.schema)), **self.properties},
            data_files=self.files,
        )
        payload = message.SerializeToString()
        return struct.pack("<4sBI", b"MRUB", 1, len(payload)) + payload

    def commit(self) -> int:
        """Make `files` the newest snapshot of the catalog; its id."""
        manifest = self.manifest()
        self.snapshot_id += 1
        (self.directory / "metadata" / f"v{self.snapshot_id}.metadata.pb").write_bytes(manifest)
        (self.directory / "version-hint.text").write_text(str(self.snapshot_id))
        return self.snapshot_id

    def commit_to_mirror(self) -> int:
        """Make `files` the newest snapshot of a mirror in the same directory; its id."""
        manifest = self.manifest()
        self.snapshot_id += 1
        (self.directory / "metadata" / f"v{self.snapshot_id}.manifest.bin").write_bytes(manifest)
        (self.directory / "metadata" / "low_water.txt").write_text(str(self.snapshot_id))
        return self.snapshot_id
