"""How long until a table answers, and until its native state is there, once the base is known?

The baseline is DuckDB alone: a native table made from the same files in key order, in a file of its own.

Run: python -m benchmarks.bench_load [--rows N] [--repetitions N]
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import duckdb

from benchmarks.orders_table import SEED, orders_base
from benchmarks.record import record
from flight_replica.base.source import BaseSnapshot
from flight_replica.state.native_build import NativeBuild
from flight_replica.state.parquet_state import ParquetState
from flight_replica.state.workspace import Workspace

QUESTION = "How long until a table answers, and until its native state is there, once the base is known?"
FIRST, NATIVE, BASELINE = "first answer", "native load", "DuckDB alone"
PROCESSOR = ": processor"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--repetitions", type=int, default=5)
    options = parser.parse_args()
    names = (FIRST, NATIVE, NATIVE + PROCESSOR, BASELINE, BASELINE + PROCESSOR)
    samples: dict[str, list[float]] = {name: [] for name in names}
    with tempfile.TemporaryDirectory() as folder:
        snapshot = orders_base(Path(folder), options.rows)
        for number in range(options.repetitions):
            found = (*_load(snapshot), *_alone(snapshot, Path(folder) / f"{number}.duckdb"))
            for name, seconds in zip(names, found, strict=True):
                samples[name].append(seconds)
    ratios = [one / two for one, two in zip(samples[NATIVE], samples[BASELINE], strict=True)]
    samples["native load ÷ DuckDB alone"] = ratios
    units = dict.fromkeys(samples, "s") | {"native load ÷ DuckDB alone": "x"}
    data = {
        "rows": options.rows,
        "baseline": "CREATE TABLE AS SELECT … FROM read_parquet ORDER BY id, in turns",
        "repetitions": options.repetitions,
        "seed": SEED,
    }
    record("load", QUESTION, data, samples, units)
    print(f"  native load: {statistics.median(ratios):.2f}x DuckDB alone")


def _load(snapshot: BaseSnapshot) -> tuple[float, float, float]:
    """Seconds to the first answer on merge on read, and of building the native state from it; processor's."""
    workspace = Workspace()
    began = time.perf_counter()
    number, directory = workspace.new_state()
    merged = ParquetState(workspace.database, number, snapshot, directory)
    found = merged.get([snapshot.row_count // 2])
    first = time.perf_counter() - began
    assert found is not None and found["id"] == snapshot.row_count // 2, f"the first answer is {found}"
    began, used = time.perf_counter(), time.process_time()
    file = workspace.native_folder("t").new_file()
    native = NativeBuild(workspace.database, workspace.new_number(), file, merged).run()
    seconds, used = time.perf_counter() - began, time.process_time() - used
    assert native.row_count == snapshot.row_count, f"{native.row_count} rows were loaded"
    native.close()
    merged.close()
    workspace.close()
    return first, seconds, used


def _alone(snapshot: BaseSnapshot, path: Path) -> tuple[float, float]:
    """Seconds that it takes, and the processor's."""
    paths = ", ".join(f"'{file.path}'" for file in snapshot.files)
    began, used = time.perf_counter(), time.process_time()
    with duckdb.connect(str(path)) as connection:
        connection.execute(f"CREATE TABLE t AS SELECT * FROM read_parquet([{paths}]) ORDER BY id")
    seconds, used = time.perf_counter() - began, time.process_time() - used
    path.unlink()
    return seconds, used


if __name__ == "__main__":
    main()
