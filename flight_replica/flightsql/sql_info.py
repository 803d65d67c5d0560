"""GetSqlInfo: what this server is and can do, in the union type that every client checks exactly."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import version

import numpy as np
import pyarrow as pa

from flight_replica.flightsql.limits import ServerLimits
from flight_replica.flightsql.service import Service

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

Info = Mapping[int, tuple[str, object]]  # code -> (child, value)

_NO_TRANSACTIONS = 0
_DISTRIBUTION = "flight-replica"


def sql_info(service: Service, limits: ServerLimits) -> Info:
    """Every code that is answered."""
    is_read_only = service.read_only_reason is not None
    return {
        0: ("string_value", f"{_DISTRIBUTION} {service.product}"),
        1: ("string_value", version(_DISTRIBUTION)),
        2: ("string_value", pa.__version__),
        3: ("bool_value", is_read_only),
        4: ("bool_value", True),  # SQL
        5: ("bool_value", False),  # Substrait
        8: ("int32_bitmask", _NO_TRANSACTIONS),
        9: ("bool_value", False),  # an action to cancel: dropping the stream does it
        10: ("bool_value", not is_read_only),  # bulk ingestion
        11: ("bool_value", False),  # ingestion in a transaction
        100: ("int32_bitmask", int(limits.prepared_idle_seconds * 1000)),
        502: ("bool_value", not is_read_only),  # CREATE and DROP TABLE
        504: ("string_value", '"'),
        506: ("bool_value", True),  # all tables can be selected
        513: ("string_value", "\\"),
    }


def reply(info: Info, codes: Sequence[int]) -> pa.Table:
    """The answers for `codes`, all of them where none is named; unknown codes are left out."""
    wanted = [code for code in (codes or sorted(info)) if code in info]
    values = [info[code] for code in wanted]
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
