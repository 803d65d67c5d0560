from __future__ import annotations

import pyarrow as pa
import pytest

from flight_replica.flightsql.streams import batch_rows, cut, fitted, plain_schema


@pytest.mark.parametrize("bytes_max", [1, 100, 1000, 1 << 20])
def test_pieces_are_small_enough_and_make_the_batch_again(bytes_max: int) -> None:
    texts = ["x" * (n % 97) * (50 if n == 500 else 1) for n in range(1000)]
    batch = pa.record_batch({"n": range(1000), "text": texts})
    pieces = list(cut(batch, bytes_max))
    assert pa.Table.from_batches(pieces).equals(pa.Table.from_batches([batch]))
    assert all(piece.nbytes <= bytes_max or piece.num_rows == 1 for piece in pieces)


def test_an_empty_batch_stays_one_batch() -> None:
    batch = pa.record_batch({"n": pa.array([], pa.int64())})
    assert list(cut(batch, 1)) == [batch]


def test_dictionaries_and_views_become_plain_at_any_depth() -> None:
    enum = pa.dictionary(pa.uint8(), pa.string())
    schema = pa.schema(
        {"e": enum, "v": pa.string_view(), "l": pa.list_(enum), "s": pa.struct({"x": enum, "n": pa.int8()})}
    )
    plain = plain_schema(schema)
    assert plain.types == [
        pa.string(),
        pa.string(),
        pa.list_(pa.string()),
        pa.struct({"x": pa.string(), "n": pa.int8()}),
    ]
    letters = pa.array(["a", "b"]).dictionary_encode().cast(enum)
    batch = pa.RecordBatch.from_arrays(
        [letters, pa.array(["v", None], pa.string_view())], schema=schema.remove(3).remove(2)
    )
    found = fitted(batch, plain.remove(3).remove(2))
    assert found.to_pydict() == {"e": ["a", "b"], "v": ["v", None]}


def test_wide_rows_come_in_fewer_rows_a_batch() -> None:
    narrow, wide = pa.schema({"n": pa.int8()}), pa.schema([(f"c{n}", pa.string()) for n in range(200)])
    assert batch_rows(narrow) == 65_536
    assert batch_rows(wide) == 2048
