//! A directory in a Mac's root directory, which nobody can write to: synthetic.conf(5) asks for it.

use std::path::PathBuf;

use anyhow::{Result, bail};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Act, Host, show};
use crate::system::command;

/// Makes what synthetic.conf(5) asks for without a restart. Nix's own script calls it, too, and found that its status tells nothing.
const TOOL: &str = "/System/Library/Filesystems/apfs.fs/Contents/Resources/apfs.util";

/// Parameters.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MakeMountPoint {
    /// The directory, which a line of `/etc/synthetic.conf` names.
    pub path: PathBuf,
}

impl Act for MakeMountPoint {
    type Before = ();

    fn changes(&self) -> String {
        format!("has the system make {}, as /etc/synthetic.conf says", show(&self.path))
    }

    fn undone_by(&self) -> String {
        "nothing: without its line it goes with the next restart".to_owned()
    }

    fn is_done(&self, _: &Host<'_>) -> Result<bool> {
        Ok(self.path.is_dir())
    }

    fn capture(&self, _: &Host<'_>) -> Result<()> {
        Ok(())
    }

    fn apply(&self, _: &Host<'_>, (): &()) -> Result<()> {
        let _ = command::output(TOOL, &["-t"])?;
        if !self.path.is_dir() {
            bail!(
                "the system did not make {} without a restart: run this again with --keep-partial, restart the Mac when it stops here, \
                 and run nix-unroot resume",
                show(&self.path)
            );
        }
        Ok(())
    }

    fn undo(&self, _: &Host<'_>, (): &()) -> Result<()> {
        Ok(())
    }
}
