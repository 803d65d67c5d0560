"""How long the worst statements that are let through hold DuckDB's threads after an interrupt.

Each runs in a process of its own. What counts is the time that the process computes on after the interrupt,
since a busy machine stretches every other clock; the limits are several times what was measured
(docs/flight-sql/limits.md).
"""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from flight_replica.sql.messages import LIMIT_SIGN

COMPUTED_SECONDS_MAX = 10.0  # by all threads together, after the interrupt
PEAK_BYTES_MAX = 4 * 2**30  # with memory_limit at 1 GB
ENDED_SECONDS = 120  # an outer limit: the process is killed

TEXT = "(SELECT string_agg('ab', '') AS l FROM t WHERE a < 14000)"
LIST = "(SELECT list(a) AS l FROM t WHERE a < 5000)"
SHORT = "(SELECT list(a) AS l FROM t WHERE a < 600)"
OBJECT = "(SELECT json_group_object(s, a) AS l FROM t WHERE a < 1500)"
ANY_ROW = "CASE WHEN a <> 7 THEN l END"  # the same value in every row of a vector, though no constant

WORST = [
    # texts of the largest size that may be built
    f"SELECT count(string_split({ANY_ROW}, '')) FROM {TEXT}, t",
    f"SELECT count(regexp_extract_all({ANY_ROW}, '(a)(b*)')) FROM (SELECT string_agg('ab', '') AS l FROM t "
    "WHERE a < 4900), t",
    f"SELECT count(replace({ANY_ROW}, 'a', 'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx')) FROM {TEXT}, t",
    f"SELECT count(contains({ANY_ROW}, 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaab' || s)) FROM {TEXT}, t",
    f"SELECT count(nfc_normalize({ANY_ROW})), count(strip_accents({ANY_ROW})) FROM {TEXT}, t",
    "SELECT count(('[' || rtrim(repeat('1,', 9000) || s, 'name 0123456789,') || ']')::INT[]) FROM t",
    # lists
    f"SELECT count(list_sort(list_append(l, a))) FROM {LIST}, t",
    f"SELECT count(list_append(l, a)::VARCHAR), count(to_json(list_append(l, a))) FROM {LIST}, t",
    f"SELECT count(list_distinct(list_append(l, a))) FROM {SHORT}, t",
    f"SELECT count(list_has_all(list_append(l, a), list_append(l, -a))) FROM {SHORT}, t",
    f"SELECT count(list_aggregate(list_append(l, a), 'mode')) FROM {SHORT}, t",
    f"SELECT count(list_filter(list_append(l, a), lambda x: x > 10 AND x < a)) FROM {LIST}, t",
    f"SELECT sum(list_contains(l, -a)::INT) FROM {LIST}, t",
    # JSON
    f"SELECT count(json_keys({ANY_ROW})), count(json_pretty({ANY_ROW})) FROM {OBJECT}, t",
    f"SELECT count(json_structure({ANY_ROW})) FROM {OBJECT}, t",
    # patterns on stored texts
    "SELECT count(*) FROM t WHERE regexp_matches(s || s || s || s, '(.?.?a?){33}c')",
    "SELECT count(*) FROM t WHERE regexp_matches(s || s || s || s, '[a-z ]*a[a-z]{90}5')",
    "SELECT count(*) FROM t WHERE s || s GLOB '*[a-z][a-z][a-z][a-z ][0-9]*[0-9]*[0-9]*[0-9]*x'",
    "SELECT sum(levenshtein(s || s || s, 'abcdefghijklmnopqrstuvwxyz')) FROM t",
    # what calls make of small values
    "SELECT sum(len(repeat(s, 10000))) FROM t",
    "SELECT sum(len(lpad(s, 10000, 'ab'))) FROM t",
    "SELECT sum(len(list_transform(range(10000), lambda x: x + 1))) FROM t",
    "SELECT sum(len(list_resize([s, s], 10000, s))) FROM t",
    # aggregates and windows that build
    "SELECT len(list(s ORDER BY a DESC)), len(string_agg(s, ',')), len(histogram(s)::VARCHAR) FROM t",
    "SELECT list(a) OVER (ORDER BY a) FROM t",
]

PROGRAM = """
import json, resource, sys, threading, time
from flight_replica.sql.database import open_database
from flight_replica.sql.sandbox import check_select

sql = check_select(sys.argv[1], lambda name: name).sql
session = open_database(memory_limit="1GB").cursor()
session.execute("CREATE TABLE t AS SELECT i AS a, 'name ' || i AS s FROM range(1000000) r(i)").fetchall()
computed = []  # seconds, at the first interrupt and at the end
is_over = threading.Event()


def interrupt():
    is_over.wait(0.5)
    computed.append(time.process_time())
    while not is_over.wait(0.02):
        session.interrupt()


thread = threading.Thread(target=interrupt)
thread.start()
error = ""
try:
    reader = session.sql(sql).to_arrow_reader(2048)
    for batch in reader:
        pass
except Exception as found:
    error = str(found).splitlines()[0]
is_over.set()
thread.join()
computed.append(time.process_time())
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
print(json.dumps({"computed": computed[1] - computed[0], "peak": peak, "error": error}))
"""


@pytest.mark.parametrize("sql", WORST, ids=[sql[:60] for sql in WORST])
def test_the_worst_statements_let_go_soon_after_an_interrupt(sql: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM, sql],
        capture_output=True,
        text=True,
        timeout=ENDED_SECONDS,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    found = json.loads(ended.stdout)
    assert found["computed"] <= COMPUTED_SECONDS_MAX, found
    assert found["peak"] <= PEAK_BYTES_MAX, found
    error = found["error"]
    is_limit = f"Could not convert string '{LIMIT_SIGN}" in error or "Out of Memory" in error
    assert error == "" or error.startswith("INTERRUPT") or is_limit, found
