//! The command line: parses, calls, prints.

mod args;
mod audit;
mod conflicts;
mod exit;
mod history;
mod inspect;
mod install;
mod internal;
mod machine;
mod migrate;
mod output;
mod progress;
mod roots;
mod runs;
mod settings;
mod table;
mod uninstall;
mod verify;

use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;
use console::Term;

use args::{Cli, Command};
use exit::Exit;
use output::Output;
use settings::Settings;

use crate::facts::macos;
use crate::plan::{Options, Plan};

/// What every command gets.
struct Session {
    settings: Settings,
    output: Output,
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let args: Vec<_> = std::env::args_os().skip(1).collect();
    if let Some(code) = internal::run(&args) {
        return code;
    }
    let cli = Cli::parse();
    let output = Output::new(cli.common.json, cli.common.no_color, cli.common.verbose);
    let settings = match cli.common.settings.with_file(cli.common.config.as_deref()) {
        Ok(settings) => settings,
        Err(error) => {
            output.error(&error);
            return Exit::Usage.into();
        }
    };
    let session = Session { settings, output };
    match dispatch(&session, &cli.command) {
        Ok(exit) => exit.into(),
        Err(error) => {
            session.output.error(&error);
            // Every command turns what happens after the first change into an exit of its own; what arrives here
            // happened before.
            if error.is::<UsageError>() { Exit::Usage.into() } else { Exit::Failed.into() }
        }
    }
}

/// The caller must call differently.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct UsageError(String);

fn dispatch(session: &Session, command: &Command) -> Result<Exit> {
    // What was never tried on a Mac is not done to one. `migrate` and `install` say so among their findings.
    if macos::is_here() && !command.is_for_macs() {
        session
            .output
            .message("this command does not know Macs yet; nix-unroot inspect does (docs/macos.md)");
        return Ok(Exit::Blocked);
    }
    match command {
        Command::Inspect => inspect::inspect(session),
        Command::Plan { format } => inspect::plan(session, *format),
        Command::Migrate(args) => migrate::migrate(session, args),
        Command::Install(args) => install::install(session, args),
        Command::Verify => verify::verify(session),
        Command::Audit(args) => audit::audit(session, args),
        Command::Roots(args) => roots::roots(session, args),
        Command::Uninstall(args) => uninstall::uninstall(session, args),
        Command::Resume => runs::resume(session),
        Command::Rollback(args) => runs::rollback(session, args),
        Command::History { run } => history::history(session, *run),
    }
}

impl Session {
    /// The plan's options from the settings.
    fn options(&self) -> Result<Options> {
        self.settings.options().map_err(|error| UsageError(format!("{error:#}")).into())
    }

    /// The same, for a plan that is to be made: the helpers must be there.
    fn plan_options(&self) -> Result<Options> {
        let mut options = self.options()?;
        // The plan runs with "/" as its directory, and may run on another day.
        if let Ok(absolute) = options.helpers.canonicalize() {
            options.helpers = absolute;
        }
        match settings::missing_helper(&options.helpers) {
            None => Ok(options),
            Some(name) => {
                let place = options.helpers.display();
                let text =
                    format!("{name} is not in {place}: name the directory of the helpers with --helpers");
                Err(UsageError(text).into())
            }
        }
    }

    /// Asks, unless nothing is to be asked; an error when there is nobody to ask and `--yes` was not given.
    fn confirm(&self, question: &str) -> Result<bool> {
        if self.settings.yes {
            return Ok(true);
        }
        if !self.output.can_ask() {
            let text = format!(
                "there is no terminal to ask {question:?} on: give --yes to go ahead without questions"
            );
            return Err(UsageError(text).into());
        }
        dialoguer::Confirm::new()
            .with_prompt(question)
            .default(false)
            .interact()
            .context("cannot ask on this terminal: give --yes to go ahead without questions")
    }

    /// The same for a plan, which is shown in full on request.
    fn confirm_plan(&self, question: &str, plan: &Plan) -> Result<bool> {
        if self.settings.yes || !self.output.can_ask() {
            return self.confirm(question);
        }
        let terminal = Term::stderr();
        let context = "cannot ask on this terminal: give --yes to go ahead without questions";
        loop {
            terminal
                .write_str(&format!("{question} [y/n, e explains every step] "))
                .and_then(|()| terminal.flush())
                .context(context)?;
            let key = terminal.read_char().context(context)?;
            terminal.write_line(&key.escape_debug().to_string()).context(context)?;
            match key.to_ascii_lowercase() {
                'y' => return Ok(true),
                'e' => self.output.plan(plan),
                'n' | '\n' | '\r' | '\u{1b}' => return Ok(false),
                _ => {}
            }
        }
    }
}

/// Refuses a caller who is not root.
fn require_root(what: &str) -> Result<()> {
    if nix::unistd::geteuid().is_root() {
        return Ok(());
    }
    Err(UsageError(format!("{what} needs root: run it with sudo")).into())
}
