//! `completions` and `man`: made from the command line itself, so nothing can be missing in them.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use clap_complete::Shell;
use clap_mangen::Man;

use super::exit::Exit;
use super::{Session, config};

/// The name of the program.
const NAME: &str = "nix-unroot";
/// Administration commands (man-pages(7)).
const SECTION: &str = "8";

/// `completions`.
pub fn completions(session: &Session, shell: Shell) -> Result<Exit> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut config::command(), NAME, &mut script);
    let script = String::from_utf8(script).context("the completions are no text")?;
    session.output.raw(&with_one_name(&script))?;
    Ok(Exit::Done)
}

/// clap_complete 4.6 writes the name of a program with a dash in two ways into its script for bash, which then completes no flag of a
/// command: `nix__unroot` where it says which command this is, `nix__subcmd__unroot` where it looks that up.
fn with_one_name(script: &str) -> String {
    script.replace("nix__subcmd__unroot", "nix__unroot")
}

/// `man`.
pub fn man(session: &Session, directory: Option<&Path>) -> Result<Exit> {
    let pages = pages()?;
    let Some(directory) = directory else {
        let (_, text) = pages.first().context("there is no page")?;
        session.output.raw(text)?;
        return Ok(Exit::Done);
    };
    fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))?;
    for (name, text) in pages {
        let path = directory.join(name);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        session.output.line(&path.display().to_string());
    }
    Ok(Exit::Done)
}

/// Names and texts of all pages: that of the program first, then one for each command.
fn pages() -> Result<Vec<(String, String)>> {
    let mut root = config::command();
    root.build();
    let commands = root.get_subcommands().filter(|command| command.get_name() != "help");
    let all = std::iter::once((NAME.to_owned(), root.clone())).chain(commands.map(|command| {
        let name = format!("{NAME}-{}", command.get_name());
        (name.clone(), command.clone().name(name))
    }));
    all.map(|(name, command)| {
        let mut text = Vec::new();
        Man::new(command)
            .section(SECTION)
            .render(&mut text)
            .with_context(|| format!("cannot make the page {name}"))?;
        Ok((format!("{name}.{SECTION}"), String::from_utf8(text).context("a page is no text")?))
    })
    .collect()
}
