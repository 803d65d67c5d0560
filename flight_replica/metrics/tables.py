"""Metrics of each table: how fresh it is, how it is held, and what has happened to it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from prometheus_client.core import Metric

from flight_replica.flightsql.service import TableEntry
from flight_replica.metrics.families import counter, gauge, histogram
from flight_replica.replica.measures import MeasuredTable

STATES = ("serving", "degraded", "paused", "loading", "waiting")
_TABLE = ("table",)


def table_families(entries: Sequence[TableEntry], unix_seconds: float) -> Iterator[Metric]:
    """Of tables as they are at `unix_seconds` on this host's clock."""
    yield gauge(
        "table_state",
        "1 for the state that the table is in, 0 for the others.",
        [((at.name, state), float(at.state == state)) for at in entries for state in STATES],
        ("table", "state"),
    )
    for name, text, values in (
        ("visible_seq", "The newest op that readers see.", [at.position.visible_seq for at in entries]),
        ("base_seq", "The newest op in the base that is served.", [at.position.base_seq for at in entries]),
        ("high_water_seq", "The newest op of the origin that is known of.", _high_waters(entries)),
        (
            "low_water_seq",
            "The oldest seq from which the feed can be followed.",
            [at.low_water for at in entries],
        ),
        ("lag_seqs", "Ops that are known of and not visible yet.", _lag_seqs(entries)),
    ):
        pairs = [((at.name,), float(value)) for at, value in zip(entries, values, strict=True)]
        yield gauge(f"table_{name}", text, pairs, _TABLE)
    proven = [at for at in entries if at.position.lag_us >= 0]
    yield gauge(
        "table_lag_seconds",
        "No op older than this is missing. There is none where that isn't proven.",
        [((at.name,), at.position.lag_us / 1e6) for at in proven],
        _TABLE,
    )
    yield gauge(
        "table_commit_timestamp_seconds",
        "When the newest op that readers see was committed, on the origin's clock.",
        [((at.name,), at.position.commit_time_us / 1e6) for at in entries if at.position.commit_time_us > 0],
        _TABLE,
    )
    yield gauge(
        "table_fresh_timestamp_seconds",
        "Unix time of the last proof of freshness: every op that was committed by then is visible.",
        [((at.name,), unix_seconds - at.position.lag_us / 1e6) for at in proven],
        _TABLE,
    )


def _high_waters(entries: Sequence[TableEntry]) -> list[int]:
    return [max(at.position.high_water, at.position.visible_seq) for at in entries]


def _lag_seqs(entries: Sequence[TableEntry]) -> list[int]:
    return [max(0, at.position.high_water - at.position.visible_seq) for at in entries]


def holding_families(tables: Sequence[MeasuredTable]) -> Iterator[Metric]:
    """How the tables of a replica are held, and how their feeds are."""
    held = [(table.table, table.holding) for table in tables if table.holding is not None]
    yield gauge(
        "table_state_kind",
        "1 for how the table is held: base and tail merged when it is read, or when ops are applied.",
        [
            ((name, kind), float(now.state_kind == kind))
            for name, now in held
            for kind in ("merge_on_read", "merge_on_apply")
        ],
        ("table", "kind"),
    )
    for name, text, values in (
        ("tail_ops", "Ops applied since the state was made.", [now.tail_ops for _, now in held]),
        ("tail_bytes", "Arrow bytes of the ops in the tail.", [now.tail_bytes for _, now in held]),
        (
            "history_bytes",
            "Arrow bytes of ops kept for other replicas and rebases.",
            [now.history_bytes for _, now in held],
        ),
        ("waiters", "Reads that wait for a seq or an age.", [now.waiters for _, now in held]),
        ("old_states", "States that are read and no longer current.", [now.old_states for _, now in held]),
    ):
        pairs = [((table,), float(value)) for (table, _), value in zip(held, values, strict=True)]
        yield gauge(f"table_{name}", text, pairs, _TABLE)
    yield gauge(
        "table_build_ratio",
        "How far the native state is that is being built; there is none where none is.",
        [((name,), now.build_share) for name, now in held if now.build_share is not None],
        _TABLE,
    )
    yield gauge(
        "feed_connected",
        "1 while the table's feed flows, 0 while its origin isn't reached.",
        [((at.table,), float(at.is_connected)) for at in tables if at.is_connected is not None],
        _TABLE,
    )


def event_families(tables: Sequence[MeasuredTable]) -> Iterator[Metric]:
    """What has happened to the tables of a replica since it started."""
    for name, text, counts in (
        (
            "feed_failures",
            "Times that a feed was interrupted and connected again.",
            [at.feed_failures for at in tables],
        ),
        (
            "log_gaps",
            "Followings that ended since the feed no longer reaches back.",
            [at.measures.log_gaps.count for at in tables],
        ),
        (
            "gap_recoveries",
            "Log gaps that a newer base has mended.",
            [at.measures.gap_recoveries.count for at in tables],
        ),
        (
            "fresh_starts",
            "Times that a table was loaded anew under another lineage.",
            [at.measures.fresh_starts.count for at in tables],
        ),
        (
            "rebase_failures",
            "Newer bases that couldn't be adopted.",
            [at.measures.rebase_failures.count for at in tables],
        ),
        (
            "native_build_failures",
            "Native states that couldn't be built.",
            [at.measures.native_build_failures.count for at in tables],
        ),
    ):
        pairs = [((at.table,), float(count)) for at, count in zip(tables, counts, strict=True)]
        yield counter(name, text, pairs, _TABLE)
    ops = [at.measures.apply_ops.read() for at in tables]
    sizes = [at.measures.apply_bytes.read() for at in tables]
    names = [(at.table,) for at in tables]
    yield counter(
        "ops_applied", "Ops applied.", zip(names, [found.sum for found in ops], strict=True), _TABLE
    )
    yield counter(
        "bytes_applied",
        "Arrow bytes of them.",
        zip(names, [found.sum for found in sizes], strict=True),
        _TABLE,
    )
    for name, text, found in (
        ("apply_ops", "Ops of one batch that was applied.", ops),
        ("apply_bytes", "Arrow bytes of one batch that was applied.", sizes),
        (
            "apply_seconds",
            "From taking a batch to its ops being visible.",
            [at.measures.apply_seconds.read() for at in tables],
        ),
        (
            "rebase_seconds",
            "From asking for a newer base to serving it.",
            [at.measures.rebase_seconds.read() for at in tables],
        ),
        (
            "native_build_seconds",
            "To build a native state.",
            [at.measures.native_build_seconds.read() for at in tables],
        ),
    ):
        yield histogram(name, text, zip(names, found, strict=True), _TABLE)
