"""GetSqlInfo: what this server is and can do, in the union type that every client checks exactly."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from importlib.metadata import version

import numpy as np
import pyarrow as pa

from flight_replica.flightsql.limits import ServerLimits
from flight_replica.flightsql.service import Service
from flight_replica.sql import dialect
from flight_replica.sql.dialect import CONVERTED
from flight_replica.sql.statement import STATEMENT_CHARACTERS_MAX

# The children of the value union, in the order of their type ids.
_CHILDREN: Mapping[str, pa.DataType] = {
    "string_value": pa.string(),
    "bool_value": pa.bool_(),
    "bigint_value": pa.int64(),
    "int32_bitmask": pa.int32(),
    "string_list": pa.list_(pa.string()),
    "int32_to_int32_list_map": pa.map_(pa.int32(), pa.list_(pa.int32())),
}
_CHILD_IDS = {name: number for number, name in enumerate(_CHILDREN)}
_UNION = pa.dense_union([pa.field(name, kind, False) for name, kind in _CHILDREN.items()])

SCHEMA = pa.schema([pa.field("info_name", pa.uint32(), False), pa.field("value", _UNION, False)])

# What DuckDB has to be asked for comes by a function: it takes a third of a second.
Info = dict[int, tuple[str, object | Callable[[], object]]]

_DISTRIBUTION = "flight-replica"
_BEGIN, _SAVEPOINT, _CANCEL = "BeginTransaction", "BeginSavepoint", ("CancelFlightInfo", "CancelQuery")

# Where the protocol's text and its implementations disagree on a union child, this is what clients read.
_CASE_INSENSITIVE = 1
_NULLS_AT_END = 3
_OUTER_JOINS = 0b110  # limited and full
_READ_COMMITTED, _REPEATABLE_READ = 2, 3
_FORWARD_ONLY = 1 << 1
_READ_ONLY_ROWS = 1 << 1
_NO_LIMIT = 0  # or one that depends on memory alone

# Numbers of SqlSupportsConvert; the names are in their order.
_CONVERTED = {name: number for number, name in enumerate(CONVERTED)}


def sql_info(service: Service, limits: ServerLimits, actions: Collection[str]) -> Info:
    """Every code that is answered. `actions`: those that are served."""
    is_read_only = service.read_only_reason is not None
    return (
        _server(service, limits, actions, is_read_only=is_read_only)
        | _statements(is_read_only=is_read_only)
        | _syntax()
        | _maxima(limits)
        | _transactions(actions)
    )


def _server(service: Service, limits: ServerLimits, actions: Collection[str], *, is_read_only: bool) -> Info:
    has_savepoints = _SAVEPOINT in actions
    return {
        0: ("string_value", f"{_DISTRIBUTION} {service.product}"),
        1: ("string_value", version(_DISTRIBUTION)),
        2: ("string_value", pa.__version__),
        3: ("bool_value", is_read_only),
        4: ("bool_value", True),  # SQL
        5: ("bool_value", False),  # Substrait, and its versions
        6: ("string_value", ""),
        7: ("string_value", ""),
        8: ("int32_bitmask", 2 if has_savepoints else int(_BEGIN in actions)),
        9: ("bool_value", any(name in actions for name in _CANCEL)),
        10: ("bool_value", not is_read_only),  # bulk ingestion
        11: ("bool_value", False),  # ingestion in a transaction: it commits by itself
        100: ("int32_bitmask", int(limits.prepared_idle_seconds * 1000)),
        101: ("int32_bitmask", int(limits.transaction_idle_seconds * 1000)),  # and it holds something
    }


def _statements(*, is_read_only: bool) -> Info:
    """What there is to change and to convert, and the words for it."""
    return {
        500: ("bool_value", False),  # CREATE and DROP of catalogs
        501: ("bool_value", False),  # of schemas
        502: ("bool_value", not is_read_only),  # of tables
        503: ("bigint_value", _CASE_INSENSITIVE),
        504: ("string_value", '"'),
        505: ("bigint_value", _CASE_INSENSITIVE),  # of quoted names too
        506: ("bool_value", True),  # all tables can be selected
        507: ("bigint_value", _NULLS_AT_END),
        508: ("string_list", dialect.keywords),
        509: ("string_list", partial(dialect.functions, "numeric")),
        510: ("string_list", partial(dialect.functions, "string")),
        511: ("string_list", partial(dialect.functions, "system")),
        512: ("string_list", partial(dialect.functions, "datetime")),
        513: ("string_value", "\\"),
        514: ("string_value", "$"),
        517: ("int32_to_int32_list_map", _conversions),
        529: ("string_value", "schema"),
        530: ("string_value", ""),  # no procedures
        531: ("string_value", "catalog"),
        532: ("bool_value", True),  # a catalog stands in front
        572: ("bool_value", not is_read_only),  # batch updates
    }


def _conversions() -> list[tuple[int, list[int]]]:
    return [
        (_CONVERTED[source], [_CONVERTED[target] for target in targets])
        for source, targets in dialect.conversions().items()
    ]


def _syntax() -> Info:
    return {
        515: ("bool_value", True),  # column aliases
        516: ("bool_value", True),  # NULL || x is NULL
        518: ("bool_value", True),  # table aliases
        519: ("bool_value", False),  # that must differ from the table's name
        520: ("bool_value", True),  # expressions in ORDER BY
        521: ("bool_value", True),  # ORDER BY what isn't selected
        522: ("int32_bitmask", 0b11),  # GROUP BY what isn't selected, and besides
        523: ("bool_value", True),  # LIKE … ESCAPE
        524: ("bool_value", True),  # NOT NULL
        525: ("int32_bitmask", 0b111),  # minimum, core and extended grammar
        526: ("int32_bitmask", 0b1),  # ANSI 92, entry level
        527: ("bool_value", False),  # no foreign keys or checks
        528: ("int32_bitmask", _OUTER_JOINS),
        533: ("int32_bitmask", 0),  # no procedures, indexes or privileges to name a schema in
        534: ("int32_bitmask", 0),  # nor a catalog
        535: ("int32_bitmask", 0),  # positioned updates
        536: ("bool_value", False),  # SELECT FOR UPDATE
        537: ("bool_value", False),  # stored procedures
        538: ("int32_bitmask", 0b1111),  # sub-selects in comparisons, EXISTS, IN and with ANY, ALL
        539: ("bool_value", True),  # correlated ones
        540: ("int32_bitmask", 0b11),  # UNION and UNION ALL
        567: ("int32_bitmask", _FORWARD_ONLY),
        568: ("int32_bitmask", 0),
        569: ("int32_bitmask", _READ_ONLY_ROWS),  # of forward-only results
        570: ("int32_bitmask", 0),
        571: ("int32_bitmask", 0),
        574: ("bool_value", False),  # there is nothing to call: no names of its parameters
        575: ("bool_value", False),  # LOB locators
        576: ("bool_value", False),  # calls of stored functions
    }


def _maxima(limits: ServerLimits) -> Info:
    """Lengths and counts, 541 to 561."""
    known = {557: STATEMENT_CHARACTERS_MAX, 558: limits.prepared_max}
    maxima: dict[int, tuple[str, object]] = {
        code: ("bigint_value", known.get(code, _NO_LIMIT)) for code in range(541, 562)
    }
    return maxima | {556: ("bool_value", False)}  # whether 555, the size of a row, counts blobs


def _transactions(actions: Collection[str]) -> Info:
    """DDL isn't part of the transaction it is sent in: it neither commits it (565) nor is ignored (566)."""
    are_served = _BEGIN in actions
    levels = 1 << _READ_COMMITTED | 1 << _REPEATABLE_READ  # the latter is `isolation=snapshot`
    return {
        562: ("bigint_value", _READ_COMMITTED),
        563: ("bool_value", are_served),
        564: ("int32_bitmask", levels if are_served else 1 << _READ_COMMITTED),
        565: ("bool_value", False),
        566: ("bool_value", False),
        573: ("bool_value", _SAVEPOINT in actions),
    }


def reply(info: Info, codes: Sequence[int]) -> pa.Table:
    """The answers for `codes`, all of them where none is named; unknown codes are left out."""
    wanted = [code for code in (codes or sorted(info)) if code in info]
    found = (info[code] for code in wanted)
    values = [(child, value() if callable(value) else value) for child, value in found]
    columns = [pa.array(wanted, pa.uint32()), _union(values)]
    return pa.Table.from_batches([pa.RecordBatch.from_arrays(columns, schema=SCHEMA)])


def _union(values: Sequence[tuple[str, object]]) -> pa.Array:
    by_child: dict[str, list[object]] = {name: [] for name in _CHILDREN}
    offsets = []
    for child, value in values:
        offsets.append(len(by_child[child]))
        by_child[child].append(value)
    ids = np.array([_CHILD_IDS[child] for child, _ in values], np.int8)
    buffers = [None, pa.py_buffer(ids), pa.py_buffer(np.array(offsets, np.int32))]
    children = [pa.array(by_child[name], kind) for name, kind in _CHILDREN.items()]
    return pa.Array.from_buffers(_UNION, len(values), buffers, children=children)
