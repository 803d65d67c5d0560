"""Times are made just as pyarrow makes them."""

from __future__ import annotations

import datetime as dt
from random import Random

import pyarrow as pa
import pytest

from flight_replica.state.python_times import time_maker

KINDS = [pa.timestamp("us", zone) for zone in (None, "UTC", "America/New_York", "Asia/Kathmandu", "+02:30")]
YEAR_US = 365 * 86_400_000_000


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_a_time_is_what_pyarrow_has_for_it(kind: pa.DataType) -> None:
    random, make = Random(7), time_maker(kind)
    folded = [int(dt.datetime(2024, 11, 3, hour, 30, tzinfo=dt.UTC).timestamp()) * 10**6 for hour in (5, 6)]
    drawn = [random.randrange(-1900 * YEAR_US, 8000 * YEAR_US) for _ in range(500)]
    for number in [0, -1, 1, *folded, *drawn]:
        expected = pa.scalar(number, kind).as_py()
        found = make(number)
        assert found is not None
        assert (repr(found), found.fold, found.utcoffset()) == (
            repr(expected),
            expected.fold,
            expected.utcoffset(),
        )
    assert make(None) is None


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("number", [2**63 - 1, -(2**63) + 1, 400_000 * YEAR_US, 8100 * YEAR_US])
def test_a_time_that_python_does_not_have_is_refused_as_by_pyarrow(kind: pa.DataType, number: int) -> None:
    with pytest.raises(OverflowError):
        pa.scalar(number, kind).as_py()
    with pytest.raises(OverflowError):
        time_maker(kind)(number)
