//! Drives the real merutable engine for tests and benchmarks: opens one table and obeys commands.
//!
//! The one argument is a JSON object of options; each line of standard input is a JSON object with a
//! command under "do"; each line of standard output is a JSON object. See README.md for all of them.
//! The program may be killed at any moment and started again on the same directory.

mod report;
mod tables;
mod writer;

use std::io::{BufRead, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;

use merutable::store::local::LocalFileStore;
use merutable::{MeruDB, MirrorConfig, OpenOptions};
use serde_json::{json, Value};
use tokio::sync::Mutex;
use tokio::task::JoinHandle;

type Outcome = Result<Value, String>;

struct Driver {
    db: Arc<MeruDB>,
    gate: Arc<Mutex<()>>, // held for each commit
    is_stopped: Arc<AtomicBool>,
    writing: Option<JoinHandle<()>>,
}

#[tokio::main]
async fn main() {
    if let Err(error) = run().await {
        report::say(&json!({"failed": "open", "error": error}));
        std::process::exit(1);
    }
}

async fn run() -> Result<(), String> {
    let text = std::env::args()
        .nth(1)
        .ok_or("the argument is a JSON object of options")?;
    let options = Options(serde_json::from_str(&text).map_err(|error| format!("options: {error}"))?);
    let db = Arc::new(
        MeruDB::open(engine_options(&options)?)
            .await
            .map_err(|error| error.to_string())?,
    );
    report::say(&json!({"did": "open", "read_seq": db.read_seq().0}));
    let mut driver = Driver {
        db,
        gate: Arc::default(),
        is_stopped: Arc::default(),
        writing: None,
    };
    let (sender, mut lines) = tokio::sync::mpsc::unbounded_channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    while let Some(line) = lines.recv().await {
        let command = Options(serde_json::from_str(&line).map_err(|error| format!("command {line:?}: {error}"))?);
        let verb = command.text("do", "");
        match driver.obey(&verb, &command).await {
            Ok(answer) => report::say(&merged(json!({"did": verb}), answer)),
            Err(error) => report::say(&json!({"failed": verb, "error": error})),
        }
        if verb == "close" {
            break;
        }
    }
    Ok(())
}

impl Driver {
    async fn obey(&mut self, verb: &str, command: &Options) -> Outcome {
        let db = &self.db;
        match verb {
            "write" => return self.write(command).await,
            "stop" => self.stop().await?,
            "flush" => told(db.flush().await)?,
            "compact" => told(db.compact().await)?,
            "await_mirror" => return Ok(json!({"snapshot_id": told(db.await_mirror().await)?})),
            "add_column" => {
                let at = command.whole("number", 0) as usize;
                let column = tables::late_columns().into_iter().nth(at).ok_or("no such column")?;
                told(db.add_column(column).await)?;
            }
            "scan" => return self.scan(&command.text("path", "")).await,
            "stats" => {}
            "close" => {
                self.stop().await?;
                told(self.db.close().await)?;
            }
            _ => return Err("no such command".into()),
        }
        Ok(self.stats())
    }

    /// Start to write; what came of it is said at its end.
    async fn write(&mut self, command: &Options) -> Outcome {
        self.stop().await?;
        self.is_stopped = Arc::default();
        let plan = writer::Plan {
            ops: command.whole("ops", u64::MAX),
            rate: command.real("rate", 0.0),
            first_key: command.whole("first_key", 0),
            keys: command.whole("keys", 1000).max(1),
            is_in_order: command.is("is_in_order"),
            batch_max: command.whole("batch_max", 1).max(1),
            deletes: command.real("deletes", 0.0),
            value_bytes: command.whole("value_bytes", 20),
            flush_every: command.whole("flush_every", 0),
            seed: command.whole("seed", 1),
            is_quiet: command.is("is_quiet"),
        };
        let (db, gate, is_stopped) = (self.db.clone(), self.gate.clone(), self.is_stopped.clone());
        self.writing = Some(tokio::spawn(async move {
            match writer::write(db.clone(), plan, gate, is_stopped).await {
                Ok(ops) => report::say(&json!({"wrote": ops, "read_seq": db.read_seq().0})),
                Err(error) => report::say(&json!({"failed": "write", "error": error})),
            }
        }));
        Ok(json!({}))
    }

    /// End the writing that goes on, between two commits.
    async fn stop(&mut self) -> Result<(), String> {
        self.is_stopped.store(true, Ordering::Relaxed);
        match self.writing.take() {
            Some(task) => task.await.map_err(|error| error.to_string()),
            None => Ok(()),
        }
    }

    /// The whole table at one seq into a file: a line that says which, then a line a row, in key order.
    async fn scan(&self, path: &str) -> Outcome {
        let (read_seq, rows) = {
            let _standing = self.gate.lock().await;
            (self.db.read_seq().0, told(self.db.scan(None, None))?)
        };
        let names: Vec<&str> = self
            .db
            .schema()
            .columns
            .iter()
            .map(|column| column.name.as_str())
            .collect();
        let file = std::fs::File::create(path).map_err(|error| format!("{path}: {error}"))?;
        let mut out = std::io::BufWriter::new(file);
        let head = json!({"read_seq": read_seq, "row_count": rows.len(), "columns": names});
        let written = writeln!(out, "{head}").and_then(|()| {
            rows.iter().try_for_each(|(key, row)| {
                writeln!(
                    out,
                    "{}",
                    json!({"pk": hex::encode(key.user_key_bytes()), "seq": key.seq.0, "row": report::row(row)})
                )
            })
        });
        written
            .and_then(|()| out.flush())
            .map_err(|error| format!("{path}: {error}"))?;
        Ok(head)
    }

    fn stats(&self) -> Value {
        let stats = self.db.stats();
        let files: serde_json::Map<String, Value> = stats
            .levels
            .iter()
            .map(|level| (format!("L{}", level.level), json!(level.file_count)))
            .collect();
        json!({"read_seq": self.db.read_seq().0, "snapshot_id": stats.snapshot_id, "files": files})
    }
}

fn engine_options(options: &Options) -> Result<OpenOptions, String> {
    let directory = options.text("directory", "");
    if directory.is_empty() {
        return Err("options: where is the table? \"directory\" is missing".into());
    }
    let table = options.text("table", "events");
    let schema = tables::schema(
        &options.text("kind", "id"),
        &table,
        options.whole("added_columns", 0) as usize,
    )?;
    let wal = options.text(
        "wal",
        Path::new(&directory)
            .join("wal")
            .to_str()
            .ok_or("the directory isn't UTF-8")?,
    );
    let mut opened = OpenOptions::new(schema)
        .catalog_uri(directory)
        .wal_dir(wal)
        .memtable_size_mb(options.whole("memtable_mb", 64) as usize)
        .l0_compaction_trigger(options.whole("l0_compaction_trigger", 4) as usize)
        .gc_grace_period_secs(options.whole("gc_grace_seconds", 300))
        .compaction_parallelism(options.whole("compaction_workers", 2) as usize)
        .flush_parallelism(options.whole("flush_workers", 1) as usize);
    if let Some(targets) = options.0["level_target_bytes"].as_array() {
        opened = opened.level_target_bytes(targets.iter().filter_map(Value::as_u64).collect());
    }
    if let Some(level) = options.0.get("dual_format_max_level") {
        opened = opened.dual_format_max_level(level.as_u64().map(|level| level as u8));
    }
    if let Some(mirror) = options.0["mirror"].as_str() {
        let store = LocalFileStore::new(mirror).map_err(|error| error.to_string())?;
        opened = opened.mirror(MirrorConfig::new(Arc::new(store)));
    }
    Ok(opened)
}

/// A JSON object whose keys may be missing.
struct Options(Value);

impl Options {
    fn text(&self, key: &str, default: &str) -> String {
        self.0[key].as_str().unwrap_or(default).to_string()
    }

    fn whole(&self, key: &str, default: u64) -> u64 {
        self.0[key].as_u64().unwrap_or(default)
    }

    fn real(&self, key: &str, default: f64) -> f64 {
        self.0[key].as_f64().unwrap_or(default)
    }

    fn is(&self, key: &str) -> bool {
        self.0[key].as_bool().unwrap_or(false)
    }
}

fn merged(mut one: Value, other: Value) -> Value {
    if let (Some(one), Value::Object(other)) = (one.as_object_mut(), other) {
        one.extend(other);
    }
    one
}

fn told<T>(result: merutable::types::Result<T>) -> Result<T, String> {
    result.map_err(|error| error.to_string())
}
