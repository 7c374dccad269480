//! Whether root's own `nix` goes through the daemon.

use super::{CheckError, Outcome, Target, conf};

/// What each setting must come to. A root process that opens the store itself would give it back to root, and with the
/// default group would change the group of `/nix/store`.
const WANTED: [(&str, &[&str]); 2] = [("store", &["daemon", "unix://"]), ("build-users-group", &[""])];

pub(super) fn check(target: &Target) -> Result<Outcome, CheckError> {
    let settings = conf::read(&target.conf_files)?;
    let mut complaints = Vec::new();
    for (name, good) in WANTED {
        match settings.get(name) {
            Some(value) if good.contains(&value.as_str()) => {}
            Some(value) => complaints.push(format!("{name} is {value:?} for root, not {:?}", good[0])),
            None => complaints.push(format!("{name} is not set for root")),
        }
    }
    let remedy = "the block of nix-unroot at the end of /etc/nix/nix.conf sets it; look for a later line, or for root's own ~/.config/nix/nix.conf";
    Ok(Outcome::unless(&complaints, "nix.conf says store = daemon, and no build-users-group", remedy))
}
