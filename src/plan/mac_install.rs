//! The values of an installation on a Mac: build users that are still to be made, and the volume.

use anyhow::{Context as _, Result};
use toml::{Table, Value};

use super::options::{Options, Purpose};
use crate::facts::Facts;
use crate::facts::macos::{JOBS, KEYCHAIN, MOUNTER, Mac, VOLUME};
use crate::types::SubidRange;

/// How many builds run at a time: what the installers make, too.
const BUILD_USERS: u32 = 32;
/// The build group's gid, if it can be: build users' uids follow on it (`NIX_BUILD_GROUP_ID` of the official script, since macOS 15 took
/// 300 to 304).
const FIRST_CHOICE: u32 = 350;
/// Else the highest number below it. From 400 downwards the store's owner gets its own.
const OTHERS: std::ops::Range<u32> = 200..FIRST_CHOICE;

/// The users that builds will run under.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BuildUsers {
    /// Their group's gid.
    pub gid: u32,
    /// Their uids.
    pub uids: SubidRange,
    /// Whether they are still to be made.
    pub are_new: bool,
}

impl BuildUsers {
    /// Those that are there, as `found` says; for an installation where there are none, those that it makes.
    ///
    /// # Errors
    /// When there are none and no numbers are free for them.
    pub fn choose(
        facts: &Facts,
        options: &Options,
        found: impl Fn(&Facts) -> Result<SubidRange>,
    ) -> Result<Self> {
        let are_new = options.purpose == Purpose::Install && facts.build_users.members.is_empty();
        if !are_new {
            let gid = facts.build_users.gid.context("there is no group of build users")?;
            return Ok(Self { gid, uids: found(facts)?, are_new });
        }
        let is_free = |id: u32| {
            !facts.users.iter().any(|user| user.uid == id || user.gid == id)
                && !facts.groups.iter().any(|group| group.gid == id)
                && ![options.nix_uid, options.nix_gid].contains(&Some(id))
        };
        let fits = |gid: &u32| (*gid..=*gid + BUILD_USERS).all(is_free);
        let gid = std::iter::once(FIRST_CHOICE).chain(OTHERS.rev()).find(fits).with_context(|| {
            format!("no {} consecutive ids between 200 and 400 are free for build users", BUILD_USERS + 1)
        })?;
        let uids =
            SubidRange::new(gid + 1, BUILD_USERS).context("build users' uids are not what uids are")?;
        Ok(Self { gid, uids, are_new })
    }

    /// Their uids, one by one.
    pub fn each(&self) -> impl Iterator<Item = u32> {
        self.uids.start..self.uids.start + self.uids.count
    }
}

/// The values.
pub fn values(mac: &Mac, builders: &BuildUsers, group: &str) -> Vec<(&'static str, Option<Value>)> {
    let text = |text: &str| Some(Value::String(text.to_owned()));
    let table = |pairs: Vec<(&str, Value)>| {
        Value::Table(pairs.into_iter().map(|(key, value)| (key.to_owned(), value)).collect::<Table>())
    };
    let name = |number: usize| Value::String(format!("_nixbld{number}"));
    let users = (1..).zip(builders.each()).filter(|_| builders.are_new);
    let users = users
        .map(|(number, uid)| table(vec![("name", name(number)), ("uid", Value::String(uid.to_string()))]));
    let members = (1..).zip(builders.each()).map(|(number, _)| name(number)).collect();
    let groups = builders
        .are_new
        .then(|| table(vec![("name", Value::String(group.to_owned())), ("members", Value::Array(members))]));
    // Where the system's disk is encrypted, what people build is not to be the one thing that is not.
    let encrypted = mac.disk.as_ref().is_some_and(|disk| disk.encrypted != Some(false));
    let password = || {
        let word = |word: &str| Value::String(word.to_owned());
        table(vec![("keychain", word(KEYCHAIN)), ("account", word(VOLUME)), ("service", word(VOLUME))])
    };
    let uids = builders.are_new.then(|| {
        let uids = builders.each().map(|uid| Value::Integer(uid.into()));
        ("build_uids", Some(Value::Array(uids.collect())))
    });
    let values = vec![
        ("mac_new_build_groups", Some(Value::Array(groups.into_iter().collect()))),
        ("mac_new_build_users", Some(Value::Array(users.collect()))),
        ("mac_volume", text(VOLUME)),
        ("mac_keychain", text(KEYCHAIN)),
        ("mac_container", mac.disk.as_ref().and_then(|disk| disk.container.as_deref()).and_then(text)),
        ("mac_encrypted", encrypted.then_some(Value::Boolean(true))),
        ("mac_plain", (!encrypted).then_some(Value::Boolean(true))),
        ("mac_password", encrypted.then(password)),
        ("mac_mounter", text(MOUNTER)),
        ("mac_mounter_list", text(&format!("{JOBS}/{MOUNTER}.plist"))),
    ];
    values.into_iter().chain(uids).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::sample::debian_sample;

    #[test]
    fn build_users_get_free_numbers() {
        let mut facts = debian_sample();
        facts.build_users.members.clear();
        let options = Options { purpose: Purpose::Install, ..Options::default() };
        let chosen = |facts: &Facts, options: &Options| {
            let found = |_: &Facts| anyhow::bail!("there are none");
            BuildUsers::choose(facts, options, found)
                .map(|users| (users.gid, users.uids.start, users.uids.count))
        };
        assert_eq!(chosen(&facts, &options).unwrap(), (350, 351, 32));
        facts.users[0].uid = 382;
        assert_eq!(chosen(&facts, &options).unwrap(), (349, 350, 32));
        facts.groups[0].gid = 350;
        assert_eq!(chosen(&facts, &options).unwrap(), (317, 318, 32));
        assert_eq!(chosen(&facts, &Options { nix_uid: Some(317), ..options.clone() }).unwrap().0, 284);
        facts.users = (0..8)
            .map(|number| crate::facts::Account { uid: 210 + 25 * number, ..facts.users[0].clone() })
            .collect();
        assert!(chosen(&facts, &options).is_err());
        assert!(chosen(&facts, &Options::default()).is_err(), "a migration makes none");
    }
}
