"""How long does a function compute on after an interrupt, given the largest values it may get?

Run: python -m benchmarks.bench_hogs [--functions PATTERN] [--calls N] [--limit BYTES]

Every scalar function of `sql/functions.py` is called with large texts, lists, maps, JSON and blobs in the
combinations of its arguments, on one vector of 2048 rows, in a process of its own: what is listed anew is
measured by itself. A call that a guard refuses took no time. The record names those above `--slow`.
"""

from __future__ import annotations

import argparse
import itertools
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import duckdb

from benchmarks.record import record
from flight_replica.sql.functions import SCALAR
from flight_replica.sql.heavy import BUILT_BYTES_MAX

ROWS = 2048  # one vector; DuckDB looks at an interrupt between two of them
TIMEOUT_SECONDS = 60
SLOW_SECONDS = 1.0

# Kind of a parameter -> (small value, column with large ones).
VALUES = {
    "text": ("'zq'", "t.txt"),
    "list": ("[-1, -2]", "t.ints"),
    "texts": ("['z', 'q']", "t.texts"),
    "json": ("'[1,2]'::JSON", "t.js"),
    "map": ("MAP {-1: 1}", "t.mp"),
    "blob": ("'ab'::BLOB", "t.bin"),
    "any": ("-7", "t.txt"),
    "number": ("2", None),
    "lambda": ("(lambda x: x)", None),
}
NUMBERS = re.compile(r"U?(TINY|SMALL|BIG|HUGE)?INT(EGER)?|DOUBLE|FLOAT|DECIMAL.*|BIGNUM")

PROGRAM = """
import json, sys, threading, time
import duckdb
from flight_replica.errors import ReplicaError
from flight_replica.sql.sandbox import check_select

try:
    sql = check_select(sys.argv[2], lambda name: name).sql
except ReplicaError as error:
    print(json.dumps({"late": 0.0, "error": str(error)}))
    raise SystemExit
session = duckdb.connect(sys.argv[1], read_only=True, config={"threads": 1, "memory_limit": "2GB"})
is_over, start = threading.Event(), []


def interrupt():
    is_over.wait(0.2)
    start.append(time.process_time())
    while not is_over.wait(0.02):
        session.interrupt()


thread = threading.Thread(target=interrupt)
thread.start()
error = ""
try:
    session.execute(sql).fetchall()
except duckdb.Error as found:
    error = str(found).splitlines()[0]
is_over.set()
thread.join()
print(json.dumps({"late": time.process_time() - start[0], "error": error}))
"""


def kind_of(parameter_type: str) -> str | None:
    """The kind of values a parameter takes; None where no large ones are at hand for it."""
    if parameter_type in ("VARCHAR", "JSON", "BLOB"):
        return {"VARCHAR": "text", "JSON": "json", "BLOB": "blob"}[parameter_type]
    if "LAMBDA" in parameter_type:
        return "lambda"
    if parameter_type.startswith("MAP"):
        return "map"
    if parameter_type.endswith("[]") and "STRUCT" not in parameter_type:
        return "texts" if parameter_type == "VARCHAR[]" else "list"
    if parameter_type in ("ANY", "T", "K", "V"):
        return "any"
    return "number" if NUMBERS.fullmatch(parameter_type) else None


def calls_of(function: str, types: Sequence[str]) -> Iterator[str]:
    """Calls of one overload: large values in every combination of its first three arguments."""
    kinds = [kind_of(each.upper()) for each in types]
    if None in kinds or not kinds:
        return
    small = [VALUES[kind][0] for kind in kinds if kind is not None]
    large = [VALUES[kind][1] for kind in kinds if kind is not None]
    for chosen in itertools.product([True, False], repeat=min(3, len(kinds))):
        if any(chosen) and all(large[index] for index, is_large in enumerate(chosen) if is_large):
            arguments = [
                str(large[index]) if index < len(chosen) and chosen[index] else value
                for index, value in enumerate(small)
            ]
            yield call(function, arguments)


def call(function: str, arguments: Sequence[str]) -> str:
    if function[0].isalpha():
        return f"{function}({', '.join(arguments)})"
    if len(arguments) == 2:
        return f"({arguments[0]} {function} {arguments[1]})"
    return f"({function} {arguments[0]})"


def all_calls(pattern: str, calls_max: int) -> list[str]:
    rows = duckdb.execute(
        "SELECT DISTINCT lower(function_name), coalesce(parameter_types, [])::VARCHAR[], varargs "
        "FROM duckdb_functions() WHERE function_type IN ('scalar', 'macro') ORDER BY ALL"
    ).fetchall()
    found: dict[str, dict[str, None]] = {}
    for function, types, varargs in rows:
        if function in SCALAR and re.search(pattern, function):
            given = ["T[]" if each is None else each for each in types] + [varargs] * (2 if varargs else 0)
            found.setdefault(function, {}).update(dict.fromkeys(calls_of(function, given)))
    return [text for calls in found.values() for text in list(calls)[:calls_max]]


def write_values(path: Path, size: int) -> None:
    """A table of one vector whose values have about `size` bytes as text each, no two alike."""
    with duckdb.connect(str(path)) as connection:
        connection.execute(
            f"""CREATE TABLE t AS SELECT
                repeat('abcde fg.', {size // 9 - 1}) || r AS txt,
                list_append(range(1000, 1000 + {size // 6 - 2}), r) AS ints,
                list_append(string_split(repeat('abcde,', {size // 7}), ','), 'r') AS texts,
                ('[' || repeat('1234567,', {size // 8 - 1}) || r || ']')::JSON AS js,
                map(range({size // 12}), list_transform(range({size // 12}), lambda x: x % 7 + r)) AS mp,
                (repeat('abcdefgh', {size // 8 - 1}) || r)::BLOB AS bin
            FROM range({ROWS}) q(r)"""
        )


def late_seconds(path: Path, text: str) -> tuple[float, str]:
    """Seconds computed after the interrupt, and the error; the timeout where it didn't end."""
    # A long literal makes it a statement in which any column may hold what was built.
    sql = f"SELECT count(hash({text})) FROM t WHERE '{'x' * 6000}' <> 'y'"
    command = [sys.executable, "-c", PROGRAM, str(path), sql]
    try:
        ended = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return float(TIMEOUT_SECONDS), "not ended"
    if ended.returncode != 0:
        return float(TIMEOUT_SECONDS), f"died with {ended.returncode}"
    found = json.loads(ended.stdout)
    return float(found["late"]), str(found["error"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--functions", default="", help="only functions whose name this pattern is found in")
    parser.add_argument("--calls", type=int, default=4, help="calls of one function at most")
    parser.add_argument("--limit", type=int, default=BUILT_BYTES_MAX, help="bytes of a large value")
    parser.add_argument("--slow", type=float, default=SLOW_SECONDS, help="seconds; slower calls are named")
    options = parser.parse_args()
    calls = all_calls(options.functions, options.calls)
    lates: list[float] = []
    slow: dict[str, object] = {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "values.duckdb"
        write_values(path, options.limit - 1_000)
        for text in calls:
            late, error = late_seconds(path, text)
            lates.append(late)
            if late > options.slow:
                slow[text] = {"seconds": round(late, 2), "error": error}
                print(f"{late:6.2f} s  {text}  {error}", flush=True)
    record(
        "hogs",
        "How long does a function compute on after an interrupt, given the largest values it may get?",
        {"functions": options.functions or "all", "calls": len(calls), "bytes": options.limit, "slow": slow},
        {"computed after the interrupt": lates},
        {"computed after the interrupt": "s"},
    )


if __name__ == "__main__":
    main()
