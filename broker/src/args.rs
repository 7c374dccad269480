//! The command line. That of `serve` is written in a property list or a unit, by root, so it is trusted; a mistake in it is still refused.

use crate::{Failure, Result};
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

/// Help, shown with a usage error.
pub const USAGE: &str = "\
usage: nix-build-broker serve --socket PATH --client UID:GID --uids START:COUNT --gid GID [--store DIR] --work DIR [--profile FILE]
       nix-build-broker client --socket PATH FILE.json
       nix-build-broker refuse FILE.json";

/// The most build uids.
const MOST_UIDS: u32 = 1024;

/// What to do.
#[derive(Debug, PartialEq, Eq)]
pub enum Task {
    /// Be the broker.
    Serve(Serve),
    /// Ask the broker at this socket for the build of this document.
    Client {
        /// The broker's socket.
        socket: PathBuf,
        /// Nix's `build.json`.
        document: PathBuf,
    },
    /// Build nothing.
    Refuse,
}

/// What the broker is started with.
#[derive(Debug, PartialEq, Eq)]
pub struct Serve {
    /// The socket to make.
    pub socket: PathBuf,
    /// Uid and gid of the only client; not root's.
    pub client: (u32, u32),
    /// The uids of builds.
    pub uids: Uids,
    /// The group of builds; not root's.
    pub gid: u32,
    /// The store's directory.
    pub store: PathBuf,
    /// Root's own directory, on the file system of the store.
    pub work: PathBuf,
    /// The sandbox profile of macOS.
    pub profile: Option<PathBuf>,
}

/// A range of uids that has neither 0 nor the client's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Uids {
    /// The first.
    pub start: u32,
    /// How many, at least one.
    pub count: u32,
}

impl Uids {
    /// Is this one of them?
    #[must_use]
    pub fn contains(self, uid: u32) -> bool {
        uid >= self.start && uid - self.start < self.count
    }

    /// Each of them.
    pub fn iter(self) -> impl Iterator<Item = u32> {
        (0..self.count).map(move |index| self.start + index)
    }
}

impl Task {
    /// Parses the arguments after the program's name.
    ///
    /// # Errors
    /// For an unknown, repeated, incomplete or missing argument, and for a value that is not of its kind.
    pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Self> {
        let mut args = args.into_iter();
        let mode = args.next();
        let rest: Vec<OsString> = args.collect();
        match mode.as_deref().and_then(OsStr::to_str) {
            Some("serve") => serve(rest).map(Task::Serve),
            Some("client") => match rest.as_slice() {
                [name, socket, document] if name == "--socket" => Ok(Task::Client {
                    socket: absolute("--socket", socket)?,
                    document: absolute("FILE.json", document)?,
                }),
                _ => Err(Failure::new("'client' needs --socket PATH and the document's name")),
            },
            Some("refuse") if rest.len() == 1 => Ok(Task::Refuse),
            _ => Err(Failure::new("one of 'serve', 'client', 'refuse' has to come first")),
        }
    }
}

fn serve(args: Vec<OsString>) -> Result<Serve> {
    let (mut socket, mut client, mut uids, mut gid) = (None, None, None, None);
    let (mut store, mut work, mut profile) = (None, None, None);
    let mut args = args.into_iter();
    while let Some(name) = args.next() {
        let name = name.to_str().ok_or_else(|| Failure::new("an argument is not UTF-8"))?;
        let value = args.next().ok_or_else(|| Failure::new(format!("{name} needs a value")))?;
        let new = match name {
            "--socket" => socket.replace(absolute(name, &value)?).is_none(),
            "--client" => client.replace(pair(name, &value)?).is_none(),
            "--uids" => uids.replace(pair(name, &value)?).is_none(),
            "--gid" => gid.replace(number(name, &value)?).is_none(),
            "--store" => store.replace(absolute(name, &value)?).is_none(),
            "--work" => work.replace(absolute(name, &value)?).is_none(),
            "--profile" => profile.replace(absolute(name, &value)?).is_none(),
            _ => return Err(Failure::new(format!("unknown argument '{name}'"))),
        };
        if !new {
            return Err(Failure::new(format!("{name} is given twice")));
        }
    }
    let missing = |name: &str| Failure::new(format!("{name} is missing"));
    let serve = Serve {
        socket: socket.ok_or_else(|| missing("--socket"))?,
        client: client.ok_or_else(|| missing("--client"))?,
        uids: uids.map(|(start, count)| Uids { start, count }).ok_or_else(|| missing("--uids"))?,
        gid: gid.ok_or_else(|| missing("--gid"))?,
        store: store.unwrap_or_else(|| PathBuf::from("/nix/store")),
        work: work.ok_or_else(|| missing("--work"))?,
        profile,
    };
    // u32::MAX is no id: it is -1, "leave as it is".
    let end = serve.uids.start.checked_add(serve.uids.count);
    if serve.uids.count > MOST_UIDS || end.is_none_or(|end| end == u32::MAX) {
        return Err(Failure::new(format!("--uids has more than {MOST_UIDS}, or ends too high")));
    }
    if serve.uids.contains(serve.client.0) || serve.gid == serve.client.1 {
        return Err(Failure::new("builds may have neither the client's uid nor its group"));
    }
    Ok(serve)
}

fn absolute(name: &str, value: &OsStr) -> Result<PathBuf> {
    let path = PathBuf::from(value);
    if path.is_absolute() { Ok(path) } else { Err(Failure::new(format!("{name} needs an absolute path"))) }
}

/// An id that is not root's.
fn number(name: &str, value: &OsStr) -> Result<u32> {
    let number = value.to_str().and_then(|text| text.parse().ok());
    number
        .filter(|number| *number > 0 && *number < u32::MAX)
        .ok_or_else(|| Failure::new(format!("{name} needs numbers above 0")))
}

fn pair(name: &str, value: &OsStr) -> Result<(u32, u32)> {
    let (one, other) = value
        .to_str()
        .and_then(|text| text.split_once(':'))
        .ok_or_else(|| Failure::new(format!("{name} needs two numbers with a colon between them")))?;
    Ok((number(name, one.as_ref())?, number(name, other.as_ref())?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "serve --socket /s --client 500:501 --uids 351:32 --gid 350 --work /w";

    fn parse(line: &str) -> Result<Task> {
        Task::parse(line.split(' ').map(OsString::from))
    }

    #[test]
    fn the_three_modes() {
        let Ok(Task::Serve(serve)) = parse(GOOD) else { panic!("{:?}", parse(GOOD)) };
        assert_eq!((serve.client, serve.gid, serve.store.to_str()), ((500, 501), 350, Some("/nix/store")));
        assert_eq!(serve.uids.iter().collect::<Vec<_>>(), (351..383).collect::<Vec<_>>());
        assert!(matches!(parse("client --socket /s /b.json"), Ok(Task::Client { .. })));
        assert_eq!(parse("refuse /b.json"), Ok(Task::Refuse));
    }

    #[test]
    fn what_is_refused() {
        for (from, to) in [
            ("serve", "server"),
            (" --work /w", ""),
            ("--work /w", "--work w"),
            ("--work /w", "--work"),
            ("--work /w", "--work /w --work /w"),
            ("--work /w", "--work /w --fast yes"),
            ("500:501", "0:501"),
            ("500:501", "500"),
            ("500:501", "500:0"),
            ("500:501", "360:501"),
            ("500:501", "500:-1"),
            ("351:32", "0:32"),
            ("351:32", "351:0"),
            ("351:32", "351:1025"),
            ("351:32", "4294967290:5"),
            ("351:32", "4294967290:6"),
            ("--gid 350", "--gid 0"),
            ("--gid 350", "--gid 501"),
            ("--gid 350", "--gid nixbld"),
        ] {
            let line = GOOD.replace(from, to);
            assert!(parse(&line).is_err(), "{line}");
        }
        for line in ["", "client", "client --socket s /b", "client --socket /s b", "refuse", "refuse /a /b"] {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}
