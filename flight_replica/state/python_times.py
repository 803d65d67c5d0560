"""Timestamps in µs as Python has them. pyarrow takes several times as long for a single one."""

from __future__ import annotations

import datetime
from collections.abc import Callable

import pyarrow as pa

__all__ = ["is_in_us", "time_maker"]

_EPOCH = datetime.datetime(1970, 1, 1)
_EPOCH_UTC = _EPOCH.replace(tzinfo=datetime.UTC)


def is_in_us(kind: pa.DataType) -> bool:
    return bool(pa.types.is_timestamp(kind) and kind.unit == "us")


def time_maker(kind: pa.DataType) -> Callable[[int | None], datetime.datetime | None]:
    """What makes of µs since 1970 the value that pyarrow has for it, of a type that `is_in_us`.

    It raises `OverflowError` for times that Python doesn't have.
    """
    zone = None if kind.tz is None else pa.scalar(0, kind).as_py().tzinfo
    # An offset that is known of no moment in particular is that of all; other zones are asked each time.
    is_fixed = zone is None or zone.utcoffset(None) is not None
    epoch = _EPOCH if zone is None else _EPOCH_UTC.astimezone(zone)

    def make(microseconds: int | None) -> datetime.datetime | None:
        if microseconds is None:
            return None
        since = datetime.timedelta(microseconds=microseconds)
        return epoch + since if is_fixed else (_EPOCH_UTC + since).astimezone(zone)

    return make
