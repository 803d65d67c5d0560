"""Rows of an answer as texts, exactly as far as a text can be: what the page's table shows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

ROWS_MAX = 1000
CELL_CHARACTERS_MAX = 1000
TEXT_CHARACTERS_MAX = 4_000_000  # of all cells
_ELEMENTS_MAX = CELL_CHARACTERS_MAX // 2 + 1  # of a list: each takes two characters, so no more are seen


@dataclass(slots=True)
class Shown:
    """The first rows of an answer, `rows` in the order of `columns`; a null is None."""

    columns: list[dict[str, object]]
    rows: list[list[str | None]]
    is_cut: bool  # there are more rows


def shown(schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> Shown:
    """As many rows as a page can show; no more batches are taken then."""
    found = Shown([_column(field) for field in schema], [], False)
    characters = 0
    for batch in batches:
        wanted = batch.slice(0, ROWS_MAX - len(found.rows))
        texts = [cell_texts(column) for column in wanted.columns]
        for i in range(wanted.num_rows):
            row = [column[i] for column in texts]
            characters += sum(len(text) for text in row if text is not None)
            if characters > TEXT_CHARACTERS_MAX:
                found.is_cut = True
                return found
            found.rows.append(row)
        if wanted.num_rows < batch.num_rows:
            found.is_cut = True
            return found
    return found


def _column(field: pa.Field) -> dict[str, object]:
    kind = field.type
    is_number = pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)
    return {"name": field.name, "type": str(kind), "is_number": is_number}


def cell_texts(column: pa.Array) -> Sequence[str | None]:
    """One text for each value; None for a null."""
    kind = column.type
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind):
        return [None if value is None else _cut("0x" + value.hex()) for value in column.to_pylist()]
    if pa.types.is_dictionary(kind):
        return cell_texts(column.dictionary_decode())
    if pa.types.is_nested(kind):
        return [_cut(_nested(value)) if value.is_valid else None for value in column]
    try:
        texts = pc.cast(column, pa.string()).to_pylist()
    except pa.ArrowException:  # a type that has no cast to text, such as intervals
        return [None if not value.is_valid else _cut(str(value)) for value in column]
    if pa.types.is_timestamp(kind):
        texts = [_far_time(text, value) for text, value in zip(texts, column, strict=True)]
    return [None if text is None else _cut(text) for text in texts]


def _nested(value: pa.Scalar) -> str:
    """A list as `[1, NULL]`, a struct as `{a: 1}`, a map as `{k = 1}`; as DuckDB shows them."""
    kind = value.type
    if pa.types.is_struct(kind):
        parts = [pa.repeat(value[i], 1) for i in range(kind.num_fields)]  # also of fields of one name
        texts = [_part(cell_texts(part)[0]) for part in parts]
        return "{" + ", ".join(f"{field.name}: {text}" for field, text in zip(kind, texts, strict=True)) + "}"
    shown_of = value.values.slice(0, _ELEMENTS_MAX)
    if pa.types.is_map(kind):
        keys, items = cell_texts(shown_of.field(0)), cell_texts(shown_of.field(1))
        return "{" + ", ".join(f"{key}={_part(item)}" for key, item in zip(keys, items, strict=True)) + "}"
    return "[" + ", ".join(map(_part, cell_texts(shown_of))) + "]"


def _part(text: str | None) -> str:
    return "NULL" if text is None else text


def _far_time(text: str | None, value: pa.TimestampScalar) -> str | None:
    """The time as a text; Arrow has none for years beyond 32767."""
    if text is None or not text.startswith("<"):
        return text
    return str(np.datetime64(value.value, value.type.unit)).replace("T", " ")


def _cut(text: str) -> str:
    return text if len(text) <= CELL_CHARACTERS_MAX else text[: CELL_CHARACTERS_MAX - 1] + "…"
