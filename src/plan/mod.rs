//! Plans: what will be done, in which order, and why.
//!
//! A plan is data (`plans/*.toml`), filled in from [`Facts`] and [`Options`]. The same facts and options give the
//! same plan, to the byte; the filled-in plan holds all that a run needs, so it can be read, kept and run later.

mod carried_over;
mod context;
mod mac;
mod mac_install;
mod options;
mod range;
mod resolve;
mod single_user;
mod uninstall;

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, bail};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

pub use context::Context;
pub use options::{Options, Purpose};
pub use range::build_range;
pub use uninstall::Uninstall;

use crate::actions::Action;
use crate::facts::Facts;
use crate::remains::Remains;

/// The version of the form of a filled-in plan.
const FORMAT: u32 = 1;

/// A filled-in plan.
#[derive(Clone, Debug, PartialEq, JsonSchema, Serialize, Deserialize)]
pub struct Plan {
    /// The version of its form; 1.
    pub format: u32,
    /// Its name: `migrate`, `install`.
    pub name: String,
    /// What it does, in a line.
    pub summary: String,
    /// What is said when it is done.
    #[serde(default)]
    pub done: String,
    /// Whether another run may begin when this one is done, without a rollback of it.
    #[serde(default)]
    pub ends_here: bool,
    /// Whether it is run on a machine that another run changed, and undone before that one.
    #[serde(default)]
    pub goes_on_top: bool,
    /// SHA-256 of the facts and options that it was made from, to tell plans apart.
    pub made_from: String,
    /// Groups of steps, by name, in words for people.
    pub stages: BTreeMap<String, String>,
    /// Its steps, in order.
    #[serde(rename = "step")]
    pub steps: Vec<Step>,
}

/// A step of a plan.
#[derive(Clone, Debug, PartialEq, JsonSchema, Serialize, Deserialize)]
pub struct Step {
    /// Its name within the plan.
    pub id: String,
    /// The name of the group it belongs to.
    pub stage: String,
    /// Why it is needed, for people.
    pub why: String,
    /// What it does.
    #[serde(flatten)]
    pub action: Action,
}

impl Plan {
    /// The plan for the machine described by `facts` and for the purpose that the options name.
    ///
    /// # Errors
    /// When the facts lack something that the plan needs.
    pub fn make(facts: &Facts, options: &Options) -> Result<Self> {
        let name = match (options.purpose, &options.archive) {
            (Purpose::Install, _) if facts.mac.is_some() => "install-macos",
            (Purpose::Install, _) => "install",
            (Purpose::Migrate, _) if facts.mac.is_some() => "migrate-macos",
            (Purpose::Migrate, _) if facts.single_user.is_some() => "migrate-single-user",
            (Purpose::Migrate, None) => "migrate",
            (Purpose::Migrate, Some(_)) => "migrate-with-nix",
        };
        Self::fill(template_of(name)?, &Context::new(facts, options)?)
    }

    /// The plan of `audit --fix`, with the lists that [`crate::audit`] made.
    ///
    /// # Errors
    /// When a list is missing.
    pub fn audit_fix(context: &Context) -> Result<Self> {
        Self::fill(include_str!("../../plans/audit-fix.toml"), context)
    }

    /// The plan of `doctor --repair`: these steps, and around them what stops and starts Nix where that is needed.
    ///
    /// # Errors
    /// When a value is missing.
    pub fn repair(context: &Context, repairs: Vec<Step>) -> Result<Self> {
        let template = include_str!("../../plans/repair.toml");
        let mut plan = Self::fill(template, context)?;
        // Filling in drops a stage without steps, which this one is until now.
        let shipped: Shipped = toml::from_str(template).context("the plan of repairs is not TOML")?;
        let at = plan.steps.iter().take_while(|step| step.stage == "stop").count();
        plan.steps
            .splice(at..at, repairs.into_iter().map(|step| Step { stage: "repair".to_owned(), ..step }));
        let is_used = |name: &String| plan.steps.iter().any(|step| step.stage == *name);
        plan.stages = shipped.stages.into_iter().filter(|(name, _)| is_used(name)).collect();
        plan.made_from = digest(&format!("{:?}", plan.steps));
        plan.check()?;
        Ok(plan)
    }

    /// The plan that removes Nix from the machine on which `remains` were found.
    ///
    /// # Errors
    /// Never for a plan of this version's own.
    pub fn uninstall(remains: &Remains, wanted: &Uninstall) -> Result<Self> {
        let template = match remains.mac {
            Some(_) => include_str!("../../plans/uninstall-macos.toml"),
            None => include_str!("../../plans/uninstall.toml"),
        };
        Self::fill(template, &Context::of_remains(remains, wanted)?)
    }

    fn fill(template: &str, context: &Context) -> Result<Self> {
        let resolved = resolve::resolve(template, context)?;
        let mut plan: Self =
            resolved.try_into().context("a plan of this tool is not in the form it should have")?;
        plan.made_from = context.digest();
        plan.check()?;
        Ok(plan)
    }

    /// Reads a filled-in plan, as [`Plan::to_toml`] or [`Plan::to_json`] wrote it.
    ///
    /// # Errors
    /// When the text is neither, has another format, or names an action twice or one that is unknown.
    pub fn read(text: &str) -> Result<Self> {
        let plan: Self = if text.trim_start().starts_with('{') {
            serde_json::from_str(text).context("this is not a plan in JSON")?
        } else {
            toml::from_str(text).context("this is not a plan in TOML")?
        };
        plan.check()?;
        Ok(plan)
    }

    fn check(&self) -> Result<()> {
        if self.format != FORMAT {
            bail!(
                "the plan has format {}, this nix-unroot knows {FORMAT}: make it anew with nix-unroot plan",
                self.format
            );
        }
        for (index, step) in self.steps.iter().enumerate() {
            if self.steps[..index].iter().any(|other| other.id == step.id) {
                bail!("the plan has two steps named {:?}", step.id);
            }
            if !self.stages.contains_key(&step.stage) {
                bail!("the plan's step {:?} is in the stage {:?}, which does not exist", step.id, step.stage);
            }
        }
        Ok(())
    }

    /// Whether the run can be undone to its end.
    pub fn is_undoable(&self) -> bool {
        !self.steps.iter().any(|step| step.action.is_irrevocable())
    }

    /// The groups of steps in their order, each with its words and the number of its steps.
    pub fn stages_in_order(&self) -> Vec<(&str, usize)> {
        let mut stages: Vec<(&str, usize)> = Vec::new();
        for step in &self.steps {
            // `check` has seen that every stage is there.
            let words = self.stages.get(&step.stage).map_or("", String::as_str);
            match stages.last_mut() {
                Some((last, count)) if *last == words => *count += 1,
                _ => stages.push((words, 1)),
            }
        }
        stages
    }

    /// As TOML, for people and for `migrate --plan`.
    ///
    /// # Errors
    /// Never for a plan that was read or filled in.
    pub fn to_toml(&self) -> Result<String> {
        toml::to_string_pretty(self).context("cannot write the plan as TOML")
    }

    /// As JSON.
    ///
    /// # Errors
    /// Never for a plan that was read or filled in.
    pub fn to_json(&self) -> Result<String> {
        serde_json::to_string_pretty(self).context("cannot write the plan as JSON")
    }
}

/// What is read of a plan before it is filled in.
#[derive(Deserialize)]
struct Shipped {
    stages: BTreeMap<String, String>,
}

/// The text of a plan that ships, before it is filled in.
fn template_of(name: &str) -> Result<&'static str> {
    Ok(match name {
        "migrate" => include_str!("../../plans/migrate.toml"),
        "migrate-macos" => include_str!("../../plans/migrate-macos.toml"),
        "migrate-with-nix" => include_str!("../../plans/migrate-with-nix.toml"),
        "migrate-single-user" => include_str!("../../plans/migrate-single-user.toml"),
        "install" => include_str!("../../plans/install.toml"),
        "install-macos" => include_str!("../../plans/install-macos.toml"),
        _ => bail!("there is no plan {name:?}"),
    })
}

fn digest(text: &str) -> String {
    Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests;
