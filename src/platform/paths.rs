//! Where things lie on a machine.

/// This tool.
pub const PROGRAM: &str = "/usr/local/sbin/nix-unroot";
/// Directory of the two helpers.
pub const LIBEXEC_DIR: &str = "/usr/local/libexec/nix-unroot";
/// Name of the gate's binary, beside this tool's own or in [`LIBEXEC_DIR`].
pub const GATE: &str = "nix-daemon-gate";
/// Name of the scanner's binary.
pub const ROOT_SCAN: &str = "nix-root-scan";
/// Name of the build broker's binary, which Macs have.
pub const BROKER: &str = "nix-build-broker";
/// What starts gate and scanner where no init system does.
pub const START: &str = "/usr/local/libexec/nix-unroot/start-nix-daemon";
/// Journal and backups; root's alone, 0700.
pub const STATE_DIR: &str = "/var/lib/nix-unroot";
/// The journal.
pub const JOURNAL: &str = "/var/lib/nix-unroot/journal.sqlite";
/// Configuration for unattended runs.
pub const CONFIG: &str = "/etc/nix-unroot.toml";
/// What says of a Mac that it is one, and which.
pub const MAC_VERSION: &str = "/System/Library/CoreServices/SystemVersion.plist";
/// Nix's configuration.
pub const NIX_CONF: &str = "/etc/nix/nix.conf";
/// Nix's state directory.
pub const NIX_STATE: &str = "/nix/var/nix";
/// The profile that every user has in `PATH`.
pub const DEFAULT_PROFILE: &str = "/nix/var/nix/profiles/default";
/// The daemon's socket.
pub const DAEMON_SOCKET: &str = "/nix/var/nix/daemon-socket/socket";
/// The socket on which the daemon asks for GC roots (`LocalStoreConfig::getRootsSocketPath`).
pub const ROOTS_SOCKET: &str = "/nix/var/nix/gc-roots-socket/socket";
/// Home of the daemon's user while it runs; the account itself names `/var/empty`.
pub const DAEMON_HOME: &str = "/var/lib/nix-daemon";
/// Directories on whose file systems the steps of plans work.
pub const WORK_PLACES: &[&str] = &[
    "/etc",
    "/Library/LaunchDaemons",
    "/usr/local/sbin",
    "/usr/local/libexec",
    "/var/lib",
    "/var/db",
    "/root",
    "/nix",
    "/nix/store",
    "/nix/var",
    "/nix/var/nix",
    "/nix/var/log",
];
