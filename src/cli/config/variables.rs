//! Variables of the environment that begin with our prefix.

use std::ffi::OsString;

use anyhow::Result;
use clap::builder::{BoolishValueParser, TypedValueParser};

use super::keys::{CONFIG_VARIABLE, Key, Kind, PREFIX};
use super::nearest::nearest;
use super::refuse;

/// Variables of ours that are not settings of this program: who reads them.
const OTHERS: &[(&str, &str)] = &[
    ("NIX_UNROOT_RELEASE_URL", "install.sh, which hands its environment on"),
    #[cfg(feature = "checkpoints")]
    ("NIX_UNROOT_CHECKPOINT", "tests: see system/checkpoint.rs"),
    #[cfg(feature = "checkpoints")]
    ("NIX_UNROOT_CHECKPOINT_LOG", "tests: see system/checkpoint.rs"),
    #[cfg(feature = "checkpoints")]
    ("NIX_UNROOT_CHECKPOINT_DELAY", "tests: see system/checkpoint.rs"),
    #[cfg(feature = "checkpoints")]
    ("NIX_UNROOT_COMMAND_LIMIT", "tests: see system/command.rs"),
];

/// Refuses variables that are no setting, and values that their flag would not take: a misspelt `NIX_UNROOT_MIGRATE_DRY_RUN` must
/// not become a migration.
///
/// # Errors
/// All mistakes, each with the variable's name.
pub fn check(keys: &[Key], variables: impl IntoIterator<Item = (OsString, OsString)>) -> Result<()> {
    let mut mistakes = Vec::new();
    for (name, value) in variables {
        let name = name.to_string_lossy().into_owned();
        if !name.starts_with(PREFIX)
            || name == CONFIG_VARIABLE
            || OTHERS.iter().any(|(other, _)| *other == name)
        {
            continue;
        }
        match keys.iter().find(|key| key.variable == name) {
            None => mistakes.push(unknown(&name, keys)),
            Some(key) => mistakes.extend(wrong(key, &value).map(|why| format!("the variable {name}: {why}"))),
        }
    }
    mistakes.sort();
    refuse(mistakes)
}

fn unknown(name: &str, keys: &[Key]) -> String {
    let near = nearest(name, keys.iter().map(|key| key.variable.as_str()))
        .map_or(String::new(), |near| format!(", the nearest is {near}"));
    format!(
        "there is no setting for the variable {name}{near}: unset it, or give it the right name (nix-unroot config lists all)"
    )
}

fn wrong(key: &Key, value: &OsString) -> Option<String> {
    // What is no text can still be a path; the command line's parser decides about it.
    let text = value.to_str()?;
    match key.kind {
        Kind::Switch => {
            let command = clap::Command::new("nix-unroot");
            let good = BoolishValueParser::new().parse_ref(&command, None, value).is_ok();
            (!good).then(|| format!("{text:?} is neither true nor false"))
        }
        _ => key.check(text).err(),
    }
}
