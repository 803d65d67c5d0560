"""Statuses of tables for tests."""

from __future__ import annotations

from typing import Any

from flight_replica.control.status import TableStatus


def status(name: str, **fields: Any) -> TableStatus:
    """A table that is well, but for `fields`."""
    well: dict[str, Any] = {
        "name": name,
        "state": "serving",
        "reason": "",
        "lineage": "one",
        "table_uuid": "one",
        "base_seq": 0,
        "visible_seq": 0,
        "high_water": 0,
        "lag_us": 0,
        "commit_time_us": 0,
        "low_water": 0,
        "published_base_kind": None,
        "published_base_uri": None,
        "published_base_version": None,
        "published_base_seq": None,
        "details": None,
    }
    return TableStatus(**(well | fields))
