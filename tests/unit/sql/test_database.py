"""A database that answers nothing any more is noticed, and ends the process."""

from __future__ import annotations

import subprocess
import sys

import pytest

from flight_replica.errors import DatabaseLost
from flight_replica.sql.database import check_database, open_database

# What DuckDB leaves after an internal error in one statement is played by a service: the one way known to get
# there takes a text of over 4 GiB.
ENDING = """
from flight_replica import listening
from flight_replica.errors import DatabaseLost
class Lost:
    def check(self):
        raise DatabaseLost("the database is lost: invalidated")
listening._end_if_lost(Lost())
print("went on")
"""


def test_a_database_that_answers_is_well() -> None:
    database = open_database()
    check_database(database.cursor)
    database.close()


def test_a_database_that_answers_nothing_is_lost() -> None:
    database = open_database()
    session = database.cursor()
    session.close()
    with pytest.raises(DatabaseLost, match="the database is lost"):
        check_database(lambda: session)
    database.close()


def test_a_server_whose_database_is_lost_ends_with_one_clear_line() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", ENDING], capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == 1
    assert ended.stdout == ""
    assert "flight-replica: the database is lost: invalidated" in ended.stderr
