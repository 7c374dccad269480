//! A Nix comes into a profile: the archive's, with its certificates, or one that is in the store already.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::sys::signal::kill;
use nix::unistd::Pid;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::added_paths::{Owner, remove_tree};
use super::register_paths::{NIX_TIME, OwnersNix};
use super::unpack_archive::Unpacked;
use super::{Act, CHILD_TIME, Host, gid_of, show, uid_of};
use crate::system::{command, watched};
use crate::types::StorePath;

/// The command of the child that gives a profile back.
pub const COMMAND: &str = "internal-restore-profile";
/// What this step's records are called in the run's backups.
const KEY: &str = "profile";
/// Where Nix keeps indirect roots: a link to each link that keeps a path alive.
const ROOTS: &str = "/nix/var/nix/gcroots/auto";
/// Where each process of Nix names what it needs right now, in a file that is called as its number.
const TEMPORARY_ROOTS: &str = "/nix/var/nix/temproots";
/// The child's third word when only [`leftovers`] are to go.
const LEFTOVERS: &str = "leftovers";

/// Parameters.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InstallProfile {
    /// The profile.
    pub profile: PathBuf,
    /// Who owns the store.
    pub user: String,
    /// That user's group.
    pub group: String,
    /// That user's home.
    pub home: PathBuf,
    /// The store.
    pub store: PathBuf,
    /// The Nix, where it does not come from an archive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nix: Option<StorePath>,
}

/// What was there.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Was {
    /// The profile and its generations: names and targets of links.
    links: BTreeMap<String, String>,
    /// Names of Nix's indirect roots for generations of the profile.
    #[serde(default)]
    roots: BTreeSet<String>,
    /// What [`leftovers`] found; older journals do not say.
    #[serde(default)]
    leftovers: Option<BTreeSet<PathBuf>>,
    /// The newest row of the database.
    last_row: i64,
}

impl InstallProfile {
    fn owner(&self) -> Owner<'_> {
        Owner { user: &self.user, group: &self.group }
    }

    /// Removes what a Nix left that was killed in an attempt before this one.
    fn clear(&self, was: &Was, host: &Host<'_>) -> Result<()> {
        if new_leftovers(&self.profile, Path::new(TEMPORARY_ROOTS), was)?.is_empty() {
            return Ok(());
        }
        let mut child = command::own_child(COMMAND, uid_of(&self.user)?, gid_of(&self.group)?);
        child.arg(&self.profile).arg(serde_json::to_string(was)?).arg(LEFTOVERS);
        watched::answer(&mut child, Vec::new(), host.limits(CHILD_TIME))
            .with_context(|| format!("{} cannot remove what a killed Nix left", self.user))?;
        Ok(())
    }

    /// What comes into the profile, Nix itself first.
    fn programs(&self, host: &Host<'_>) -> Result<Vec<StorePath>> {
        if let Some(nix) = &self.nix {
            return Ok(vec![nix.clone()]);
        }
        let contents = Unpacked::load(host)?.context("nothing was unpacked")?.contents;
        Ok(std::iter::once(contents.nix).chain(contents.certificates).collect())
    }
}

impl Act for InstallProfile {
    type Before = Was;

    fn changes(&self) -> String {
        let nix = self.nix.as_ref().map_or_else(|| "the archive's Nix".to_owned(), StorePath::to_string);
        format!("installs {nix} into {}, as {}", show(&self.profile), self.user)
    }

    fn undone_by(&self) -> String {
        "gives back the generation that was current, unless another one was made since".to_owned()
    }

    fn is_done(&self, _: &Host<'_>) -> Result<bool> {
        Ok(false)
    }

    fn capture(&self, host: &Host<'_>) -> Result<Was> {
        Ok(Was {
            links: links(&self.profile)?,
            roots: roots(Path::new(ROOTS), &self.profile)?,
            leftovers: Some(leftovers(&self.profile, Path::new(TEMPORARY_ROOTS))?),
            last_row: self.owner().last_row(host)?,
        })
    }

    fn apply(&self, host: &Host<'_>, was: &Was) -> Result<()> {
        let programs = self.programs(host)?;
        self.clear(was, host)?;
        let mut install = OwnersNix { user: &self.user, group: &self.group, home: &self.home }
            .command(&programs[0], "nix-env")?;
        install.arg("--profile").arg(&self.profile).arg("--install");
        install.args(programs.iter().map(StorePath::to_path));
        watched::answer(&mut install, Vec::new(), host.limits(NIX_TIME))
            .with_context(|| format!("cannot install Nix into {}", show(&self.profile)))?;
        self.owner().mark(host, KEY)
    }

    fn undo(&self, host: &Host<'_>, was: &Was) -> Result<()> {
        let mut child = command::own_child(COMMAND, uid_of(&self.user)?, gid_of(&self.group)?);
        child.arg(&self.profile).arg(serde_json::to_string(was)?);
        watched::answer(&mut child, Vec::new(), host.limits(CHILD_TIME))
            .with_context(|| format!("{} cannot give back {}", self.user, show(&self.profile)))?;
        self.owner().withdraw(host, KEY, was.last_row, &self.store)
    }
}

/// The child: gives back a profile's links, with the rights of the store's owner.
pub fn child_main(args: &[OsString]) -> u8 {
    let work = || -> Result<()> {
        let [profile, was, rest @ ..] = args else { bail!("{COMMAND} takes a profile and what was there") };
        watched::confine(CHILD_TIME, true).context("cannot limit the child that gives the profile back")?;
        let (profile, was) = (Path::new(profile), was.as_encoded_bytes());
        let was = serde_json::from_slice(was).context("cannot read what was there")?;
        if rest != [LEFTOVERS] {
            restore(profile, Path::new(ROOTS), &was)?;
        }
        let left = new_leftovers(profile, Path::new(TEMPORARY_ROOTS), &was)?;
        left.iter().try_for_each(|path| remove_tree(path))
    };
    match work() {
        Ok(()) => 0,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "{error:#}");
            1
        }
    }
}

/// Takes the first new generation away: that one is ours. Where the profile leads to a later one, somebody went on from ours,
/// and everything stays.
fn restore(profile: &Path, auto: &Path, was: &Was) -> Result<()> {
    let Was { links: was, roots: old_roots, .. } = was;
    let now = links(profile)?;
    let name = base_name(profile)?;
    let new = now.keys().filter(|link| !was.contains_key(*link)).filter_map(|link| generation(&name, link));
    let Some(ours) = new.min().map(|number| format!("{name}-{number}-link")) else { return Ok(()) };
    if now.get(&name) == Some(&ours) {
        match was.get(&name) {
            Some(target) => {
                let beside = profile.with_file_name(format!(".{name}.nix-unroot-new"));
                let _ = fs::remove_file(&beside);
                symlink(target, &beside).and_then(|()| fs::rename(&beside, profile))
            }
            None => fs::remove_file(profile),
        }
        .with_context(|| format!("cannot change {}", show(profile)))?;
    } else if now.get(&name) != was.get(&name) {
        return Ok(());
    }
    let ours = profile.with_file_name(ours);
    // Before the generation: without that, nothing would tell which root is ours.
    for root in roots(auto, profile)?.difference(old_roots).map(|root| auto.join(root)) {
        if fs::read_link(&root).is_ok_and(|target| target == ours) {
            fs::remove_file(&root).with_context(|| format!("cannot remove {}", show(&root)))?;
        }
    }
    fs::remove_file(&ours).with_context(|| format!("cannot remove {}", show(&ours)))
}

/// What a Nix of this run left that was killed.
fn new_leftovers(profile: &Path, temporary_roots: &Path, was: &Was) -> Result<BTreeSet<PathBuf>> {
    let Some(before) = &was.leftovers else { return Ok(BTreeSet::new()) };
    let is_alive = |path: &Path| {
        let pid = path.file_name().and_then(|name| pid(name.to_str()?));
        pid.is_some_and(|pid| kill(pid, None) != Err(Errno::ESRCH))
    };
    let now = leftovers(profile, temporary_roots)?;
    Ok(now.difference(before).filter(|path| !is_alive(path)).cloned().collect())
}

/// What programs of Nix leave when they are killed: the profile's lock, links that were to be renamed to the profile (`.0_default`) or a
/// generation (`default-1-link.tmp-PID-NUMBER`), and their temporary roots. Those of living ones are among it.
fn leftovers(profile: &Path, temporary_roots: &Path) -> Result<BTreeSet<PathBuf>> {
    let profile_name = base_name(profile)?;
    let of_profile = |name: &str| {
        let replaces = name.strip_prefix('.').and_then(|rest| rest.split_once('_'));
        name.strip_prefix(&profile_name) == Some(".lock")
            || replaces.is_some_and(|(number, link)| number.parse::<u64>().is_ok() && link == profile_name)
            || name.split_once(".tmp-").is_some_and(|(link, _)| generation(&profile_name, link).is_some())
    };
    let directory = profile.parent().context("a profile lies in a directory")?;
    let of_profile = names(directory)?.into_iter().filter(|name| of_profile(name));
    let of_processes = names(temporary_roots)?.into_iter().filter(|name| pid(name).is_some());
    Ok(of_profile
        .map(|name| directory.join(name))
        .chain(of_processes.map(|name| temporary_roots.join(name)))
        .collect())
}

/// What is in a directory; nothing where there is none.
fn names(directory: &Path) -> Result<Vec<String>> {
    match fs::read_dir(directory) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        other => {
            let entries = other.with_context(|| format!("cannot read {}", show(directory)))?;
            Ok(entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect())
        }
    }
}

/// The process that a file of temporary roots is named after.
fn pid(name: &str) -> Option<Pid> {
    name.parse().ok().filter(|pid| *pid > 0).map(Pid::from_raw)
}

/// The links of a profile: `default` and `default-1-link`, `default-2-link`, ...
fn links(profile: &Path) -> Result<BTreeMap<String, String>> {
    let directory = profile.parent().context("a profile lies in a directory")?;
    let context = || format!("cannot read {}", show(directory));
    let name = base_name(profile)?;
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(BTreeMap::new()),
        other => other.with_context(context)?,
    };
    let mut links = BTreeMap::new();
    for entry in entries {
        let entry = entry.with_context(context)?;
        let Some(link) = entry.file_name().to_str().map(str::to_owned) else { continue };
        let target = fs::read_link(entry.path()).ok().and_then(|target| Some(target.to_str()?.to_owned()));
        if let Some(target) = target.filter(|_| link == name || generation(&name, &link).is_some()) {
            links.insert(link, target);
        }
    }
    Ok(links)
}

/// The names of the links in `auto` that lead to generations of the profile.
fn roots(auto: &Path, profile: &Path) -> Result<BTreeSet<String>> {
    let name = base_name(profile)?;
    let entries = match fs::read_dir(auto) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(BTreeSet::new()),
        other => other.with_context(|| format!("cannot read {}", show(auto)))?,
    };
    let is_ours = |target: PathBuf| {
        let link = target.file_name().and_then(|link| link.to_str());
        target.parent() == profile.parent() && link.is_some_and(|link| generation(&name, link).is_some())
    };
    let leads = |entry: &fs::DirEntry| fs::read_link(entry.path()).is_ok_and(is_ours);
    Ok(entries.flatten().filter(leads).filter_map(|entry| entry.file_name().into_string().ok()).collect())
}

fn base_name(profile: &Path) -> Result<String> {
    Ok(profile.file_name().and_then(|name| name.to_str()).context("a profile has a name")?.to_owned())
}

/// The number of a generation, `default-3-link`.
fn generation(profile: &str, link: &str) -> Option<u64> {
    link.strip_prefix(profile)?.strip_prefix('-')?.strip_suffix("-link")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A profile directory with these links, and what is in it after they are given back to `was`.
    fn restored(was: &[(&str, &str)], now: &[(&str, &str)]) -> BTreeMap<String, String> {
        let dir = tempfile::tempdir().unwrap();
        for (name, target) in now {
            symlink(target, dir.path().join(name)).unwrap();
        }
        let links_then =
            was.iter().map(|(name, target)| ((*name).to_owned(), (*target).to_owned())).collect();
        let profile = dir.path().join("default");
        // Nix makes a root for each generation; and somebody else's leads elsewhere.
        let auto = dir.path().join("auto");
        fs::create_dir(&auto).unwrap();
        symlink("/home/alice/result", auto.join("alice")).unwrap();
        for (name, _) in now.iter().filter(|(name, _)| *name != "default") {
            symlink(dir.path().join(name), auto.join(format!("root-of-{name}"))).unwrap();
        }
        let of_generation = |name: &str| was.iter().any(|(was, _)| *was == name);
        let old = roots(&auto, &profile).unwrap();
        let roots_then =
            old.into_iter().filter(|root| of_generation(root.trim_start_matches("root-of-"))).collect();
        let was = Was { links: links_then, roots: roots_then, leftovers: None, last_row: 0 };
        restore(&profile, &auto, &was).unwrap();
        let once = links(&profile).unwrap();
        restore(&profile, &auto, &was).unwrap();
        assert_eq!(links(&profile).unwrap(), once, "twice is once");
        let kept: Vec<_> =
            once.keys().filter(|name| *name != "default").map(|name| format!("root-of-{name}")).collect();
        assert_eq!(roots(&auto, &profile).unwrap().into_iter().collect::<Vec<_>>(), kept, "a root for each");
        assert!(auto.join("alice").symlink_metadata().is_ok());
        once
    }

    fn map(links: &[(&str, &str)]) -> BTreeMap<String, String> {
        links.iter().map(|(name, target)| ((*name).to_owned(), (*target).to_owned())).collect()
    }

    #[test]
    fn our_generation_goes_and_what_others_made_of_it_stays() {
        let (one, two, three) =
            (("default-1-link", "/a"), ("default-2-link", "/b"), ("default-3-link", "/c"));
        let at = |generation: &'static str| ("default", generation);
        let was = [at("default-1-link"), one];
        assert_eq!(restored(&was, &[at("default-2-link"), one, two]), map(&was));
        assert_eq!(restored(&[], &[at("default-1-link"), one]), map(&[]));
        // Killed between the generation and the switch to it.
        assert_eq!(restored(&was, &[at("default-1-link"), one, two]), map(&was));
        assert_eq!(restored(&was, &was), map(&was));
        let later = [at("default-3-link"), one, two, three];
        assert_eq!(restored(&was, &later), map(&later));
    }

    #[test]
    fn what_a_killed_nix_leaves_is_told_from_all_else() {
        let dir = tempfile::tempdir().unwrap();
        let (profile, temporary_roots) = (dir.path().join("profiles/default"), dir.path().join("temproots"));
        assert_eq!(leftovers(&profile, &temporary_roots).unwrap(), BTreeSet::new());
        let make = |name: &str| {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, "").unwrap();
            path
        };
        // No process has a number above PID_MAX_LIMIT, 2^22.
        let old = ["profiles/.0_default", "temproots/4194306"].map(make);
        let was = Was {
            links: BTreeMap::new(),
            roots: BTreeSet::new(),
            leftovers: Some(leftovers(&profile, &temporary_roots).unwrap()),
            last_row: 0,
        };
        assert_eq!(was.leftovers, Some(BTreeSet::from(old)));
        let left = [
            "profiles/default.lock",
            "profiles/.1_default",
            "profiles/default-3-link.tmp-12-34",
            "temproots/4194305",
        ]
        .map(make);
        let others = [
            "default",
            "default-1-link",
            "other.lock",
            ".0_other",
            "default-x-link.tmp-1-2",
            "default.locks",
        ];
        others.iter().for_each(|name| drop(make(&format!("profiles/{name}"))));
        make(&format!("temproots/{}", std::process::id()));
        assert_eq!(new_leftovers(&profile, &temporary_roots, &was).unwrap(), BTreeSet::from(left));
        // Of a journal of an earlier version.
        let was: Was = serde_json::from_str(r#"{"links": {}, "last_row": 7}"#).unwrap();
        assert_eq!(new_leftovers(&profile, &temporary_roots, &was).unwrap(), BTreeSet::new());
    }
}
