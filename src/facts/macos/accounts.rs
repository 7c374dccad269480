//! Accounts and groups of the local directory, from `dscl -plist . -readall` (dscl(1)).
//!
//! The form of its answer: an array of dictionaries, each value an array of strings, each key with the prefix
//! `dsAttrTypeStandard:`; attributes that Open Directory has no name for, `IsHidden` among them, have another.

use std::collections::BTreeMap;

use super::super::reader::Reader;
use super::super::{Account, Group};

/// A record: its attributes by their names without prefix.
type Record = BTreeMap<String, Vec<String>>;

pub(crate) fn read(reader: &Reader<'_>) -> (Vec<Account>, Vec<Group>) {
    let user_attributes = ["RecordName", "UniqueID", "PrimaryGroupID", "NFSHomeDirectory", "UserShell"];
    let group_attributes = ["RecordName", "PrimaryGroupID", "GroupMembership"];
    let mut users: Vec<_> = records(reader, "/Users", &user_attributes).iter().filter_map(user).collect();
    let mut groups: Vec<_> = records(reader, "/Groups", &group_attributes).iter().filter_map(group).collect();
    users.sort_by(|a, b| (a.uid, &a.name).cmp(&(b.uid, &b.name)));
    groups.sort_by(|a, b| (a.gid, &a.name).cmp(&(b.gid, &b.name)));
    (users, groups)
}

fn records(reader: &Reader<'_>, kind: &str, attributes: &[&str]) -> Vec<Record> {
    let words: Vec<_> =
        ["-plist", ".", "-readall", kind].into_iter().chain(attributes.iter().copied()).collect();
    let read: Vec<BTreeMap<String, Vec<plist::Value>>> =
        reader.property_list_of("dscl", &words).unwrap_or_default();
    let record = |record: BTreeMap<String, Vec<plist::Value>>| {
        record
            .into_iter()
            .map(|(key, values)| (without_prefix(&key), values.into_iter().filter_map(text).collect()))
            .collect()
    };
    read.into_iter().map(record).collect()
}

fn without_prefix(key: &str) -> String {
    key.rsplit_once(':').map_or(key, |(_, name)| name).to_owned()
}

/// An attribute's value; some are data, which no name or number is.
fn text(value: plist::Value) -> Option<String> {
    value.into_string()
}

fn user(record: &Record) -> Option<Account> {
    Some(Account {
        name: first(record, "RecordName")?.to_owned(),
        uid: id(first(record, "UniqueID")?)?,
        gid: id(first(record, "PrimaryGroupID")?)?,
        home: first(record, "NFSHomeDirectory").unwrap_or_default().into(),
        shell: first(record, "UserShell").unwrap_or_default().into(),
    })
}

fn group(record: &Record) -> Option<Group> {
    Some(Group {
        name: first(record, "RecordName")?.to_owned(),
        gid: id(first(record, "PrimaryGroupID")?)?,
        members: record.get("GroupMembership").cloned().unwrap_or_default(),
    })
}

/// A record may have several names; the first is the one that it is known by.
fn first<'r>(record: &'r Record, name: &str) -> Option<&'r str> {
    record.get(name)?.first().map(String::as_str)
}

/// An id as a number. `nobody` has the id -2, which is 2^32 - 2 for the kernel.
fn id(text: &str) -> Option<u32> {
    text.parse().ok().or_else(|| text.parse::<i32>().ok().map(i32::cast_unsigned))
}
