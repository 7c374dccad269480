//! The local directory of accounts and groups of a Mac, with dscl(1).

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::str::FromStr;

use anyhow::{Context, Result, bail};

use crate::system::command;

/// What dscl says of a record that is not there: the name of its error -14136.
const NOT_FOUND: &str = "eDSRecordNotFound";
/// Attributes that Open Directory makes itself, or that only stand for a secret kept elsewhere.
const NOT_OURS: [&str; 6] = [
    "RecordName",
    "RecordType",
    "AppleMetaNodeLocation",
    "AppleMetaRecordName",
    "Password",
    "AuthenticationAuthority",
];

/// A record's attributes, by name.
pub type Attributes = BTreeMap<String, Vec<String>>;

/// The attributes of the record at `path` (`/Users/_nixbld1`) that can be written again; `None` when there is none.
///
/// # Errors
/// When the directory does not answer, or an attribute is no text.
pub fn read(path: &str) -> Result<Option<Attributes>> {
    let output = command::output("dscl", &["-plist", ".", "-read", path])?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        if said.contains(NOT_FOUND) {
            return Ok(None);
        }
        bail!("cannot read {path} from the directory of accounts: {}", said.trim());
    }
    let record: BTreeMap<String, Vec<String>> = plist::from_bytes(&output.stdout).with_context(|| {
        format!("the directory of accounts gives {path} another form than it should have")
    })?;
    let name = |key: String| key.rsplit_once(':').map_or(key.clone(), |(_, name)| name.to_owned());
    // Who may write an attribute, `_writers_passwd` and its kin, is made anew with the record.
    let is_ours = |name: &str| !NOT_OURS.contains(&name) && !name.starts_with('_');
    Ok(Some(
        record
            .into_iter()
            .map(|(key, values)| (name(key), values))
            .filter(|(name, _)| is_ours(name))
            .collect(),
    ))
}

/// Makes the record at `path`, if there is none, and gives it these attributes; others that it has stay.
///
/// # Errors
/// When the directory refuses.
pub fn write(path: &str, attributes: &Attributes) -> Result<()> {
    command::run("dscl", &[".", "-create", path])?;
    for (name, values) in attributes {
        let words = [".", "-create", path, name].into_iter().chain(values.iter().map(String::as_str));
        command::run("dscl", &words.collect::<Vec<_>>())?;
    }
    Ok(())
}

/// Removes the record at `path`. One that is not there is fine.
///
/// # Errors
/// When the directory refuses.
pub fn remove(path: &str) -> Result<()> {
    if read(path)?.is_some() {
        command::run("dscl", &[".", "-delete", path])?;
    }
    Ok(())
}

/// The uid of a user; `None` when there is none of that name.
///
/// # Errors
/// When the directory does not answer, or the record has no number.
pub fn uid_of(user: &str) -> Result<Option<u32>> {
    number(&format!("/Users/{user}"), "UniqueID")
}

/// The gid of a group; `None` when there is none of that name.
///
/// # Errors
/// As for [`uid_of`].
pub fn gid_of(group: &str) -> Result<Option<u32>> {
    number(&format!("/Groups/{group}"), "PrimaryGroupID")
}

/// Uid, gid and home of a user; `None` when there is none of that name.
///
/// # Errors
/// As for [`uid_of`].
pub fn user(name: &str) -> Result<Option<(u32, u32, PathBuf)>> {
    let path = format!("/Users/{name}");
    let Some(record) = read(&path)? else { return Ok(None) };
    let home: PathBuf = value(&record, &path, "NFSHomeDirectory")?;
    Ok(Some((value(&record, &path, "UniqueID")?, value(&record, &path, "PrimaryGroupID")?, home)))
}

fn number(path: &str, name: &str) -> Result<Option<u32>> {
    read(path)?.map(|record| value(&record, path, name)).transpose()
}

fn value<T: FromStr>(record: &Attributes, path: &str, name: &str) -> Result<T> {
    let value = record.get(name).and_then(|values| values.first()?.parse().ok());
    value.with_context(|| format!("{path} has no {name}"))
}
