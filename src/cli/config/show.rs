//! `config`: the settings that count, and where each comes from.

use anyhow::Result;
use clap::parser::ValueSource;
use schemars::JsonSchema;
use serde::Serialize;

use super::example::example;
use super::keys::Key;
use super::{Sources, path_of};
use crate::cli::Session;
use crate::cli::args::ConfigArgs;
use crate::cli::exit::Exit;
use crate::report::Document;
use crate::system::text::printable;

/// The document of `config --json`: the settings that count, and where each comes from.
#[derive(JsonSchema, Serialize)]
pub struct Configuration {
    /// The configuration file that was read.
    file: Option<std::path::PathBuf>,
    /// All that there are.
    settings: Vec<Setting>,
}

impl Document for Configuration {
    const KIND: &'static str = "config";
}

#[derive(Debug, JsonSchema, Serialize)]
struct Setting {
    /// The command that it is for; without one, all.
    command: Option<String>,
    /// Its name in the file, and as a flag.
    key: String,
    /// Its name in the environment.
    variable: String,
    /// As a flag takes it; `null` when nothing was chosen.
    value: Option<String>,
    /// `flag`, `variable`, `file` or `default`.
    source: &'static str,
    /// Of the file.
    line: Option<usize>,
}

/// `config`.
///
/// # Errors
/// When standard output cannot be written to.
pub fn config(session: &Session, args: &ConfigArgs) -> Result<Exit> {
    let sources = &session.sources;
    if args.example {
        session.output.raw(&example(&sources.keys))?;
        return Ok(Exit::Done);
    }
    let settings: Vec<_> =
        sources.keys.iter().enumerate().map(|(at, key)| sources.setting(at, key)).collect();
    let file = match &sources.file.path {
        Some(path) => format!("the configuration file is {}", path.display()),
        None => format!("there is no configuration file {}", path_of(None).display()),
    };
    session.output.line(&file);
    for setting in &settings {
        let key = match &setting.command {
            Some(command) => format!("[{command}] {}", setting.key),
            None => setting.key.clone(),
        };
        let source = match (setting.source, setting.line) {
            ("variable", _) => setting.variable.clone(),
            ("file", Some(line)) => format!("line {line}"),
            (source, _) => source.to_owned(),
        };
        let value = setting.value.as_deref().unwrap_or("-");
        session.output.line(&format!("{key:<28} {} ({source})", printable(value)));
    }
    session.output.document(&Configuration { file: sources.file.path.clone(), settings })?;
    Ok(Exit::Done)
}

impl Sources {
    fn setting(&self, at: usize, key: &Key) -> Setting {
        let (value, source, line) = self.value(at, key);
        Setting {
            command: key.section.clone(),
            key: key.name.clone(),
            variable: key.variable.clone(),
            value: value.map(|value| without_password(&value)),
            source,
            line,
        }
    }

    fn value(&self, at: usize, key: &Key) -> (Option<String>, &'static str, Option<usize>) {
        let id = key.name.replace('-', "_");
        // Only what all commands take can have been given to this one.
        if key.section.is_none() && self.matches.value_source(&id) == Some(ValueSource::CommandLine) {
            let raw = self.matches.get_raw(&id).map(|raw| joined(raw.map(|value| value.to_string_lossy())));
            return (raw.filter(|raw| !raw.is_empty()).or(Some("true".to_owned())), "flag", None);
        }
        if let Some(value) = std::env::var_os(&key.variable) {
            return (Some(value.to_string_lossy().into_owned()), "variable", None);
        }
        match self.file.get(at) {
            Some(entry) => (Some(joined(entry.values.iter())), "file", Some(entry.line)),
            None => (key.default(), "default", None),
        }
    }
}

fn joined<S: ToString>(values: impl Iterator<Item = S>) -> String {
    values.map(|value| value.to_string()).collect::<Vec<_>>().join(",")
}

/// A URL as others may see it.
fn without_password(value: &str) -> String {
    let hidden = value.split_once("://").and_then(|(scheme, rest)| {
        let end = rest.find('/').unwrap_or(rest.len());
        let at = rest[..end].rfind('@')?;
        Some(format!("{scheme}://***{}", &rest[at..]))
    });
    hidden.unwrap_or_else(|| value.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_shown_a_password() {
        for (value, shown) in [
            ("http://me:secret@proxy:3128", "http://***@proxy:3128"),
            ("http://proxy:3128/a@b", "http://proxy:3128/a@b"),
            ("nix", "nix"),
        ] {
            assert_eq!(without_password(value), shown);
        }
    }
}
