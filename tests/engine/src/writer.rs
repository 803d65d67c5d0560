//! Writes at a set rate and says what the engine has acknowledged.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::time::{Duration, Instant};

use merutable::engine::write_path::{apply_batch, MutationBatch};
use merutable::types::key::InternalKey;
use merutable::value::{FieldValue, Row};
use merutable::MeruDB;
use serde_json::{json, Value};

use crate::report;
use crate::tables::{key, row, Random};

/// What is to be written. Each field has a key of the same name in the `write` command.
pub struct Plan {
    pub ops: u64,
    pub rate: f64,      // ops per second, 0 as fast as it goes
    pub first_key: u64, // key numbers are drawn from [first_key, first_key + keys)
    pub keys: u64,
    pub is_in_order: bool, // one key after the other instead of drawn ones
    pub batch_max: u64,    // ops of one batch, drawn from 1 to this
    pub deletes: f64,      // share of the ops
    pub value_bytes: u64,
    pub flush_every: u64, // ops between flushes that run beside the writes, 0 none
    pub seed: u64,
    pub is_quiet: bool, // don't print each op
}

struct Op {
    key: Vec<FieldValue>,
    row: Option<Row>, // none: a delete
}

/// Run `plan`, and print each commit twice: its ops before, and its first seq when it is acknowledged.
///
/// `gate` is held for each commit: whoever holds it sees the table standing still. Ends early when
/// `is_stopped`. Returns how many ops were written.
pub async fn write(
    db: Arc<MeruDB>,
    plan: Plan,
    gate: Arc<tokio::sync::Mutex<()>>,
    is_stopped: Arc<AtomicBool>,
) -> Result<u64, String> {
    let mut random = Random(plan.seed);
    let begun = Instant::now();
    let mut done = 0;
    let mut flushed = 0;
    while done < plan.ops && !is_stopped.load(Ordering::Relaxed) {
        if plan.rate > 0.0 {
            let due = begun + Duration::from_secs_f64(done as f64 / plan.rate);
            tokio::time::sleep_until(due.into()).await;
        }
        let size = (1 + random.below(plan.batch_max)).min(plan.ops - done);
        let ops: Vec<Op> = (done..done + size)
            .map(|number| draw(&db, &plan, number, &mut random))
            .collect();
        let shown = (!plan.is_quiet).then(|| shown(&db, &ops)).transpose()?;
        {
            let _standing = gate.lock().await;
            if let Some(ops) = shown {
                report::say(&json!({ "writing": ops }));
            }
            let first_seq = commit(&db, ops).await?;
            if !plan.is_quiet {
                report::say(&json!({"acknowledged": first_seq, "at_us": report::now_us()}));
            }
        }
        done += size;
        if plan.flush_every > 0 && done - flushed >= plan.flush_every {
            flushed = done;
            let db = db.clone();
            tokio::spawn(async move {
                if let Err(error) = db.flush().await {
                    report::say(&json!({"failed": "flush beside the writes", "error": error.to_string()}));
                }
            });
        }
    }
    Ok(done)
}

fn draw(db: &MeruDB, plan: &Plan, number: u64, random: &mut Random) -> Op {
    let offset = if plan.is_in_order {
        number % plan.keys
    } else {
        random.below(plan.keys)
    };
    let key = key(db.schema(), plan.first_key + offset);
    let row = (!random.is(plan.deletes)).then(|| row(db.schema(), &key, random, plan.value_bytes));
    Op { key, row }
}

/// Single ops go the way of single ops, several are one batch. The first seq.
async fn commit(db: &MeruDB, mut ops: Vec<Op>) -> Result<u64, String> {
    let seq = if ops.len() == 1 {
        let op = ops.remove(0);
        match op.row {
            Some(row) => db.put(row).await,
            None => db.delete(op.key).await,
        }
    } else {
        let mut batch = MutationBatch::new();
        for op in ops {
            match op.row {
                Some(row) => batch.put(op.key, row),
                None => batch.delete(op.key),
            }
        }
        apply_batch(&db.engine_for_replica(), batch).await
    };
    seq.map(|seq| seq.0).map_err(|error| error.to_string())
}

fn shown(db: &MeruDB, ops: &[Op]) -> Result<Value, String> {
    ops.iter()
        .map(|op| {
            let key = InternalKey::encode_user_key(&op.key, db.schema()).map_err(|error| error.to_string())?;
            Ok(json!([hex::encode(key), op.row.as_ref().map(report::row)]))
        })
        .collect()
}
