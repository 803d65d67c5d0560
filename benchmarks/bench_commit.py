"""What does a commit at the reference primary cost, and what does its log at a checkpoint and a start?

One process, a table of a million orders on disk. Each commit puts random keys of the table, 50 or 500 of
them. "From the stamp" is the clock after the call less the commit time that followers are told. The baseline
is the same rows put into a plain DuckDB file with a PRIMARY KEY, `INSERT OR REPLACE` and COMMIT, in turns:
without ops, seqs and a feed. Then the log is left to grow; the checkpoint that takes it in is timed, and the
start of a copy of the directory, as after a kill. In the end every row is compared with the last put of its
key.

Run: python -m benchmarks.bench_commit [--rows N] [--commits N] [--repetitions N]
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa

from benchmarks.orders_table import SEED
from benchmarks.record import record
from flight_replica.demo_orders import CREATE, orders
from flight_replica.flightsql.service import IngestMode
from flight_replica.primary import store
from flight_replica.primary.engine import Engine

QUESTION = "What does a commit at the primary cost, and what do the checkpoint and a start take for its log?"
LOADED_AT_ONCE = 100_000
PAUSE_SECONDS = 0.02  # between commits, as writers have it who don't press on
LOG_MIB = (16, 128)
LOG_ROWS = 20_000  # of each commit that lets the log grow

Put = Callable[[pa.RecordBatch], float]
Samples = dict[str, list[float]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--commits", type=int, default=50, help="of each kind and repetition")
    parser.add_argument("--repetitions", type=int, default=3)
    options = parser.parse_args()
    samples: Samples = {}
    random = np.random.default_rng(SEED)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with (
            closing(Engine.open(folder / "primary")) as engine,
            duckdb.connect(str(folder / "plain")) as plain,
        ):
            written: dict[int, tuple[object, ...]] = {}  # key -> the row that was put last
            _load(engine, plain, options.rows, random)
            for _ in range(options.repetitions):
                for count in (50, 500):
                    batches = _batches(count, options, random)
                    ours = _timed(lambda rows: _put(engine, rows), batches)
                    theirs = _timed(lambda rows: _put_plain(plain, rows), batches)
                    for title, (seconds, waited, used) in (("primary", ours), ("plain DuckDB", theirs)):
                        samples.setdefault(f"{title}, {count} rows: call", []).extend(seconds)
                        samples.setdefault(f"{title}, {count} rows: processor", []).append(used)
                        if title == "primary":
                            samples.setdefault(f"{title}, {count} rows: from the stamp", []).extend(waited)
                    samples.setdefault(f"{count} rows: primary ÷ plain DuckDB, processor", []).append(
                        ours[2] / theirs[2]
                    )
                    _remember(written, batches)
            for _ in range(options.repetitions):
                for mib in LOG_MIB:
                    _grow_log(engine, mib << 20, options.rows, random, written)
                    _checkpoint_and_start(engine, folder / "killed", mib, samples)
            _check(engine, plain, written)
    units = {name: "x" if "÷" in name else "MiB/s" if "MiB/s" in name else "s" for name in samples}
    data = {
        "rows": options.rows,
        "commits": options.commits,
        "pause_seconds": PAUSE_SECONDS,
        "baseline": "INSERT OR REPLACE into a plain DuckDB table with a PRIMARY KEY, in turns",
        "repetitions": options.repetitions,
        "seed": SEED,
    }
    record("commit", QUESTION, data, samples, units)


def _load(
    engine: Engine, plain: duckdb.DuckDBPyConnection, row_count: int, random: np.random.Generator
) -> None:
    """Both get the same rows."""
    engine.write(CREATE)
    plain.execute(CREATE)
    for first in range(0, row_count, LOADED_AT_ONCE):
        rows = orders(np.arange(first, min(first + LOADED_AT_ONCE, row_count)), random)
        _put(engine, rows)
        _put_plain(plain, rows)
    engine.checkpoint()
    plain.execute("CHECKPOINT")


def _batches(count: int, options: argparse.Namespace, random: np.random.Generator) -> list[pa.RecordBatch]:
    return [orders(random.choice(options.rows, count, replace=False), random) for _ in range(options.commits)]


def _put(engine: Engine, rows: pa.RecordBatch) -> float:
    """Seconds from the commit's stamp until the call has returned."""
    reader = pa.RecordBatchReader.from_batches(rows.schema, [rows])
    result = engine.ingest("orders", IngestMode.APPEND, reader)
    now_us = time.time_ns() / 1000
    at = engine.table("orders")
    assert result.rows_affected == len(rows) and at.high_water == result.seq
    return (now_us - at.commit_time_us) / 1e6


def _put_plain(plain: duckdb.DuckDBPyConnection, rows: pa.RecordBatch) -> float:
    plain.register("new_rows", rows)
    plain.execute("BEGIN TRANSACTION")
    plain.execute("INSERT OR REPLACE INTO orders SELECT * FROM new_rows")
    plain.execute("COMMIT")
    plain.unregister("new_rows")
    return 0.0


def _timed(put: Put, batches: list[pa.RecordBatch]) -> tuple[list[float], list[float], float]:
    """Seconds of each call, what each returned, and seconds of the processor for one."""
    calls, returned, used = [], [], 0.0
    for rows in batches:
        began, used_before = time.perf_counter(), time.process_time()
        returned.append(put(rows))
        calls.append(time.perf_counter() - began)
        used += time.process_time() - used_before
        time.sleep(PAUSE_SECONDS)
    return calls, returned, used / len(batches)


def _remember(written: dict[int, tuple[object, ...]], batches: list[pa.RecordBatch]) -> None:
    """Keep the last row of each key."""
    for rows in batches:
        columns = [column.to_pylist() for column in rows.columns]
        written.update(zip(columns[0], zip(*columns, strict=True), strict=True))


def _grow_log(
    engine: Engine,
    byte_count: int,
    row_count: int,
    random: np.random.Generator,
    written: dict[int, tuple[object, ...]],
) -> None:
    log = engine.directory / (store.FILE_NAME + store.WAL_SUFFIX)
    while not log.exists() or log.stat().st_size < byte_count:
        rows = orders(random.choice(row_count, min(LOG_ROWS, row_count), replace=False), random)
        _put(engine, rows)
        _remember(written, [rows])


def _checkpoint_and_start(engine: Engine, copy: Path, mib: int, samples: Samples) -> None:
    """What the log takes to be read at a start, and to be taken into the file."""
    engine.session().close()  # once the store has the newest commit
    copy.mkdir()
    for path in engine.directory.glob(f"{store.FILE_NAME}*"):
        shutil.copy(path, copy)
    began = time.perf_counter()
    with closing(Engine.open(copy)) as started:
        seconds = time.perf_counter() - began
        assert started.table("orders").high_water == engine.table("orders").high_water
    shutil.rmtree(copy)
    log = engine.directory / (store.FILE_NAME + store.WAL_SUFFIX)
    log_bytes = log.stat().st_size
    samples.setdefault(f"start with {mib} MiB of log", []).append(seconds)
    samples.setdefault("start: log read, MiB/s", []).append((log_bytes / 2**20) / seconds)
    began = time.perf_counter()
    assert engine.checkpoint(), "nobody was in the way"
    samples.setdefault(f"checkpoint of {mib} MiB of log", []).append(time.perf_counter() - began)


def _check(engine: Engine, plain: duckdb.DuckDBPyConnection, written: dict[int, tuple[object, ...]]) -> None:
    at = engine.table("orders")
    with closing(engine.session()) as session:
        ((count,),) = session.execute(f"SELECT count(*) FROM {at.rows}").fetchall()
        rows = session.sql(f"SELECT {at.columns_sql} FROM {at.rows} ORDER BY id").to_arrow_table()
    assert rows.num_rows == plain.execute("SELECT count(*) FROM orders").fetchall()[0][0]
    assert rows.num_rows == count, f"{count} rows were counted, {rows.num_rows} read"
    columns = [column.to_pylist() for column in rows.columns]
    for row in zip(*columns, strict=True):
        assert row == written.get(row[0], row), f"{row} was read, {written[row[0]]} was put last"


if __name__ == "__main__":
    main()
