"""Rows of an answer as texts."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal

import pyarrow as pa
import pytest

from flight_replica.http.page import values
from flight_replica.http.page.values import CELL_CHARACTERS_MAX, ROWS_MAX, cell_texts, shown


@pytest.mark.parametrize(
    ("array", "texts"),
    [
        (pa.array([1, None], pa.int64()), ["1", None]),
        (pa.array([2**64 - 1], pa.uint64()), ["18446744073709551615"]),
        (pa.array([float("nan"), float("inf"), -0.0, 0.1]), ["nan", "inf", "-0", "0.1"]),
        (pa.array([Decimal("12.50")], pa.decimal128(10, 2)), ["12.50"]),
        (pa.array([True, False]), ["true", "false"]),
        (pa.array(["<script>alert(1)</script>", ""]), ["<script>alert(1)</script>", ""]),
        (pa.array([b"\x00\xff"]), ["0x00ff"]),
        (pa.array([dt.date(2026, 1, 2)]), ["2026-01-02"]),
        (pa.array([2**62], pa.timestamp("us")), ["148108-07-06 14:00:27.387904"]),
        (pa.array([[1, 2], None]), ["[1, 2]", None]),
        (pa.array([[1, None]]), ["[1, NULL]"]),
        (pa.array([{"a": 1, "b": None}]), ["{a: 1, b: NULL}"]),
        (pa.array([[("k", 1)]], pa.map_(pa.string(), pa.int64())), ["{k=1}"]),
        (pa.array([[2**62]], pa.list_(pa.timestamp("us"))), ["[148108-07-06 14:00:27.387904]"]),
        (
            pa.array([{"t": 2**62}], pa.struct({"t": pa.timestamp("us")})),
            ["{t: 148108-07-06 14:00:27.387904}"],
        ),
        (pa.array(["a", "a"]).dictionary_encode(), ["a", "a"]),
        (pa.array([None], pa.null()), [None]),
    ],
)
def test_a_value_has_a_text_of_its_own(array: pa.Array, texts: list[str | None]) -> None:
    assert list(cell_texts(array)) == texts


def test_a_long_value_is_cut() -> None:
    (text,) = cell_texts(pa.array(["x" * 5000]))
    assert text is not None
    assert len(text) == CELL_CHARACTERS_MAX
    assert text.endswith("…")


@pytest.mark.parametrize(
    ("kind", "begin"),
    [
        (pa.list_(pa.int8()), "[1, 1, 1"),
        (pa.list_(pa.string()), "[, , ,"),
        (pa.map_(pa.int8(), pa.int8()), "{1=1, 1=1"),
    ],
)
def test_of_a_long_list_only_what_is_seen_is_made_text(
    kind: pa.DataType, begin: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    elements: dict[str, object] = {"[1": [1] * 100_000, "[,": [""] * 100_000, "{1": [(1, 1)] * 100_000}
    sizes: list[int] = []
    monkeypatch.setattr(values, "cell_texts", lambda column: sizes.append(len(column)) or cell_texts(column))
    (text,) = cell_texts(pa.array([elements[begin[:2]]], kind))
    assert text is not None
    assert (text.startswith(begin), text[-1], len(text)) == (True, "…", CELL_CHARACTERS_MAX)
    assert max(sizes) <= CELL_CHARACTERS_MAX


def test_the_first_rows_are_taken_and_no_more_batches() -> None:
    schema = pa.schema({"n": pa.int64()})
    taken = []

    def batches():  # type: ignore[no-untyped-def]
        for number in range(10):
            taken.append(number)
            yield pa.RecordBatch.from_pydict({"n": list(range(400))}, schema)

    found = shown(schema, batches())
    assert (len(found.rows), found.is_cut, taken) == (ROWS_MAX, True, [0, 1, 2])
    assert found.columns == [{"name": "n", "type": "int64", "is_number": True}]


def test_an_answer_of_just_as_many_rows_is_whole() -> None:
    table = pa.table({"n": list(range(ROWS_MAX))})
    assert not shown(table.schema, table.to_batches()).is_cut


def test_an_answer_of_too_much_text_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(values, "TEXT_CHARACTERS_MAX", 100)
    table = pa.table({"t": ["x" * 40] * 5})
    found = shown(table.schema, table.to_batches())
    assert (len(found.rows), found.is_cut) == (2, True)


def test_columns_of_one_name_stay_apart() -> None:
    batch = pa.RecordBatch.from_arrays([pa.array([1]), pa.array(["a"])], ["x", "x"])
    assert shown(batch.schema, [batch]).rows == [["1", "a"]]
