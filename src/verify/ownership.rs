//! Who owns what: a look at every top-level entry, not a walk of the store.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::AtFlags;
use nix::sys::stat::{FileStat, SFlag, fstatat};

use super::{CheckError, Outcome, Target};
use crate::system::{kernel, text};
use crate::types::STORE_DIR;

/// Below the state directory, what the nix user owns, and how many levels of it are looked at.
const STATE: [(&str, u32); 7] = [
    ("db", 1),
    ("gcroots", 2),
    ("profiles", 2),
    ("temproots", 1),
    ("gc-socket", 1),
    ("builds", 1),
    ("userpool2", 1),
];
/// Below the state directory, the directories in which root binds sockets.
const SOCKETS: [&str; 2] = ["daemon-socket", "gc-roots-socket"];
/// The most complaints that are told one by one.
const TOLD: usize = 5;
const REMEDY: &str = "nix-unroot resume finishes an interrupted migration; something that runs as root and opens the store itself \
                      makes such files too (see root-client)";

pub(super) fn check(target: &Target) -> Result<Outcome, CheckError> {
    let mut look = Look { target, complaints: Vec::new(), looked_at: 0 };
    look.directories();
    look.tree(Path::new(STORE_DIR), 1, true)?;
    for (name, depth) in STATE {
        look.tree(&target.state_dir.join(name), depth, false)?;
    }
    look.tree(Path::new("/nix/var/log/nix"), 1, false)?;
    for file in &target.root_files {
        look.root_only(file);
    }
    let seen =
        format!("{} entries looked at: no one's but the nix user's and other users' own", look.looked_at);
    let more = look.complaints.len().saturating_sub(TOLD);
    look.complaints.truncate(TOLD);
    if more > 0 {
        look.complaints.push(format!("and {more} more"));
    }
    Ok(Outcome::unless(&look.complaints, seen, REMEDY))
}

struct Look<'a> {
    target: &'a Target,
    complaints: Vec<String>,
    looked_at: u64,
}

impl Look<'_> {
    /// The directories that carry all else, with owner, group and mode (the table "Target state of a migrated Linux
    /// machine" of the design).
    fn directories(&mut self) {
        let nix = self.target.nix_gid;
        let state = self.target.state_dir.clone();
        let (store_uid, store_gid) = self.target.store_owner;
        let rows = [
            ("/nix", 0, 0, 0o755),
            ("/nix/var", 0, 0, 0o755),
            ("/nix/var/log", 0, 0, 0o755),
            (STORE_DIR, store_uid, store_gid, 0o1775),
        ];
        let rows = rows.map(|(path, uid, gid, mode)| (PathBuf::from(path), uid, gid, mode));
        for (path, owner, gid, mode) in rows.into_iter().chain([(state.clone(), 0, nix, 0o1775)]) {
            let Ok(found) = fs::symlink_metadata(&path) else {
                self.complaints
                    .push(format!("{} is not there, and nix may not create it", text::path(&path)));
                continue;
            };
            let seen = (found.uid(), found.gid(), found.mode() & 0o7777);
            if seen != (owner, gid, mode) || !found.is_dir() {
                let (uid, group, bits) = seen;
                self.complaints.push(format!(
                    "{} is {uid}:{group} with mode {bits:04o}, not {owner}:{gid} with {mode:04o}",
                    text::path(&path)
                ));
            }
        }
        for name in SOCKETS {
            let directory = state.join(name);
            if directory.is_symlink() {
                self.complaints.push(format!("{} is a link", text::path(&directory)));
            }
            self.guarded(&directory);
        }
    }

    /// `path`, where it really lies, and every directory above either.
    fn root_only(&mut self, path: &Path) {
        path.ancestors().for_each(|part| self.guarded(part));
        // Root's links are fine (some systems have /usr/local as one), but not where they lead to what is not root's.
        if let Ok(real) = path.canonicalize() {
            real.ancestors().for_each(|part| self.guarded(part));
        }
    }

    /// A thing that only root may change, so that root can rely on it. The group may write when it is not that of `nix`:
    /// distributions give the socket's directory to a group of users.
    fn guarded(&mut self, path: &Path) {
        let complaint = match fs::symlink_metadata(path) {
            Err(error) => format!("cannot look at {}: {error}", text::path(path)),
            Ok(found) if found.uid() != 0 => {
                format!("{} belongs to uid {}, not to root", text::path(path), found.uid())
            }
            // Its mode means nothing, and whoever could replace it is found by its directory.
            Ok(found) if found.is_symlink() => return,
            Ok(found) if found.mode() & 0o002 != 0 => {
                format!("{} can be written by everybody", text::path(path))
            }
            Ok(found) if found.mode() & 0o020 != 0 && found.gid() == self.target.nix_gid => {
                format!("{} can be written by the group of nix", text::path(path))
            }
            Ok(_) => return,
        };
        if !self.complaints.contains(&complaint) {
            self.complaints.push(complaint);
        }
    }

    /// Looks at the entries of `path`, `depth` levels deep. `strict`: they are the nix user's; else they may be other
    /// users' too. `nix` may rename things under our eyes, so no link is followed on the way.
    fn tree(&mut self, path: &Path, depth: u32, strict: bool) -> Result<(), CheckError> {
        let directory = match kernel::open_dir(path) {
            Err(Errno::ENOENT) => return Ok(()),
            opened => opened.map_err(CheckError::io("cannot open", path))?,
        };
        let failed = |errno: Errno| CheckError::io("cannot read", path)(errno);
        let listing = directory.try_clone().map_err(CheckError::io("cannot read", path))?;
        let mut below = Vec::new();
        for entry in Dir::from_fd(listing).map_err(failed)?.iter() {
            let name = entry.map_err(failed)?.file_name().to_owned();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            // What a collection or a build took away meanwhile is no one's.
            let Ok(found) = fstatat(&directory, name.as_c_str(), AtFlags::AT_SYMLINK_NOFOLLOW) else {
                continue;
            };
            let full = path.join(name.to_string_lossy().as_ref());
            self.entry(&full, &found, strict);
            let is_directory = SFlag::from_bits_truncate(found.st_mode) & SFlag::S_IFMT == SFlag::S_IFDIR;
            if depth > 1 && is_directory {
                below.push(full);
            }
        }
        below.into_iter().try_for_each(|path| self.tree(&path, depth - 1, strict))
    }

    fn entry(&mut self, path: &Path, found: &FileStat, strict: bool) {
        self.looked_at += 1;
        let target = self.target;
        let old = found.st_uid == 0 || target.build_users_uids.contains(&found.st_uid);
        // What a failed build left is still its uid's, until it is collected.
        let of_build = target.uids.contains(found.st_uid);
        let wrong = if strict { found.st_uid != target.nix_uid && !of_build } else { old };
        if wrong && !target.kept.iter().any(|kept| kept == path) {
            let name = text::path(path);
            self.complaints.push(format!("{name} belongs to uid {}", found.st_uid));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::types::SubidRange;

    #[test]
    fn a_listing_names_what_is_not_the_nix_users_and_follows_no_link() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir_all(at("tree/sub")).unwrap();
        fs::write(at("tree/sub/file"), "").unwrap();
        symlink("/etc", at("tree/link")).unwrap();
        let me = nix::unistd::getuid().as_raw();
        let mut target = Target::new(me + 1, me, SubidRange::NIX_DEFAULT);
        target.build_users_uids = vec![me];
        target.kept = vec![at("tree/link")];
        let mut look = Look { target: &target, complaints: Vec::new(), looked_at: 0 };
        look.tree(&at("tree"), 2, false).unwrap();
        look.complaints.sort();
        let complaint = |name: &str| format!("{} belongs to uid {me}", at(name).display());
        assert_eq!(look.complaints, [complaint("tree/sub"), complaint("tree/sub/file")]);
        symlink("tree", at("swapped")).unwrap();
        assert!(look.tree(&at("swapped"), 1, true).is_err());
        look.tree(&at("none"), 1, true).unwrap();
    }

    #[test]
    fn what_root_relies_on_is_checked_all_the_way_up_and_through_links() {
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let link = dir.path().join("link");
        symlink("/etc/passwd", &link).unwrap();
        let target = Target::new(950, 950, SubidRange::NIX_DEFAULT);
        let complaints = |path: &Path| {
            let mut look = Look { target: &target, complaints: Vec::new(), looked_at: 0 };
            look.root_only(path);
            look.complaints
        };
        assert!(complaints(Path::new("/etc/passwd")).is_empty());
        assert!(complaints(&link).contains(&"/var/tmp can be written by everybody".to_owned()));
        assert!(
            complaints(Path::new("/etc/no-such-file"))[0].starts_with("cannot look at /etc/no-such-file")
        );
    }
}
