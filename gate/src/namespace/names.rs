//! The account files that the daemon is shown: the host's, with two changes.
//!
//! - uid 0, which the daemon has inside, is named `root` and has a home that is not root's real one. Nix takes the home
//!   from here when `HOME` is not its own (`getHome`), and ssh takes it from nowhere else.
//! - The build users' group has a subordinate id. Builds without a sandbox get the group that `build-users-group` names; the setting has
//!   to be empty (Nix would change the owner of the store otherwise), so a group with an empty name is what Nix looks up
//!   (`AutoUserLock::acquire` in its `user-lock.cc`).

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// The daemon's `/etc/passwd`.
#[must_use]
pub fn passwd(host: &[u8], home: &Path) -> Vec<u8> {
    let mut own = b"root:x:0:0:root:".to_vec();
    own.extend(home.as_os_str().as_bytes());
    own.extend(b":/bin/sh\n");
    let foreign = |line: &&[u8]| field(line, 0) != b"root" && field(line, 2) != b"0";
    followed_by(own, host, foreign)
}

/// The daemon's `/etc/group`.
#[must_use]
pub fn group(host: &[u8], build_group: &str, build_gid: u32) -> Vec<u8> {
    let own = format!("{build_group}:x:{build_gid}:\n:x:{build_gid}:\n").into_bytes();
    let foreign = |line: &&[u8]| field(line, 0) != build_group.as_bytes() && !field(line, 0).is_empty();
    followed_by(own, host, foreign)
}

fn followed_by(mut own: Vec<u8>, host: &[u8], keep: impl Fn(&&[u8]) -> bool) -> Vec<u8> {
    for line in host.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()).filter(keep) {
        own.extend(line);
        own.push(b'\n');
    }
    own
}

fn field(line: &[u8], index: usize) -> &[u8] {
    line.split(|&byte| byte == b':').nth(index).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_gets_the_home_and_the_rest_stays() {
        let host = b"daemon:x:1:1::/:/bin/false\nroot:x:0:0:root:/root:/bin/bash\ntoor:x:0:0::/root:/bin/csh\nalice:x:1000:1000::/home/alice:/bin/sh";
        let expected = "root:x:0:0:root:/var/lib/x:/bin/sh\ndaemon:x:1:1::/:/bin/false\nalice:x:1000:1000::/home/alice:/bin/sh\n";
        assert_eq!(String::from_utf8(passwd(host, Path::new("/var/lib/x"))).unwrap(), expected);
    }

    #[test]
    fn the_build_group_gets_the_subordinate_id() {
        let host = b"root:x:0:\nnixbld:x:30000:nixbld1,nixbld2\n:x:5:\nusers:x:100:alice\n";
        let expected = "nixbld:x:77:\n:x:77:\nroot:x:0:\nusers:x:100:alice\n";
        assert_eq!(String::from_utf8(group(host, "nixbld", 77)).unwrap(), expected);
    }
}
