//! What a manifest leaves out, and why. Everything else counts.

/// Places whose content is not compared: path, reason. The place itself (owner, mode) is, where it exists.
const CONTENT: &[(&str, &str)] = &[
    ("/proc", "a kernel interface"),
    ("/sys", "a kernel interface"),
    ("/dev", "a kernel interface"),
    ("/run", "gone at every boot"),
    ("/tmp", "gone at every boot"),
    ("/var/log", "grows by itself"),
    ("/var/cache/nix-unroot-tests", "the tests' own cache, when a tree is the host's"),
    ("/var/lib/systemd", "random seed, timer stamps, bookkeeping that systemd rewrites as it likes"),
    ("/nix/var/nix/temproots", "one file a running client"),
];

/// Paths that are left out altogether.
const WHOLE: &[(&str, &str)] = &[
    ("/var/lib/nix-unroot", "the journal: kept after a rollback, so that `history` can tell"),
    ("/root/nix-unroot", "the programs under test, put there by the tests"),
    ("/etc/passwd-", "copy that account tools leave of the file before their last change"),
    ("/etc/group-", "the same"),
    ("/etc/shadow-", "the same"),
    ("/etc/gshadow-", "the same"),
    ("/etc/subuid-", "the same"),
    ("/etc/subgid-", "the same"),
    ("/etc/.pwd.lock", "lock of the account tools"),
    // Compared by content: see `database`.
    ("/nix/var/nix/db/db.sqlite-wal", "SQLite's log: there or not, as connections come and go"),
    ("/nix/var/nix/db/db.sqlite-shm", "SQLite's index of that log"),
];

/// Names that are left out wherever they begin a path: systemd's private `/var/tmp` of a running service.
const PREFIXES: &[(&str, &str)] = &[("/var/tmp/systemd-private-", "a running service's own /var/tmp")];

/// Whether nothing below this directory is compared.
pub fn hides_content(path: &str) -> bool {
    CONTENT.iter().any(|(noise, _)| *noise == path)
}

/// Whether this path is not compared at all.
pub fn hides(path: &str) -> bool {
    WHOLE.iter().any(|(noise, _)| *noise == path) || PREFIXES.iter().any(|(noise, _)| path.starts_with(noise))
}

/// Whether the time stamp counts: of everything that belongs to a store path, where Nix fixes it. Directories that
/// hold store paths change theirs with every build.
pub fn keeps_mtime(path: &str) -> bool {
    path.strip_prefix("/nix/store/").is_some_and(|rest| rest != ".links")
}
