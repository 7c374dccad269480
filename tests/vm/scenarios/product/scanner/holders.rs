//! Everything that can hold a store path, each as the only one that holds its path.

use crate::harness::exec::host;
use crate::harness::layout::Layout;
use crate::harness::machine::{Machine, quote};
use crate::harness::nixcmd;
use crate::scenarios::product::migrated;
use anyhow::{Result, ensure};

/// Who holds. In the scripts `PATH_` is the store path, `BASE_` its name, `DIR_` an empty directory.
enum Holder {
    /// A process in a mount namespace of its own, whose last argument is 1000000.
    Process(&'static str),
    /// Something that root makes in the machine and takes away again.
    Made(&'static str, &'static str),
    /// The same on the host, for what a container may not do to the kernel that they share.
    Host(&'static str, &'static str),
}
use Holder::{Host, Made, Process};

const HOLDERS: &[(&str, Holder)] = &[
    (
        "a program, the store mounted elsewhere",
        Process(
            "mkdir DIR_/s; mount --bind /nix/store DIR_/s; exec chroot DIR_ /s/BASE_/bin/busybox sleep 1000000",
        ),
    ),
    (
        "a program, its path mounted elsewhere",
        Process(
            "mkdir DIR_/app; mount --bind PATH_ DIR_/app; exec chroot DIR_ /app/bin/busybox sleep 1000000",
        ),
    ),
    (
        "a program, its file mounted elsewhere",
        Process(
            "touch DIR_/it; mount --bind PATH_/bin/busybox DIR_/it; exec -a busybox DIR_/it sleep 1000000",
        ),
    ),
    (
        "a mapped file, mounted elsewhere",
        Process("mount --bind PATH_ DIR_; exec /lib64/ld-linux-x86-64.so.2 DIR_/bin/sleep 1000000"),
    ),
    (
        "a working directory, mounted elsewhere",
        Process("mount --bind PATH_/bin DIR_; cd DIR_; exec sleep 1000000"),
    ),
    (
        "an open file, mounted elsewhere",
        Process("touch DIR_/f; mount --bind PATH_/bin/sleep DIR_/f; exec 9<DIR_/f; exec sleep 1000000"),
    ),
    (
        "a root directory, mounted elsewhere",
        Process("mount --bind PATH_ DIR_; exec perl -e 'chroot shift; sleep shift' DIR_ 1000000"),
    ),
    // Unmounted lazily, so that no table shows the mount, and names begin at it.
    (
        "a program, its mount gone",
        Process(
            "mount --bind PATH_ DIR_; exec perl -e 'open F, \"<\", \"$ARGV[0]/bin/busybox\"; system \"umount\", \"-l\", $ARGV[0];
             exec { \"/proc/self/fd/\" . fileno F } \"busybox\", \"sleep\", \"1000000\"' DIR_",
        ),
    ),
    (
        "a mapped file, its mount gone",
        Process(
            "mount --bind PATH_ DIR_; (until grep -q /bin/sleep /proc/$$/maps; do sleep 0.01; done; umount -l DIR_)&
             exec /lib64/ld-linux-x86-64.so.2 DIR_/bin/sleep 1000000",
        ),
    ),
    (
        "a working directory, its mount gone",
        Process("mount --bind PATH_/bin DIR_; cd DIR_; umount -l DIR_; exec sleep 1000000"),
    ),
    (
        "an open file, its mount gone",
        Process("mount --bind PATH_ DIR_; exec 9<DIR_/number; umount -l DIR_; exec sleep 1000000"),
    ),
    (
        "a root directory, its mount gone",
        Process(
            "mount --bind PATH_ DIR_; exec perl -e 'opendir R, \"/\"; chdir $ARGV[0]; system \"umount\", \"-l\", $ARGV[0]; chroot \".\";
             chdir R; sleep $ARGV[1]' DIR_ 1000000",
        ),
    ),
    ("a root directory", Process("exec perl -e 'chroot shift; sleep shift' PATH_ 1000000")),
    ("a mount that only another namespace has", Process("mount --bind PATH_ DIR_; exec sleep 1000000")),
    ("the environment, by another place", Process("exec env LIB=DIR_/s/BASE_/lib sleep 1000000")),
    ("a bind mount of a part", Made("mount --bind PATH_/bin DIR_", "umount DIR_")),
    (
        "the lower layer of an overlay",
        Made(
            "mkdir DIR_/u DIR_/w DIR_/o; mount -t overlay o -o lowerdir=PATH_,upperdir=DIR_/u,workdir=DIR_/w DIR_/o",
            "umount DIR_/o",
        ),
    ),
    (
        "a binfmt_misc interpreter",
        Made(
            "cd /proc/sys/fs/binfmt_misc; test -e register || mount -t binfmt_misc none $PWD; cd $PWD
             echo ':nix-unroot-test:E::nix-unroot-test::PATH_/bin/busybox:' >register",
            "echo -1 >/proc/sys/fs/binfmt_misc/nix-unroot-test",
        ),
    ),
    (
        "a loop device",
        Host(
            "losetup --find --read-only PATH_/image",
            "losetup --detach $(losetup -n -O NAME -j PATH_/image)",
        ),
    ),
    ("a swap file", Host("swapon PATH_/image", "swapoff PATH_/image")),
    (
        "the handler of core dumps",
        Host(
            "cat /proc/sys/kernel/core_pattern >DIR_/old; echo '|PATH_/bin/busybox %P' >/proc/sys/kernel/core_pattern",
            "cat DIR_/old >/proc/sys/kernel/core_pattern",
        ),
    ),
];

/// Lets go of everything when the test fails, because the kernel is not the machine's alone.
struct Held<'a> {
    machine: &'a Machine,
    paths: &'a [String],
    holding: bool,
}

impl Held<'_> {
    fn script(&self, number: usize, text: &str, tree: &str) -> String {
        let path = &self.paths[number];
        let base = path.trim_start_matches("/nix/store/");
        let text = text.replace("PATH_", &format!("{tree}{path}")).replace("BASE_", base);
        format!("set -e; {}", text.replace("DIR_", &format!("{tree}/srv/{number}")))
    }

    fn tree(&self) -> String {
        self.machine.tree().display().to_string()
    }

    fn hold(&mut self) -> Result<()> {
        self.holding = true;
        for (number, (_, holder)) in HOLDERS.iter().enumerate() {
            match holder {
                Process(script) => {
                    let script = self.script(number, script, "");
                    let own =
                        format!("echo $$ >/run/{number}.pid; exec unshare -m bash -c {}", quote(&script));
                    self.machine.background("root", &own)?;
                }
                Made(script, _) => drop(self.machine.root(&self.script(number, script, ""))?),
                Host(script, _) => {
                    drop(host("sh").arg("-c").arg(self.script(number, script, &self.tree())).ok()?)
                }
            }
        }
        for number in (0..HOLDERS.len()).filter(|number| HOLDERS[*number].0.ends_with("its mount gone")) {
            self.machine.root(&format!(
                "for i in $(seq 200); do grep -q /srv/{number} /proc/$(cat /run/{number}.pid)/mountinfo || exit 0; sleep 0.05; done; exit 1"
            ))?;
        }
        self.machine.root(
            "for f in /run/*.pid; do for i in $(seq 200); do
               tr '\\0' '\\n' </proc/$(cat $f)/cmdline | tail -n 1 | grep -x 1000000 && continue 2; sleep 0.05
             done; echo $f; exit 1; done",
        )?;
        Ok(())
    }

    fn let_go(&mut self) -> Result<()> {
        self.holding = false;
        let mut results = vec![self.machine.root("for f in /run/*.pid; do kill $(cat $f); while test -e /proc/$(cat $f); do sleep 0.02; done; done")];
        for (number, (_, holder)) in HOLDERS.iter().enumerate() {
            results.push(match holder {
                Process(_) => continue,
                Made(_, script) => self.machine.root(&self.script(number, script, "")),
                Host(_, script) => host("sh").arg("-c").arg(self.script(number, script, &self.tree())).ok(),
            });
        }
        results.into_iter().try_for_each(|result| result.map(drop))
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        if self.holding
            && let Err(error) = self.let_go()
        {
            eprintln!("{error:#}");
        }
    }
}

#[test]
fn every_holder_keeps_its_path_until_it_lets_go() -> Result<()> {
    let (machine, _) = migrated(Layout::Debian, "holders")?;
    // One path for each, and one that nobody holds.
    let added = machine.root(&format!(
        "mkdir -p /tmp/held; cd /tmp/held; for i in $(seq 0 {}); do mkdir -p $i/bin /srv/$i; cp /opt/nix-unroot-tests/tools/busybox /usr/bin/sleep $i/bin
         echo $i >$i/number; head -c 262144 /dev/zero >$i/image; chmod 0600 $i/image; mkswap -q $i/image; mv $i held-$i; nix-store --add held-$i; done",
        HOLDERS.len()
    ))?;
    let mut paths: Vec<_> = added.lines().map(String::from).collect();
    ensure!(paths.len() == HOLDERS.len() + 1, "{added}");
    let unheld = paths.pop().unwrap_or_default();

    let mut held = Held { machine: &machine, paths: &paths, holding: false };
    held.hold()?;
    let said = nixcmd::collect_garbage(&machine)?;
    let valid = nixcmd::valid_paths(&machine)?;
    let lost: Vec<_> = paths.iter().zip(HOLDERS).filter(|(path, _)| !valid.contains(*path)).collect();
    let lost: Vec<_> = lost.into_iter().map(|(_, (name, _))| name).collect();
    ensure!(lost.is_empty(), "DELETED what is held by {lost:#?}\n{said}");
    ensure!(!valid.contains(&unheld), "what nobody holds was kept");

    held.let_go()?;
    nixcmd::collect_garbage(&machine)?;
    let valid = nixcmd::valid_paths(&machine)?;
    for (path, (name, _)) in paths.iter().zip(HOLDERS) {
        ensure!(!valid.contains(path), "kept without a holder: {path}, {name}");
        println!("kept while held, deleted afterwards: {name}");
    }
    Ok(())
}
