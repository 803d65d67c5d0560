//! What the driver prints: one JSON object a line, values without loss.
//!
//! Integers are numbers, booleans booleans, floats the hex of their IEEE bits, bytes hex, NULL null.

use std::io::Write;
use std::time::{SystemTime, UNIX_EPOCH};

use merutable::value::{FieldValue, Row};
use serde_json::{json, Value};

pub fn say(line: &Value) {
    let mut out = std::io::stdout().lock();
    // Who can't be told has no reader left: there is nothing more to do here.
    if writeln!(out, "{line}").and_then(|()| out.flush()).is_err() {
        std::process::exit(1);
    }
}

pub fn now_us() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("the clock is past 1970")
        .as_micros() as u64
}

pub fn row(row: &Row) -> Value {
    row.fields
        .iter()
        .map(|field| field.as_ref().map_or(Value::Null, value))
        .collect()
}

fn value(value: &FieldValue) -> Value {
    match value {
        FieldValue::Boolean(inner) => json!(inner),
        FieldValue::Int32(inner) => json!(inner),
        FieldValue::Int64(inner) => json!(inner),
        FieldValue::Float(inner) => json!(format!("{:08x}", inner.to_bits())),
        FieldValue::Double(inner) => json!(format!("{:016x}", inner.to_bits())),
        FieldValue::Bytes(inner) => json!(hex::encode(inner)),
    }
}
