"""The demo's writer, in a process of its own: a steady stream of commits to the primary."""

from __future__ import annotations

import time

from flight_replica.client import connect, told
from flight_replica.demo_orders import Orders

COMMITS_PER_SECOND = 10  # steps a second, of two commits each
_SEED = 2


def write_orders(uri: str, row_count: int, ops_per_second: int) -> int:
    """Change `orders`, which holds `row_count` rows, until this process is ended.

    Raises `Unavailable` when the primary is gone.
    """
    orders = Orders(row_count, _SEED)
    op_count = max(10, ops_per_second // COMMITS_PER_SECOND)
    due = time.monotonic()
    with told(uri), connect(uri) as connection, connection.cursor() as cursor:
        while True:
            step = orders.step(op_count)
            cursor.adbc_ingest("orders", step.puts, mode="append")
            if step.deletes:
                cursor.execute(f"DELETE FROM orders WHERE id IN ({', '.join(map(str, step.deletes))})")
                cursor.fetchall()
            due += op_count / ops_per_second
            # A writer that fell behind goes on at its rate: it doesn't make up for lost time.
            due = max(due, time.monotonic())
            time.sleep(max(0.0, due - time.monotonic()))
