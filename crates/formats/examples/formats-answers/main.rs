//! Answers questions about formats, one JSON object a line: `{"op": NAME, "input": VALUE}` becomes
//! `{"ok": VALUE}` or `{"error": TEXT}`.
//!
//! `bench/differential` puts the same questions to upstream's libraries and compares.

mod rset;
mod vocabulary;

use serde_json::{Value, json};
use std::io::{BufRead, Write};

fn answer(question: &Value) -> Result<Value, String> {
    let op = question["op"].as_str().ok_or("a question has an op")?;
    let input = &question["input"];
    rset::answer(op, input)
        .or_else(|| vocabulary::answer(op, input))
        .unwrap_or_else(|| Err(format!("unknown op {op:?}")))
}

fn main() -> std::io::Result<()> {
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    for line in std::io::stdin().lock().lines() {
        let answer = serde_json::from_str(&line?)
            .map_err(|e| e.to_string())
            .and_then(|question| answer(&question));
        let answer = match answer {
            Ok(value) => json!({ "ok": value }),
            Err(text) => json!({ "error": text }),
        };
        writeln!(out, "{answer}")?;
    }
    out.flush()
}
