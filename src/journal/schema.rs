//! Tables of the journal and their versions.

use rusqlite::Connection;

/// The newest version that this tool reads and writes, in `PRAGMA user_version`.
pub const VERSION: i64 = 1;

const VERSION_1: &str = "
    CREATE TABLE runs (
        id           INTEGER PRIMARY KEY,
        plan_name    TEXT NOT NULL,
        state        TEXT NOT NULL,
        tool_version TEXT NOT NULL,
        started      TEXT NOT NULL,
        finished     TEXT,
        plan         TEXT NOT NULL
    );
    CREATE TABLE steps (
        run      INTEGER NOT NULL REFERENCES runs (id),
        position INTEGER NOT NULL,
        id       TEXT NOT NULL,
        state    TEXT NOT NULL,
        captured TEXT,
        error    TEXT,
        changed  TEXT,
        PRIMARY KEY (run, position)
    ) WITHOUT ROWID;
    PRAGMA user_version = 1;
";

/// Sets what a connection that writes needs, and brings an older journal to [`VERSION`].
pub fn upgrade(connection: &Connection) -> rusqlite::Result<()> {
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    let version: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if version < 1 {
        connection.execute_batch(&format!("BEGIN IMMEDIATE; {VERSION_1} COMMIT;"))?;
    }
    Ok(())
}
