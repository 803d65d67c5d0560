"""Statements that are answered by what is known without a view: a row by its key, a table's count.

Nothing is new about such an answer but what it costs: its position meets what the call demands, and its
columns are those that the same statement has by a view. So the first one of a text is answered by a view.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence

import pyarrow as pa

from flight_replica.flightsql.plans import KnownPlan
from flight_replica.flightsql.service import Known, Service
from flight_replica.schema import TableSchema
from flight_replica.sql.key_filter import Keys, key_in
from flight_replica.sql.known_texts import KnownText
from flight_replica.sql.plain_row import PlainRow, RowShape
from flight_replica.sql.sandbox import Checked

__all__ = ["known_plan"]


def known_plan(
    service: Service,
    checked: Checked,
    text: KnownText,
    schema_key: Hashable,
    keys: Keys,
    look: Callable[[str, Sequence[object] | None], Known | None],
    bytes_max: int,
) -> KnownPlan | None:
    """A plan of the statement at the newest moment; None where it takes a view.

    `schema_key`: under which the columns of `text` are kept; `keys`: what the statement demands; `look`: as
    `Service.known`, at a moment that is new enough; `bytes_max`: of the result.
    """
    if checked.row is None and checked.count is None:
        return None
    (table,) = checked.tables
    made_of = service.made_of([table])
    shape = None if made_of is None else _shape(checked, text, made_of, schema_key)
    if shape is None:
        return None
    key = None
    if checked.row is not None:
        key = _key(checked, keys.get(table, {}), shape.table)
        if key is None:
            return None
    known = look(table, key)
    if known is None or known.schema is not shape.table:
        return None
    content = known.content
    if isinstance(content, int):
        columns: list[object] = [[content] for _ in shape.columns]
    else:
        found = content.columns
        columns = [found[place] for place in shape.places]
    plan = KnownPlan([known.position], columns, shape.columns)
    return plan if plan.bytes_so_far <= bytes_max else None


def _shape(
    checked: Checked, text: KnownText, made_of: Sequence[object], schema_key: Hashable
) -> RowShape | None:
    """What the result is made of; None where it takes a view, or a view has to tell the columns first."""
    shape = text.shapes.known(made_of, schema_key)
    if shape is not None:
        return shape
    table = next((part for part in made_of if isinstance(part, TableSchema)), None)
    columns = text.schemas.known(made_of, schema_key)
    if table is None or columns is None:
        return None
    places = () if checked.row is None else _places(checked.row, table, columns)
    if places is None:
        return None
    shape = RowShape(table, columns, places)
    text.shapes.keep(made_of, schema_key, shape)
    return shape


def _key(checked: Checked, values: Mapping[str, object], shape: TableSchema) -> tuple[object, ...] | None:
    """The key whose row is asked for; None where the terms say more than a key, or less."""
    key = key_in(values, shape)
    is_whole = key is not None and checked.key is not None and len(checked.key.terms) == len(key)
    return key if is_whole else None


def _places(row: PlainRow, shape: TableSchema, schema: pa.Schema) -> tuple[int, ...] | None:
    """Where the result's columns stand in the table; None where a view changes their types."""
    places = row.places(shape.names)
    if places is None or len(places) != len(schema):
        return None
    has_types = all(
        shape.columns[place].type == field.type for place, field in zip(places, schema, strict=True)
    )
    return places if has_types else None
