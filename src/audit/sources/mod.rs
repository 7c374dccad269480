//! What root executes, sources, loads or reads as policy. A new source is a row in its file's table.

mod accounts;
mod kernel;
mod loader;
mod policy;
mod search_path;
mod shell;
mod units;

use std::path::{Path, PathBuf};

use super::{Danger, Fix, Subject};
use crate::facts::Reader;

/// A row of the table.
pub struct Source {
    /// Stable name.
    pub key: &'static str,
    /// How bad a hit is.
    pub danger: Danger,
    /// When root uses the name.
    pub trigger: &'static str,
    /// What to do about a hit.
    pub remedy: &'static str,
    /// Whether a name that is a link may be replaced by a copy of the file.
    pub copies: bool,
    /// The names.
    pub find: fn(&Scene<'_>) -> Vec<Found>,
}

/// What a source looks at.
pub struct Scene<'s> {
    pub reader: &'s Reader<'s>,
    pub subject: &'s Subject,
}

/// A name that root uses.
#[derive(Default)]
pub struct Found {
    pub name: PathBuf,
    pub named_by: Option<PathBuf>,
    /// It is a hit by itself, for this reason.
    pub direct: Option<String>,
    /// The safe remedy, when the source knows one.
    pub guard: Option<Fix>,
    /// When it is not the row's.
    pub danger: Option<Danger>,
}

impl Found {
    fn name(name: impl Into<PathBuf>) -> Self {
        Self { name: name.into(), ..Self::default() }
    }

    fn by(mut self, file: &Path) -> Self {
        self.named_by = Some(file.to_owned());
        self
    }
}

impl Scene<'_> {
    /// The text of a file that the subject cannot change. What it can change says nothing, and is a hit already.
    fn trusted_text(&self, path: &Path) -> Option<String> {
        match super::resolve::resolve(self.reader, self.subject, path) {
            Some(_) => None,
            None => self.reader.text(path),
        }
    }

    /// The same without lines that are comments.
    fn code(&self, path: &Path) -> Option<String> {
        let text = self.trusted_text(path)?;
        let lines = text.lines().filter(|line| !line.trim_start().starts_with(['#', ';']));
        Some(lines.collect::<Vec<_>>().join("\n"))
    }
}

/// Every source.
pub fn all() -> impl Iterator<Item = &'static Source> {
    let tables: [&[Source]; 7] = [
        units::SOURCES,
        policy::SOURCES,
        shell::SOURCES,
        search_path::SOURCES,
        loader::SOURCES,
        accounts::SOURCES,
        kernel::SOURCES,
    ];
    tables.into_iter().flatten()
}

/// A word of a configuration without its quotes, with root's home for `~` and `$HOME`; `None` when it is no absolute path then.
fn absolute(word: &str) -> Option<PathBuf> {
    let word = word.trim_matches(['"', '\'']);
    let home = ["~", "$HOME", "${HOME}"].iter().find_map(|home| word.strip_prefix(home));
    let path = match home {
        Some(rest) if rest.is_empty() || rest.starts_with('/') => format!("/root{rest}"),
        _ => word.to_owned(),
    };
    (path.starts_with('/') && !path.contains(['$', '`', '*'])).then(|| path.into())
}
