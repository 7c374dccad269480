//! Remembering files that other programs overwrite: account tools leave `/etc/passwd-` and its kin behind.

use std::path::{Path, PathBuf};

use anyhow::Result;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::conflict::Present;
use super::file_state::FileState;
use super::{Act, Host};

/// Parameters.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeepFiles {
    /// The files, each of which may be missing.
    pub paths: Vec<PathBuf>,
}

impl Act for KeepFiles {
    type Before = Vec<Kept>;

    fn changes(&self) -> String {
        format!("remembers {} files that later steps overwrite", self.paths.len())
    }

    fn undone_by(&self) -> String {
        "puts them back".to_owned()
    }

    fn is_done(&self, _: &Host<'_>) -> Result<bool> {
        Ok(false)
    }

    fn capture(&self, host: &Host<'_>) -> Result<Self::Before> {
        let kept = |path| Ok(Kept { state: FileState::capture(path, host)?, original: original_of(path)? });
        self.paths.iter().map(|path| kept(path)).collect()
    }

    fn apply(&self, _: &Host<'_>, _: &Self::Before) -> Result<()> {
        Ok(())
    }

    fn undo(&self, host: &Host<'_>, before: &Self::Before) -> Result<()> {
        for (path, kept) in self.paths.iter().zip(before) {
            // Where somebody else used account tools since, the copy is of what they changed, and newer than ours.
            if original_of(path)? == kept.original {
                kept.state.restore(path, host)?;
            }
        }
        Ok(())
    }
}

/// What is remembered of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    #[serde(flatten)]
    state: FileState,
    /// SHA-256 of the file that it is an older copy of.
    original: String,
}

/// SHA-256 of the file that account tools make `path` of: `/etc/passwd` for `/etc/passwd-`.
fn original_of(path: &Path) -> Result<String> {
    let name = path.to_string_lossy();
    Ok(Present::at(Path::new(name.trim_end_matches('-')))?.digest())
}

#[cfg(test)]
mod tests {
    use super::super::test_host::host;
    use super::*;
    use std::fs;

    #[test]
    fn a_copy_of_what_others_changed_since_stays() {
        for (edited, left) in [(false, "older"), (true, "made since")] {
            let dir = tempfile::tempdir().unwrap();
            let host = host(dir.path());
            let (original, copy) = (dir.path().join("passwd"), dir.path().join("passwd-"));
            fs::write(&original, "now").unwrap();
            fs::write(&copy, "older").unwrap();
            let action = KeepFiles { paths: vec![copy.clone()] };
            let before = action.capture(&host).unwrap();
            fs::write(&copy, "made since").unwrap();
            if edited {
                fs::write(&original, "somebody's").unwrap();
            }
            action.undo(&host, &before).unwrap();
            assert_eq!(fs::read_to_string(&copy).unwrap(), left);
        }
    }
}
