//! What somebody else changed since a migration: shown, and asked about.

use anyhow::{Context, Result};
use console::Style;

use super::Session;
use super::args::Whose;
use super::log::Event;
use crate::actions::conflict::{Conflict, Keep};
use crate::system::text;
use crate::system::text::printable;

/// Lines of a diff that are shown.
const SHOWN: usize = 24;

/// What "ours" means.
#[derive(Clone, Copy)]
pub struct Words {
    /// Whether it is what a run wrote, not what was there before.
    puts_back: bool,
    /// To say how to choose.
    ours: &'static str,
    /// To say what the answer does.
    answer: &'static str,
}

impl Words {
    /// In a rollback.
    pub const ROLLBACK: Self = Self {
        puts_back: false,
        ours: "the state before, and theirs is put aside in /var/lib/nix-unroot/backups",
        answer: "as before; what is there now is put aside",
    };
    /// In a repair.
    pub const REPAIR: Self = Self {
        puts_back: true,
        ours: "what nix-unroot wrote is put back; a rollback gives theirs back",
        answer: "as nix-unroot wrote it; a rollback gives back what is there now",
    };
}

/// Shows the conflicts and finds out whose version stays of each: as `--keep` says, or as a person answers. `None` when nobody
/// can be asked, or somebody does not want to choose.
///
/// # Errors
/// When a question cannot be asked.
pub fn choose(
    session: &Session,
    found: &[Conflict],
    keep: Option<Whose>,
    words: Words,
) -> Result<Option<Vec<(Conflict, Keep)>>> {
    let asks = keep.is_none() && !session.settings.yes && session.output.can_ask();
    let mut chosen = Vec::new();
    for (index, conflict) in found.iter().enumerate() {
        show(session, conflict, index + 1, found.len());
        let keep = match keep {
            Some(Whose::Theirs) => Some(Keep::Theirs),
            Some(Whose::Ours) => Some(Keep::Ours),
            None if asks => ask(conflict, words)?,
            None => continue,
        };
        match keep {
            Some(keep) => {
                tell_choice(session, conflict, keep, asks);
                chosen.push((conflict.clone(), keep));
            }
            None => break,
        }
    }
    if chosen.len() == found.len() {
        return Ok(Some(chosen));
    }
    session.output.message(&format!(
        "nothing was changed: somebody else changed what is shown above since; choose with --keep theirs (it stays as it is \
         now) or --keep ours ({})",
        words.ours
    ));
    Ok(None)
}

fn show(session: &Session, conflict: &Conflict, number: usize, of: usize) {
    let say = |text: &str| session.output.message(text);
    let word = Style::new().yellow().bold().for_stderr().apply_to("conflict");
    say(&format!("{word} {number} of {of}: {}: {}", text::path(&conflict.path), conflict.reason));
    say(&format!("    before the migration: {}", printable(&conflict.before.what)));
    say(&format!("    the migration wrote:  {}", printable(&conflict.ours.what)));
    say(&format!("    now there is:         {}", printable(&conflict.now.what)));
    let diff = conflict.diff();
    for line in diff.iter().take(SHOWN) {
        say(&format!("      {}", printable(line)));
    }
    if diff.len() > SHOWN {
        say(&format!("      ... and {} more lines", diff.len() - SHOWN));
    }
}

/// For those who were not asked, and those who read it later.
fn tell_choice(session: &Session, conflict: &Conflict, keep: Keep, asked: bool) {
    let whose = if keep == Keep::Theirs { "theirs" } else { "ours" };
    let path = conflict.path.display().to_string();
    let event =
        Event::new("choice", format!("    stays: {whose} ({})", if asked { "a person" } else { "--keep" }));
    let event = event.with("path", path).with("keep", whose);
    if asked { session.output.log.keep(&event) } else { session.output.log.tell(&event) }
}

fn ask(conflict: &Conflict, words: Words) -> Result<Option<Keep>> {
    let theirs = format!("theirs: {} stays as it is now", text::path(&conflict.path));
    let version = if words.puts_back { &conflict.ours } else { &conflict.before };
    let ours = format!("ours: {}, {}", printable(&version.what), words.answer);
    let answer = dialoguer::Select::new()
        .with_prompt("Whose version stays?")
        .items([theirs.as_str(), &ours, "stop: change nothing"])
        .default(2)
        .interact_opt()
        .context("cannot ask on this terminal: choose with --keep theirs or --keep ours")?;
    Ok(match answer {
        Some(0) => Some(Keep::Theirs),
        Some(1) => Some(Keep::Ours),
        _ => None,
    })
}
