//! How many connections the client's user has already.
//!
//! systemd's `MaxConnectionsPerSource=` would do it, but it needs the client's process: one client from outside of systemd's PID namespace,
//! such as the host of a container, makes the socket unit fail, for everybody and for good. Before systemd 255 it does not
//! count local clients at all. So the gate counts: systemd names each connection's unit, and so its control group, with the client's uid at the end.

use std::path::{Path, PathBuf};

/// The connections that the same client opened before this one and still has, and this one; `None` when this process isn't in
/// a connection's unit.
#[must_use]
pub fn connections_of_the_same_user() -> Option<usize> {
    let groups = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    groups.lines().filter_map(group_of_line).find_map(|group| {
        // The unified hierarchy, or where older machines have it or systemd's own.
        ["/sys/fs/cgroup", "/sys/fs/cgroup/unified", "/sys/fs/cgroup/systemd"]
            .iter()
            .map(|mount| PathBuf::from(format!("{mount}{group}")))
            .find_map(|directory| count_beside(&directory))
    })
}

/// The path in a line of `/proc/self/cgroup` (cgroups(7)), of a hierarchy in which systemd places units.
fn group_of_line(line: &str) -> Option<&str> {
    let (_, rest) = line.split_once(':')?;
    let (controllers, path) = rest.split_once(':')?;
    (controllers.is_empty() || controllers == "name=systemd").then_some(path)
}

fn count_beside(group: &Path) -> Option<usize> {
    let own = Unit::parse(group.file_name()?.to_str()?)?;
    let siblings = std::fs::read_dir(group.parent()?).ok()?.flatten();
    // Later ones do not count, or those of a burst would all turn each other away.
    let counts = |other: Unit<'_>| {
        other.template == own.template && other.client == own.client && other.number <= own.number
    };
    Some(
        siblings.filter(|entry| entry.file_name().to_str().and_then(Unit::parse).is_some_and(counts)).count(),
    )
}

/// The name of a connection's unit, as `nix-daemon@46-15759-720_753131-1000.service` (`instance_from_socket` in systemd's
/// `socket.c`; older ones have fewer numbers in between).
#[derive(Debug, PartialEq, Eq)]
struct Unit<'a> {
    template: &'a str,
    /// Counts connections.
    number: u64,
    /// The client's uid, or `unknown`.
    client: &'a str,
}

impl<'a> Unit<'a> {
    fn parse(name: &'a str) -> Option<Self> {
        let (template, instance) = name.strip_suffix(".service")?.split_once('@')?;
        let (number, rest) = instance.split_once('-')?;
        let (_, client) = rest.rsplit_once('-')?;
        Some(Self { template, number: number.parse().ok()?, client })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_units() {
        let unit = |number, client| Some(Unit { template: "nix-daemon", number, client });
        for (name, expected) in [
            ("nix-daemon@46-15759-720_753131-1000.service", unit(46, "1000")),
            ("nix-daemon@3-77-1000.service", unit(3, "1000")),
            ("nix-daemon@45-16624-unknown.service", unit(45, "unknown")),
            ("nix-daemon@one.service", None),
            ("nix-daemon@one-two-three.service", None),
            ("nix-daemon.service", None),
            ("user-1000.slice", None),
        ] {
            assert_eq!(Unit::parse(name), expected, "{name}");
        }
    }

    #[test]
    fn lines_of_the_kernel() {
        for (line, expected) in [
            ("0::/system.slice/a", Some("/system.slice/a")),
            ("1:name=systemd:/a:b", Some("/a:b")),
            ("4:memory:/system.slice/a", None),
            ("", None),
        ] {
            assert_eq!(group_of_line(line), expected, "{line}");
        }
    }

    #[test]
    fn earlier_ones_of_the_same_client_count() {
        let dir = std::env::temp_dir().join(format!("nix-daemon-gate-neighbours-{}", std::process::id()));
        let names =
            ["a@1-5-7.service", "a@2-5-7.service", "a@3-5-8.service", "b@1-5-7.service", "a@4-5-17.service"];
        for name in names {
            std::fs::create_dir_all(dir.join(name)).unwrap();
        }
        let counts = names.map(|name| count_beside(&dir.join(name)));
        std::fs::remove_dir_all(&dir).unwrap();
        assert_eq!(counts, [Some(1), Some(2), Some(1), Some(1), Some(1)]);
    }
}
