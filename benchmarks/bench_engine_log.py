"""How fast is the engine's log read, and how soon after it was written?

Throughput is per second of CPU time of one thread. Lag is from before the write of an op's record, in a
process of its own, until `read_new` has returned it here; the writer never syncs, so no disk is in it.

Run: python -m benchmarks.bench_engine_log [--ops N] [--repetitions N] [--seconds S]
"""

from __future__ import annotations

import argparse
import multiprocessing
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa

from benchmarks.record import record
from flight_replica.beside.engine_log import EngineLog
from flight_replica.beside.log_file import BLOCK_BYTES, LogFileDecoder, WriteBatch
from flight_replica.beside.row_values import ops_of
from flight_replica.schema import Column, TableSchema
from tests.log_writing import PUT, LogOp, LogWriter, batch, int_key, pieces, row
from tests.slow_rows import slow_row

SCHEMA = TableSchema(
    (
        Column("id", pa.int64(), False),
        Column("at", pa.int64()),
        Column("name", pa.binary()),
        Column("price", pa.float64()),
        Column("ok", pa.bool_()),
    ),
    ("id",),
)
OPS_PER_FILE = 5_000


def op(number: int, at: int) -> LogOp:
    return PUT, int_key(number), row(number, at, b"name%d" % number, 1.5, number % 2 == 0)


def log_of(op_count: int) -> bytes:
    data = bytearray()
    for number in range(op_count):
        for piece in pieces(batch(number + 1, [op(number, number * 7919)]), len(data)):
            data += piece
    return bytes(data)


def decoded(data: bytes) -> list[WriteBatch]:
    decoder, found = LogFileDecoder(1), list[WriteBatch]()
    while batches := decoder.decode(data[decoder.position : decoder.position + 32 * BLOCK_BYTES]):
        found += batches
    return found


def converted(batches: list[WriteBatch], size: int) -> int:
    return sum(ops_of(batches[at : at + size], SCHEMA).num_rows for at in range(0, len(batches), size))


def per_second(run: Callable[[], object], count: int, repetitions: int) -> list[float]:
    run()  # warm
    samples = []
    for _ in range(repetitions):
        start = time.thread_time()
        run()
        samples.append(count / (time.thread_time() - start))
    return samples


def write(directory: Path, ops_per_second: int, seconds: float) -> None:
    writer, number, start = LogWriter(directory, 2), 0, time.monotonic()
    while (now := time.monotonic()) < start + seconds:
        if number >= (now - start) * ops_per_second:
            time.sleep(0.0002)
            continue
        writer.write([op(number, time.monotonic_ns())])
        number += 1
        if number % OPS_PER_FILE == 0:
            writer.rotate().unlink()
    writer.close()


def lags(ops_per_second: int, seconds: float) -> list[float]:
    """Seconds from the write of each op until it was read."""
    with tempfile.TemporaryDirectory() as name:
        directory, samples, last = Path(name), list[float](), 0
        log = EngineLog(directory)
        log.wait(0)
        process = multiprocessing.get_context("spawn").Process(
            target=write, args=(directory, ops_per_second, seconds)
        )
        process.start()
        while process.is_alive() or log.wait(0.2):
            log.wait(0.1)
            batches = log.read_new()
            now = time.monotonic_ns()
            if batches:
                assert batches[0].first_seq == last + 1, "none is skipped"
                last = batches[-1].last_seq
                samples += [(now - at) / 1e9 for at in ops_of(batches, SCHEMA).column("at").to_pylist()]
        log.close()
    return samples


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ops", type=int, default=200_000)
    parser.add_argument("--repetitions", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=5.0)
    arguments = parser.parse_args()
    count, repetitions = arguments.ops, arguments.repetitions
    data = log_of(count)
    batches = decoded(data)
    assert [each.first_seq for each in batches] == list(range(1, count + 1))
    some = [each.records[0] for each in batches[:5_000]]
    by_hand = [slow_row(record.value, SCHEMA, record.pk_bytes) for record in some]
    assert [list(line.values())[3:] for line in ops_of(batches[:5_000], SCHEMA).to_pylist()] == by_hand
    samples = {
        "log to batches": per_second(lambda: decoded(data), count, repetitions),
        "rows to Arrow, 10 000 at once": per_second(lambda: converted(batches, 10_000), count, repetitions),
        "rows to Arrow, 10 at once": per_second(lambda: converted(batches[:20_000], 10), 20_000, repetitions),
        "rows one by one in Python": per_second(
            lambda: [slow_row(each.value, SCHEMA, each.pk_bytes) for each in some], len(some), repetitions
        ),
        "both": per_second(lambda: converted(decoded(data), 10_000), count, repetitions),
    }
    unit = dict.fromkeys(samples, "ops/s")
    for rate in (100, 1_000):
        samples[f"written to read, {rate} ops/s"] = lags(rate, arguments.seconds)
        unit[f"written to read, {rate} ops/s"] = "s"
    record(
        "engine_log",
        "How fast is the engine's log read, and how soon after it was written?",
        {
            "ops": count,
            "row": "five columns, 31 to 43 bytes, one op a batch",
            "baseline": "a decoder of one row at a time in Python, which the tests compare with",
            "repetitions": repetitions,
            "warm_runs": 1,
            "lag_seconds": arguments.seconds,
            "ops_per_file": OPS_PER_FILE,
        },
        samples,
        unit,
    )


if __name__ == "__main__":
    main()
