//! Jobs that root's timers, services and crontabs run and that call Nix, and runners of continuous integration.

use std::path::{Path, PathBuf};

use super::RootJob;
use super::reader::Reader;
use super::units;

const CRONTABS: [&str; 4] =
    ["/etc/crontab", "/etc/anacrontab", "/var/spool/cron/crontabs/root", "/var/spool/cron/root"];
/// Directories of crontabs, and of scripts that are run.
const CRON_DIRECTORIES: [&str; 5] =
    ["/etc/cron.d", "/etc/cron.hourly", "/etc/cron.daily", "/etc/cron.weekly", "/etc/cron.monthly"];
/// Units of runners that execute other people's jobs, which may call Nix, by the start of their names.
const RUNNERS: [&str; 8] = [
    "gitlab-runner",
    "actions.runner.",
    "github-runner",
    "buildkite-agent",
    "hercules-ci-agent",
    "hydra-",
    "jenkins",
    "woodpecker-agent",
];
/// Settings of a service that start programs (systemd.service(5)).
pub(crate) const EXEC: [&str; 7] =
    ["ExecStart", "ExecStartPre", "ExecStartPost", "ExecCondition", "ExecReload", "ExecStop", "ExecStopPost"];
/// Programs that are Nix, or call it.
const PROGRAMS: [&str; 6] = ["nixos-rebuild", "home-manager", "cachix", "attic", "system-manager", "nh"];

/// In the order of where they stand.
pub(crate) fn gather(reader: &Reader<'_>) -> Vec<RootJob> {
    let units = units::all(reader);
    let of_root = units.iter().filter(|unit| unit.is_roots() && !is_the_daemon(&unit.fragment));
    let commands = of_root.flat_map(|unit| {
        let commands = EXEC.iter().flat_map(|key| unit.values(key));
        commands.map(|command| RootJob { path: unit.fragment.clone(), command })
    });
    let mut jobs: Vec<_> = commands.filter(|job| calls_nix(&job.command) || is_runner(&job.path)).collect();
    let tables = CRONTABS.iter().map(PathBuf::from);
    let files = tables.chain(CRON_DIRECTORIES.iter().flat_map(|directory| reader.list(directory)));
    for path in files {
        let text = reader.text(&path).unwrap_or_default();
        let lines = text.lines().map(str::trim).filter(|line| !line.starts_with('#') && calls_nix(line));
        jobs.extend(lines.map(|line| RootJob { path: path.clone(), command: line.to_owned() }));
    }
    jobs.sort_by(|a, b| (&a.path, &a.command).cmp(&(&b.path, &b.command)));
    jobs.dedup();
    jobs
}

fn is_runner(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    RUNNERS.iter().any(|runner| name.starts_with(runner))
}

/// What a migration replaces.
fn is_the_daemon(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.starts_with("nix-daemon") || name.starts_with("nix-root-scan")
}

/// Whether a word of the command is a program of Nix, by whatever path.
fn calls_nix(command: &str) -> bool {
    let words = command.split(|c: char| c.is_whitespace() || ";|&()'\"`$={}@!+:".contains(c));
    let words = words.filter(|word| word.trim_end_matches('/') != "/nix");
    words.map(|word| word.rsplit('/').next().unwrap_or_default()).any(|name| {
        name == "nix" || name.starts_with("nix-") && name != "nix-unroot" || PROGRAMS.contains(&name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::Machine;
    use std::fs;

    #[test]
    fn programs_of_nix_are_told_from_the_rest() {
        for (command, expected) in [
            ("/usr/bin/nix-collect-garbage -d", true),
            ("0 3 * * * root nix store gc", true),
            ("/bin/sh -c 'cd /x && nix-channel --update'", true),
            ("-/root/.nix-profile/bin/nix-env -u", true),
            ("/usr/bin/cachix watch-store x", true),
            ("/usr/local/sbin/nix-unroot audit", false),
            ("/usr/bin/unix-thing phoenix", false),
            ("/usr/bin/find /nix -name x", false),
        ] {
            assert_eq!(calls_nix(command), expected, "{command}");
        }
    }

    #[test]
    fn units_of_root_and_crontabs_are_looked_at() {
        let dir = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write("etc/systemd/system/nix-gc.service", "[Service]\nExecStart=/usr/bin/nix-collect-garbage\n");
        write("etc/systemd/system/mine.service", "[Service]\nUser=alice\nExecStart=/usr/bin/nix-build\n");
        write(
            "etc/systemd/system/gitlab-runner.service",
            "[Service]\nExecStart=/usr/bin/gitlab-runner run\n",
        );
        write("usr/lib/systemd/system/nix-daemon.service", "[Service]\nExecStart=/usr/bin/nix-daemon\n");
        write("etc/cron.d/gc", "# nix\n0 3 * * * root nix-store --gc\n");
        write("etc/cron.daily/other", "#!/bin/sh\nupdatedb\n");
        let machine = Machine::at(dir.path());
        let found = gather(&Reader::new(&machine));
        let paths: Vec<_> = found.iter().map(|job| job.path.to_str().unwrap()).collect();
        assert_eq!(
            paths,
            [
                "/etc/cron.d/gc",
                "/etc/systemd/system/gitlab-runner.service",
                "/etc/systemd/system/nix-gc.service"
            ]
        );
        assert_eq!(found[2].command, "/usr/bin/nix-collect-garbage");
    }
}
