//! The configuration file: TOML, keys of every command at the top and those of one command in its section.

use std::fs;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::keys::{Key, Kind};
use super::nearest::nearest;
use super::{path_of, refuse};

/// What the file says.
#[derive(Debug, Default)]
pub struct ConfigFile {
    /// Where it is; `None` when there is none.
    pub path: Option<PathBuf>,
    entries: Vec<Entry>,
}

/// A key of the file with its value.
#[derive(Debug)]
pub struct Entry {
    /// Which key, by its place in the list of keys.
    key: usize,
    /// As a flag takes it; several for a list.
    pub values: Vec<String>,
    /// The line, counted from 1.
    pub line: usize,
}

impl ConfigFile {
    /// Reads the file that was named, or the usual one where there is one.
    ///
    /// # Errors
    /// When it cannot be read, is no TOML, or has an unknown key or a value that the flag would not take.
    pub fn read(named: Option<&Path>, keys: &[Key]) -> Result<Self> {
        let path = path_of(named);
        let text = match fs::read_to_string(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && named.is_none() => {
                return Ok(Self::default());
            }
            other => {
                other.with_context(|| format!("cannot read the configuration file {}", path.display()))?
            }
        };
        let entries = parse(&text, keys)
            .with_context(|| format!("the configuration file {} is not right", path.display()))?;
        Ok(Self { path: Some(path), entries })
    }

    /// What it says of the key at this place.
    pub fn get(&self, key: usize) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.key == key)
    }
}

fn parse(text: &str, keys: &[Key]) -> Result<Vec<Entry>> {
    let table = DeTable::parse(text)?;
    let mut reader = Reader { text, keys, entries: Vec::new(), mistakes: Vec::new() };
    for (name, value) in table.get_ref() {
        let is_section = keys.iter().any(|key| key.section.as_deref() == Some(name.get_ref()));
        match value.get_ref() {
            DeValue::Table(section) if is_section => {
                section.iter().for_each(|(key, value)| {
                    reader.entry(Some(name.get_ref()), key.get_ref(), &key.span(), value)
                });
            }
            DeValue::Table(_) => reader.unknown_section(name.get_ref(), &name.span()),
            _ => reader.entry(None, name.get_ref(), &name.span(), value),
        }
    }
    refuse(reader.mistakes)?;
    Ok(reader.entries)
}

struct Reader<'a> {
    text: &'a str,
    keys: &'a [Key],
    entries: Vec<Entry>,
    mistakes: Vec<String>,
}

impl Reader<'_> {
    fn entry(
        &mut self,
        section: Option<&str>,
        name: &str,
        span: &Range<usize>,
        value: &Spanned<DeValue<'_>>,
    ) {
        let Some(at) = self.keys.iter().position(|key| key.is(section, name)) else {
            let what = self.unknown_key(section, name);
            return self.mistake(span, &what);
        };
        let key = &self.keys[at];
        let Some(values) = values(key.kind, value.get_ref()) else {
            return self.mistake(span, &format!("{} takes {}", key.shown(), key.kind.words()));
        };
        let checked = values
            .iter()
            .try_for_each(|value| if key.kind == Kind::Switch { Ok(()) } else { key.check(value) });
        match checked {
            Ok(()) => self.entries.push(Entry { key: at, values, line: self.line(span) }),
            Err(why) => self.mistake(span, &format!("{}: {why}", key.shown())),
        }
    }

    fn unknown_key(&self, section: Option<&str>, name: &str) -> String {
        let place = section.map_or(String::new(), |section| format!(" in [{section}]"));
        let elsewhere: Vec<_> = self.keys.iter().filter(|key| key.name == name).collect();
        if !elsewhere.is_empty() {
            let places = elsewhere.iter().map(|key| match &key.section {
                Some(section) => format!("in [{section}]"),
                None => "at the top, before all sections".to_owned(),
            });
            return format!(
                "there is no key {name:?}{place}: it belongs {}",
                places.collect::<Vec<_>>().join(" or ")
            );
        }
        let here = self.keys.iter().filter(|key| key.section.as_deref() == section);
        let near = nearest(name, here.map(|key| key.name.as_str())).map(|near| format!("{near:?}"));
        let near = near.or_else(|| {
            let near = nearest(name, self.keys.iter().map(|key| key.name.as_str()))?;
            self.keys.iter().find(|key| key.name == near).map(Key::shown)
        });
        let near = near.map_or(String::new(), |near| format!(", the nearest is {near}"));
        format!("there is no key {name:?}{place}{near}: nix-unroot config --example lists all")
    }

    fn unknown_section(&mut self, name: &str, span: &Range<usize>) {
        let sections = self.keys.iter().filter_map(|key| key.section.as_deref());
        let near = nearest(name, sections).map_or(String::new(), |near| format!(", the nearest is [{near}]"));
        self.mistake(
            span,
            &format!("there is no section [{name}]{near}: nix-unroot config --example lists all"),
        );
    }

    fn mistake(&mut self, span: &Range<usize>, what: &str) {
        self.mistakes.push(format!("line {}: {what}", self.line(span)));
    }

    fn line(&self, span: &Range<usize>) -> usize {
        self.text.as_bytes().iter().take(span.start).filter(|byte| **byte == b'\n').count() + 1
    }
}

/// The value as a flag takes it, when it is of the right kind.
fn values(kind: Kind, value: &DeValue<'_>) -> Option<Vec<String>> {
    match (kind, value) {
        (Kind::Switch, DeValue::Boolean(value)) => Some(vec![value.to_string()]),
        (Kind::Number, DeValue::Integer(value)) => {
            i128::from_str_radix(value.as_str(), value.radix()).ok().map(|value| vec![value.to_string()])
        }
        (Kind::Text | Kind::List, DeValue::String(value)) => Some(vec![value.to_string()]),
        (Kind::List, DeValue::Array(all)) => {
            all.iter().map(|value| value.get_ref().as_str().map(str::to_owned)).collect()
        }
        _ => None,
    }
}
