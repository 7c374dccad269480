//! Users and groups go from a Mac's directory of accounts.

use anyhow::{Result, bail};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::remove_accounts::removes_accounts;
use super::{Act, Host};
use crate::platform::directory::{self, Attributes};

/// Parameters.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RemoveRecords {
    /// Names of users.
    pub users: Vec<String>,
    /// Names of groups.
    pub groups: Vec<String>,
}

/// A record as it was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    path: String,
    attributes: Attributes,
}

impl Act for RemoveRecords {
    type Before = Vec<Record>;

    fn changes(&self) -> String {
        removes_accounts(&self.users, &self.groups)
    }

    fn undone_by(&self) -> String {
        "makes them again, with the ids that they had".to_owned()
    }

    fn is_done(&self, host: &Host<'_>) -> Result<bool> {
        Ok(self.capture(host)?.is_empty())
    }

    fn capture(&self, _: &Host<'_>) -> Result<Vec<Record>> {
        let mut records = Vec::new();
        for path in self.paths() {
            if let Some(attributes) = directory::read(&path)? {
                records.push(Record { path, attributes });
            }
        }
        Ok(records)
    }

    fn apply(&self, host: &Host<'_>, before: &Vec<Record>) -> Result<()> {
        for record in before {
            host.check_cancelled()?;
            directory::remove(&record.path)?;
        }
        Ok(())
    }

    fn undo(&self, _: &Host<'_>, before: &Vec<Record>) -> Result<()> {
        for record in before.iter().rev() {
            let now = directory::read(&record.path)?.unwrap_or_default();
            if now == record.attributes {
                continue;
            }
            // Half a record is ours, from an undoing that was interrupted. A whole one with another id is somebody else's.
            for id in ["UniqueID", "PrimaryGroupID"] {
                let (was, is) = (record.attributes.get(id), now.get(id));
                if is.is_some() && is != was {
                    bail!(
                        "somebody made {} anew, with another {id}: remove it (dscl . -delete {0}), and try again",
                        record.path
                    );
                }
            }
            directory::write(&record.path, &record.attributes)?;
        }
        Ok(())
    }
}

impl RemoveRecords {
    /// The users first: a group that somebody is in is no use to anybody.
    fn paths(&self) -> impl Iterator<Item = String> {
        let users = self.users.iter().map(|name| format!("/Users/{name}"));
        users.chain(self.groups.iter().map(|name| format!("/Groups/{name}")))
    }
}
