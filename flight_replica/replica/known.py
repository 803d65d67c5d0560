"""What a replica knows of its table without a view, where its state does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pyarrow as pa

from flight_replica.flightsql.service import Known

if TYPE_CHECKING:
    from flight_replica.replica.replica import Replica

__all__ = ["known"]


def known(replica: Replica, key: Sequence[object] | None) -> Known | None:
    """The row of `key` (values in key order), or how many rows there are (None).

    None where only a view tells.
    """
    lag_us = replica.lag_us()  # first: what proves it later may not be in what is found
    state = replica.pin()
    try:
        schema = state.schema
        if key is None:
            counted = state.count_now()
            if counted is None:
                return None
            at = counted.visible_seq, counted.commit_time_us
            content: pa.Table | int = counted.row_count
        else:
            found = state.look_up(key)
            if found is None or found.rows is None or found.rows.num_columns != len(schema.columns):
                return None  # a column is just being added
            at = found.visible_seq, found.commit_time_us
            content = found.rows
        position = replica.position_of(state, *at, lag_us)
    finally:
        replica.release(state)
    return Known(position, schema, content)
