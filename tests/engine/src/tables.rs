//! The tables that the driver can make, and the keys and values that it fills them with.
//!
//! Everything follows from numbers, so that two runs with one seed write the same. A key number gives
//! one key, for ever; the values of a row are drawn from `Random`.

use bytes::Bytes;
use merutable::schema::{ColumnDef, ColumnType, TableSchema};
use merutable::value::{FieldValue, Row};

/// Doubles that are keys of their own: both zeros, the ends, and a subnormal one.
const KEY_DOUBLES: [f64; 8] = [
    0.0,
    -0.0,
    f64::INFINITY,
    f64::NEG_INFINITY,
    5e-324,
    f64::MAX,
    f64::MIN,
    -1.5,
];
/// Texts with what the key encoding escapes: nothing, zero bytes, 0xff, a prefix of another.
const KEY_TEXTS: [&[u8]; 6] = [b"", b"\0", b"\0\xff", b"a", b"a\0b", "gr\u{fc}n".as_bytes()];

/// splitmix64: small, and the same on every machine.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    /// True with the given probability.
    pub fn is(&mut self, probability: f64) -> bool {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64 <= probability && probability > 0.0
    }
}

/// The schema called `kind`, with `added` of the columns that it can get later.
pub fn schema(kind: &str, table_name: &str, added: usize) -> Result<TableSchema, String> {
    use ColumnType::*;
    let (mut columns, primary_key) = match kind {
        "id" => (
            vec![
                column("id", Int64, false),
                column("v", Int64, true),
                column("note", ByteArray, true),
            ],
            vec![0],
        ),
        // The key isn't in column order: name, then id.
        "composite" => (
            vec![
                column("id", Int64, false),
                column("amount", Double, true),
                column("name", ByteArray, false),
            ],
            vec![2, 0],
        ),
        "types" => (
            vec![
                column("small", Int32, false),
                column("flag", Boolean, true),
                column("real", Double, false),
                column("i32", Int32, true),
                column("i64", Int64, true),
                column("f32", Float, true),
                column("f64", Double, true),
                column("blob", ByteArray, true),
                column("code", FixedLenByteArray(5), true),
                column("count", Int64, false),
                column("tag", FixedLenByteArray(3), false),
                column("is_left", Boolean, false),
            ],
            vec![11, 2, 0, 10],
        ),
        _ => return Err(format!("no table {kind:?}: there are id, composite and types")),
    };
    let late = late_columns();
    columns.extend(
        late.get(..added)
            .ok_or_else(|| format!("at most {} columns can be added", late.len()))?
            .to_vec(),
    );
    Ok(TableSchema {
        table_name: table_name.into(),
        columns,
        primary_key,
        ..Default::default()
    })
}

/// What `add_column` appends, in this order: no default, both defaults, and a NOT NULL one.
pub fn late_columns() -> Vec<ColumnDef> {
    let defaults = |def: ColumnDef, initial, write| ColumnDef {
        initial_default: Some(initial),
        write_default: Some(write),
        ..def
    };
    vec![
        column("late", ColumnType::Int64, true),
        defaults(
            column("rate", ColumnType::Double, true),
            FieldValue::Double(7.5),
            FieldValue::Double(8.5),
        ),
        defaults(
            column("state", ColumnType::ByteArray, false),
            FieldValue::Bytes(Bytes::from_static(b"old")),
            FieldValue::Bytes(Bytes::from_static(b"new")),
        ),
    ]
}

fn column(name: &str, col_type: ColumnType, nullable: bool) -> ColumnDef {
    ColumnDef {
        name: name.into(),
        col_type,
        nullable,
        ..Default::default()
    }
}

/// The key with this number: its values in the order of the primary key. Distinct numbers, distinct keys.
pub fn key(schema: &TableSchema, number: u64) -> Vec<FieldValue> {
    if schema.primary_key.len() == 1 {
        return vec![FieldValue::Int64(number as i64)];
    }
    let mut rest = number; // mixed radix: each part takes its share, the integer takes what is left
    schema
        .primary_key
        .iter()
        .map(|&index| match schema.columns[index].col_type {
            ColumnType::Boolean => FieldValue::Boolean(take(&mut rest, 2) == 1),
            ColumnType::Double => FieldValue::Double(KEY_DOUBLES[take(&mut rest, KEY_DOUBLES.len() as u64) as usize]),
            ColumnType::ByteArray => FieldValue::Bytes(Bytes::from_static(
                KEY_TEXTS[take(&mut rest, KEY_TEXTS.len() as u64) as usize],
            )),
            ColumnType::Int32 => FieldValue::Int32(500 - take(&mut rest, 1000) as i32),
            ColumnType::Int64 => FieldValue::Int64(1000 - rest as i64),
            ColumnType::FixedLenByteArray(length) => {
                FieldValue::Bytes(Bytes::copy_from_slice(&rest.to_be_bytes()[8 - length as usize..]))
            }
            ColumnType::Float => unreachable!("no key has a float"),
        })
        .collect()
}

fn take(rest: &mut u64, radix: u64) -> u64 {
    let digit = *rest % radix;
    *rest /= radix;
    digit
}

/// A row with this key. `value_bytes` bounds the length of its byte values.
pub fn row(schema: &TableSchema, key: &[FieldValue], random: &mut Random, value_bytes: u64) -> Row {
    let mut fields: Vec<Option<FieldValue>> = schema
        .columns
        .iter()
        .map(|column| (!(column.nullable && random.is(0.1))).then(|| value(&column.col_type, random, value_bytes)))
        .collect();
    for (&index, part) in schema.primary_key.iter().zip(key) {
        fields[index] = Some(part.clone());
    }
    Row::new(fields)
}

fn value(kind: &ColumnType, random: &mut Random, value_bytes: u64) -> FieldValue {
    let bits = random.next();
    match kind {
        ColumnType::Boolean => FieldValue::Boolean(bits & 1 == 1),
        ColumnType::Int32 => FieldValue::Int32((bits as i32) >> (bits >> 59)), // small and large ones
        ColumnType::Int64 => FieldValue::Int64((bits as i64) >> (random.next() >> 58)),
        ColumnType::Float => FieldValue::Float(f32::from_bits(bits as u32)), // any bits: NaNs with payloads too
        ColumnType::Double => FieldValue::Double(f64::from_bits(bits)),
        ColumnType::ByteArray => {
            let length = random.below(value_bytes + 1);
            FieldValue::Bytes((0..length).map(|_| random.next() as u8).collect::<Vec<u8>>().into())
        }
        ColumnType::FixedLenByteArray(length) => {
            FieldValue::Bytes((0..*length).map(|_| random.next() as u8).collect::<Vec<u8>>().into())
        }
    }
}
