//! SELinux and AppArmor, as far as they may have a say in what the gate and the daemon do.

use std::path::PathBuf;

use super::reader::Reader;
use super::{AccessControl, SeLinux, nix_paths};

/// What the kernel and the files of policies say.
pub(crate) fn gather(reader: &Reader<'_>) -> AccessControl {
    let enforce = reader.text("/sys/fs/selinux/enforce");
    let selinux = match enforce.as_deref().map(str::trim) {
        Some("1") => SeLinux::Enforcing,
        Some(_) => SeLinux::Permissive,
        None => SeLinux::Off,
    };
    let enabled = reader.text("/sys/module/apparmor/parameters/enabled");
    let apparmor = enabled.as_deref().map(str::trim) == Some("Y");
    let of_nix = |path: &PathBuf| {
        let text = reader.text(path).unwrap_or_default();
        let code = text.lines().filter(|line| !line.trim_start().starts_with('#'));
        code.into_iter().any(|line| line.contains("nix-daemon") || !nix_paths::named(line).is_empty())
    };
    let apparmor_profiles = match apparmor {
        true => reader.list("/etc/apparmor.d").into_iter().filter(of_nix).collect(),
        false => Vec::new(),
    };
    AccessControl { selinux, apparmor, apparmor_profiles }
}
