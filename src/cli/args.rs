//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

use super::log::LogFormat;
use super::settings::Settings;

/// Hands a root-owned Nix to an unprivileged user, and back.
#[derive(Debug, Parser)]
#[command(name = "nix-unroot", version, max_term_width = 100, after_help = EXIT_STATUS)]
pub struct Cli {
    #[command(flatten)]
    pub common: Common,
    #[command(subcommand)]
    pub command: Command,
}

const EXIT_STATUS: &str = "Exit status: 0 done, or nothing to do; 1 failed, and undone; 2 usage; 3 blocked by a finding; \
4 failed, and not fully undone (the message says how to go on); 5 with --exit-code: something was changed, or with --dry-run would be.";

/// What every command takes. Variables and keys of the file are made from the flags: see `config`.
#[derive(Debug, Args)]
pub struct Common {
    /// Configuration file (TOML, the same names as the long options) [default: /etc/nix-unroot.toml, when it exists]
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// One JSON document on standard output; progress and messages go to standard error
    #[arg(long, global = true)]
    pub json: bool,
    /// No colours (also: NO_COLOR in the environment)
    #[arg(long, global = true)]
    pub no_color: bool,
    /// Says more: what each step changes
    #[arg(long, short, global = true)]
    pub verbose: bool,
    /// Messages on standard error as lines of text, or each as a JSON object in a line
    #[arg(long, global = true, value_enum, value_name = "FORMAT", default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
    #[command(flatten)]
    pub settings: Settings,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Shows what is installed here, and what stands in the way; changes nothing
    Inspect(InspectArgs),
    /// Prints the plan of a migration, or of an installation where there is no Nix; changes nothing
    Plan {
        /// The form of the plan
        #[arg(long, value_enum, default_value_t = PlanFormat::Toml)]
        format: PlanFormat,
    },
    /// Hands a root-owned Nix to an unprivileged user
    Migrate(MigrateArgs),
    /// Installs an unprivileged Nix on a machine that has none
    Install(MigrateArgs),
    /// Proves the finished state on the live machine: owner, build uid, trust, GC roots
    Verify,
    /// Verifies, and finds what was changed since by package upgrades, other installers or by hand; can put it back
    Doctor(DoctorArgs),
    /// Lists how the Nix user could still become root, and closes the ways that can be closed safely
    Audit(AuditArgs),
    /// Lists what keeps store paths alive: processes, links, and links that are remembered while they cannot be seen
    Roots(RootsArgs),
    /// Removes Nix from this machine, whoever installed it
    Uninstall(UninstallArgs),
    /// Goes on with a run that was interrupted
    Resume(Status),
    /// Gives back the state before the last run, or before the one that is named
    Rollback(RollbackArgs),
    /// Prints the JSON schema of a document of --json, or the names of all
    Schema {
        /// The `kind` of the document
        #[arg(value_name = "KIND")]
        name: Option<String>,
    },
    /// Lists runs and their steps
    History(HistoryArgs),
    /// Shows the settings that count here and where each comes from
    Config(ConfigArgs),
    /// Prints the completions for a shell
    Completions {
        /// The shell that reads them
        #[arg(value_enum)]
        shell: Shell,
    },
    /// Prints the manual page, or writes the pages of all commands into a directory
    Man {
        /// Where to write them, in the form of a section of man pages
        #[arg(value_name = "DIR")]
        directory: Option<PathBuf>,
    },
}

/// What tells "done" from "nothing to do" in the exit status.
#[derive(Clone, Copy, Debug, Default, Args)]
pub struct Status {
    /// Exit status 5 when something was changed, or with --dry-run would be; 0 then means that there was nothing to do
    #[arg(long)]
    pub exit_code: bool,
}

#[derive(Debug, Args)]
pub struct HistoryArgs {
    /// Only this run
    #[arg(value_name = "RUN")]
    pub run: Option<i64>,
    /// Shows what was printed when it ran
    #[arg(long)]
    pub log: bool,
}

#[derive(Debug, Args)]
pub struct ConfigArgs {
    /// Prints a file with every key, its meaning and its variable, all commented out
    #[arg(long)]
    pub example: bool,
}

#[derive(Debug, Args)]
pub struct InspectArgs {
    /// Also writes a page for people, which any browser shows
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
}

impl Command {
    /// Whether it knows what it sees on a Mac.
    pub fn is_for_macs(&self) -> bool {
        !matches!(self, Self::Audit(_) | Self::Roots(_) | Self::Doctor(_))
    }
}

#[derive(Debug, Args)]
pub struct MigrateArgs {
    /// Shows findings and plan, and writes nothing anywhere
    #[arg(long)]
    pub dry_run: bool,
    #[command(flatten)]
    pub status: Status,
    /// With --dry-run: also writes a page for people, which any browser shows
    #[arg(long, value_name = "FILE", requires = "dry_run")]
    pub html: Option<PathBuf>,
    /// Runs this plan, as `nix-unroot plan` printed it, instead of making one; refused when it no longer fits
    #[arg(long, value_name = "FILE")]
    pub plan: Option<PathBuf>,
    /// Leaves what was done when a step fails, instead of undoing it
    #[arg(long)]
    pub keep_partial: bool,
}

#[derive(Debug, Args)]
pub struct AuditArgs {
    /// Applies the safe remedies, as a run that rollback undoes
    #[arg(long)]
    pub fix: bool,
    /// With --fix: shows what would be changed, and changes nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Exit status 5 when there is something to change, or with --fix when something was changed
    #[arg(long)]
    pub exit_code: bool,
    /// Also writes a page for people, which any browser shows
    #[arg(long, value_name = "FILE", conflicts_with = "fix")]
    pub html: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// Puts back what drifted, as a run that rollback undoes
    #[arg(long)]
    pub repair: bool,
    /// With --repair: shows what would be changed, and changes nothing
    #[arg(long)]
    pub dry_run: bool,
    /// With --repair: whose version stays of what somebody edited: theirs, or ours (what nix-unroot wrote; a rollback gives theirs
    /// back). Without it each is asked for on a terminal, and nothing is repaired elsewhere
    #[arg(long, value_name = "WHOSE")]
    pub keep: Option<Whose>,
    #[command(flatten)]
    pub status: Status,
}

#[derive(Debug, Args)]
pub struct RollbackArgs {
    /// The run to undo, as history counts them; the last one in effect. When it is undone already there is nothing to do, so
    /// this can be repeated whatever became of the first time [default: the last run]
    #[arg(value_name = "RUN")]
    pub run: Option<i64>,
    /// Makes a damaged journal anew from its copy first
    #[arg(long)]
    pub from_copy: bool,
    /// Whose version stays of what somebody else changed since, where undoing cannot decide: theirs, or ours (the state
    /// before; theirs is put aside in the backups). Without it each is asked for on a terminal, and nothing is undone elsewhere
    #[arg(long, value_name = "WHOSE")]
    pub keep: Option<Whose>,
    #[command(flatten)]
    pub status: Status,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Whose {
    Theirs,
    Ours,
}

#[derive(Debug, Args)]
pub struct UninstallArgs {
    /// Shows what would go and what would stay, and writes nothing anywhere
    #[arg(long)]
    pub dry_run: bool,
    /// Leaves /nix as it is
    #[arg(long)]
    pub keep_store: bool,
    /// Removes what Nix's commands left in people's homes, too: profiles' links, channels, caches
    #[arg(long)]
    pub purge_homes: bool,
    #[command(flatten)]
    pub status: Status,
}

#[derive(Debug, Args)]
pub struct RootsArgs {
    /// Forgets what is remembered of this link, so that a collection may delete what it kept
    #[arg(long, value_name = "PATH", conflicts_with = "expire_older_than")]
    pub expire: Option<PathBuf>,
    /// Forgets the remembered roots that could not be seen for so many days
    #[arg(long, value_name = "DAYS")]
    pub expire_older_than: Option<u32>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum PlanFormat {
    Toml,
    Json,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
