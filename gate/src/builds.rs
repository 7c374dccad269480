//! How the daemon's builds get a uid that is not the daemon's.

use crate::{Failure, Result};
use std::path::PathBuf;

/// How many ids Nix hands to one build slot (`maxIdsPerBuild` in its `user-lock.cc`); a range that is not a multiple
/// makes the daemon abort.
const IDS_PER_BUILD: u32 = 65536;

/// Who becomes a build user.
#[derive(Debug, PartialEq, Eq)]
pub enum Builds {
    /// The daemon itself, in a user namespace with these ids. Linux.
    Namespace(Subids),
    /// Another program, which Nix calls in place of each builder. Where there are no user namespaces.
    Broker(Broker),
}

/// What Nix calls in place of a builder: `nix-build-broker` (its README has the reasons for these settings).
#[derive(Debug, PartialEq, Eq)]
pub struct Broker {
    /// The program; absolute.
    pub program: PathBuf,
    /// The socket of root's part of it; without one, nothing is built.
    pub socket: Option<PathBuf>,
    /// All systems for which Nix would otherwise build by itself, as the user who owns the store. At least one.
    pub systems: Vec<String>,
    /// The uids of builds.
    pub uids: Ids,
}

/// Consecutive ids; 0 and `u32::MAX` are none of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ids {
    /// The first id.
    pub start: u32,
    /// How many.
    pub count: u32,
}

impl Ids {
    /// Is this id one of them?
    #[must_use]
    pub fn contains(self, id: u32) -> bool {
        id >= self.start && id - self.start < self.count
    }

    /// `START:COUNT`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (start, count) = text.split_once(':')?;
        let (start, count) = (start.parse().ok()?, count.parse().ok()?);
        let end = u32::checked_add(start, count)?;
        // u32::MAX is no id: it is -1, "leave as it is".
        (start > 0 && count > 0 && end < u32::MAX).then_some(Self { start, count })
    }
}

/// The subordinate ids that builds run under, the same numbers for users and for groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subids(pub Ids);

impl Subids {
    /// `START:COUNT`, with a count that is a multiple of 65536.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Ids::parse(text).filter(|ids| ids.count % IDS_PER_BUILD == 0).map(Self)
    }

    /// The group of builds without a sandbox: the last id, which a sandboxed build gets only when it asks for a whole
    /// slot and all others are taken.
    #[must_use]
    pub fn last(self) -> u32 {
        self.0.start + (self.0.count - 1)
    }
}

impl Builds {
    /// Is this the uid of a build?
    #[must_use]
    pub fn contains(&self, uid: u32) -> bool {
        match self {
            Self::Namespace(subids) => subids.0.contains(uid),
            Self::Broker(broker) => broker.uids.contains(uid),
        }
    }

    /// The settings that make Nix work like that.
    ///
    /// The store is opened through the roots daemon, since the daemon sees no other user's processes. The build group is
    /// empty, since Nix would give it the store otherwise. Nix applies the line about features first; without the feature, another setting would
    /// be passed over in silence, and builds would run as the owner of the store.
    #[must_use]
    pub fn settings(&self) -> String {
        let (feature, own) = match self {
            Self::Namespace(Subids(Ids { start, count })) => (
                "auto-allocate-uids",
                format!("auto-allocate-uids = true\nstart-id = {start}\nid-count = {count}\n"),
            ),
            Self::Broker(broker) => ("external-builders", broker.settings()),
        };
        format!(
            "extra-experimental-features = daemon-trust-override local-overlay-store {feature}\n{own}\
             build-users-group =\n\
             store = local?use-roots-daemon=true\n"
        )
    }
}

impl Broker {
    /// Systems and paths are plain words ([`plain`]), so JSON needs no escapes.
    fn settings(&self) -> String {
        let list =
            |words: &[String]| words.iter().map(|word| format!("\"{word}\"")).collect::<Vec<_>>().join(",");
        let words = match &self.socket {
            Some(socket) => vec!["client".to_owned(), "--socket".to_owned(), socket.display().to_string()],
            None => vec!["refuse".to_owned()],
        };
        let external = format!(
            "external-builders = [{{\"systems\":[{}],\"program\":\"{}\",\"args\":[{}]}}]\n",
            list(&self.systems),
            self.program.display(),
            list(&words)
        );
        // No other system but these. A client may raise max-jobs again, which is why 'refuse' stands above.
        let none = if self.socket.is_none() { "max-jobs = 0\n" } else { "" };
        format!("{external}extra-platforms = {}\n{none}", self.systems.join(" "))
    }
}

/// A word that means itself in JSON and in `nix.conf`.
///
/// # Errors
/// When it may not.
pub fn plain(name: &str, text: &str) -> Result<()> {
    if !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || "/._-+".contains(c)) {
        return Ok(());
    }
    Err(Failure::new(format!("{name} may only have letters, digits and any of /._-+ in it")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn broker(socket: Option<&str>) -> Builds {
        Builds::Broker(Broker {
            program: "/l/nix-build-broker".into(),
            socket: socket.map(PathBuf::from),
            systems: vec!["aarch64-darwin".to_owned(), "x86_64-darwin".to_owned()],
            uids: Ids { start: 351, count: 32 },
        })
    }

    #[test]
    fn settings_of_a_broker() {
        let settings = broker(Some("/run/s")).settings();
        let lines: Vec<_> = settings.lines().collect();
        assert_eq!(
            lines,
            [
                "extra-experimental-features = daemon-trust-override local-overlay-store external-builders",
                r#"external-builders = [{"systems":["aarch64-darwin","x86_64-darwin"],"program":"/l/nix-build-broker","args":["client","--socket","/run/s"]}]"#,
                "extra-platforms = aarch64-darwin x86_64-darwin",
                "build-users-group =",
                "store = local?use-roots-daemon=true",
            ]
        );
        let safe = broker(None).settings();
        assert!(safe.contains(r#""args":["refuse"]"#) && safe.contains("\nmax-jobs = 0\n"), "{safe}");
    }

    #[test]
    fn whose_uid_it_is() {
        let builds = broker(None);
        assert_eq!([350, 351, 382, 383].map(|uid| builds.contains(uid)), [false, true, true, false]);
    }

    #[test]
    fn ranges() {
        for bad in ["", "1", "0:65536", "1:0", "4294901760:65536", "-1:65536", "1:65536:1", "a:b", " 1:65536"]
        {
            assert_eq!(Ids::parse(bad), None, "{bad}");
        }
        assert_eq!(Subids::parse("1:65535"), None);
        let range = Subids::parse("100000:131072").unwrap();
        for (id, inside) in [(0, false), (99_999, false), (100_000, true), (231_071, true), (231_072, false)]
        {
            assert_eq!(range.0.contains(id), inside, "{id}");
        }
        assert_eq!(range.last(), 231_071);
    }
}
