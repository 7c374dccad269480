//! The Nix database by content. Its bytes depend on when SQLite moved the log into it; its rows don't.

use super::Entry;
use anyhow::{Context, Result};
use rusqlite::{Connection, types::ValueRef};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// Where it lies in a machine.
pub const PATH: &str = "/nix/var/nix/db/db.sqlite";

/// Counts up with every path that ever was valid, so also with one that a check built and deleted again.
const COUNTER: &str = "sqlite_sequence";

/// All rows of all tables, and the schema. Works on a copy, so nothing of the machine is touched or locked.
pub fn rows(tree: &Path) -> Result<BTreeMap<String, Entry>> {
    let original = tree.join(&PATH[1..]);
    if !original.exists() {
        return Ok(BTreeMap::new());
    }
    let copy = tempfile::tempdir()?;
    let database = copy.path().join("db.sqlite");
    fs::copy(&original, &database)?;
    let log = original.with_file_name("db.sqlite-wal");
    if log.exists() {
        fs::copy(log, copy.path().join("db.sqlite-wal"))?;
    }
    let connection = Connection::open(&database).context("cannot open the copy of the Nix database")?;
    let mut entries = BTreeMap::new();
    let mut tables =
        connection.prepare("SELECT name, sql FROM sqlite_schema WHERE type = 'table' ORDER BY name")?;
    let tables =
        tables.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, Option<String>>(1)?)))?;
    for table in tables {
        let (name, sql) = table?;
        entries.insert(format!("db: {name}"), Entry::from([("schema", sql.unwrap_or_default())]));
        if name != COUNTER {
            table_rows(&connection, &name, &mut entries)?;
        }
    }
    Ok(entries)
}

fn table_rows(connection: &Connection, table: &str, entries: &mut BTreeMap<String, Entry>) -> Result<()> {
    let mut statement = connection.prepare(&format!("SELECT * FROM \"{table}\""))?;
    let columns: Vec<String> = statement.column_names().into_iter().map(String::from).collect();
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let mut text = Vec::new();
        for (index, column) in columns.iter().enumerate() {
            text.push(format!("{column}={}", value(row.get_ref(index)?)));
        }
        entries.insert(format!("db: {table} {}", text.join(" ")), Entry::new());
    }
    Ok(())
}

fn value(value: ValueRef<'_>) -> String {
    match value {
        ValueRef::Null => "null".to_owned(),
        ValueRef::Integer(number) => number.to_string(),
        ValueRef::Real(number) => number.to_string(),
        ValueRef::Text(text) | ValueRef::Blob(text) => String::from_utf8_lossy(text).into_owned(),
    }
}
