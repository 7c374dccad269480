//! The builder of the build that `verify` asks the daemon for.
//!
//! `build.rs` compiles this file, alone, into a static program that is embedded in `nix-unroot`, so a sandbox that holds
//! nothing but this program can run it. It writes to `$out` what it can see of itself, one `key=value` a line; the
//! reader is `verify::build_report`.

use std::fmt::Write;
use std::fs;
use std::path::Path;

/// Things of the host that a sandboxed build must not see.
const HIDDEN: [&str; 5] = ["/etc/shadow", "/home", "/root", "/usr/bin", "/nix/var/nix/db"];
/// Namespaces that a sandbox has of its own.
const NAMESPACES: [&str; 6] = ["ipc", "mnt", "net", "pid", "user", "uts"];
/// Lines of `/proc/self/status` that are passed on.
const STATUS: [&str; 5] = ["Uid", "Gid", "Groups", "CapEff", "NoNewPrivs"];

fn main() -> std::io::Result<()> {
    let out = std::env::var_os("out").ok_or(std::io::ErrorKind::InvalidInput)?;
    fs::write(out, report())
}

fn report() -> String {
    let mut text = String::new();
    let mut line = |key: &str, value: &str| writeln!(text, "{key}={value}").expect("a String takes any text");
    line("pid", &std::process::id().to_string());
    for map in ["uid_map", "gid_map"] {
        let lines = fs::read_to_string(format!("/proc/self/{map}")).unwrap_or_default();
        let joined: Vec<_> = lines.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
        line(map, &joined.join(";"));
    }
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    for key in STATUS {
        let value = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':')).unwrap_or_default();
        line(key, &value.split_whitespace().collect::<Vec<_>>().join(" "));
    }
    for name in NAMESPACES {
        let link = fs::read_link(format!("/proc/self/ns/{name}")).unwrap_or_default();
        line(&format!("ns.{name}"), &link.to_string_lossy());
    }
    for path in HIDDEN {
        if fs::symlink_metadata(Path::new(path)).is_ok() {
            line("sees", path);
        }
    }
    text
}
