"""Families of samples in `prometheus_client`'s types, each with its name, help and labels."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeAlias

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

from flight_replica.distribution import DistributionReading

PREFIX = "flight_replica_"
Labels: TypeAlias = Sequence[str]  # values, in the order of the family's label names


def gauge(
    name: str, text: str, values: Iterable[tuple[Labels, float]], labels: Labels = ()
) -> GaugeMetricFamily:
    family = GaugeMetricFamily(PREFIX + name, text, labels=labels)
    for given, value in values:
        family.add_metric(given, value)
    return family


def counter(
    name: str, text: str, values: Iterable[tuple[Labels, float]], labels: Labels = ()
) -> CounterMetricFamily:
    """`name` is without `_total`, which the samples have."""
    family = CounterMetricFamily(PREFIX + name, text, labels=labels)
    for given, value in values:
        family.add_metric(given, value)
    return family


def histogram(
    name: str, text: str, values: Iterable[tuple[Labels, DistributionReading]], labels: Labels = ()
) -> HistogramMetricFamily:
    family = HistogramMetricFamily(PREFIX + name, text, labels=labels)
    for given, reading in values:
        family.add_metric(given, _buckets(reading), reading.sum)
    return family


def one(value: float) -> list[tuple[Labels, float]]:
    """The only sample of a family without labels."""
    return [((), value)]


def _buckets(reading: DistributionReading) -> list[tuple[str, float]]:
    bounds = [*(repr(float(bound)) for bound in reading.bounds), "+Inf"]
    return list(zip(bounds, reading.counts, strict=True))
