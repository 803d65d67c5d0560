"""The command line's `verify`: whether two servers have the same tables, and the first keys that differ."""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from flight_replica.connecting import add_client_access, endpoint, is_access_given
from flight_replica.errors import ReplicaError
from flight_replica.progress import progress
from flight_replica.table_options import above_zero

if TYPE_CHECKING:
    import pyarrow as pa

    from flight_replica.log.feed_client import Endpoint
    from flight_replica.position import TablePosition
    from flight_replica.verify.compare import Comparison, Difference

EQUAL, DIFFERS, NOT_COMPARED = 0, 1, 2
VALUE_LETTERS_MAX = 60  # of one value that is shown

_OTHER = "other-"
_DESCRIPTION = """Compares the tables of two servers, such as a replica and its primary, at one common seq: by
digests of key ranges, then row by row where these differ. Both may go on; nothing is locked or changed."""
_EPILOG = "exit code: 0 all equal, 1 something differs, 2 something couldn't be compared, or wrong usage"


def add_verify_command(parser: argparse.ArgumentParser) -> None:
    """The options of `verify`."""
    parser.description, parser.epilog = _DESCRIPTION, _EPILOG
    parser.add_argument("a", metavar="A", help="grpc://HOST:PORT of a replica or primary")
    parser.add_argument("b", metavar="B", help="the other one")
    parser.add_argument(
        "--table",
        action="append",
        default=[],
        metavar="NAME",
        help="compare this table (repeatable; default: all that either serves)",
    )
    parser.add_argument(
        "--keys",
        type=above_zero,
        default=10,
        metavar="N",
        help="differing keys to show of a table, at most (default: %(default)s)",
    )
    parser.add_argument(
        "--wait",
        type=above_zero,
        default=30,
        metavar="S",
        help="seconds to wait for the one that is behind (default: %(default)s)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    add_client_access(parser)
    add_client_access(parser, _OTHER, "B, where it isn't as to A")
    parser.set_defaults(run=_verify)


def _verify(options: argparse.Namespace) -> int:
    try:
        a = endpoint(options.a, options)
        b = endpoint(options.b, options, _OTHER if is_access_given(options, _OTHER) else "")
        names = options.table or _all_tables(a, b)
    except ReplicaError as error:
        print(f"flight-replica: {error}", file=sys.stderr)
        return NOT_COMPARED
    results = [_table(a, b, name, options) for name in names]
    if options.json:
        document = {"a": a.uri, "b": b.uri, "is_equal": all(_code(result) == EQUAL for result in results)}
        print(json.dumps({**document, "tables": results}))
    codes = {_code(result) for result in results}
    return DIFFERS if DIFFERS in codes else max(codes, default=EQUAL)


def _code(result: dict[str, Any]) -> int:
    if "error" in result:
        return NOT_COMPARED
    return EQUAL if result["is_equal"] else DIFFERS


def _all_tables(a: Endpoint, b: Endpoint) -> Sequence[str]:
    """Every table that either serves: one that the other hasn't can't be compared, which is told."""
    from flight_replica.log.feed_client import FeedClient

    found: set[str] = set()
    for at in (a, b):
        with FeedClient(at) as client:
            found |= set(client.query("SELECT table_name FROM merutable_tables()").column(0).to_pylist())
    return sorted(found)


def _table(a: Endpoint, b: Endpoint, name: str, options: argparse.Namespace) -> dict[str, Any]:
    """What came of one table, as JSON says it; printed unless JSON is wanted."""
    from flight_replica.verify.compare import compare
    from flight_replica.verify.moment import common_moment

    try:
        with (
            progress(f"comparing {name}") as report,
            common_moment(a, b, name, options.wait) as moment,
        ):
            found = compare(moment, options.keys, report)
            key = moment.schema.primary_key
            result = _as_json(moment.at, found, key)
    except ReplicaError as error:
        if not options.json:
            print(f"{name}: not compared: {error}", flush=True)
        return {"table": name, "error": str(error)}
    if not options.json:
        for line in _lines(name, moment.at, found, key, (a.uri, b.uri)):
            print(line, flush=True)
    return result


# --- what is shown ------------------------------------------------------------------------------------


def _lines(
    name: str, at: TablePosition, found: Comparison, key: Sequence[str], uris: tuple[str, str]
) -> list[str]:
    if found.is_equal:
        counted = f"{found.a.row_count} rows, digest {found.a.digest:016x}"
        return [f"{name}: equal at seq {at.visible_seq}: {counted}"]
    counts = f"{found.a.row_count} rows at A ({uris[0]}), {found.b.row_count} at B ({uris[1]})"
    ranges = f"{found.differing_ranges} of {found.range_count} key ranges differ"
    head = f"{name}: DIFFERS at seq {at.visible_seq}: {counts}; {ranges}"
    return [head, *(_difference_line(each, key) for each in found.differences)]


def _difference_line(difference: Difference, key: Sequence[str]) -> str:
    names = ", ".join(f"{name}={_shown(difference.row, name)}" for name in key)
    if difference.a is None or difference.b is None:
        return f"  {names}: only at {'A' if difference.b is None else 'B'}"
    pairs = (
        f"{name}: A has {_shown(difference.a, name)}, B has {_shown(difference.b, name)}"
        for name in difference.columns
    )
    return f"  {names}: {'; '.join(pairs)}"


def _shown(row: pa.RecordBatch, name: str) -> str:
    """A column's value in short, on one line."""
    value = _value(row, name)
    return _cut("NULL" if value is None else repr(value) if isinstance(value, str) else str(value))


def _json_value(row: pa.RecordBatch, name: str) -> object:
    """The same for JSON, which has no NaN and no infinity; texts are cut too."""
    value = _value(row, name)
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return _cut(value) if isinstance(value, str) else value


def _value(row: pa.RecordBatch, name: str) -> object:
    from flight_replica.text_table import plain, values

    (value,) = values(row.column(name))
    return plain(value)


def _cut(text: str) -> str:
    return text if len(text) <= VALUE_LETTERS_MAX else text[: VALUE_LETTERS_MAX - 1] + "…"


def _as_json(at: TablePosition, found: Comparison, key: Sequence[str]) -> dict[str, Any]:
    return {
        "table": at.table,
        "lineage": str(at.lineage),
        "seq": at.visible_seq,
        "is_equal": found.is_equal,
        "a": {"row_count": found.a.row_count, "digest": f"{found.a.digest:016x}"},
        "b": {"row_count": found.b.row_count, "digest": f"{found.b.digest:016x}"},
        "ranges": found.range_count,
        "differing_ranges": found.differing_ranges,
        "differences": [_difference_json(each, key) for each in found.differences],
    }


def _difference_json(difference: Difference, key: Sequence[str]) -> dict[str, Any]:
    found: dict[str, Any] = {
        "key": {name: _json_value(difference.row, name) for name in key},
        "pk_bytes": difference.pk_bytes.hex(),
    }
    if difference.a is None or difference.b is None:
        return {**found, "only_at": "a" if difference.b is None else "b"}
    columns = {
        name: {"a": _json_value(difference.a, name), "b": _json_value(difference.b, name)}
        for name in difference.columns
    }
    return {**found, "columns": columns}
