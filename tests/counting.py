"""A table whose right content at any commit is known: clients for the process tests.

`counting(id, n)`: commit `n` puts (-1, n) and (n % 50, n) in one statement. So whoever sees (-1, n) must see
for each id the newest commit up to n that put it, and nothing else.

python -m tests.counting write URI    commits on and on; prints {"n", "seq"} for each acknowledged one
python -m tests.counting read URI     reads on and on; prints {"n", "seq", "is_right"} for each answer
"""

from __future__ import annotations

import json
import sys
import time

import adbc_driver_flightsql.dbapi as flightsql
import adbc_driver_manager

CREATE = "CREATE TABLE counting (id BIGINT PRIMARY KEY, n BIGINT NOT NULL)"
ID_COUNT = 50


def rows_at(n: int) -> dict[int, int]:
    """The whole table after commit `n` (from 1)."""
    rows = {k % ID_COUNT: k for k in range(max(1, n - ID_COUNT + 1), n + 1)}
    return rows | {-1: n}


def write(uri: str) -> None:
    """One commit after another; after an error of unknown outcome it looks what was committed."""
    while True:
        try:
            with flightsql.connect(uri, autocommit=True) as connection, connection.cursor() as cursor:
                _write_on(cursor)
        except adbc_driver_manager.Error as error:
            print(f"writer: {error}", file=sys.stderr)
            time.sleep(0.1)


def _write_on(cursor: flightsql.Cursor) -> None:
    cursor.execute("SELECT coalesce(max(n), 0) FROM counting WHERE id = -1")
    n = cursor.fetchall()[0][0]
    while True:
        n += 1
        cursor.execute(f"INSERT OR REPLACE INTO counting VALUES (-1, {n}), ({n % ID_COUNT}, {n})")
        answer = cursor.fetch_arrow_table().to_pylist()[0]
        print(json.dumps({"n": n, "seq": answer["seq"]}), flush=True)


def read(uri: str) -> None:
    while True:
        try:
            with flightsql.connect(uri, autocommit=True) as connection, connection.cursor() as cursor:
                while True:
                    cursor.execute("SELECT id, n FROM counting")
                    _report(cursor)
        except adbc_driver_manager.Error as error:
            print(f"reader: {error}", file=sys.stderr)
            time.sleep(0.1)


def _report(cursor: flightsql.Cursor) -> None:
    answer = cursor.fetch_arrow_table()
    position = json.loads(answer.schema.metadata[b"merutable.position"])["tables"][0]
    rows = dict(zip(answer.column("id").to_pylist(), answer.column("n").to_pylist(), strict=True))
    n = rows.get(-1, 0)
    is_right = len(rows) == len(answer) and rows == (rows_at(n) if n else {})
    print(json.dumps({"n": n, "seq": position["visible_seq"], "is_right": is_right}), flush=True)


if __name__ == "__main__":
    {"write": write, "read": read}[sys.argv[1]](sys.argv[2])
