//! Mounts at and below `/nix`, from `/proc/self/mountinfo` (proc_pid_mountinfo(5)).

use std::path::{Path, PathBuf};

use super::Mount;
use super::reader::Reader;
use crate::system::mounts::unescape;
use crate::types::STORE_DIR;

/// File systems that another machine serves. Ownership and locks there are not this kernel's alone.
const NETWORK: [&str; 14] = [
    "nfs",
    "nfs4",
    "cifs",
    "smb3",
    "9p",
    "ceph",
    "glusterfs",
    "fuse.glusterfs",
    "fuse.sshfs",
    "lustre",
    "afs",
    "gpfs",
    "beegfs",
    "orangefs",
];

pub(crate) fn gather(reader: &Reader<'_>) -> Vec<Mount> {
    parse(&reader.text("/proc/self/mountinfo").unwrap_or_default())
}

fn parse(mountinfo: &str) -> Vec<Mount> {
    let mut mounts: Vec<Mount> = mountinfo.lines().filter_map(line).collect();
    let holder = mounts
        .iter()
        .enumerate()
        .filter(|(_, mount)| Path::new(STORE_DIR).starts_with(&mount.path))
        // Of two mounts at one place the later one is on top.
        .max_by_key(|(index, mount)| (mount.path.components().count(), *index))
        .map(|(index, _)| index);
    if let Some(index) = holder {
        mounts[index].holds_store = true;
    }
    mounts.retain(|mount| mount.holds_store || mount.path.starts_with("/nix"));
    mounts
}

/// `ID PARENT MAJ:MIN ROOT POINT OPTIONS [FIELD...] - TYPE SOURCE SUPER_OPTIONS`
fn line(line: &str) -> Option<Mount> {
    let (left, right) = line.split_once(" - ")?;
    let left: Vec<_> = left.split(' ').collect();
    let [fs_type, source, super_options] = right.split(' ').collect::<Vec<_>>()[..] else { return None };
    let has = |option: &str| left.get(5).is_some_and(|options| options.split(',').any(|word| word == option));
    Some(Mount {
        path: PathBuf::from(unescape(left.get(4)?)),
        fs_type: fs_type.to_owned(),
        source: unescape(source),
        // A writable mount of a file system that is itself read-only is read-only.
        read_only: has("ro") || super_options.split(',').any(|option| option == "ro"),
        noexec: has("noexec"),
        nosuid: has("nosuid"),
        network: NETWORK.contains(&fs_type),
        idmapped: has("idmapped"),
        holds_store: false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTINFO: &str = "\
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
30 22 0:40 / /nix rw,noexec,nosuid - ext4 /dev/vdb rw
31 30 0:41 / /nix/store ro,relatime,idmapped master:3 - nfs4 server:/nix\\040store rw,vers=4.2
32 22 0:42 / /nixos rw - tmpfs tmpfs rw
33 30 0:43 / /nix/var/nix/builds rw - tmpfs tmpfs ro,size=4
34 30 0:43 / /broken
";

    #[test]
    fn the_mount_that_holds_the_store_and_those_below_nix() {
        let mounts = parse(MOUNTINFO);
        let paths: Vec<_> = mounts.iter().map(|mount| mount.path.to_str().unwrap()).collect();
        assert_eq!(paths, ["/nix", "/nix/store", "/nix/var/nix/builds"]);
        let [nix, store, builds] = &mounts[..] else { unreachable!() };
        assert!(nix.noexec && nix.nosuid && !nix.read_only && !nix.network && !nix.holds_store);
        assert!(store.holds_store && store.read_only && store.network && store.idmapped && !store.noexec);
        assert_eq!(store.source, "server:/nix store");
        assert!(builds.read_only, "the file system itself is read-only");
    }

    #[test]
    fn without_a_mount_of_its_own_the_store_lies_on_the_root() {
        let mounts = parse(
            "22 1 254:0 / / rw - ext4 a rw\n23 1 254:1 / / ro - xfs b rw\n24 22 0:1 / /home rw - ext4 c rw",
        );
        assert_eq!(mounts.len(), 1);
        assert_eq!((mounts[0].fs_type.as_str(), mounts[0].holds_store), ("xfs", true), "the one on top");
    }
}
