"""What does a native state pay for keys that aren't one integer, and would a stored hash of the key help?

Each batch is found by the statements that may do it, in turn, in a transaction that is rolled back. Samples
are processor time: it is what a key costs, whatever else the machine does.

Run: python -m benchmarks.bench_native_keys [--rows N] [--repetitions N]
"""

from __future__ import annotations

import argparse
import tempfile
import time
from contextlib import closing
from pathlib import Path
from uuid import UUID

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.orders_table import SEED
from benchmarks.record import record
from flight_replica.base.source import BaseFile, BaseSnapshot
from flight_replica.keys import KeyCodec
from flight_replica.schema import Column, TableSchema
from flight_replica.state.native_build import NativeBuild
from flight_replica.state.native_state import NativeState
from flight_replica.state.op_rows import having_keys_of
from flight_replica.state.parquet_state import ParquetState
from flight_replica.state.workspace import Workspace

QUESTION = "What does a native state pay for keys that aren't one integer, and would a stored hash help?"
BATCHES = (100, 10_000, 100_000)
SCANS = 5

_NUMBER = Column("number", pa.int64(), False)
_TEXT = Column("text", pa.string(), False)
_BYTES = Column("bytes", pa.binary(), False)
_VALUES = (Column("amount", pa.float64()), Column("count", pa.int32()))
KEYS: dict[str, tuple[Column, ...]] = {
    "int64": (_NUMBER,),
    "(string, int64)": (_TEXT, _NUMBER),
    "binary": (_BYTES,),
    "(string, binary)": (_TEXT, _BYTES),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=3_000_000)
    parser.add_argument("--repetitions", type=int, default=7)
    options = parser.parse_args()
    samples: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for number, (name, columns) in enumerate(KEYS.items()):
            _measure(Path(folder) / str(number), name, columns, options.rows, options.repetitions, samples)
    for what in [f"apply of {size}" for size in BATCHES] + ["scan"]:
        base = float(np.median(samples[f"int64: {what}"]))
        for name in KEYS:
            samples[f"{name}: {what} ÷ int64"] = [found / base for found in samples[f"{name}: {what}"]]
    record(
        "native_keys",
        QUESTION,
        {
            "rows": options.rows,
            "ops": "updates of random keys",
            "baseline": "a key of one int64, and a stored hash compared together with the key",
            "time": "of the processor, all threads",
            "repetitions": options.repetitions,
            "seed": SEED,
        },
        samples,
        {name: "times" if "÷" in name else "ms" for name in samples},
    )


def _rows(schema: TableSchema, ids: np.ndarray) -> pa.RecordBatch:
    columns: dict[str, pa.Array] = {
        "number": pa.array(ids, pa.int64()),
        "text": pa.array([f"customer-{number % 10_000}" for number in ids]),
        "bytes": pa.array(
            [number.tobytes() + b"-key-" + number.tobytes()[:4] for number in ids], pa.binary()
        ),
        "amount": pa.array(ids / 4.0),
        "count": pa.array(ids % 1000, pa.int32()),
    }
    return pa.RecordBatch.from_arrays([columns[name] for name in schema.names], list(schema.names))


def _measure(
    folder: Path,
    name: str,
    columns: tuple[Column, ...],
    row_count: int,
    repetitions: int,
    samples: dict[str, list[float]],
) -> None:
    schema = TableSchema((*columns, *_VALUES), tuple(column.name for column in columns))
    folder.mkdir()
    path = folder / "base.parquet"
    pq.write_table(pa.Table.from_batches([_rows(schema, np.arange(row_count))]), path)
    file = BaseFile(str(path), row_count, np.array([], np.int64), schema.names)
    snapshot = BaseSnapshot("t", UUID(int=1), 1, 1, schema, (file,))
    random = np.random.default_rng(SEED)
    with closing(Workspace(folder / "data")) as workspace:
        number, directory = workspace.new_state()
        with closing(ParquetState(workspace.database, number, snapshot, directory)) as merged:
            target = workspace.native_folder("t").new_file()
            state = NativeBuild(workspace.database, workspace.new_number(), target, merged).run()
        with closing(state), closing(workspace.session()) as session:
            tables = _with_hash(session, state, schema)
            for size in BATCHES:
                for _ in range(repetitions):
                    ids = np.unique(random.integers(0, row_count, size))
                    _compare(session, schema, tables, name, size, _rows(schema, ids), samples)
                    _apply(state, schema, name, size, _rows(schema, ids), samples)
            _scan(session, tables[0], name, samples)


def _with_hash(
    session: duckdb.DuckDBPyConnection, state: NativeState, schema: TableSchema
) -> tuple[str, str]:
    """The state's rows as they are, and with a stored hash of the key."""
    rows = session.execute(
        "SELECT database_name || '.rows' FROM duckdb_tables() WHERE table_name = 'rows'"
    ).fetchall()[0][0]
    hashed = str(rows).replace(".rows", ".hashed")
    key = ", ".join(f"c{schema.names.index(column)}" for column in schema.primary_key)
    session.execute(f"CREATE TABLE {hashed} AS SELECT *, hash({key}) AS h FROM {rows} ORDER BY {key}")
    assert state.row_count, "a state with rows"
    return str(rows), hashed


def _compare(
    session: duckdb.DuckDBPyConnection,
    schema: TableSchema,
    tables: tuple[str, str],
    name: str,
    size: int,
    batch: pa.RecordBatch,
    samples: dict[str, list[float]],
) -> None:
    rows, hashed = tables
    internal = [f"c{number}" for number in range(len(schema.columns))]
    session.register("batch", pa.RecordBatch.from_arrays(batch.columns, internal))
    key = [f"c{schema.names.index(column)}" for column in schema.primary_key]
    listed = ", ".join(key)
    equal = " AND ".join(f"r.{column} = n.{column}" for column in key)
    with_hash = f"(SELECT *, hash({listed}) AS h FROM batch)"
    ways = {
        "as it is done": f"DELETE FROM {rows} r {having_keys_of(schema, 'r', 'batch')}",
        "by comparing keys": f"DELETE FROM {rows} r USING batch n WHERE {equal}",
        "by hash and key": f"DELETE FROM {hashed} r USING {with_hash} n WHERE r.h = n.h AND {equal}",
        "by hash, then by key": f"DELETE FROM {hashed} r WHERE h IN (SELECT h FROM {with_hash}) "
        f"AND ({listed}) IN (SELECT ({listed}) FROM batch)",
    }
    for way, sql in ways.items():
        session.execute("BEGIN TRANSACTION")
        began = time.process_time()
        count = session.execute(sql).fetchall()[0][0]
        seconds = time.process_time() - began
        session.execute("ROLLBACK")
        assert count == len(batch), f"{way}: {count} rows found of {len(batch)}"
        samples.setdefault(f"{name}: {size} keys found {way}", []).append(seconds * 1000)
    session.unregister("batch")


def _apply(
    state: NativeState,
    schema: TableSchema,
    name: str,
    size: int,
    batch: pa.RecordBatch,
    samples: dict[str, list[float]],
) -> None:
    count = len(batch)
    seqs = pa.array(np.arange(state.visible_seq + 1, state.visible_seq + count + 1), pa.uint64())
    keys = KeyCodec(schema).encode(batch.columns[: len(schema.primary_key)])
    labels = pa.array(["UPDATE"] * count)
    ops = pa.RecordBatch.from_arrays([seqs, labels, keys, *batch.columns], schema=schema.feed_schema)
    before = state.row_count
    began = time.process_time()
    state.apply(ops, state.visible_seq + count)
    state.settle()
    samples.setdefault(f"{name}: apply of {size}", []).append((time.process_time() - began) * 1000)
    assert state.row_count == before, "updates change no count"


def _scan(session: duckdb.DuckDBPyConnection, rows: str, name: str, samples: dict[str, list[float]]) -> None:
    """A sum and a group by of columns that aren't in the key, which are the last two."""
    found = session.execute(f"DESCRIBE {rows}").fetchall()
    amount, count = found[-2][0], found[-1][0]
    for _ in range(SCANS):
        began = time.process_time()
        session.execute(f"SELECT {count}, sum({amount}) FROM {rows} GROUP BY {count}").fetchall()
        samples.setdefault(f"{name}: scan", []).append((time.process_time() - began) * 1000)


if __name__ == "__main__":
    main()
