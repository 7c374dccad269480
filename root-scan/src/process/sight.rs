//! Do we see all processes, and all of each? `/proc` hides by leaving out, so this is asked before the scan.

use std::os::fd::BorrowedFd;
use std::path::Path;

use nix::sys::statfs::{PROC_SUPER_MAGIC, fstatfs};

use crate::doubt::Doubt;
use crate::sys;

/// The two capabilities that the scan needs, by their numbers in `linux/capability.h`.
const NEEDED: [(u32, &str); 2] = [(2, "CAP_DAC_READ_SEARCH"), (19, "CAP_SYS_PTRACE")];

/// Returns the device number of `/proc`.
///
/// `hidepid` needs no look of its own: it hides what `ptrace` may not read, which is nothing from a holder of CAP_SYS_PTRACE
/// in the user namespace of the machine. A capability that counts in a lesser namespace only, or that a security module
/// overrides, fails at process 1.
///
/// # Errors
/// When something may be hidden.
pub fn check(directory: BorrowedFd<'_>, proc: &Path) -> Result<u64, Doubt> {
    let unreadable = |name: &str| {
        let path = proc.join(name);
        move |errno| Doubt::unreadable(path, errno)
    };
    if fstatfs(directory).map_err(unreadable("."))?.filesystem_type() != PROC_SUPER_MAGIC {
        return Err(Doubt::Blind(format!("{} is not the kernel's", proc.display())));
    }
    let me = sys::read_link(directory, "self").map_err(unreadable("self"))?;
    if me.to_str().and_then(|me| me.parse().ok()) != Some(std::process::id()) {
        return Err(Doubt::Blind(format!("{} shows another PID namespace than ours", proc.display())));
    }
    if std::process::id() == 1 {
        return Err(Doubt::Blind(
            "we are process 1 of a PID namespace of our own (PrivatePIDs=?)".to_owned(),
        ));
    }
    let mut status = [0; 8192];
    let file = sys::open_file(directory, "self/status").map_err(unreadable("self/status"))?;
    let length = sys::read(file, &mut status).map_err(unreadable("self/status"))?;
    if let Some(name) = missing(&status[..length]) {
        return Err(Doubt::Blind(format!(
            "we do not hold {name}; start us through nix-root-scan.service, or as root"
        )));
    }
    // Fails where a security module or a lesser user namespace stands between us and other processes, or ProtectProc=.
    sys::read_link(directory, "1/exe").map_err(unreadable("1/exe"))?;
    sys::open_file(directory, "1/environ").map_err(unreadable("1/environ"))?;
    // Absent with subset=pid (ProcSubset=pid).
    sys::status(directory, "sys/kernel").map_err(unreadable("sys/kernel"))?;
    let device = sys::status(directory, ".").map_err(unreadable("."))?.st_dev;
    Ok(device)
}

/// The first needed capability that is not effective, from the text of `/proc/self/status` (man 5 proc_pid_status).
pub fn missing(status: &[u8]) -> Option<&'static str> {
    let effective = status
        .split(|byte| *byte == b'\n')
        .find_map(|line| line.strip_prefix(b"CapEff:"))
        .and_then(|value| std::str::from_utf8(value).ok())
        .and_then(|value| u64::from_str_radix(value.trim(), 16).ok())
        .unwrap_or(0);
    NEEDED.iter().find(|(bit, _)| effective >> bit & 1 == 0).map(|(_, name)| *name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_capabilities() {
        for (status, expected) in [
            ("Name:\tx\nCapEff:\t0000000000080004\nCapBnd:\t0\n", None),
            ("CapEff:\t000001ffffffffff\n", None),
            ("CapEff:\t0000000000080000\n", Some("CAP_DAC_READ_SEARCH")),
            ("CapEff:\t0000000000000004\n", Some("CAP_SYS_PTRACE")),
            ("Name:\tCapEff:\t000001ffffffffff\n", Some("CAP_DAC_READ_SEARCH")),
            ("CapEff:\tx\n", Some("CAP_DAC_READ_SEARCH")),
            ("", Some("CAP_DAC_READ_SEARCH")),
        ] {
            assert_eq!(missing(status.as_bytes()), expected, "{status:?}");
        }
    }
}
