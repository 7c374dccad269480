//! The command line: parses, calls, prints.

mod args;
mod audit;
mod brought;
mod config;
mod conflicts;
mod doctor;
mod exit;
mod history;
mod inspect;
mod install;
mod intention;
mod internal;
mod kept_program;
mod log;
mod machine;
mod manual;
mod migrate;
mod output;
mod progress;
mod recover;
mod remove;
mod roots;
mod runs;
mod schema;
mod settings;
mod undo;
mod uninstall;
mod verify;
mod volumes;

use std::cell::{Cell, OnceCell};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::{Context, Result};
use console::Term;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use args::Command;
use config::{Parsed, Sources};
use exit::Exit;
use log::{Event, Log};
use output::Output;
use settings::Settings;

use crate::facts::macos;
use crate::plan::{Options, Plan};
use crate::report::{self, Report};

/// What every command gets.
struct Session {
    settings: Settings,
    output: Output,
    sources: Sources,
    /// Whether this process changed something of the machine, apart from the journal.
    touched: Cell<bool>,
    /// Set by a signal that asks to stop, once anything was begun.
    signals: OnceCell<Arc<AtomicBool>>,
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let args: Vec<_> = std::env::args_os().collect();
    if let Some(code) = internal::run(args.get(1..).unwrap_or_default()) {
        return code;
    }
    let Parsed { cli, sources } = match config::parse(&args) {
        Ok(parsed) => parsed,
        Err(error) => {
            // The settings say whether a document is wanted, and they are what is wrong.
            Output::new(false, false, false, Log::default()).error(&error);
            return Exit::Usage.into();
        }
    };
    let common = cli.common;
    let output = Output::new(common.json, common.no_color, common.verbose, Log::new(common.log_format));
    let session = Session {
        settings: common.settings,
        output,
        sources,
        touched: Cell::new(false),
        signals: OnceCell::new(),
    };
    let exit = dispatch(&session, &cli.command).unwrap_or_else(|error| {
        let exit = if error.is::<UsageError>() { Exit::Usage } else { Exit::Failed };
        session.failed(&error, exit)
    });
    if !matches!(exit, Exit::Done | Exit::Changes) {
        kept_program::hint(&session.output);
    }
    exit.into()
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
        Command::Inspect(args) => inspect::inspect(session, args),
        Command::Plan { format } => inspect::plan(session, *format),
        Command::Migrate(args) => migrate::migrate(session, args),
        Command::Install(args) => install::install(session, args),
        Command::Verify => verify::verify(session),
        Command::Doctor(args) => doctor::doctor(session, args),
        Command::Audit(args) => audit::audit(session, args),
        Command::Roots(args) => roots::roots(session, args),
        Command::Uninstall(args) => uninstall::uninstall(session, args),
        Command::Resume(status) => recover::resume(session, *status),
        Command::Rollback(args) => recover::rollback(session, args),
        Command::Schema { name } => schema::schema(session, name.as_deref()),
        Command::History(args) => history::history(session, args),
        Command::Config(args) => config::config(session, args),
        Command::Completions { shell } => manual::completions(session, *shell),
        Command::Man { directory } => manual::man(session, directory.as_deref()),
    }
}

impl Session {
    /// Tells of an error, also as the document that is wanted instead of the command's own. A run turns what happens after its
    /// first change into an exit of its own; what arrives here happened before, or between two runs of one command.
    fn failed(&self, error: &anyhow::Error, exit: Exit) -> Exit {
        let changed = self.touched.get();
        let exit = if changed { Exit::Stuck } else { exit };
        self.output.error(error);
        // Nobody reads it, and the exit status says the same.
        let failure = schema::Failure { error: format!("{error:#}"), changed, exit_status: exit as u8 };
        let _ = self.output.document(&failure);
        exit
    }

    /// From the first call on, signals that ask to stop set this and end nothing by themselves: one that comes between two runs of a
    /// command must not be lost.
    ///
    /// # Errors
    /// When they cannot be watched for.
    fn signals(&self) -> Result<&AtomicBool> {
        if let Some(flag) = self.signals.get() {
            return Ok(flag);
        }
        let flag = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            signal_hook::flag::register(signal, Arc::clone(&flag)).context("cannot watch for signals")?;
        }
        Ok(self.signals.get_or_init(|| flag))
    }

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

    /// Writes a page where one is wanted.
    fn page(&self, path: Option<&Path>, report: &Report<'_>) -> Result<()> {
        let Some(path) = path else { return Ok(()) };
        report::save(path, &report::page(report).context("cannot make the page")?)?;
        self.output.message(&format!("the page is {}", path.display()));
        Ok(())
    }

    /// Asks, unless nothing is to be asked; an error when there is nobody to ask and `--yes` was not given.
    fn confirm(&self, question: &str) -> Result<bool> {
        if self.settings.yes {
            self.output.tell(&answered(question, true, "--yes"));
            return Ok(true);
        }
        if !self.output.can_ask() {
            let text = format!(
                "there is no terminal to ask {question:?} on: give --yes to go ahead without questions"
            );
            return Err(UsageError(text).into());
        }
        let answer = dialoguer::Confirm::new()
            .with_prompt(question)
            .default(false)
            .interact()
            .context("cannot ask on this terminal: give --yes to go ahead without questions")?;
        self.output.log.keep(&answered(question, answer, "a person"));
        Ok(answer)
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
            let answer = match key.to_ascii_lowercase() {
                'y' => true,
                'e' => {
                    self.output.tell_plan(plan);
                    continue;
                }
                'n' | '\n' | '\r' | '\u{1b}' => false,
                _ => continue,
            };
            self.output.log.keep(&answered(question, answer, "a person"));
            return Ok(answer);
        }
    }
}

/// A question with its answer, for those who were not asked and those who read it later.
fn answered(question: &str, yes: bool, by: &str) -> Event {
    let answer = if yes { "yes" } else { "no" };
    Event::new("question", format!("{question} {answer} ({by})"))
        .with("question", question)
        .with("answer", answer)
        .with("by", by)
}

/// Refuses a caller who is not root.
fn require_root(what: &str) -> Result<()> {
    if nix::unistd::geteuid().is_root() {
        return Ok(());
    }
    Err(UsageError(format!("{what} needs root: run it with sudo")).into())
}
