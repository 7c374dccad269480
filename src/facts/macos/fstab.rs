//! What makes `/nix` exist on a system whose root directory cannot be written: synthetic.conf(5), and what is mounted there, fstab(5).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::super::reader::Reader;

/// Where directories in the root directory are asked for.
pub const SYNTHETIC: &str = "/etc/synthetic.conf";
/// Where mounts are described.
pub const FSTAB: &str = "/etc/fstab";

/// The line of `/etc/synthetic.conf` about `nix`.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
pub struct SyntheticLine {
    /// Where `/nix` leads to; `None` for a directory to mount on.
    pub target: Option<String>,
}

/// The line of `/etc/fstab` that mounts at `/nix`.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
pub struct FstabLine {
    /// What is mounted: `UUID=...`, `LABEL=...`.
    pub what: String,
    /// Options.
    pub options: Vec<String>,
    /// The whole line.
    pub line: String,
}

/// Fields are separated by a tab, and the name stands without its slash.
pub(crate) fn synthetic(reader: &Reader<'_>) -> Option<SyntheticLine> {
    let text = reader.text(SYNTHETIC)?;
    text.lines().find_map(|line| {
        let mut fields = line.split('\t');
        (fields.next()? == "nix").then(|| SyntheticLine {
            target: fields.next().filter(|target| !target.is_empty()).map(str::to_owned),
        })
    })
}

pub(crate) fn fstab(reader: &Reader<'_>) -> Option<FstabLine> {
    let text = reader.text(FSTAB)?;
    text.lines().find_map(|line| {
        let code = line.split('#').next().unwrap_or_default();
        let fields: Vec<_> = code.split_whitespace().collect();
        let [what, "/nix", _, options, ..] = fields[..] else { return None };
        Some(FstabLine {
            what: what.to_owned(),
            options: options.split(',').map(str::to_owned).collect(),
            line: line.to_owned(),
        })
    })
}

impl FstabLine {
    /// The UUID that it names. Installers write it in either case.
    pub fn uuid(&self) -> Option<String> {
        self.what.strip_prefix("UUID=").map(str::to_ascii_uppercase)
    }
}
