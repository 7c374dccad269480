//! `audit`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use console::Style;
use schemars::JsonSchema;
use serde::Serialize;

use super::args::{AuditArgs, Status};
use super::exit::Exit;
use super::machine::{LockCheck, Survey};
use super::runs::{Ended, Runner};
use super::{Session, require_root};
use crate::audit::{self, Danger, Hit, Subject};
use crate::facts::{Machine, Unread};
use crate::plan::{Options, Plan};
use crate::report::{Document, Overview, Report, Ways};
use crate::system::text::printable;

/// The document of `audit --json`: what could still lead from Nix's user, or from builds, to root.
#[derive(JsonSchema, Serialize)]
pub struct Audit {
    /// Whether Nix runs unprivileged already.
    pub(super) migrated: bool,
    /// Who is suspected.
    pub(super) subject: String,
    /// The ways that were found, the worst first.
    pub(super) hits: Vec<Hit>,
    /// Before a migration: what would be left after one.
    pub(super) after_migration: Option<Vec<Hit>>,
    /// Before a migration: how many ways it would close.
    pub(super) closed_by_migration: usize,
    /// What could not be read.
    pub(super) unread: Vec<Unread>,
}

impl Document for Audit {
    const KIND: &'static str = "audit";
}

pub fn audit(session: &Session, args: &AuditArgs) -> Result<Exit> {
    let mut options = session.options()?;
    let survey = Survey::take(&options, LockCheck::Wanted)?;
    if let Some(user) = survey.facts.unit("nix-daemon-gate.service").and_then(|unit| unit.user.clone()) {
        options.nix_user = user;
    }
    if args.fix {
        return fix(session, args, &survey, &options);
    }
    let document = look(&survey, &options)?;
    tell(session, &document);
    if args.html.is_some() {
        session.page(args.html.as_deref(), &page(&survey, &document))?;
    }
    session.output.document(&document)?;
    let any = !document.hits.is_empty() || document.after_migration.is_some_and(|hits| !hits.is_empty());
    Ok(if args.exit_code && any { Exit::Changes } else { Exit::Done })
}

fn look(survey: &Survey, options: &Options) -> Result<Audit> {
    let machine = Machine::live();
    let migrated = survey.is_migrated();
    let subject = match migrated {
        true => Subject::user(&survey.facts, &options.nix_user).with_context(|| {
            format!("there is no user {:?}: name Nix's with --nix-user", options.nix_user)
        })?,
        false => Subject::build_users(&survey.facts),
    };
    let (hits, unread) = audit::look(&machine, &subject);
    let mut document = Audit {
        migrated,
        subject: subject.name,
        hits,
        after_migration: None,
        closed_by_migration: 0,
        unread,
    };
    if !migrated {
        let (mut after, _) = audit::look(&machine, &Subject::heir(&survey.facts));
        let found = after.len();
        let replaced = Plan::make(&survey.facts, options).map(|plan| replaced(&plan)).unwrap_or_default();
        after.retain(|hit| !is_replaced(&replaced, hit));
        document.closed_by_migration = found - after.len();
        document.after_migration = Some(after);
    }
    Ok(document)
}

/// Files that a plan writes, whatever was there.
fn replaced(plan: &Plan) -> BTreeSet<PathBuf> {
    let path = |step: &crate::plan::Step| {
        let writes = ["write-file", "put-symlink", "remove-file"].contains(&step.action.name());
        let value = serde_json::to_value(&step.action).ok()?;
        value["path"].as_str().filter(|_| writes).map(PathBuf::from)
    };
    plan.steps.iter().filter_map(path).collect()
}

/// A unit in `/etc` also takes the place of the one of its name elsewhere.
fn is_replaced(replaced: &BTreeSet<PathBuf>, hit: &Hit) -> bool {
    let unit = |path: &Path| {
        let name = path.file_name().map(|name| Path::new("/etc/systemd/system").join(name));
        path.parent().is_some_and(|parent| parent.ends_with("systemd/system"))
            && name.is_some_and(|name| replaced.contains(&name))
    };
    [Some(&hit.name), hit.named_by.as_ref()]
        .into_iter()
        .flatten()
        .any(|path| replaced.contains(path) || unit(path))
}

fn tell(session: &Session, document: &Audit) {
    let line = |text: &str| session.output.line(text);
    line(&format!("from {} to root: {}", document.subject, ways(document.hits.len())));
    document.hits.iter().for_each(|hit| tell_hit(session, hit));
    if let Some(after) = &document.after_migration {
        line(&format!(
            "from the Nix user that a migration makes: {}; {} more that the migration closes",
            ways(after.len()),
            document.closed_by_migration
        ));
        after.iter().for_each(|hit| tell_hit(session, hit));
    }
    for unread in &document.unread {
        line(&printable(&format!("not read: {}: {}", unread.what, unread.why)));
    }
    let fixable = document.hits.iter().filter(|hit| hit.fix.is_some()).count();
    if fixable > 0 && document.migrated {
        line(&format!("nix-unroot audit --fix closes {fixable} of them, and can be rolled back"));
    }
}

fn page<'a>(survey: &'a Survey, document: &'a Audit) -> Report<'a> {
    let mut audit = vec![Ways {
        title: format!("from {} to root", document.subject),
        note: String::new(),
        hits: &document.hits,
    }];
    if let Some(after) = &document.after_migration {
        let closed = document.closed_by_migration;
        audit.push(Ways {
            title: "after a migration".to_owned(),
            note: format!(
                "What the Nix user could do that a migration makes. The migration closes {closed} more ways."
            ),
            hits: after,
        });
    }
    Report {
        overview: Overview::of_audit(&document.hits, &document.subject),
        findings: &[],
        audit,
        unread: &document.unread,
        ..survey.report(None)
    }
}

fn ways(count: usize) -> String {
    match count {
        0 => "no way found".to_owned(),
        1 => "1 way".to_owned(),
        _ => format!("{count} ways"),
    }
}

fn tell_hit(session: &Session, hit: &Hit) {
    let (word, style) = match hit.danger {
        Danger::High => ("high", Style::new().red().bold()),
        Danger::Medium => ("medium", Style::new().yellow()),
        Danger::Low => ("low", Style::new().cyan()),
    };
    let by = hit.named_by.as_ref().map_or(String::new(), |file| format!(" (in {})", file.display()));
    let text = printable(&format!("{}{by}", hit.name.display()));
    session.output.line(&format!("{} {text} [{}]", style.apply_to(format!("{word}:")), hit.key));
    for hop in &hit.chain {
        session.output.line(&format!("    {}", printable(hop)));
    }
    session.output.line(&format!("    when: {}", hit.trigger));
    let fix = if hit.fix.is_some() { " (audit --fix does that)" } else { "" };
    session.output.line(&format!("    remedy: {}{fix}", hit.remedy));
}

fn fix(session: &Session, args: &AuditArgs, survey: &Survey, options: &Options) -> Result<Exit> {
    if !survey.is_migrated() {
        bail!(
            "audit --fix is for a migrated machine: run nix-unroot migrate first, and nix-unroot audit to see what it leaves"
        );
    }
    if !args.dry_run {
        require_root("changing what root reads")?;
    }
    let status = Status { exit_code: args.exit_code };
    let Some(plan) = audit::fix_plan(&look(survey, options)?.hits)? else {
        session.output.message("nothing to do: nothing was found that has a safe remedy");
        return Ended::nothing().finish(session, status);
    };
    if args.dry_run {
        session.output.plan(&plan);
        session.output.document(&plan)?;
        return Ok(if args.exit_code { Exit::Changes } else { Exit::Done });
    }
    session.output.tell_plan(&plan);
    if !session.confirm("Change these files?")? {
        return Ended::declined(session).finish(session, status);
    }
    let mut runner = match Runner::begin(session)? {
        Ok(runner) => runner,
        Err(ended) => return ended.finish(session, status),
    };
    // What was agreed to must still hold under the lock.
    let now = Survey::take(options, LockCheck::HeldByUs)?;
    if !now.is_migrated() || audit::fix_plan(&look(&now, options)?.hits)?.as_ref() != Some(&plan) {
        bail!(
            "the machine changed while the plan was read, and nothing was done: run the same command again"
        );
    }
    runner.apply(session, &plan, false)?.finish(session, status)
}
