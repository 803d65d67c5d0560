"""Sample tables written by the real merutable engine, and readers for what lies beside them.

The tables are not part of this repository. They are looked for in `$FLIGHT_REPLICA_SAMPLES`, else in
`shared/data/merutable` beside the checkout; tests marked `needs_samples` are skipped without them.
A scenario is a directory with `ops.arrow` and `checkpoints/`; each checkpoint holds a catalog and
what the engine itself reads from it.
"""

from __future__ import annotations

import json
import os
import shutil
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from flight_replica.schema import TableSchema

_PROJECT_ROOT = Path(__file__).resolve().parent.parent


def _find_samples() -> Path | None:
    stated = os.environ.get("FLIGHT_REPLICA_SAMPLES")
    directory = Path(stated) if stated else _PROJECT_ROOT.parent / "shared" / "data" / "merutable"
    return directory if directory.is_dir() else None


SAMPLES: Path | None = _find_samples()

needs_samples = pytest.mark.skipif(
    SAMPLES is None,
    reason="no merutable sample tables: set FLIGHT_REPLICA_SAMPLES to their directory, "
    "or put them in shared/data/merutable beside the checkout",
)


def scenario(prefix: str) -> Path:
    """The one scenario whose name begins with `prefix`, such as `s01_`. Only for `needs_samples` tests."""
    (found,) = scenarios([prefix])
    return found


def scenarios(prefixes: Sequence[str]) -> list[Path]:
    """Scenario directories whose names begin with one of `prefixes`, sorted; none without samples."""
    if SAMPLES is None:
        return []
    return sorted(
        path for path in SAMPLES.iterdir() if path.is_dir() and path.name.startswith(tuple(prefixes))
    )


def checkpoints(prefixes: Sequence[str]) -> list[Any]:
    """Parameters `(checkpoint directory,)` of these scenarios with ids like `s01_…-c1_one_file`.

    `scenario_of(checkpoint)` leads back. Only checkpoints that have an `expected_base.arrow`.
    """
    return [
        pytest.param(checkpoint, id=f"{directory.name}-{checkpoint.name}")
        for directory in scenarios(prefixes)
        for checkpoint in sorted((directory / "checkpoints").iterdir())
        if (checkpoint / "expected_base.arrow").exists()
    ]


def scenario_of(checkpoint: Path) -> Path:
    return checkpoint.parent.parent


def table_name(scenario_directory: Path) -> str:
    return str(_json(scenario_directory / "schema.json")["table"])


def table_schema(scenario_directory: Path) -> TableSchema:
    """The widest schema of the scenario."""
    return TableSchema.from_engine_json(_json(scenario_directory / "schema.json")["engine_schema"])


def session_schema(checkpoint: Path) -> TableSchema:
    """The schema that the engine had open at this checkpoint: the columns of `expected*.arrow`."""
    return TableSchema.from_engine_json(_json(checkpoint / "checkpoint.json")["session_schema"])


def checkpoint_facts(checkpoint: Path) -> dict[str, Any]:
    """`checkpoint.json`: seqs, the session's schema, what the mirror holds."""
    return dict(_json(checkpoint / "checkpoint.json"))


def catalog(checkpoint: Path, target: Path) -> Path:
    """A copy of the checkpoint's catalog in `target`, with the empty directories that git drops."""
    source = checkpoint / "catalog"
    if source.exists():
        shutil.copytree(source, target, dirs_exist_ok=True)
    for name in ("metadata", "data"):
        (target / name).mkdir(parents=True, exist_ok=True)
    return target


def expected_base(checkpoint: Path) -> pa.Table:
    """`pk_bytes, seq`, columns: what the files alone hold, in key order. See `base_seq`."""
    return read_arrow(checkpoint / "expected_base.arrow")


def expected(checkpoint: Path) -> pa.Table:
    """`pk_bytes, seq`, columns: the whole table, in key order. See `read_seq`."""
    return read_arrow(checkpoint / "expected.arrow")


def base_seq(table: pa.Table) -> int:
    return int(table.schema.metadata[b"base_seq"])


def read_seq(table: pa.Table) -> int:
    return int(table.schema.metadata[b"read_seq"])


def ops(scenario_directory: Path) -> pa.Table:
    """`seq, op (PUT, DELETE), pk_bytes, n_fields`, columns: every op of the scenario in commit order."""
    return read_arrow(scenario_directory / "ops.arrow")


def gets(checkpoint: Path, schema: TableSchema) -> list[tuple[bytes, tuple[object, ...] | None]]:
    """Point gets: key bytes and the row the engine gave, None for no row. A row may be short."""
    types = [column.type for column in schema.columns]
    found: list[tuple[bytes, tuple[object, ...] | None]] = []
    for entry in json.loads((checkpoint / "gets.json").read_text()):
        row = entry["row"]
        values = None if row is None else tuple(map(value, row, types[: len(row)]))
        found.append((bytes.fromhex(entry["pk_bytes"]), values))
    return found


def value(encoded: Any, arrow_type: pa.DataType) -> object:
    """One JSON value of the samples: floats are the hex of their IEEE bits, bytes are hex."""
    if encoded is None:
        return None
    if pa.types.is_float32(arrow_type):
        return struct.unpack(">f", bytes.fromhex(encoded))[0]
    if pa.types.is_float64(arrow_type):
        return struct.unpack(">d", bytes.fromhex(encoded))[0]
    if pa.types.is_binary(arrow_type) or pa.types.is_fixed_size_binary(arrow_type):
        return bytes.fromhex(encoded)
    return encoded


def read_arrow(path: Path) -> pa.Table:
    return pa.ipc.open_file(pa.BufferReader(path.read_bytes())).read_all()


def float_bits(table: pa.Table) -> pa.Table:
    """`table` with every float column as the integers of its bits, so that `equals` is exact (NaN, −0.0)."""
    as_int = {pa.float32(): pa.int32(), pa.float64(): pa.int64()}
    columns = [
        pa.chunked_array([chunk.view(as_int[column.type]) for chunk in column.chunks], as_int[column.type])
        if column.type in as_int
        else column
        for column in table.columns
    ]
    return pa.Table.from_arrays(columns, names=table.column_names)


def _json(path: Path) -> Any:
    return json.loads(path.read_text())
