//! What a machine should look like.

use std::path::PathBuf;

use super::run::{CHECKS, Check};
use crate::platform::{paths, systemd};
use crate::types::SubidRange;

/// The state to prove. [`Target::new`] fills in what is the same on every migrated machine.
#[derive(Clone, Debug)]
pub struct Target {
    /// The daemon's socket.
    pub socket: PathBuf,
    /// Uid of the user that owns the store and runs the daemon.
    pub nix_uid: u32,
    /// Its group.
    pub nix_gid: u32,
    /// Where builds' uids lie.
    pub uids: SubidRange,
    /// Where builds' gids lie.
    pub gids: SubidRange,
    /// Build users of the old setup, who must own nothing any more.
    pub build_users_uids: Vec<u32>,
    /// A user whom the daemon must not trust.
    pub untrusted_uid: u32,
    /// Nix's state directory.
    pub state_dir: PathBuf,
    /// Directories in which a root is planted, each in a new directory of mode 0700; none on a Mac. Those that are not there, or in
    /// which root cannot make one (an automounter's, a network file system), are passed over. They are where people's roots lie, so that a unit which hides one of them from the daemon is found.
    pub planting_grounds: Vec<PathBuf>,
    /// The `nix.conf` files that root's own commands read, in order; those that are not there are passed over.
    pub conf_files: Vec<PathBuf>,
    /// Files that must be there and that only root may be able to change, with every directory above them.
    pub root_files: Vec<PathBuf>,
    /// Owner and group of the store's directory itself.
    pub store_owner: (u32, u32),
    /// Where daemon and scanner say what went wrong.
    pub logs: &'static str,
    /// What is to be proved.
    pub checks: &'static [Check],
    /// Paths that may stay root's although they lie where `nix` owns all else.
    pub kept: Vec<PathBuf>,
}

impl Target {
    /// A migrated Linux machine as it usually is.
    pub fn new(nix_uid: u32, nix_gid: u32, range: SubidRange) -> Self {
        let libexec = PathBuf::from(paths::LIBEXEC_DIR);
        let unit = |name| PathBuf::from("/etc/systemd/system").join(name);
        let units = [
            "nix-daemon.socket",
            "nix-daemon-gate.service",
            "nix-root-scan.socket",
            "nix-root-scan.service",
            "nix-root-scan.timer",
        ];
        let mut root_files =
            vec![libexec.join(paths::GATE), libexec.join(paths::ROOT_SCAN), paths::NIX_CONF.into()];
        root_files.extend(units.map(unit));
        Self {
            socket: paths::DAEMON_SOCKET.into(),
            nix_uid,
            nix_gid,
            uids: range,
            gids: range,
            build_users_uids: Vec::new(),
            untrusted_uid: 65534,
            state_dir: paths::NIX_STATE.into(),
            planting_grounds: vec!["/home".into(), "/root".into(), "/var/tmp".into()],
            conf_files: vec![
                paths::NIX_CONF.into(),
                "/etc/xdg/nix/nix.conf".into(),
                "/root/.config/nix/nix.conf".into(),
            ],
            root_files,
            store_owner: (0, nix_gid),
            logs: match systemd::is_running() {
                true => "see the daemon's journal: journalctl -u 'nix-daemon*' -u 'nix-root-scan*'",
                false => "see what start-nix-daemon said",
            },
            checks: CHECKS,
            kept: Vec::new(),
        }
    }
}
