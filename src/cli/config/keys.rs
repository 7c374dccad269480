//! The keys that there are.

use std::any::TypeId;

use clap::{Arg, ArgAction, Command};

/// The flag that names the file: it has a variable, and no key.
pub const CONFIG: &str = "config";
/// Its variable.
pub const CONFIG_VARIABLE: &str = "NIX_UNROOT_CONFIG";
/// What all variables begin with.
pub const PREFIX: &str = "NIX_UNROOT_";

/// Flags that are for one call and have neither key nor variable: command, flag, reason.
pub const ONCE: &[(&str, &str, &str)] = &[
    ("roots", "expire", "names one root, and makes a list into a deletion"),
    ("roots", "expire-older-than", "makes a list into a deletion"),
    ("rollback", "from-copy", "is for a journal that is damaged now; it sets it aside"),
    ("config", "example", "makes another command of it"),
];

/// What a value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `true` or `false`.
    Switch,
    Number,
    Text,
    /// Texts; in a variable with commas between.
    List,
}

/// A flag that can be set elsewhere.
#[derive(Clone, Debug)]
pub struct Key {
    /// The command, for a flag that only this command has.
    pub section: Option<String>,
    /// The flag without its dashes.
    pub name: String,
    pub variable: String,
    pub kind: Kind,
    arg: Arg,
}

/// All keys: first those that every command takes, then command by command.
pub fn of(command: &Command) -> Vec<Key> {
    let common = command.get_arguments().filter_map(|arg| Key::of(None, arg));
    let sections = command
        .get_subcommands()
        .flat_map(|sub| sub.get_arguments().filter_map(|arg| Key::of(Some(sub.get_name()), arg)));
    common.chain(sections).collect()
}

impl Key {
    fn of(section: Option<&str>, arg: &Arg) -> Option<Self> {
        let name = arg.get_long()?;
        let once = ONCE.iter().any(|(command, flag, _)| section == Some(command) && *flag == name);
        if name == CONFIG || once {
            return None;
        }
        let words = section.into_iter().chain([name]).collect::<Vec<_>>().join("_");
        Some(Self {
            section: section.map(str::to_owned),
            name: name.to_owned(),
            variable: format!("{PREFIX}{}", words.replace('-', "_").to_uppercase()),
            kind: Kind::of(arg),
            arg: arg.clone(),
        })
    }

    /// Whether it has this name there.
    pub fn is(&self, section: Option<&str>, name: &str) -> bool {
        self.section.as_deref() == section && self.name == name
    }

    /// How a person writes it: `[migrate] keep-partial`.
    pub fn shown(&self) -> String {
        self.section.as_ref().map_or(self.name.clone(), |section| format!("[{section}] {}", self.name))
    }

    /// What its flag does, as `--help` says it.
    pub fn help(&self) -> String {
        self.arg.get_help().map(ToString::to_string).unwrap_or_default()
    }

    /// What stands for a value in `--help`: `FILE`.
    pub fn value_name(&self) -> String {
        self.arg
            .get_value_names()
            .and_then(|names| names.first())
            .map_or("VALUE".to_owned(), ToString::to_string)
    }

    /// Values among which to choose.
    pub fn choices(&self) -> Vec<String> {
        let values = self.arg.get_possible_values();
        if self.kind == Kind::Switch {
            Vec::new()
        } else {
            values.iter().map(|value| value.get_name().to_owned()).collect()
        }
    }

    /// The value without one: what the parser says, or what the help says in brackets where that is a value.
    pub fn default(&self) -> Option<String> {
        if self.kind == Kind::Switch {
            return Some("false".to_owned());
        }
        if let [value] = self.arg.get_default_values() {
            return value.to_str().map(str::to_owned);
        }
        let help = self.help();
        let told = help.rsplit_once("[default: ")?.1.strip_suffix(']')?;
        let value = told.split(", ").next()?;
        let good = match self.kind {
            Kind::Number => value.parse::<u64>().is_ok(),
            _ => !value.contains(' '),
        };
        good.then(|| value.to_owned())
    }

    /// Whether the flag would take this value; the parser's words when not.
    pub fn check(&self, value: &str) -> Result<(), String> {
        // The value alone is asked about, not what the flag requires or excludes.
        let alone = Arg::new("value")
            .long(self.name.clone())
            .value_name(self.value_name())
            .action(self.arg.get_action().clone())
            .value_parser(self.arg.get_value_parser().clone());
        let Err(error) = clap::Command::new("nix-unroot")
            .no_binary_name(true)
            .arg(alone)
            .try_get_matches_from([format!("--{}={value}", self.name)])
        else {
            return Ok(());
        };
        let text = error.to_string();
        let said = text.split("\n\nFor more").next().unwrap_or_default().trim_start_matches("error: ");
        Err(said.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" "))
    }
}

impl Kind {
    fn of(arg: &Arg) -> Self {
        let parsed = arg.get_value_parser().type_id();
        let numbers = [TypeId::of::<u32>(), TypeId::of::<u64>(), TypeId::of::<i64>(), TypeId::of::<usize>()];
        match arg.get_action() {
            ArgAction::SetTrue => Self::Switch,
            ArgAction::Append => Self::List,
            _ if numbers.iter().any(|number| parsed == *number) => Self::Number,
            _ => Self::Text,
        }
    }

    /// In words.
    pub fn words(self) -> &'static str {
        match self {
            Self::Switch => "true or false",
            Self::Number => "a number",
            Self::Text => "a text in quotes",
            Self::List => "a list of texts",
        }
    }
}
