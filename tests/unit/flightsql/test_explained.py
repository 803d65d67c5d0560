"""Plans as clients see them: no directory of the server stands in one."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from flight_replica.flightsql.explained import SCHEMA, without_directories


def test_an_analyzed_plan_names_files_without_their_directories(tmp_path: Path) -> None:
    files = [tmp_path / "a long directory" / f"part {number}.parquet" for number in range(3)]
    files[0].parent.mkdir()
    for file in files:
        pq.write_table(pa.table({"a": [1, 2]}), file)
    with duckdb.connect() as session:
        session.execute(f"CREATE VIEW t AS FROM read_parquet({[str(file) for file in files]})")
        (row,) = session.execute("EXPLAIN ANALYZE FROM t x JOIN t y USING (a) WHERE a / 1 > 1").fetchall()
    plan = pa.RecordBatch.from_pylist([dict(zip(SCHEMA.names, row, strict=True))], SCHEMA)
    shown = without_directories(plan).column(1)[0].as_py()
    assert str(tmp_path) in row[1] and "directory" not in shown and shown.count("part 2.parquet") == 2
    assert [len(line) for line in shown.split("\n")] == [len(line) for line in row[1].split("\n")]
    kept = [line for line in row[1].split("\n") if ".parquet" not in line]
    assert [line for line in shown.split("\n") if ".parquet" not in line] == kept
