//! An entry for a group in the access control list of a directory that root controls.

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use anyhow::{Context, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use xattr::FileExt;

use super::{Act, Host, show};
use crate::system::access_list::{ACCESS_LIST, ALL, AccessList};
use crate::system::files::open_directory;

/// Parameters.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AclEntry {
    /// A directory, which is no link.
    pub path: PathBuf,
    /// The group, which may read, write and search it. By number: subordinate ids have no names.
    pub gid: u32,
}

/// What was there.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Was {
    /// The list as the kernel keeps it; `None` when the permission bits said it all.
    list: Option<Vec<u8>>,
}

impl AclEntry {
    fn open(&self) -> Result<File> {
        open_directory(&self.path).with_context(|| format!("cannot open the directory {}", show(&self.path)))
    }

    fn attribute(&self, directory: &File) -> Result<Option<Vec<u8>>> {
        directory.get_xattr(ACCESS_LIST).with_context(|| {
            format!(
                "cannot read the access control list of {} (its file system may have none)",
                show(&self.path)
            )
        })
    }

    fn list(&self, directory: &File) -> Result<AccessList> {
        match self.attribute(directory)? {
            Some(bytes) => AccessList::parse(&bytes).with_context(|| format!("of {}", show(&self.path))),
            None => Ok(AccessList::of_mode(directory.metadata()?.mode())),
        }
    }

    /// The list with our entry.
    fn with_entry(&self, mut list: AccessList) -> AccessList {
        list.allow_group(self.gid, ALL);
        list
    }

    fn set(&self, directory: &File, list: Option<&[u8]>) -> Result<()> {
        let done = match list {
            Some(bytes) => directory.set_xattr(ACCESS_LIST, bytes),
            None if self.attribute(directory)?.is_none() => Ok(()),
            None => directory.remove_xattr(ACCESS_LIST),
        };
        done.and_then(|()| directory.sync_all())
            .with_context(|| format!("cannot change the access control list of {}", show(&self.path)))
    }
}

impl Act for AclEntry {
    type Before = Was;

    fn changes(&self) -> String {
        format!("lets the group {} add entries to {} (access control list)", self.gid, show(&self.path))
    }

    fn undone_by(&self) -> String {
        "gives back the list that was there, or removes it".to_owned()
    }

    fn is_done(&self, _: &Host<'_>) -> Result<bool> {
        Ok(self.list(&self.open()?)?.group(self.gid) == Some(ALL))
    }

    fn capture(&self, _: &Host<'_>) -> Result<Was> {
        Ok(Was { list: self.attribute(&self.open()?)? })
    }

    fn apply(&self, _: &Host<'_>, _: &Was) -> Result<()> {
        let directory = self.open()?;
        let list = self.with_entry(self.list(&directory)?);
        self.set(&directory, Some(&list.to_bytes()))
    }

    /// Entries that somebody else made since stay.
    fn undo(&self, _: &Host<'_>, was: &Was) -> Result<()> {
        let directory = self.open()?;
        let mut now = self.list(&directory)?;
        let before = match &was.list {
            Some(bytes) => AccessList::parse(bytes)?,
            None => AccessList::of_mode(directory.metadata()?.mode()),
        };
        let ours = now == self.with_entry(before);
        now.forget_group(self.gid);
        let left = now.is_extended().then(|| now.to_bytes());
        self.set(&directory, if ours { was.list.as_deref() } else { left.as_deref() })
    }
}

#[cfg(test)]
mod tests {
    use super::super::test_host::host;
    use super::*;

    fn directory() -> (tempfile::TempDir, AclEntry) {
        // A file system with lists: /tmp may be one without.
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let path = dir.path().join("store");
        std::fs::create_dir(&path).unwrap();
        (dir, AclEntry { path, gid: 880_803_839 })
    }

    #[test]
    fn there_and_back_twice_to_the_byte() {
        let (dir, action) = directory();
        let host = host(dir.path());
        let other = {
            let mut list = AccessList::of_mode(0o750);
            list.allow_group(55, 0o5);
            list.to_bytes()
        };
        for list in [None, Some(other)] {
            let opened = action.open().unwrap();
            action.set(&opened, list.as_deref()).unwrap();
            let mode = opened.metadata().unwrap().mode();
            let was = action.capture(&host).unwrap();
            assert!(!action.is_done(&host).unwrap());
            for _ in 0..2 {
                action.apply(&host, &was).unwrap();
                assert!(action.is_done(&host).unwrap());
            }
            for _ in 0..2 {
                action.undo(&host, &was).unwrap();
                assert_eq!(action.attribute(&opened).unwrap(), list);
            }
            // Without a list, the step that sets owner and mode gives the group's bits back: the list's mask was there.
            if list.is_some() {
                assert_eq!(opened.metadata().unwrap().mode(), mode);
            }
        }
    }

    #[test]
    fn somebody_elses_entry_stays() {
        let (dir, action) = directory();
        let host = host(dir.path());
        let was = action.capture(&host).unwrap();
        action.apply(&host, &was).unwrap();
        let opened = action.open().unwrap();
        let mut list = action.list(&opened).unwrap();
        list.allow_group(55, 0o5);
        action.set(&opened, Some(&list.to_bytes())).unwrap();
        action.undo(&host, &was).unwrap();
        let left = action.list(&opened).unwrap();
        assert_eq!((left.group(55), left.group(action.gid)), (Some(0o5), None));
    }

    #[test]
    fn a_link_is_refused() {
        let (dir, action) = directory();
        let link = AclEntry { path: dir.path().join("link"), ..action.clone() };
        std::os::unix::fs::symlink(&action.path, &link.path).unwrap();
        assert!(link.apply(&host(dir.path()), &Was { list: None }).is_err());
    }
}
