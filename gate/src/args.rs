//! The command line. It is written in the unit file, by root, so it is trusted; a mistake in it is still refused.

use crate::builds::{self, Broker, Builds, Ids, Subids};
use crate::connections::Limits;
use crate::{Failure, Result};
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// One line of help, shown with a usage error.
pub const USAGE: &str = "usage: nix-daemon-gate --daemon PATH (--subids START:COUNT | --broker PROGRAM [--broker-socket PATH] --systems NAME,... --build-uids START:COUNT) --conf FILE... [--build-group NAME] [--home DIR] [--max-connections COUNT] [--max-per-user COUNT] [--listen PATH [--mode MODE] [--user UID:GID] | --launchd NAME]";

/// What the unit asks for.
#[derive(Debug, PartialEq, Eq)]
pub struct Args {
    /// The `nix-daemon` to become; absolute.
    pub daemon: PathBuf,
    /// The ids of builds, and who gives them.
    pub builds: Builds,
    /// Nix's configuration files; a setting in a later one wins. Absolute, at least one.
    pub conf: Vec<PathBuf>,
    /// Members of this group (as their primary group) may not connect: they are the build users of a root-owned Nix.
    pub build_group: String,
    /// The home directory of uid 0 in the namespace; absolute.
    pub home: PathBuf,
    /// How many connections there may be.
    pub limits: Limits,
    /// The socket to make; nothing when systemd or launchd passes one.
    pub listen: Option<Listen>,
    /// The name of launchd's socket; macOS only.
    pub launchd: Option<String>,
}

/// A socket that the gate makes itself, where no systemd does it.
#[derive(Debug, PartialEq, Eq)]
pub struct Listen {
    /// Where; absolute.
    pub path: PathBuf,
    /// Who may connect: its mode.
    pub mode: u32,
    /// Uid and gid to serve as, when started by root; neither is 0.
    pub user: Option<(u32, u32)>,
}

impl Args {
    /// Parses the arguments after the program's name.
    ///
    /// # Errors
    /// For an unknown, repeated (except `--conf`), incomplete or missing argument, and for a value that is not of its kind.
    pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Self> {
        let (mut daemon, mut subids, mut conf, mut group, mut home) = (None, None, Vec::new(), None, None);
        let (mut total, mut per_user) = (None, None);
        let (mut listen, mut mode, mut user, mut launchd) = (None, None, None, None);
        let mut broker = BrokerArgs::default();
        let mut args = args.into_iter();
        while let Some(name) = args.next() {
            let name = name.to_str().ok_or_else(|| Failure::new("an argument is not UTF-8"))?;
            let mut value = || args.next().ok_or_else(|| Failure::new(format!("{name} needs a value")));
            match name {
                "--daemon" => once(name, &mut daemon, absolute(name, value()?)?)?,
                "--subids" => once(name, &mut subids, parse_subids(&value()?)?)?,
                "--conf" => conf.push(absolute(name, value()?)?),
                "--build-group" => once(name, &mut group, account_name(name, value()?)?)?,
                "--home" => once(name, &mut home, passwd_field(name, absolute(name, value()?)?)?)?,
                "--max-connections" => once(name, &mut total, count(name, &value()?)?)?,
                "--max-per-user" => once(name, &mut per_user, count(name, &value()?)?)?,
                "--listen" => once(name, &mut listen, absolute(name, value()?)?)?,
                "--mode" => once(name, &mut mode, parse_mode(&value()?)?)?,
                "--user" => once(name, &mut user, parse_ids(&value()?)?)?,
                "--launchd" => once(name, &mut launchd, account_name(name, value()?)?)?,
                "--broker" => once(name, &mut broker.program, plain_path(name, value()?)?)?,
                "--broker-socket" => once(name, &mut broker.socket, plain_path(name, value()?)?)?,
                "--systems" => once(name, &mut broker.systems, systems(name, &value()?)?)?,
                "--build-uids" => once(name, &mut broker.uids, parse_uids(name, &value()?)?)?,
                _ => return Err(Failure::new(format!("unknown argument '{name}'"))),
            }
        }
        if conf.is_empty() {
            return Err(missing("--conf"));
        }
        if listen.is_none() && (mode.is_some() || user.is_some()) {
            return Err(missing("--listen"));
        }
        if listen.is_some() && launchd.is_some() {
            return Err(Failure::new("--listen and --launchd exclude each other"));
        }
        Ok(Self {
            daemon: daemon.ok_or_else(|| missing("--daemon"))?,
            builds: broker.or(subids)?,
            conf,
            build_group: group.unwrap_or_else(|| "nixbld".to_owned()),
            home: home.unwrap_or_else(|| PathBuf::from("/var/empty")),
            limits: Limits { total: total.unwrap_or(8192), per_user: per_user.unwrap_or(1024) },
            listen: listen.map(|path| Listen { path, mode: mode.unwrap_or(0o666), user }),
            launchd,
        })
    }
}

/// The arguments of a [`Broker`].
#[derive(Default)]
struct BrokerArgs {
    program: Option<PathBuf>,
    socket: Option<PathBuf>,
    systems: Option<Vec<String>>,
    uids: Option<Ids>,
}

impl BrokerArgs {
    /// One of the two ways, whole.
    fn or(self, subids: Option<Subids>) -> Result<Builds> {
        let Some(program) = self.program else {
            if self.socket.is_some() || self.systems.is_some() || self.uids.is_some() {
                return Err(missing("--broker"));
            }
            return subids.map(Builds::Namespace).ok_or_else(|| missing("--subids, or --broker,"));
        };
        if subids.is_some() {
            return Err(Failure::new("--subids and --broker exclude each other"));
        }
        Ok(Builds::Broker(Broker {
            program,
            socket: self.socket,
            systems: self.systems.ok_or_else(|| missing("--systems"))?,
            uids: self.uids.ok_or_else(|| missing("--build-uids"))?,
        }))
    }
}

fn missing(name: &str) -> Failure {
    Failure::new(format!("{name} is missing"))
}

fn once<T>(name: &str, slot: &mut Option<T>, value: T) -> Result<()> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(Failure::new(format!("{name} is given twice"))),
    }
}

fn absolute(name: &str, value: OsString) -> Result<PathBuf> {
    let path = PathBuf::from(value);
    if path.is_absolute() { Ok(path) } else { Err(Failure::new(format!("{name} needs an absolute path"))) }
}

fn plain_path(name: &str, value: OsString) -> Result<PathBuf> {
    let path = absolute(name, value)?;
    builds::plain(name, path.to_str().unwrap_or_default())?;
    Ok(path)
}

fn systems(name: &str, value: &OsString) -> Result<Vec<String>> {
    let systems: Vec<_> = value.to_str().unwrap_or_default().split(',').map(str::to_owned).collect();
    systems.iter().try_for_each(|system| builds::plain(name, system))?;
    Ok(systems)
}

fn parse_uids(name: &str, value: &OsString) -> Result<Ids> {
    let ids = value.to_str().and_then(Ids::parse);
    ids.ok_or_else(|| Failure::new(format!("{name} needs START:COUNT, both above 0, all below 4294967295")))
}

fn parse_subids(value: &OsString) -> Result<Subids> {
    value.to_str().and_then(Subids::parse).ok_or_else(|| {
        Failure::new(
            "--subids needs START:COUNT, both above 0, COUNT a multiple of 65536, all of it below 4294967295",
        )
    })
}

fn count(name: &str, value: &OsString) -> Result<usize> {
    let count = value.to_str().and_then(|text| text.parse().ok()).filter(|count| *count > 0);
    count.ok_or_else(|| Failure::new(format!("{name} needs a number above 0")))
}

fn parse_mode(value: &OsString) -> Result<u32> {
    let mode = value.to_str().and_then(|text| u32::from_str_radix(text, 8).ok());
    mode.filter(|mode| *mode <= 0o777)
        .ok_or_else(|| Failure::new("--mode needs a mode in octal, such as 0666"))
}

fn parse_ids(value: &OsString) -> Result<(u32, u32)> {
    // Numbers, since a name service must not be asked by a process that has privileges.
    let id = |text: &str| text.parse().ok().filter(|id| ![0, u32::MAX].contains(id));
    let ids = value.to_str().and_then(|text| text.split_once(':'));
    ids.and_then(|(uid, gid)| Some((id(uid)?, id(gid)?))).ok_or_else(|| {
        Failure::new("--user needs UID:GID of the store's owner, as numbers, neither of them 0")
    })
}

/// A value that becomes a field of a line in the generated `/etc/passwd`.
fn passwd_field(name: &str, path: PathBuf) -> Result<PathBuf> {
    let bytes = Path::as_os_str(&path).as_bytes();
    if bytes.iter().any(|byte| matches!(byte, b':' | b'\n')) {
        return Err(Failure::new(format!("{name} may not contain ':' or a new line")));
    }
    Ok(path)
}

fn account_name(name: &str, value: OsString) -> Result<String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-.$".contains(c);
    match value.into_string() {
        Ok(text) if !text.is_empty() && text.chars().all(plain) => Ok(text),
        _ => Err(Failure::new(format!("{name} needs the name of a group"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Args> {
        Args::parse(line.split_whitespace().map(OsString::from))
    }

    fn subids(start: u32, count: u32) -> Builds {
        Builds::Namespace(Subids(Ids { start, count }))
    }

    #[test]
    fn a_broker() {
        let line = "--daemon /d --conf /c --broker /b --systems a-b,c-d --build-uids 351:32";
        let args = parse(&format!("{line} --broker-socket /s --launchd Listener")).unwrap();
        let Builds::Broker(broker) = &args.builds else { panic!("{args:?}") };
        assert_eq!((broker.systems.len(), broker.uids), (2, Ids { start: 351, count: 32 }));
        assert_eq!(
            (broker.socket.as_deref(), args.launchd.as_deref()),
            (Some(Path::new("/s")), Some("Listener"))
        );
        assert!(parse(line).is_ok(), "the safe mode");
        for (from, to) in [
            ("--broker /b", ""),
            ("--systems a-b,c-d", ""),
            ("--systems a-b,c-d", "--systems a-b,"),
            ("--systems a-b,c-d", "--systems a\"b"),
            ("--build-uids 351:32", ""),
            ("--build-uids 351:32", "--build-uids 0:32"),
            ("--broker /b", "--broker b"),
            ("--broker /b", "--broker /b\\"),
            ("--broker /b", "--broker /b --subids 65536:65536"),
            ("--broker /b", "--broker /b --listen /s --launchd x"),
        ] {
            assert!(parse(&line.replace(from, to)).is_err(), "{to}");
        }
    }

    #[test]
    fn a_full_and_a_short_command_line() {
        let short = parse("--daemon /d --subids 872415232:8388608 --conf /a --conf /b").unwrap();
        assert_eq!(short.conf, [PathBuf::from("/a"), PathBuf::from("/b")]);
        assert_eq!((short.build_group.as_str(), short.home.to_str()), ("nixbld", Some("/var/empty")));
        let full = parse("--home /h --build-group b --conf /c --subids 65536:65536 --daemon /d").unwrap();
        assert_eq!((full.build_group.as_str(), full.home.to_str()), ("b", Some("/h")));
        assert_eq!(full.builds, subids(65536, 65536));
        assert_eq!((full.limits, full.listen), (Limits { total: 8192, per_user: 1024 }, None));
        let own =
            "--conf /c --subids 65536:65536 --daemon /d --max-per-user 2 --max-connections 3 --listen /s";
        let own = |more| parse(&format!("{own} {more}")).unwrap();
        assert_eq!(own("").limits, Limits { total: 3, per_user: 2 });
        let listen = |mode, user| Some(Listen { path: "/s".into(), mode, user });
        assert_eq!(own("").listen, listen(0o666, None));
        assert_eq!(own("--mode 660 --user 997:996").listen, listen(0o660, Some((997, 996))));
    }

    #[test]
    fn mistakes_are_refused() {
        let good = "--daemon /d --subids 65536:65536 --conf /c";
        for (line, said) in [
            ("--subids 65536:65536 --conf /c".to_owned(), "--daemon is missing"),
            ("--daemon /d --conf /c".to_owned(), "--subids, or --broker, is missing"),
            ("--daemon /d --subids 65536:65536".to_owned(), "--conf is missing"),
            (format!("{good} --trust-everybody"), "unknown argument"),
            (format!("{good} extra"), "unknown argument"),
            (format!("{good} --home"), "--home needs a value"),
            (format!("{good} --home relative"), "absolute"),
            (format!("{good} --home /a:b"), "':'"),
            (format!("{good} --daemon /other"), "twice"),
            (format!("{good} --build-group a:b"), "name of a group"),
            (format!("{good} --max-per-user 0"), "above 0"),
            (format!("{good} --max-per-user many"), "above 0"),
            (format!("{good} --max-connections 0"), "above 0"),
            (format!("{good} --listen socket"), "absolute"),
            (format!("{good} --mode 0666"), "--listen is missing"),
            (format!("{good} --user 1:1"), "--listen is missing"),
            (format!("{good} --listen /s --mode 1777"), "octal"),
            (format!("{good} --listen /s --mode rw"), "octal"),
            (format!("{good} --listen /s --user nix:nix"), "as numbers"),
            (format!("{good} --listen /s --user 0:1"), "as numbers"),
            (format!("{good} --listen /s --user 1"), "as numbers"),
            (format!("{good} --listen /s --user 1:4294967295"), "as numbers"),
        ] {
            let failure = parse(&line).unwrap_err().to_string();
            assert!(failure.contains(said), "{line}: {failure}");
        }
    }

    #[test]
    fn the_unit_says_what_is_understood() {
        let unit = include_str!("../../platform/linux/nix-daemon-gate.service");
        let line = unit.lines().find_map(|line| line.strip_prefix("ExecStart=")).unwrap();
        let filled = [
            ("{{libexec_dir}}", "/l"),
            ("{{nix_daemon}}", "/usr/bin/nix-daemon"),
            ("{{subid_start}}", "872415232"),
            ("{{subid_count}}", "8388608"),
            ("{{build_group}}", "nixbld"),
            ("{{home_dir}}", "/var/empty"),
        ]
        .into_iter()
        .fold(line.to_owned(), |line, (name, value)| line.replace(name, value));
        let args = parse(filled.strip_prefix("/l/nix-daemon-gate ").unwrap()).unwrap();
        assert_eq!(args.conf, [PathBuf::from("/etc/nix/nix.conf"), PathBuf::from("/etc/xdg/nix/nix.conf")]);
        assert_eq!(args.builds, subids(872_415_232, 8_388_608));
    }
}
