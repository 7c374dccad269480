//! The plan of `audit --fix`: the safe remedies as steps, recorded and undone like any other.

use std::collections::BTreeMap;

use anyhow::Result;
use toml::{Table, Value};

use super::{Fix, Hit};
use crate::plan::{Context, Plan};

/// Longer texts are not copied into a plan, in bytes.
pub(super) const MAX_COPY: u64 = 64 << 10;

/// The plan for these hits; `None` when none of them has a safe remedy.
///
/// # Errors
/// When the plan that ships is not right.
pub fn plan(hits: &[Hit]) -> Result<Option<Plan>> {
    let mut guards: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    let mut copies: BTreeMap<String, Value> = BTreeMap::new();
    let mut user_manager = false;
    for hit in hits {
        let name = hit.name.to_string_lossy().into_owned();
        match (&hit.fix, &hit.named_by) {
            (Some(Fix::Guard { old, new }), Some(file)) => {
                let line = table([("old", old.as_str().into()), ("new", new.as_str().into())]);
                let lines = guards.entry(file.to_string_lossy().into_owned()).or_default();
                if !lines.contains(&line) {
                    lines.push(line);
                }
            }
            (Some(Fix::Copy { text }), _) => drop(copies.insert(name, text.as_str().into())),
            (Some(Fix::UserManagerPath), _) => user_manager = true,
            (Some(Fix::Guard { .. }) | None, _) => {}
        }
    }
    if guards.is_empty() && copies.is_empty() && !user_manager {
        return Ok(None);
    }
    let reload = copies.keys().any(|path| path.starts_with("/etc/systemd/"));
    let guards = guards
        .into_iter()
        .map(|(path, lines)| table([("path", path.into()), ("lines", Value::Array(lines))]));
    let copies = copies.into_iter().map(|(path, text)| table([("path", path.into()), ("text", text)]));
    let once = |wanted: bool| Value::Array(wanted.then(|| Value::from("")).into_iter().collect());
    let context = Context::from_values([
        ("guards", Value::Array(guards.collect())),
        ("copies", Value::Array(copies.collect())),
        ("reload", once(reload)),
        ("user_manager", once(user_manager)),
    ]);
    Plan::audit_fix(&context).map(Some)
}

fn table<const N: usize>(entries: [(&str, Value); N]) -> Value {
    Value::Table(entries.into_iter().map(|(key, value)| (key.to_owned(), value)).collect::<Table>())
}
