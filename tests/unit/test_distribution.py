"""`Distribution`: the numbers of a histogram."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from flight_replica.distribution import Distribution


def test_a_value_counts_at_its_bound_and_every_greater_one() -> None:
    measured = Distribution((1.0, 10.0))
    for value in (0.0, 1.0, 1.5, 10.0, 11.0):
        measured.observe(value)
    found = measured.read()
    assert (found.bounds, found.counts, found.sum) == ((1.0, 10.0), [2, 4, 5], 23.5)


def test_nothing_measured_is_zero_everywhere() -> None:
    found = Distribution((1.0,)).read()
    assert (found.counts, found.sum) == ([0, 0], 0.0)


def test_no_value_of_many_threads_is_lost() -> None:
    measured = Distribution((1.0, 2.0))
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: [measured.observe(2.0) for _ in range(1000)], range(8)))
    assert measured.read().counts == [0, 8000, 8000]
    assert measured.read().sum == 16000.0
