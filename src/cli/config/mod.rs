//! Every flag is a variable and a key of the configuration file, too: flag > variable > file > default.
//!
//! Keys and variables are made from the flags themselves, so none can be missing, and the values are handed to the parser of
//! the command line, so all three take the same. [`keys::ONCE`] names the few flags that are for one call only.

mod example;
mod file;
mod keys;
mod nearest;
mod show;
mod variables;

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use clap::builder::BoolishValueParser;
use clap::error::ErrorKind;
use clap::{ArgMatches, CommandFactory, FromArgMatches};

use super::args::{Cli, Command};
use file::ConfigFile;
use keys::{Key, Kind};

pub use show::{Configuration, config};

/// The command line with what variables and the configuration file say.
pub struct Parsed {
    pub cli: Cli,
    pub sources: Sources,
}

/// Where settings came from.
pub struct Sources {
    matches: ArgMatches,
    keys: Vec<Key>,
    file: ConfigFile,
}

/// Parses the arguments (the first is the program's name). Help and mistakes of the command line end the process, as
/// [`clap::Parser::parse`] does.
///
/// # Errors
/// When a variable or the file is wrong: each mistake with its place, and the nearest name where one is unknown.
pub fn parse(arguments: &[OsString]) -> Result<Parsed> {
    let keys = keys::of(&Cli::command());
    let first = match command().try_get_matches_from(arguments) {
        Err(error) if is_help(error.kind()) => error.exit(),
        other => {
            variables::check(&keys, std::env::vars_os())?;
            other.unwrap_or_else(|error| error.exit())
        }
    };
    let cli = Cli::from_arg_matches(&first).unwrap_or_else(|error| error.exit());
    let file = match needs_no_file(&cli.command) {
        true => ConfigFile::default(),
        false => ConfigFile::read(cli.common.config.as_deref(), &keys)?,
    };
    let matches = with_defaults(command(), &keys, &file)
        .try_get_matches_from(arguments)
        .unwrap_or_else(|error| error.exit());
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    Ok(Parsed { cli, sources: Sources { matches, keys, file } })
}

/// The command line as its parser sees it, each flag with its variable.
pub fn command() -> clap::Command {
    let keys = keys::of(&Cli::command());
    let root = Cli::command().mut_args(|arg| with_variable(arg, None, &keys));
    root.mut_subcommands(|sub| {
        let section = sub.get_name().to_owned();
        sub.mut_args(|arg| with_variable(arg, Some(&section), &keys))
    })
}

fn with_variable(arg: clap::Arg, section: Option<&str>, keys: &[Key]) -> clap::Arg {
    let name = arg.get_long().unwrap_or_default().to_owned();
    if name == keys::CONFIG {
        return arg.env(keys::CONFIG_VARIABLE);
    }
    match keys.iter().find(|key| key.is(section, &name)) {
        // A proxy's password is nobody's business who asks for help.
        Some(key) => {
            let arg = arg.env(key.variable.clone()).hide_env_values(true);
            if key.kind == Kind::Switch { arg.value_parser(BoolishValueParser::new()) } else { arg }
        }
        None => arg,
    }
}

/// What the file says stands in for what flags and variables leave open.
fn with_defaults(command: clap::Command, keys: &[Key], file: &ConfigFile) -> clap::Command {
    let set = |arg: clap::Arg, section: Option<&str>| {
        let name = arg.get_long().unwrap_or_default();
        let at = keys.iter().position(|key| key.is(section, name));
        match at.and_then(|at| file.get(at)) {
            Some(entry) => arg.default_values(entry.values.clone()),
            None => arg,
        }
    };
    command.mut_args(|arg| set(arg, None)).mut_subcommands(|sub| {
        let section = sub.get_name().to_owned();
        sub.mut_args(|arg| set(arg, Some(&section)))
    })
}

fn is_help(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::DisplayHelp
            | ErrorKind::DisplayVersion
            | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
    )
}

/// What prints something that depends on nothing must work where the file is broken: it helps to mend it.
fn needs_no_file(command: &Command) -> bool {
    match command {
        Command::Config(args) => args.example,
        Command::Completions { .. } | Command::Man { .. } | Command::Schema { .. } => true,
        _ => false,
    }
}

/// All mistakes at once, or none.
fn refuse(mistakes: Vec<String>) -> Result<()> {
    if mistakes.is_empty() {
        return Ok(());
    }
    bail!("{}", mistakes.join("\n       "))
}

/// The file that is read: the one that was named, or the usual one.
fn path_of(named: Option<&Path>) -> PathBuf {
    named.unwrap_or(Path::new(crate::platform::paths::CONFIG)).to_owned()
}

#[cfg(test)]
mod tests;
