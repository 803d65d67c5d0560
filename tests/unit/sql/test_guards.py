"""What a statement builds is looked at while it runs; nothing else about the statement changes."""

from __future__ import annotations

from collections.abc import Iterator

import duckdb
import pytest

from flight_replica.errors import LimitExceeded, NotAllowed
from flight_replica.sql.database import open_database
from flight_replica.sql.sandbox import check_select
from flight_replica.sql.view import duckdb_errors


def safe(sql: str) -> str:
    return check_select(sql, lambda name: name if name == "t" else None).sql


@pytest.fixture(scope="module")
def session() -> Iterator[duckdb.DuckDBPyConnection]:
    """A hardened session with a table of 20 000 rows."""
    root = open_database()
    root.execute("CREATE TABLE t AS SELECT i AS a, i % 100 AS b, 'name ' || i AS s FROM range(20000) r(i)")
    yield root.cursor()
    root.close()


def rows(session: duckdb.DuckDBPyConnection, sql: str) -> tuple[list[str], list[str]]:
    """The columns, and the rows as sorted texts."""
    with duckdb_errors():
        relation = session.sql(sql)
        return relation.columns, sorted(map(str, relation.fetchall()))


PLAIN = [
    "SELECT b, list(a), string_agg(s, ',') AS names FROM t GROUP BY b",
    "SELECT list(a) AS l FROM t GROUP BY b UNION ALL SELECT list(b) FROM t",
    "SELECT len(list(a)), list_sum(array_agg(b)), list(s ORDER BY a)[1], unnest(list(a)) FROM t GROUP BY b",
    "PIVOT t ON b IN (1, 2) USING list(a) GROUP BY s",
    "SELECT s FROM t WHERE s LIKE '%' || b AND s NOT LIKE 'a%' AND contains(s, b::VARCHAR)",
    "SELECT regexp_extract(s, '([0-9]+)', 1), regexp_matches(s, '^[a-z]+ \\d{1,3}$') FROM t",
    "SELECT list_distinct([a, b]), list_filter([a, b], lambda x: x > a), map([a], [b]) FROM t",
    "WITH RECURSIVE r(n, m) AS (SELECT 1, 2 UNION ALL SELECT n + 1, n * m FROM r WHERE n < 5) FROM r",
    "SELECT a + b AS c, c || s AS d, d || s AS e FROM t",
    "SELECT lpad(s, 20, '0'), repeat(s, 3), replace(s, 'n', 'm') FROM t",
]


@pytest.mark.parametrize("sql", PLAIN, ids=[sql[:50] for sql in PLAIN])
def test_a_statement_that_builds_nothing_for_its_own_use_keeps_its_text(sql: str) -> None:
    assert safe(sql) == sql


GUARDED = [
    "SELECT b, list_sort(list(a)) FROM t GROUP BY b",
    "SELECT b, list_sort(list(a ORDER BY s DESC) FILTER (a > 7)) FROM t GROUP BY b ORDER BY b",
    "SELECT b, upper(string_agg(DISTINCT s, '-' ORDER BY s)) FROM t GROUP BY ALL",
    'SELECT list_distinct(l), l[1], "len(list(a))" FROM (SELECT list(b) l, len(list(a)) FROM t GROUP BY b)',
    "SELECT \"upper(string_agg(s, ','))\" FROM (SELECT upper(string_agg(s, ',')) FROM t WHERE a < 50)",
    "WITH g AS (SELECT b, list(a) AS l FROM t GROUP BY b) SELECT b FROM g WHERE list_contains(l, 77)",
    "SELECT list(a) AS l, l[2] FROM t GROUP BY b HAVING len(l) > 3 ORDER BY len(l)",
    "SELECT b, list_sort(list(a)) FROM t GROUP BY b ORDER BY list_sort(list(a))",
    "SELECT a, list_sort(list(a) OVER (PARTITION BY b)) FROM t WHERE a < 500",
    "SELECT a, upper(string_agg(s, ',') OVER (PARTITION BY b ORDER BY a)) FROM t WHERE a < 500",
    "SELECT b, map_keys(histogram(a % 3)), json_group_array(a) ->> '$[0]' FROM t GROUP BY b",
    "SELECT ARRAY(SELECT a FROM t x WHERE x.a < 400 AND x.b = t.b ORDER BY a) FROM t WHERE a < 9",
    "SELECT (SELECT list_sort(list(a)) FROM t WHERE a < 9) FROM t WHERE a < 9",
    "SELECT list_transform(list(a), lambda x: x + 1), [x * 2 FOR x IN list(b)] FROM t GROUP BY b",
    "WITH RECURSIVE r(n, p) AS (SELECT 1, 'a' UNION ALL SELECT n + 1, p || n FROM r WHERE n < 50) FROM r",
    "SELECT s FROM t WHERE regexp_matches(s, '^name ' || b || '$')",
    "SELECT levenshtein(s, 'name 17') AS d, jaro_similarity('name', s) FROM t WHERE d < 2",
    "SELECT repeat(s, 200) FROM t WHERE a < 9",
    "SELECT count(DISTINCT l), max(l) FROM (SELECT list(a) AS l FROM t GROUP BY b)",
    "SELECT b, list(x) FROM (SELECT b, string_agg(s, ' ') AS x FROM t GROUP BY b) GROUP BY b",
    "SELECT try_cast(string_agg(b, '') AS HUGEINT), NULL LIKE string_agg(s, '') FROM t WHERE a < 9",
    "EXPLAIN SELECT list_sort(list(a)) FROM t",
]


@pytest.mark.parametrize("sql", GUARDED, ids=[sql[:50] for sql in GUARDED])
def test_a_guarded_statement_answers_the_same_by_the_same_names(
    sql: str, session: duckdb.DuckDBPyConnection
) -> None:
    guarded = safe(sql)
    assert guarded != sql
    if not sql.startswith("EXPLAIN"):
        assert rows(session, guarded) == rows(session, sql)


TOO_MUCH = [
    ("SELECT list_sort(list(a)) FROM t", "'list' builds"),
    ("SELECT list_contains(l, -1) FROM (SELECT array_agg(a) AS l FROM t)", "'array_agg' builds"),
    ("SELECT list(a) AS l, list_contains(l, -1) FROM t", "'list' builds"),
    ("SELECT list(a) AS l FROM t ORDER BY list_contains(l, 1)", "'list' builds"),
    ("SELECT upper(string_agg(s, ',')) FROM t", "'string_agg' builds"),
    ("SELECT upper(string_agg(s, ',') OVER (PARTITION BY b % 2)) FROM t", "'string_agg' builds"),
    ("SELECT list_contains(max(a, 10000), -1) FROM t", "'max' builds"),
    ("SELECT map_keys(map_from_entries(list((a, s)))) FROM t WHERE a < 1000", "'map_from_entries' is given"),
    ("SELECT list_has_any(list(a), list(-a)) FROM t WHERE a < 2000", "'list_has_any' is given"),
    ("SELECT list_transform(l, lambda x: l) FROM (SELECT list(a) AS l FROM t WHERE a < 2000)", "is given"),
    ("SELECT s LIKE p FROM t, (SELECT string_agg(s, '%') AS p FROM t WHERE a < 900)", "'~~' is given"),
    ("SELECT regexp_matches(s, p) FROM t, (VALUES ('(a?){99}')) v(p)", "{…}"),
    ("SELECT regexp_matches(s, p) FROM t, (VALUES ('a?' || repeat('b?', 99) || 'c?')) v(p)", "is given"),
    ("SELECT levenshtein(repeat(s || s || s, 999), 'abcdefghijklmnopqrstuvwxyz') FROM t", "is given"),
    (
        f"SELECT max(len(l || {'l || ' * 20} s)) FROM t, (SELECT string_agg(s, '') l FROM t WHERE a < 999)",
        "'||'",
    ),
    (
        "SELECT max(len(hex(hex(hex(hex(l)))))) FROM (SELECT string_agg(s, '') AS l FROM t WHERE a < 2000)",
        "'hex'",
    ),
    ("SELECT max(len(repeat(s || s || s || s || s, 10000))) FROM t", "'repeat' is given"),
]

DOUBLING = [
    "SELECT s || s FROM r",
    "SELECT v.x FROM r, LATERAL (VALUES (s || s)) v(x)",
    "SELECT u FROM (SELECT unnest([s || s]) AS u FROM r)",
    "SELECT u FROM r, LATERAL unnest([s || s]) x(u)",
    "SELECT CASE WHEN true THEN concat(s, s) END FROM r",
    "SELECT x.y FROM (SELECT array_to_string([s, s], '') AS y FROM r) x",
    "SELECT (SELECT s || s) FROM r",
    "(SELECT s || s FROM r UNION ALL SELECT s FROM r WHERE false)",
]
TOO_MUCH += [
    (f"WITH RECURSIVE r(s) AS (SELECT 'ab' UNION ALL {part}) SELECT max(len(s)) FROM r", "from step to step")
    for part in DOUBLING
]
_NESTED = "SELECT 'abc' AS s FROM t WHERE a < 3"
for _ in range(30):
    _NESTED = f"SELECT s || s AS s FROM ({_NESTED})"
TOO_MUCH.append((f"SELECT max(len(s)) FROM ({_NESTED})", "is given"))


@pytest.mark.parametrize(("sql", "told"), TOO_MUCH, ids=[sql[:60] for sql, _ in TOO_MUCH])
def test_a_value_that_is_too_large_to_work_on_ends_the_statement(
    sql: str, told: str, session: duckdb.DuckDBPyConnection
) -> None:
    guarded = safe(sql)
    with pytest.raises(LimitExceeded) as found:
        rows(session, guarded)
    assert told in str(found.value) and "limit" in str(found.value)
    assert "\n" not in str(found.value) and "$v" not in str(found.value)


REFUSED = [
    ("SELECT regexp_matches(s, '(.?a?b?){300}c') FROM t", LimitExceeded, "parts with its repetitions"),
    (f"SELECT regexp_matches(s, '{'a' * 1001}') FROM t", LimitExceeded, "1001 characters"),
    (f"SELECT '{'x' * 100_001}'", LimitExceeded, "literal of 100001"),
    ("SELECT len(x) FROM (PIVOT t ON b IN (1 AS x) USING list(a) GROUP BY s)", NotAllowed, "PIVOT"),
    (
        "WITH RECURSIVE r(s) AS (SELECT 'a' UNION ALL SELECT * REPLACE (s || s AS s) FROM r) FROM r",
        NotAllowed,
        "*",
    ),
    (f"SELECT list_sort(list(a)), {'+'.join(['1'] * 200)} FROM t", LimitExceeded, "nested too deeply"),
    ("SELECT list_sort(list(COLUMNS(*))) FROM t", NotAllowed, "name the columns"),
    (
        "SELECT a + a AS c0, " + ", ".join(f"c{i} + c{i} AS c{i + 1}" for i in range(12)) + " FROM t",
        LimitExceeded,
        "aliases used in aliases",
    ),
]


@pytest.mark.parametrize(("sql", "error", "told"), REFUSED, ids=[sql[:50] for sql, _, _ in REFUSED])
def test_what_no_guard_can_bound_is_refused(sql: str, error: type[Exception], told: str) -> None:
    with pytest.raises(error) as found:
        safe(sql)
    assert told in str(found.value)


def test_a_value_stands_in_its_guard_once_so_that_nesting_does_not_multiply() -> None:
    nested = "s"
    for _ in range(20):
        nested = f"regexp_replace(s, {nested}, 'x')"
    assert len(safe(f"SELECT {nested} FROM t")) < 20_000


def test_a_function_in_a_lambda_and_one_in_a_guarded_list_see_the_same_values(
    session: duckdb.DuckDBPyConnection,
) -> None:
    matches = "list_transform(list(a), lambda v: regexp_matches(v::VARCHAR, '^' || v || '$'))"
    found = rows(session, safe(f"SELECT {matches} AS l FROM t WHERE a < 9"))
    assert found == (["l"], [str(([True] * 9,))])


def test_parameters_keep_their_places_in_a_guarded_statement(session: duckdb.DuckDBPyConnection) -> None:
    guarded = safe("SELECT ? AS x, list_sort(list(a)), regexp_matches('abc', ?) AS y FROM t WHERE a < ?")
    found = session.execute(guarded, ["one", "^a", 2]).fetchall()
    assert found == [("one", [0, 1], True)]


def test_calls_of_the_servers_own_are_found_in_a_guarded_statement() -> None:
    sql = "SELECT list_sort(list(seq)) FROM merutable_changes('t') WHERE seq > 5"
    checked = check_select(sql, lambda name: name)
    (call,) = checked.functions
    assert call.seq_after == 5
    text = checked.sql.encode()[call.start : call.start + call.length].decode()
    assert text == "merutable_changes('t')"
