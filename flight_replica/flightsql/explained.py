"""What EXPLAIN shows to clients: DuckDB's plan without the server's directories."""

from __future__ import annotations

import re

import pyarrow as pa

SCHEMA = pa.schema({"explain_key": pa.string(), "explain_value": pa.string()})

_BORDER = "│"  # between the cells of a drawn plan
_DIRECTORY = re.compile(r"(?:(?<=^ )|(?<=, ))/(?:[^/]+/)+(?=[^/]*\.parquet)")


def without_directories(batch: pa.RecordBatch) -> pa.RecordBatch:
    """The same plan, files by their names alone; EXPLAIN ANALYZE lists those that it read.

    One row; cells keep their width, so the drawing stays straight.
    """
    texts = [_plan(text) for text in batch.column(1).to_pylist()]
    return pa.RecordBatch.from_arrays([batch.column(0), pa.array(texts, pa.string())], schema=batch.schema)


def _plan(text: str) -> str:
    return "\n".join(_BORDER.join(_cell(cell) for cell in line.split(_BORDER)) for line in text.split("\n"))


def _cell(cell: str) -> str:
    return _DIRECTORY.sub("", cell).ljust(len(cell))
