"""How many keys a second does one core encode and decode, against a loop over the values?

Run: python -m benchmarks.bench_keys [--rows N] [--repetitions N]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from benchmarks.record import record
from flight_replica.keys import KeyCodec
from flight_replica.schema import Column, TableSchema

SEED = 20
BASELINE_ROWS = 100_000  # the loop is slow and scales with the rows


@dataclass(frozen=True)
class Case:
    """Key columns, and the codec that they are for."""

    name: str
    columns: Sequence[pa.Array]

    def codec(self) -> KeyCodec:
        columns = tuple(Column(f"k{place}", array.type, False) for place, array in enumerate(self.columns))
        return KeyCodec(TableSchema(columns, tuple(column.name for column in columns)))


def cases(rows: int) -> list[Case]:
    random = np.random.default_rng(SEED)
    ids = pa.array(random.integers(-(2**63), 2**63 - 1, rows))
    texts = pa.array([f"customer-{number:05d}" for number in random.integers(0, 50_000, rows)])
    zeros = pa.array([b"\0" + number.tobytes() for number in random.integers(0, 50_000, rows)])
    return [Case("int64", [ids]), Case("string+int64", [texts, ids]), Case("binary with zeros", [zeros])]


def one_key(values: Sequence[object]) -> bytes:
    """The obvious encoder of one row."""
    parts = []
    for value in values:
        if isinstance(value, int):
            parts.append((value + 2**63).to_bytes(8, "big"))
        else:
            raw = value.encode() if isinstance(value, str) else bytes(value)  # type: ignore[call-overload]
            parts.append(raw.replace(b"\0", b"\0\xff") + b"\0\0")
    return b"".join(parts)


def loop(columns: Sequence[pa.Array]) -> pa.BinaryArray:
    rows = zip(*(column.to_pylist() for column in columns), strict=True)
    return pa.array([one_key(row) for row in rows], pa.binary())


def keys_per_second(run: Callable[[], object], rows: int, repetitions: int) -> list[float]:
    run()  # warm
    samples = []
    for _ in range(repetitions):
        start = time.perf_counter()
        run()
        samples.append(rows / (time.perf_counter() - start))
    return samples


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--repetitions", type=int, default=15)
    arguments = parser.parse_args()
    pa.set_cpu_count(1)
    samples: dict[str, list[float]] = {}
    for case in cases(arguments.rows):
        codec, columns = case.codec(), case.columns
        some = [column[:BASELINE_ROWS] for column in columns]
        keys = codec.encode(columns)
        assert codec.encode(some).equals(loop(some)), f"{case.name}: the loop writes other keys"
        assert all(a.equals(b) for a, b in zip(codec.decode(keys), columns, strict=True)), case.name
        for series, run, rows in (
            ("encode", lambda: codec.encode(columns), arguments.rows),  # noqa: B023
            ("decode", lambda: codec.decode(keys), arguments.rows),  # noqa: B023
            ("loop", lambda: loop(some), len(some[0])),  # noqa: B023
        ):
            samples[f"{case.name}, {series}"] = keys_per_second(run, rows, arguments.repetitions)
    record(
        "keys",
        "How many keys a second does one core encode and decode, against a loop over the values?",
        {
            "rows": arguments.rows,
            "baseline": f"a Python loop over the values of {BASELINE_ROWS} rows",
            "repetitions": arguments.repetitions,
            "warm_runs": 1,
            "seed": SEED,
            "arrow_threads": 1,
        },
        samples,
        dict.fromkeys(samples, "keys/s"),
    )
    medians = {series: statistics.median(values) for series, values in samples.items()}
    for series in samples:
        if series.endswith("encode"):
            print(f"  {series} to loop: {medians[series] / medians[series.replace('encode', 'loop')]:.0f}x")


if __name__ == "__main__":
    main()
