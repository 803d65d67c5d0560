"""Arrow types and Iceberg types, both ways, and the Arrow schema of a mirror's data files.

Types that Iceberg v2 lacks are stored in the next larger one that holds every value: small and unsigned
integers in int, long or decimal(20,0), second and millisecond units in microseconds. What can't be held
exactly (nanoseconds, decimals beyond 38 digits) is refused. Casting back is `schema.conform`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import count

import numpy as np
import pyarrow as pa
from pyiceberg import types as ice
from pyiceberg.io.pyarrow import schema_to_pyarrow
from pyiceberg.schema import Schema

from flight_replica.errors import SchemaMismatch
from flight_replica.schema import Column, TableSchema

__all__ = ["column_type", "iceberg_schema", "storage_schema", "table_schema", "to_storage"]

_DECIMAL_DIGITS_MAX = 38  # Iceberg spec, "Primitive Types"

_PRIMITIVES: dict[pa.DataType, ice.PrimitiveType] = {
    pa.bool_(): ice.BooleanType(),
    pa.int8(): ice.IntegerType(),
    pa.int16(): ice.IntegerType(),
    pa.int32(): ice.IntegerType(),
    pa.int64(): ice.LongType(),
    pa.uint8(): ice.IntegerType(),
    pa.uint16(): ice.IntegerType(),
    pa.uint32(): ice.LongType(),
    pa.uint64(): ice.DecimalType(20, 0),
    pa.float32(): ice.FloatType(),
    pa.float64(): ice.DoubleType(),
    pa.string(): ice.StringType(),
    pa.binary(): ice.BinaryType(),
    pa.date32(): ice.DateType(),
    pa.time32("s"): ice.TimeType(),
    pa.time32("ms"): ice.TimeType(),
    pa.time64("us"): ice.TimeType(),
    pa.uuid(): ice.UUIDType(),
}

_NextId = Callable[[], int]


def iceberg_schema(schema: TableSchema) -> Schema:
    """The table's Iceberg schema, field ids from 1. The key is its identifier, unless a key column is a
    floating point number, which Iceberg doesn't allow.

    Raises `SchemaMismatch` for a type that Iceberg v2 can't hold exactly.
    """
    numbers = count(1)
    fields = [
        ice.NestedField(
            next(numbers),
            column.name,
            column_type(column, lambda: next(numbers)),
            required=not column.nullable,
        )
        for column in schema.columns
    ]
    return Schema(*fields, identifier_field_ids=_identifier_ids(schema, fields))


def _identifier_ids(schema: TableSchema, fields: Sequence[ice.NestedField]) -> list[int]:
    # Part of a key isn't unique, so one floating point column leaves the table without an identifier.
    key = [field for field in fields if field.name in schema.primary_key]
    allowed = not any(isinstance(field.field_type, ice.FloatType | ice.DoubleType) for field in key)
    return [field.field_id for field in key] if allowed else []


def column_type(column: Column, next_id: _NextId | None = None) -> ice.IcebergType:
    """The Iceberg type of `column`; ids of nested fields come from `next_id`. Raises `SchemaMismatch`."""
    numbers = count(1)
    try:
        return _iceberg_type(column.type, next_id or (lambda: next(numbers)))
    except SchemaMismatch as error:
        raise SchemaMismatch(f"column {column.name!r}: {error}") from error


def _iceberg_type(data_type: pa.DataType, next_id: _NextId) -> ice.IcebergType:
    primitive = _PRIMITIVES.get(data_type) or _parametric_type(data_type)
    return primitive or _nested_type(data_type, next_id)


def _parametric_type(data_type: pa.DataType) -> ice.PrimitiveType | None:
    if pa.types.is_timestamp(data_type):
        if data_type.unit == "ns":
            raise SchemaMismatch(
                f"type {data_type}: Iceberg format version 2 has no nanoseconds; use microseconds"
            )
        return ice.TimestampType() if data_type.tz is None else ice.TimestamptzType()
    if pa.types.is_fixed_size_binary(data_type):
        return ice.FixedType(data_type.byte_width)
    if pa.types.is_decimal(data_type):
        if data_type.precision > _DECIMAL_DIGITS_MAX or not 0 <= data_type.scale <= data_type.precision:
            raise SchemaMismatch(
                f"type {data_type}: Iceberg decimals have up to {_DECIMAL_DIGITS_MAX} digits, scale 0 to all"
            )
        return ice.DecimalType(data_type.precision, data_type.scale)
    return None


def _nested_type(data_type: pa.DataType, next_id: _NextId) -> ice.IcebergType:
    if pa.types.is_list(data_type) or pa.types.is_large_list(data_type):
        element = data_type.value_field
        element_id = next_id()
        return ice.ListType(
            element_id, _iceberg_type(element.type, next_id), element_required=not element.nullable
        )
    if pa.types.is_map(data_type):
        key_id, value_id = next_id(), next_id()
        return ice.MapType(
            key_id=key_id,
            key_type=_iceberg_type(data_type.key_type, next_id),
            value_id=value_id,
            value_type=_iceberg_type(data_type.item_type, next_id),
            value_required=False,
        )
    if pa.types.is_struct(data_type):
        children = [data_type.field(position) for position in range(data_type.num_fields)]
        return ice.StructType(
            *(
                ice.NestedField(next_id(), child.name, _iceberg_type(child.type, next_id), required=False)
                for child in children
            )
        )
    raise SchemaMismatch(f"type {data_type} has no Iceberg type that holds every value exactly")


def storage_schema(schema: Schema) -> pa.Schema:
    """The Arrow schema of data files: Iceberg's types with 32-bit offsets, field ids in the metadata."""
    return pa.schema([_map_types(field, _plain_field) for field in schema_to_pyarrow(schema)])


def _map_types(field: pa.Field, change: Callable[[pa.Field], pa.Field]) -> pa.Field:
    """`field` with `change` made to it and to every field nested in it."""
    field_type = field.type
    if pa.types.is_large_list(field_type):
        field_type = pa.list_(_map_types(field_type.value_field, change))
    elif pa.types.is_map(field_type):
        value = _map_types(field_type.item_field, change)
        field_type = pa.map_(_map_types(field_type.key_field, _plain_field), value)
    elif pa.types.is_struct(field_type):
        field_type = pa.struct([_map_types(child, change) for child in field_type])
    return change(field.with_type(field_type))


def _plain_field(field: pa.Field) -> pa.Field:
    if pa.types.is_large_string(field.type):
        return field.with_type(pa.string())
    return field.with_type(pa.binary()) if pa.types.is_large_binary(field.type) else field


def _nullable_field(field: pa.Field) -> pa.Field:
    return _plain_field(field).with_nullable(True)


def table_schema(schema: Schema, primary_key: Sequence[str]) -> TableSchema:
    """The table as Iceberg itself describes it, for tables that carry no `merutable.schema`.

    Raises `SchemaMismatch` for a key column that doesn't exist, and for types that the replica lacks.
    """
    fields = schema_to_pyarrow(schema, include_field_ids=False)
    columns = tuple(
        Column(
            field.name,
            _map_types(field, _nullable_field).type,  # a table's nested fields are nullable
            field.nullable and field.name not in primary_key,
            _initial_default(own, _plain_field(field).type),
        )
        for own, field in zip(schema.fields, fields, strict=True)
    )
    return TableSchema(columns, tuple(primary_key))


def _initial_default(field: ice.NestedField, kind: pa.DataType) -> object:
    """What rows from before the field hold (format version 3), None: null."""
    value = field.initial_default
    if value is None or pa.types.is_nested(kind):
        return None
    return float(np.float32(value)) if pa.types.is_float32(kind) else value


def to_storage(rows: pa.Table, schema: pa.Schema) -> pa.Table:
    """`rows` (the table's types, any column order) cast to the data files' types, in `schema`'s order.

    Raises `SchemaMismatch` where a value doesn't fit, such as a second past the year 294 247.
    """
    try:
        return rows.select(schema.names).cast(schema)
    except (pa.ArrowInvalid, KeyError) as error:
        raise SchemaMismatch(f"values can't be stored in Iceberg exactly: {error}") from error
