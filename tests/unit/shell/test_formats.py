"""Answers in every format, read back; what a terminal would obey is written out."""

from __future__ import annotations

import csv
import datetime
import io
import json
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flight_replica.errors import ConfigError
from flight_replica.shell.formats import FORMATS, ROWS_SHOWN, format_of, opened, write
from flight_replica.text_table import table_lines, value_width

TABLE = pa.table(
    {
        "id": pa.array([1, 2, 3]),
        "text": pa.array(["a,b\n'\"", None, "é漢"]),
        "bytes": pa.array([b"\x00\xff", None, b""]),
        "number": pa.array([float("nan"), -0.0, float("inf")]),
        "money": pa.array([Decimal("1.50"), None, Decimal("-2.00")]),
        "time": pa.array([datetime.datetime(2026, 1, 2, 3, 4, 5, 6), None, None]),
        "list": pa.array([[1, None], None, []]),
        "struct": pa.array([{"x": b"\x01", "y": float("nan")}, None, {"x": None, "y": 1.0}]),
    }
).replace_schema_metadata({"merutable.position": '{"tables": []}'})


class Rows:
    """An answer of several batches."""

    def __init__(self, table: pa.Table) -> None:
        self.schema = table.schema
        self._table = table

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        return iter(self._table.to_batches(max_chunksize=2))


def written(table: pa.Table, form: str) -> bytes:
    out = io.BytesIO()
    seen: list[int] = []
    assert write(Rows(table), form, out, seen.append) == table.num_rows
    assert seen == sorted(seen)
    return out.getvalue()


def test_parquet_and_arrow_give_every_value_back() -> None:
    read = pq.read_table(io.BytesIO(written(TABLE, "parquet")))
    assert str(read.to_pylist()) == str(TABLE.to_pylist())
    assert read.schema.metadata == TABLE.schema.metadata
    found = pa.ipc.open_file(written(TABLE, "arrow")).read_all()
    assert found.schema.equals(TABLE.schema, check_metadata=True)
    assert str(found.to_pylist()) == str(TABLE.to_pylist())


def test_json_is_one_document_and_jsonl_a_line_a_row() -> None:
    rows = json.loads(written(TABLE, "json"))
    assert rows == [json.loads(line) for line in written(TABLE, "jsonl").splitlines()]
    assert rows[0] == {
        "id": 1,
        "text": "a,b\n'\"",
        "bytes": "00ff",
        "number": "nan",
        "money": "1.50",
        "time": "2026-01-02 03:04:05.000006",
        "list": [1, None],
        "struct": {"x": "01", "y": "nan"},
    }
    assert rows[2]["number"] == "inf"


def test_csv_is_read_back_by_a_csv_reader() -> None:
    found = list(csv.reader(io.StringIO(written(TABLE, "csv").decode(), newline="")))
    assert found[0] == TABLE.schema.names
    assert found[1][:3] == ["1", "a,b\n'\"", "00ff"]
    assert len(found) == 4


def test_csv_tells_null_and_an_empty_text_apart() -> None:
    table = pa.table({"a": ["", None], "b": [[1, None], None], "c": [True, None]})
    assert written(table, "csv").decode() == 'a,b,c\r\n"","[1, null]",true\r\n,,\r\n'


@pytest.mark.parametrize("form", ["table", "csv", "json", "jsonl"])
def test_moments_beyond_the_calendar_of_python_are_texts(form: str) -> None:
    far = pa.array([3093527980800000000, 2**63 - 1, None]).cast(pa.timestamp("us"))
    span = pa.array([(0, 3, 0), None, None], pa.month_day_nano_interval())
    found = written(pa.table({"far": far, "span": span}), form).decode()
    assert "100000-01-01 00:00:00" in found
    assert "infinity" in found
    assert "3 days" in found


@pytest.mark.parametrize("form", FORMATS)
def test_no_rows_are_an_answer_too(form: str) -> None:
    found = written(TABLE.slice(0, 0), form)
    if form == "json":
        assert json.loads(found) == []
    elif form == "parquet":
        assert pq.read_table(io.BytesIO(found)).num_rows == 0
    elif form == "arrow":
        assert pa.ipc.open_file(found).read_all().num_rows == 0
    else:
        assert b"nan" not in found


def test_names_that_are_there_twice_stay_apart_in_json() -> None:
    table = pa.Table.from_arrays([pa.array([1]), pa.array([2]), pa.array([3])], names=["a", "b", "a"])
    assert json.loads(written(table, "json")) == [{"a_0": 1, "b": 2, "a_2": 3}]
    table = pa.Table.from_arrays([pa.array([number]) for number in range(3)], names=["a", "a", "a_0"])
    assert json.loads(written(table, "json")) == [{"a_0_0": 0, "a_1": 1, "a_0": 2}]


def test_a_table_is_aligned_cut_and_harmless() -> None:
    lines = table_lines(["a\x1b", "b"], [["x\n\x1b[2J", None], ["漢字", "y" * 100]])
    assert lines[0].startswith("a\\x1b")
    assert lines[2].split() == ["x\\n\\x1b[2J", "NULL"]
    assert value_width(lines[3][: lines[3].index("y")]) == lines[2].index("NULL")
    assert lines[3].endswith("y…")


def test_a_table_shows_the_first_rows_and_counts_all() -> None:
    lines = written(pa.table({"i": range(ROWS_SHOWN + 5)}), "table").decode().splitlines()
    assert len(lines) == ROWS_SHOWN + 3
    assert lines[-1] == f"({ROWS_SHOWN + 5} rows, the first {ROWS_SHOWN} shown)"


def test_a_file_is_there_once_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text("old")
    with pytest.raises(ValueError, match="half"), opened(path) as file:
        file.write(b"ne")
        raise ValueError("half")
    assert path.read_text() == "old"
    with opened(path) as file:
        file.write(b"new")
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(ConfigError, match="can't be written"), opened(tmp_path / "no" / "x"):
        pass


def test_the_format_is_told_by_name_or_by_the_ending_of_the_file() -> None:
    assert format_of(None, None) == "table"
    assert format_of(Path("x.parquet"), None) == "parquet"
    assert format_of(Path("x.JSONL"), None) == "jsonl"
    assert format_of(Path("x.txt"), None) == "table"
    assert format_of(Path("x.parquet"), "csv") == "csv"
