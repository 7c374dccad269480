//! A user or a group in a Mac's directory of accounts.

use std::path::Path;

use anyhow::{Context, Result, bail};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::conflict::{Conflict, Keep, Present, Scan, Version, put_aside, undecided};
use super::drain::end_all_of;
use super::drift::{Aspect, Drift, Repair};
use super::{Act, Host};
use crate::platform::directory::{self, Attributes};

/// Parameters.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CreateRecord {
    /// Where: `/Users/NAME` or `/Groups/NAME`.
    pub path: String,
    /// What it is made with, by the names of Open Directory; its number among them.
    pub attributes: Attributes,
}

impl CreateRecord {
    /// The attribute that makes the record somebody's.
    fn id(&self) -> &'static str {
        if self.path.starts_with("/Users/") { "UniqueID" } else { "PrimaryGroupID" }
    }

    fn number<'a>(&self, attributes: &'a Attributes) -> Option<&'a str> {
        attributes.get(self.id())?.first().map(String::as_str)
    }

    /// `the user _nix`
    fn words(&self) -> String {
        let name = self.path.rsplit('/').next().unwrap_or_default();
        format!("the {} {name}", if self.path.starts_with("/Users/") { "user" } else { "group" })
    }

    /// The number of a record of this name that somebody else made. One without a number is half made, by us.
    fn of_somebody_else(&self, now: &Attributes) -> Option<String> {
        let number = self.number(now)?;
        (Some(number) != self.number(&self.attributes)).then(|| number.to_owned())
    }

    /// That it is another one by now, with what can be done about it.
    fn made_anew(&self, number: &str) -> String {
        let words = self.words();
        format!(
            "somebody made {words} anew, with the {} {number}: remove it (dscl . -delete {})",
            self.id(),
            self.path
        )
    }

    /// Another record of this name, which somebody made after removing ours.
    fn conflict(&self, now: &Attributes) -> Result<Option<(Conflict, Present)>> {
        let Some(number) = self.of_somebody_else(now) else { return Ok(None) };
        let with = |number: &str| Version::of(format!("{} with the {} {number}", self.words(), self.id()));
        let present = Present::File(serde_json::to_vec(now).context("cannot write the record down")?);
        let conflict = Conflict {
            path: self.path.clone().into(),
            reason: format!("somebody else made {} anew", self.words()),
            before: Version::of(format!("no {}", self.words())),
            ours: with(self.number(&self.attributes).unwrap_or_default()),
            now: with(&number),
            digest: present.digest(),
        };
        Ok(Some((conflict, present)))
    }
}

impl Act for CreateRecord {
    type Before = ();

    fn changes(&self) -> String {
        let number = self.number(&self.attributes).unwrap_or_default();
        format!("creates {} ({} {number}; hidden, no login, no password)", self.words(), self.id())
    }

    fn undone_by(&self) -> String {
        format!("removes {}", self.words())
    }

    fn is_done(&self, _: &Host<'_>) -> Result<bool> {
        let Some(now) = directory::read(&self.path)? else { return Ok(false) };
        let differs = self.attributes.iter().find(|(name, values)| now.get(*name) != Some(values));
        if let Some((name, values)) = differs {
            let now = now.get(name).map(|values| values.join(" ")).unwrap_or_default();
            bail!(
                "{} is there already, with the {name} {now:?} and not {:?}: remove it (dscl . -delete {}), or choose another name",
                self.words(),
                values.join(" "),
                self.path
            );
        }
        Ok(true)
    }

    fn capture(&self, _: &Host<'_>) -> Result<()> {
        Ok(())
    }

    fn apply(&self, _: &Host<'_>, (): &()) -> Result<()> {
        // A run that was killed here may have made half of it.
        let now = directory::read(&self.path)?.unwrap_or_default();
        match self.of_somebody_else(&now) {
            Some(number) => bail!(self.made_anew(&number)),
            None => directory::write(&self.path, &self.attributes),
        }
    }

    fn undo(&self, host: &Host<'_>, (): &()) -> Result<()> {
        let Some(now) = directory::read(&self.path)? else { return Ok(()) };
        if let Some((conflict, present)) = self.conflict(&now)? {
            match host.choices.of(&conflict.path, &present) {
                Some(Keep::Theirs) => return Ok(()),
                Some(Keep::Ours) => put_aside(&conflict.path, &present, host)?,
                None => bail!(undecided(&conflict.path)),
            }
        }
        // Nothing may run under a number that the next account may get.
        let ours = self.number(&self.attributes).filter(|_| self.id() == "UniqueID");
        if let Some(uid) = ours.filter(|ours| self.number(&now) == Some(ours)).and_then(|id| id.parse().ok())
        {
            end_all_of(host, uid)?;
        }
        directory::remove(&self.path)
    }

    fn look_for_conflicts(&self, scan: &mut Scan<'_>, (): &()) -> Result<()> {
        let now = directory::read(&self.path)?.unwrap_or_default();
        if let Some((conflict, _)) = self.conflict(&now)? {
            scan.conflict(conflict);
        }
        Ok(())
    }

    fn look_for_drift(&self, _: &Host<'_>, _: Option<&()>) -> Result<Vec<Drift>> {
        let one = |found: &str, repair| {
            Ok(vec![Drift::new(Path::new(&self.path), Aspect::Content, found.to_owned(), repair)])
        };
        match directory::read(&self.path)? {
            None => one("it is gone", Repair::Again),
            Some(now) => match self.of_somebody_else(&now) {
                None => Ok(Vec::new()),
                Some(number) => one("it was made anew", Repair::Never(self.made_anew(&number))),
            },
        }
    }
}
