"""`ServerStats`: what the clients of a Flight SQL server hold and use."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ServerStats:
    """Counts of one moment; all zero where no client is at work and none left anything behind."""

    calls: int  # watched RPCs under way
    running: int  # DoGets of statements
    queries: int  # of them, those that have one of the queries_max places
    follows: int  # of them, those that have one of the follows_max places
    planned: int  # plans that wait for their DoGet, each with a view
    prepared: int  # prepared statements
    transactions: int
    transactions_holding: int  # of them, those with writes or a snapshot
    pins: int  # pinned views, those of transactions too
    sessions: int  # sessions with something set
