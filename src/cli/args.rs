//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

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
4 failed, and not fully undone (the message says how to go on); 5 --dry-run found changes to make (with --exit-code).";

/// What every command takes.
#[derive(Debug, Args)]
pub struct Common {
    /// Configuration file (TOML, the same names as the long options) [default: /etc/nix-unroot.toml, when it exists]
    #[arg(long, global = true, value_name = "FILE", env = "NIX_UNROOT_CONFIG")]
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
    #[command(flatten)]
    pub settings: Settings,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Shows what is installed here, and what stands in the way; changes nothing
    Inspect,
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
    /// Lists how the Nix user could still become root, and closes the ways that can be closed safely
    Audit(AuditArgs),
    /// Lists what keeps store paths alive: processes, links, and links that are remembered while they cannot be seen
    Roots(RootsArgs),
    /// Removes Nix from this machine, whoever installed it
    Uninstall(UninstallArgs),
    /// Goes on with a run that was interrupted
    Resume,
    /// Gives back the state before the last migration
    Rollback(RollbackArgs),
    /// Lists runs and their steps
    History {
        /// Only this run
        #[arg(value_name = "RUN")]
        run: Option<i64>,
    },
}

impl Command {
    /// Whether it knows what it sees on a Mac.
    pub fn is_for_macs(&self) -> bool {
        matches!(
            self,
            Self::Inspect | Self::Plan { .. } | Self::Migrate(_) | Self::Install(_) | Self::History { .. }
        )
    }
}

#[derive(Debug, Args)]
pub struct MigrateArgs {
    /// Shows findings and plan, and writes nothing anywhere
    #[arg(long)]
    pub dry_run: bool,
    /// With --dry-run: exit status 5 when there is something to change
    #[arg(long, requires = "dry_run")]
    pub exit_code: bool,
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
    #[arg(long, requires = "fix")]
    pub dry_run: bool,
    /// Exit status 5 when there is something to change
    #[arg(long)]
    pub exit_code: bool,
}

#[derive(Debug, Args)]
pub struct RollbackArgs {
    /// Makes a damaged journal anew from its copy first
    #[arg(long)]
    pub from_copy: bool,
    /// Whose version stays of what somebody else changed since, where undoing cannot decide: theirs, or ours (the state
    /// before; theirs is put aside in the backups). Without it each is asked for on a terminal, and nothing is undone elsewhere
    #[arg(long, value_name = "WHOSE")]
    pub keep: Option<Whose>,
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
