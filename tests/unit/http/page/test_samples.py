"""An hour of samples: what is kept, and what a point stands for."""

from __future__ import annotations

import pytest

from flight_replica.http.page.samples import KEPT_SECONDS, SAMPLE_SECONDS, TABLES_MAX, Samples
from tests.unit.http.page.table_status import status

SECOND_MS = 1000


def test_a_point_has_lag_and_rate() -> None:
    samples = Samples()
    for second, seq in enumerate([100, 110, 140]):
        samples.add(second * SECOND_MS, [status("orders", visible_seq=seq, lag_us=second * 1500)])
    (points,) = samples.points({"orders"}, SAMPLE_SECONDS)
    assert points.time_ms == [0, 1000, 2000]
    assert points.lag_ms == [0, 1.5, 3.0]
    assert points.ops_per_second == [None, 10, 30]
    assert samples.rate("orders") == 20


def test_lag_that_is_not_known_is_no_number() -> None:
    samples = Samples()
    samples.add(0, [status("orders", lag_us=-1)])
    (points,) = samples.points({"orders"}, SAMPLE_SECONDS)
    assert points.lag_ms == [None]
    assert samples.rate("orders") is None


def test_a_longer_step_has_the_largest_lag_and_the_mean_rate() -> None:
    samples = Samples()
    for second in range(120):
        lag_us = 9_000_000 if second == 70 else 1000
        samples.add(second * SECOND_MS, [status("orders", visible_seq=second * 5, lag_us=lag_us)])
    (points,) = samples.points({"orders"}, 60)
    assert points.time_ms == [59_000, 119_000]
    assert points.lag_ms == [1, 9000]
    assert points.ops_per_second == [None, 5]


def test_only_the_last_hour_is_kept() -> None:
    samples = Samples()
    for second in range(int(KEPT_SECONDS) + 500):
        samples.add(second * SECOND_MS, [status("orders", visible_seq=second)])
    (points,) = samples.points({"orders"}, SAMPLE_SECONDS)
    assert len(points.time_ms) == KEPT_SECONDS / SAMPLE_SECONDS
    assert (points.time_ms[0], points.time_ms[-1]) == (500_000, (int(KEPT_SECONDS) + 499) * SECOND_MS)
    assert points.time_ms == sorted(points.time_ms)
    assert samples.rate("orders") == 1


def test_a_table_that_goes_or_is_created_anew_begins_afresh() -> None:
    samples = Samples()
    samples.add(0, [status("orders", visible_seq=50), status("items")])
    samples.add(1000, [status("orders", visible_seq=3, lineage="another")])
    assert [points.table for points in samples.points({"orders", "items"}, 1)] == ["orders"]
    (points,) = samples.points({"orders"}, 1)
    assert points.time_ms == [1000]


def test_a_clock_that_is_set_back_gives_no_rate() -> None:
    samples = Samples()
    samples.add(5000, [status("orders", visible_seq=1)])
    samples.add(4000, [status("orders", visible_seq=9)])
    assert samples.rate("orders") is None


def test_no_more_tables_than_the_limit_have_a_history() -> None:
    samples = Samples()
    names = [f"t{number}" for number in range(TABLES_MAX + 3)]
    samples.add(0, [status(name) for name in names])
    assert len(samples.points(set(names), 1)) == TABLES_MAX
    assert samples.rate(names[-1]) is None


@pytest.mark.parametrize("wanted", [set(), {"nothing"}])
def test_other_tables_are_left_out(wanted: set[str]) -> None:
    samples = Samples()
    samples.add(0, [status("orders")])
    assert samples.points(wanted, 1) == []
