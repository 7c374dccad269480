//! A machine under test: a tree of its own, a boot, and commands in it.

use super::exec::{DEFAULT_TIMEOUT, Limited, Outcome, host, poll};
use super::lossy_disk::{HostFile, LossyDisk};
use super::{cache, nspawn, qemu};
use anyhow::{Context, Result, ensure};
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// A booted machine, however it is booted.
pub trait Running: std::fmt::Debug + Send + Sync {
    /// A command of the host that runs `argv` in the machine as root, with an empty environment to come from `argv`.
    fn command(&self, argv: &[String]) -> Limited;
    /// Powers the machine off in an orderly way.
    fn stop(&mut self) -> Result<()>;
    /// Ends it at once.
    fn kill(&mut self);
    /// How a person gets in.
    fn enter_hint(&self) -> String;
    /// Process 1 as the host sees it, where it does.
    fn leader(&self) -> Option<u32> {
        None
    }
}

/// A machine with its tree. Dropping it ends and deletes it, unless `NIX_UNROOT_KEEP` is set.
#[derive(Debug)]
pub struct Machine {
    name: String,
    dir: PathBuf,
    virtual_machine: bool,
    /// Whether the tree is a mount of an image.
    mounted: bool,
    /// What the mounted file is served by; ends after the mount.
    file: Option<HostFile>,
    running: Option<Box<dyn Running>>,
}

impl Machine {
    /// A machine whose tree is a copy of `tree`. A full copy and not an overlay: re-owning a file of a lower layer
    /// copies it up, so inode numbers, hard links and speed would not be those of a real disk. It takes 1.5 s.
    pub fn copy_of(tree: &Path, name: &str) -> Result<Machine> {
        let machine = Machine::new(name)?;
        host("cp").args(["-a", "--reflink=auto"]).arg(tree).arg(machine.tree()).ok()?;
        Ok(machine)
    }

    /// A machine on the file system in this image, which is mounted for it (its journal is replayed then).
    pub fn on_image(image: &Path, name: &str) -> Result<Machine> {
        let mut machine = Machine::new(name)?;
        fs::create_dir(machine.tree())?;
        machine.mount(image)?;
        Ok(machine)
    }

    fn new(name: &str) -> Result<Machine> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        // A host name has at most 64 characters.
        let name: String = format!("nu{}-{number}-{name}", std::process::id()).chars().take(60).collect();
        let dir = run_dir()?.join(&name);
        fs::create_dir_all(&dir)?;
        Ok(Machine { name, dir, virtual_machine: false, mounted: false, file: None, running: None })
    }

    /// Where the machine's root directory is on the host.
    pub fn tree(&self) -> PathBuf {
        self.dir.join("tree")
    }

    /// Process 1 as the host sees it, of a container that runs.
    pub fn leader(&self) -> Option<u32> {
        self.running.as_ref()?.leader()
    }

    /// From now on this boots as a virtual machine, with a disk made of the tree at the first boot.
    pub fn into_virtual_machine(mut self) -> Machine {
        self.virtual_machine = true;
        self
    }

    /// Boots the tree.
    pub fn boot(&mut self) -> Result<()> {
        self.running = Some(if self.virtual_machine {
            Box::new(qemu::boot(&self.tree())?)
        } else {
            Box::new(nspawn::boot(&self.tree(), &self.name)?)
        });
        Ok(())
    }

    /// Boots from a disk that remembers every write, so that power cuts can be made of it.
    pub fn boot_lossy(&mut self) -> Result<LossyDisk> {
        let (socket, file) = (self.dir.join("nbd"), self.dir.join("disk"));
        let image = qemu::disk(&self.tree())?;
        // mke2fs makes a file of its own of each name of a symlink that has several, and Nix's store has such.
        let anew = "mkdir \"$3\"; mount -o loop \"$1\" \"$3\"; trap 'umount \"$3\"' EXIT
                    find \"$3\" -mindepth 1 -maxdepth 1 ! -name lost+found -exec rm -rf {} +; cp -a \"$2/.\" \"$3\"";
        let words = [image.as_path(), &self.tree(), &self.dir.join("filled")].map(Path::to_owned);
        host("sh").args(["-ec", anew, "sh"]).args(words).ok()?;
        let disk = LossyDisk::serve(&image, &socket)?;
        if self.virtual_machine {
            self.running = Some(Box::new(qemu::boot_lossy(&self.tree(), &socket)?));
            return Ok(disk);
        }
        self.file = Some(HostFile::new(&socket, &file)?);
        self.mount(&file)?;
        self.boot()?;
        Ok(disk)
    }

    /// Whether the kernel believes that the mounted disk has a cache that needs flushing: `write back`.
    pub fn write_cache(&self) -> Result<String> {
        if self.virtual_machine {
            return self.root("cat /sys/block/vda/queue/write_cache");
        }
        let device = host("findmnt").args(["-no", "SOURCE"]).arg(self.tree()).ok()?;
        let name = device.trim_start_matches("/dev/");
        Ok(fs::read_to_string(format!("/sys/block/{name}/queue/write_cache"))?.trim().to_owned())
    }

    fn mount(&mut self, image: &Path) -> Result<()> {
        host("mount").args(["-t", "ext4", "-o", "loop"]).arg(image).arg(self.tree()).ok()?;
        self.mounted = true;
        Ok(())
    }

    /// Ends it at once, as a power cut does.
    pub fn kill(&mut self) {
        if let Some(mut running) = self.running.take() {
            running.kill();
        }
    }

    /// Powers off; everything is on the disk then.
    pub fn stop(&mut self) -> Result<()> {
        match self.running.take() {
            Some(mut running) => running.stop(),
            None => Ok(()),
        }
    }

    /// Powers off and boots again.
    pub fn reboot(&mut self) -> Result<()> {
        self.stop()?;
        self.boot()
    }

    /// Runs a shell script in a login shell of root; its output, or an error with all that it said.
    pub fn root(&self, script: &str) -> Result<String> {
        self.try_root(script)?.ok()
    }

    /// Runs a shell script in a login shell of this user.
    pub fn user(&self, user: &str, script: &str) -> Result<String> {
        self.try_user(user, script)?.ok()
    }

    /// Like [`Machine::root`], whatever it returns.
    pub fn try_root(&self, script: &str) -> Result<Outcome> {
        self.shell("root", script)?.run()
    }

    /// Like [`Machine::user`], whatever it returns.
    pub fn try_user(&self, user: &str, script: &str) -> Result<Outcome> {
        self.shell(user, script)?.run()
    }

    /// A login shell of `user` that runs `script`, not started yet. It stops at the first failing command, and at the first `not COMMAND`
    /// whose command succeeds.
    pub fn shell(&self, user: &str, script: &str) -> Result<Limited> {
        let before_the_last = script.rsplit_once([';', '\n']).map_or("", |(before, _)| before);
        let never_fails =
            before_the_last.split([';', '\n']).find(|command| command.trim_start().starts_with("! "));
        ensure!(never_fails.is_none(), "a shell does not stop at {never_fails:?}: say `not`");
        let running = self.running.as_ref().context("the machine is not running")?;
        let home = if user == "root" { "/root".to_owned() } else { format!("/home/{user}") };
        let mut argv: Vec<String> = vec!["/usr/bin/env".into(), "-i".into()];
        argv.extend([format!("HOME={home}"), format!("USER={user}"), format!("LOGNAME={user}")]);
        argv.extend(
            ["SHELL=/bin/bash", "LANG=C.UTF-8", "PATH=/usr/sbin:/usr/bin:/sbin:/bin"].map(String::from),
        );
        if user != "root" {
            argv.extend(["setpriv".into(), format!("--reuid={user}"), format!("--regid={user}")]);
            argv.push("--init-groups".into());
        }
        argv.extend([
            "bash".into(),
            "-lc".into(),
            format!(
                "set -euo pipefail; not() {{ \"$@\" && return 1; [ $? -lt 126 ]; }}; umask 022; cd; {script}"
            ),
        ]);
        Ok(running.command(&argv).shown(format!("{}: {user}: {script}", self.name)).timeout(DEFAULT_TIMEOUT))
    }

    /// Starts a script and lets it run on in the background, until the machine stops.
    pub fn background(&self, user: &str, script: &str) -> Result<()> {
        self.shell(user, &format!("setsid bash -c {} </dev/null >/dev/null 2>&1 &", quote(script)))?.ok()?;
        Ok(())
    }

    /// Puts a file of the host into the machine, owned by root; right into the tree when the machine isn't running.
    pub fn install_file(&self, from: &Path, to: &str, mode: &str) -> Result<()> {
        if self.running.is_none() {
            let to = self.tree().join(to.trim_start_matches('/'));
            host("install").args(["-D", "-m", mode]).arg(from).arg(&to).ok()?;
            return Ok(());
        }
        let bytes = fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
        self.write_file(to, mode, bytes)
    }

    /// Writes a file in the machine, owned by root.
    pub fn write_file(&self, to: &str, mode: &str, bytes: impl Into<Vec<u8>>) -> Result<()> {
        let script = format!("mkdir -p $(dirname {to}); cat >{to}; chmod {mode} {to}");
        self.shell("root", &script)?.input(bytes).timeout(Duration::from_secs(300)).ok()?;
        Ok(())
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if std::env::var_os("NIX_UNROOT_KEEP").is_some() {
            let hint = self.running.take().map_or_else(String::new, |running| {
                let hint = running.enter_hint();
                // Leaves it running.
                std::mem::forget(running);
                format!("; enter it with: {hint}")
            });
            let kept = self.dir.with_file_name("kept");
            if let Err(error) = fs::write(&kept, "by NIX_UNROOT_KEEP; remove this directory when done\n") {
                eprintln!("cannot write {}: {error}", kept.display());
            }
            eprintln!("kept {}{hint}", self.dir.display());
            return;
        }
        self.kill();
        if self.mounted
            && let Err(error) = unmount(&self.tree())
        {
            // Never remove what may be somebody's mount.
            eprintln!("{error:#}");
            return;
        }
        self.file = None;
        if let Err(error) = discard(&self.dir) {
            eprintln!("{error:#}");
        }
    }
}

/// `text` as one word of a shell.
pub fn quote(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// The directory of this test run's machines. What runs that are no more left behind is removed first; a run that is
/// alive holds a lock on its directory.
fn run_dir() -> Result<PathBuf> {
    static RUN: OnceLock<(PathBuf, File)> = OnceLock::new();
    if let Some((dir, _)) = RUN.get() {
        return Ok(dir.clone());
    }
    let machines = cache::dir()?.join("machines");
    fs::create_dir_all(&machines)?;
    // Between `mkdir` and `lock` a new run's directory looks like a dead one.
    let registry = File::create(machines.join(".lock"))?;
    registry.lock()?;
    if RUN.get().is_none() {
        sweep(&machines)?;
        let dir = machines.join(std::process::id().to_string());
        fs::create_dir_all(&dir)?;
        let lock = File::create(dir.join("lock"))?;
        lock.lock()?;
        RUN.set((dir, lock)).ok().context("two threads made the run directory")?;
    }
    RUN.get().map(|(dir, _)| dir.clone()).context("no run directory")
}

fn sweep(machines: &Path) -> Result<()> {
    for run in fs::read_dir(machines)?.flatten().filter(|run| run.path().is_dir()) {
        let kept = run.path().join("kept").exists();
        let alive = File::create(run.path().join("lock"))?.try_lock().is_err();
        if kept || alive {
            continue;
        }
        for machine in fs::read_dir(run.path())?.flatten().filter(|entry| entry.path().is_dir()) {
            nspawn::kill_leftover(&machine.path().join("tree"));
            for mounted in ["tree", "disk"].map(|name| machine.path().join(name)) {
                if is_mount(&mounted) {
                    unmount(&mounted)?;
                }
            }
            discard(&machine.path())?;
        }
        cache::remove(&run.path())?;
    }
    Ok(())
}

fn is_mount(tree: &Path) -> bool {
    let device = |path: &Path| fs::metadata(path).ok().map(|metadata| metadata.dev());
    tree.parent().is_some_and(|parent| device(tree).is_some() && device(tree) != device(parent))
}

fn unmount(tree: &Path) -> Result<()> {
    // A dying container may hold it for a moment. What a killed test left may be held by a disk that nobody serves.
    let unmounted = poll(Duration::from_secs(20), || host("umount").arg(tree).ok().ok())
        .or_else(|| host("umount").arg("-l").arg(tree).ok().ok());
    unmounted.map(drop).with_context(|| format!("cannot unmount {}", tree.display()))
}

/// Removes a machine's directory. Mounts inside it ended with the container's mount namespace.
fn discard(dir: &Path) -> Result<()> {
    let mut attempts = 0;
    loop {
        match cache::remove(dir) {
            // A dying process may still be writing.
            Err(_) if attempts < 10 => std::thread::sleep(Duration::from_millis(200)),
            done => return done,
        }
        attempts += 1;
    }
}
