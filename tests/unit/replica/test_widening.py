"""Which of two schemas has the columns of both."""

from __future__ import annotations

import pyarrow as pa
import pytest

from flight_replica.errors import SchemaMismatch
from flight_replica.replica.widening import wider
from flight_replica.schema import Column, TableSchema

ID, V, W = Column("id", pa.int64(), False), Column("v", pa.int64()), Column("w", pa.int64(), True, 7)
NARROW, WIDE = TableSchema((ID, V), ("id",)), TableSchema((ID, V, W), ("id",))


@pytest.mark.parametrize(("old", "new"), [(NARROW, WIDE), (WIDE, NARROW)])
def test_the_one_with_more_columns_is_the_wider(old: TableSchema, new: TableSchema) -> None:
    assert wider(old, new) is WIDE


def test_the_old_one_stays_where_both_have_the_same_columns() -> None:
    same = TableSchema((ID, Column("v", pa.int64(), False)), ("id",))
    assert wider(NARROW, same) is NARROW


@pytest.mark.parametrize(
    "other",
    [
        TableSchema((ID, W), ("id",)),
        TableSchema((ID, Column("v", pa.int32()), W), ("id",)),
        TableSchema((V, ID, W), ("id",)),
        TableSchema((ID, Column("v", pa.int64(), False)), ("id", "v")),
    ],
    ids=["other name", "other type", "other order", "other key"],
)
def test_schemas_of_which_neither_extends_the_other_are_refused(other: TableSchema) -> None:
    with pytest.raises(SchemaMismatch, match="columns"):
        wider(NARROW, other)
