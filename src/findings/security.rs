//! Where root would go on executing what the Nix user can write.

use std::path::Path;

use super::Severity::Warning;
use super::{Check, Options, Seen};
use crate::facts::{Facts, Unit};

pub(super) const CHECKS: &[Check] = &[
    Check {
        key: "root-shell-sources-nix",
        severity: Warning,
        title: "root's shells source files that the Nix user will own: whoever becomes that user becomes root at root's next login",
        see: shells,
    },
    Check {
        key: "root-login-shell-in-nix",
        severity: Warning,
        title: "root's login shell lies below /nix, which the Nix user will own",
        see: login_shell,
    },
    Check {
        key: "root-unit-runs-nix",
        severity: Warning,
        title: "units run programs below /nix as root, and the Nix user will own them",
        see: units,
    },
];

fn shells(facts: &Facts, _: &Options) -> Option<Seen> {
    let of_nix =
        |path: &std::path::PathBuf| path.starts_with("/nix") || path.starts_with("/root/.nix-profile");
    let read = facts.shell_snippets.iter().filter(|snippet| snippet.read_by_root);
    let found: Vec<_> = read
        .filter_map(|snippet| Some((snippet, snippet.sources.iter().find(|path| of_nix(path))?)))
        .map(|(snippet, source)| format!("{} names {}", snippet.path.display(), source.display()))
        .collect();
    (!found.is_empty()).then(|| {
        Seen::new(found.join("; ")).remedy(
            "source them only when `[ \"$(id -u)\" != 0 ]`, and let root call Nix by a path outside /nix",
        )
    })
}

fn login_shell(facts: &Facts, _: &Options) -> Option<Seen> {
    let root = facts.users.iter().find(|user| user.uid == 0 && user.shell.starts_with("/nix"))?;
    let seen = Seen::new(format!("{} has {}", root.name, root.shell.display()))
        .remedy("give root a shell of the system's own");
    let record = format!("/Users/{}", root.name);
    Some(match facts.mac {
        Some(_) => seen.command(&["dscl", ".", "-create", &record, "UserShell", "/bin/sh"]),
        None => seen.command(&["usermod", "--shell", "/bin/sh", root.name.as_str()]),
    })
}

fn units(facts: &Facts, _: &Options) -> Option<Seen> {
    let of_the_tool = |unit: &Unit| {
        let name = unit.name.as_str();
        name.starts_with("nix-daemon") || name.starts_with("nix-root-scan")
    };
    let as_root = |unit: &Unit| unit.user.as_deref().is_none_or(|user| user == "root" || user == "0");
    let in_nix = |path: &Path| path.starts_with("/nix");
    let runs = |unit: &&Unit| unit.exec_start.as_deref().is_some_and(in_nix) && unit.file_state != "masked";
    let found: Vec<_> = facts
        .units
        .iter()
        .filter(|unit| !of_the_tool(unit) && as_root(unit))
        .filter(runs)
        .map(|unit| {
            format!("{} runs {}", unit.name, unit.exec_start.as_deref().unwrap_or(Path::new("")).display())
        })
        .collect();
    (!found.is_empty()).then(|| {
        Seen::new(found.join("; ")).remedy("run them as another user (User=), or from a path outside /nix")
    })
}
