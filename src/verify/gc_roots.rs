//! A planted root, where the daemon cannot look for itself.

use std::fs::{self, DirBuilder};
use std::os::unix::fs::{DirBuilderExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::unistd::{UnlinkatFlags, unlinkat};

use super::leftovers::{LETTING_GO, Leftovers, once_sure, roots_of, still_alive, unique};
use super::sweep::NAME;
use super::{CheckError, Outcome, Target};
use crate::daemon::Connection;
use crate::system::pause::Pause;
use crate::system::{checkpoint, kernel};
use crate::types::StorePath;

const REMEDY: &str = "a collection of garbage now would delete what users keep: run none before this passes. nix-root-scan.socket must be \
                      active (without an init system start-nix-daemon must run), and the daemon's unit must hide neither homes nor /tmp (no ProtectHome, no PrivateTmp): \
                      systemctl status nix-root-scan.socket";

pub(super) fn check(target: &Target) -> Result<Outcome, CheckError> {
    let mut leftovers = Leftovers::new(&target.socket)?;
    // Declared after the paths, so that it is dropped before them.
    let mut plants = Vec::new();
    let outcome = plant_and_look(target, &mut leftovers, &mut plants)?;
    for plant in plants {
        plant.remove()?;
    }
    leftovers.remove()?;
    Ok(outcome)
}

fn plant_and_look(
    target: &Target,
    leftovers: &mut Leftovers,
    plants: &mut Vec<Plant>,
) -> Result<Outcome, CheckError> {
    let mut connection = Connection::open(&target.socket)?;
    let mut planted = Vec::new();
    for ground in &target.planting_grounds {
        let unique = unique()?;
        let name = format!("{NAME}{unique}");
        let Some(mut plant) = Plant::new(ground.join(format!(".{name}")), &target.state_dir) else {
            continue;
        };
        checkpoint::inside("plant-made");
        // What it holds is new as well, so that no optimised store links it to something.
        let path = connection.add_file(&name, unique.as_bytes(), false)?;
        checkpoint::inside("path-added");
        leftovers.push(path.clone());
        let link = plant.link_to(&path)?;
        plants.push(plant);
        connection.add_indirect_root(&link)?;
        checkpoint::inside("root-planted");
        planted.push((ground, path));
    }
    if planted.is_empty() {
        return Err(CheckError::Other(format!(
            "root can create a directory in none of {:?}",
            target.planting_grounds
        )));
    }
    // Ends the temporary roots, which would keep the paths alive too.
    drop(connection);
    let mut complaints = Vec::new();
    let (grounds, paths): (Vec<_>, Vec<_>) = planted.into_iter().unzip();
    let mut rooted = Vec::new();
    let all_listed = listed(target, &paths)?;
    checkpoint::inside("roots-listed");
    for ((ground, path), listed) in grounds.iter().zip(&paths).zip(all_listed) {
        if listed {
            rooted.push(path);
        } else {
            complaints.push(format!(
                "the daemon does not list a root below {} (directory of mode 0700)",
                ground.display()
            ));
        }
    }
    complaints.extend(
        deleted(target, &rooted)?
            .into_iter()
            .map(|path| format!("the daemon deleted {path} although a root points to it")),
    );
    let names = grounds.iter().map(|ground| ground.display().to_string()).collect::<Vec<_>>().join(" and ");
    let seen = format!("roots planted below {names} were listed, and their paths could not be deleted");
    Ok(Outcome::unless(&complaints, seen, REMEDY))
}

/// Whether the daemon lists a lasting root for each path, once no temporary one is left.
fn listed(target: &Target, paths: &[StorePath]) -> Result<Vec<bool>, CheckError> {
    let deadline = Instant::now() + LETTING_GO;
    let mut pause = Pause::up_to(Duration::from_millis(100));
    loop {
        let roots = roots_of(&target.socket, paths)?;
        if !roots.iter().flatten().any(|root| root.temporary) {
            return Ok(roots.iter().map(|roots| !roots.is_empty()).collect());
        }
        if Instant::now() > deadline {
            return Err(CheckError::Other(
                "the daemon keeps temporary roots of a connection that has ended".to_owned(),
            ));
        }
        pause.wait();
    }
}

/// Tries to delete each of these paths, which its root must prevent; those where it did not.
fn deleted<'a>(target: &Target, paths: &[&'a StorePath]) -> Result<Vec<&'a StorePath>, CheckError> {
    let mut deleted = Vec::new();
    for path in paths {
        match once_sure(|| Connection::open(&target.socket)?.delete(std::slice::from_ref(path))) {
            Ok(()) => deleted.push(*path),
            Err(error) if still_alive(&error) => {}
            Err(error) => return Err(error.into()),
        }
    }
    // A daemon that was not there: the one that was asked to delete may remember what it knew before.
    let mut another = Connection::open(&target.socket)?;
    for path in paths {
        if !another.is_valid(path)? && !deleted.contains(path) {
            deleted.push(path);
        }
    }
    Ok(deleted)
}

/// A directory that only root may enter, with a link to a store path in it.
#[derive(Debug)]
pub(super) struct Plant {
    directory: PathBuf,
    state_dir: PathBuf,
    removed: bool,
}

impl Plant {
    /// `None` when there can be none: fails when something is there, whatever it is, as anybody may write to the ground.
    fn new(directory: PathBuf, state_dir: &Path) -> Option<Self> {
        DirBuilder::new().mode(0o700).create(&directory).ok()?;
        Some(Self { directory, state_dir: state_dir.to_owned(), removed: false })
    }

    /// One that a check made which was killed.
    pub(super) fn left_behind(directory: PathBuf, state_dir: &Path) -> Self {
        Self { directory, state_dir: state_dir.to_owned(), removed: false }
    }

    /// Makes the link and returns where it is.
    fn link_to(&mut self, path: &StorePath) -> Result<PathBuf, CheckError> {
        symlink(path.to_path(), self.link()).map_err(CheckError::io("cannot link in", &self.directory))?;
        Ok(self.link())
    }

    fn link(&self) -> PathBuf {
        self.directory.join("root")
    }

    pub(super) fn remove(mut self) -> Result<(), CheckError> {
        self.remove_all()
    }

    fn remove_all(&mut self) -> Result<(), CheckError> {
        if std::mem::replace(&mut self.removed, true) {
            return Ok(());
        }
        let link = self.link();
        let ours =
            fs::remove_dir_all(&self.directory).map_err(CheckError::io("cannot remove", &self.directory));
        checkpoint::inside("plant-removed");
        // The daemon removes its own link only when it can see that ours is gone, which it cannot below /root.
        ours.and(forget(&self.state_dir, |target| target == link))
    }
}

impl Drop for Plant {
    fn drop(&mut self) {
        // Only after another error, which is the one to report.
        let _ = self.remove_all();
    }
}

/// Removes the links below `gcroots/auto` whose target `is_ours`. The directory is the nix user's, so it is opened without
/// following any link, and only names in it are touched that lead to ours.
pub(super) fn forget(state_dir: &Path, is_ours: impl Fn(&Path) -> bool) -> Result<(), CheckError> {
    let auto = state_dir.join("gcroots/auto");
    let directory = match kernel::open_dir(&auto) {
        // Nix makes it for the first indirect root.
        Err(Errno::ENOENT) => return Ok(()),
        directory => directory.map_err(CheckError::io("cannot open", &auto))?,
    };
    let failed = |errno: Errno| CheckError::io("cannot read", &auto)(errno);
    let listing = directory.try_clone().map_err(CheckError::io("cannot read", &auto))?;
    let mut listing = nix::dir::Dir::from_fd(listing).map_err(failed)?;
    for entry in listing.iter() {
        let name = entry.map_err(failed)?.file_name().to_owned();
        if nix::fcntl::readlinkat(&directory, name.as_c_str()).is_ok_and(|target| is_ours(Path::new(&target)))
        {
            let removed = unlinkat(&directory, name.as_c_str(), UnlinkatFlags::NoRemoveDir);
            removed.map_err(CheckError::io("cannot remove a link from", &auto))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plant_leaves_nothing_and_takes_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let auto = dir.path().join("gcroots/auto");
        fs::create_dir_all(&auto).unwrap();
        let path = StorePath::from_base_name("0123456789abcdfghijklmnpqrsvwxyz-a").unwrap();
        let mut plant = Plant::new(dir.path().join("plant"), dir.path()).unwrap();
        symlink(plant.link_to(&path).unwrap(), auto.join("ours")).unwrap();
        symlink("/elsewhere", auto.join("theirs")).unwrap();
        assert!(Plant::new(dir.path().join("plant"), dir.path()).is_none(), "what is there is not used");
        drop(plant);
        let left: Vec<_> = fs::read_dir(&auto).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["theirs"]);
        assert!(!dir.path().join("plant").exists());
    }

    #[test]
    fn a_directory_of_roots_that_is_a_link_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("elsewhere/auto")).unwrap();
        symlink("/x/root", dir.path().join("elsewhere/auto/victim")).unwrap();
        symlink("elsewhere", dir.path().join("gcroots")).unwrap();
        assert!(forget(dir.path(), |_| true).is_err());
        assert!(dir.path().join("elsewhere/auto/victim").symlink_metadata().is_ok());
    }
}
