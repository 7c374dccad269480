//! Ansible on the host, from PyPI, and machines that it can work on.

use super::cache::{self, Cached};
use super::exec::{Limited, Outcome, host};
use super::image::need_host_programs;
use super::layout::Layout;
use super::machine::Machine;
use super::populate;
use anyhow::{Context, Result, ensure};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What pip installs. 2.19 is the last for the Python of Debian 12.
const ANSIBLE: &str = "ansible-core==2.19.*";
/// Files of the host that say how the network is reached, for apt in a tree.
const RESOLVER: &str = "etc/resolv.conf";

/// The repository.
pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Machines that a playbook works on, and a directory of the controller.
#[derive(Debug)]
pub struct Fleet {
    virtual_environment: Cached,
    directory: tempfile::TempDir,
    pub machines: BTreeMap<&'static str, Machine>,
}

/// What the last lines of a playbook say of a machine: `changed`, `failed`, ...
pub type Recap = BTreeMap<String, u32>;

impl Fleet {
    /// Boots a machine for each name, with a used, root-owned Nix.
    pub fn boot(names: &[&'static str]) -> Result<Self> {
        let (virtual_environment, tree) = (installed()?, with_python()?);
        let mut machines = BTreeMap::new();
        for name in names {
            let mut machine = Machine::copy_of(&tree.join("tree"), &format!("fleet-{name}"))?;
            machine.boot()?;
            machines.insert(*name, machine);
        }
        Ok(Self { virtual_environment, directory: tempfile::tempdir()?, machines })
    }

    /// A machine by its name.
    pub fn machine(&self, name: &str) -> Result<&Machine> {
        self.machines.get(name).with_context(|| format!("there is no machine {name}"))
    }

    /// A file or directory of the controller.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Runs a playbook of `contrib/ansible` on all of them: what it said, and how it ended for each.
    pub fn play(&self, playbook: &str, words: &[&str]) -> Result<(Outcome, BTreeMap<String, Recap>)> {
        let inventory = self.inventory()?;
        let outcome = self
            .ansible("playbook")
            .arg("-i")
            .arg(inventory)
            .arg("-e")
            .arg(format!("nix_unroot_reports={}", self.path("reports").display()))
            .arg("-e")
            .arg(format!("nix_unroot_stop_file={}", self.path("STOP").display()))
            .args(words)
            .arg(repository().join("contrib/ansible").join(playbook))
            .run()?;
        let recap = recap(&outcome.stdout);
        ensure!(!recap.is_empty(), "{outcome}");
        Ok((outcome, recap))
    }

    /// `ansible-COMMAND`. The virtual environment was made elsewhere and moved, so its own scripts do not work.
    fn ansible(&self, command: &str) -> Limited {
        let plugins = repository().join("tests/vm/fixtures/fleet/connection_plugins");
        host("env")
            .arg(format!("HOME={}", self.directory.path().display()))
            .arg(format!("ANSIBLE_CONNECTION_PLUGINS={}", plugins.display()))
            .args([
                "ANSIBLE_PIPELINING=1",
                "ANSIBLE_NOCOLOR=1",
                "ANSIBLE_REMOTE_TMP=/tmp/ansible",
                "ANSIBLE_FORKS=4",
            ])
            .arg(self.virtual_environment.join("venv/bin/python3"))
            .args(["-m", "ansible", command])
            .timeout(Duration::from_secs(400))
    }

    fn inventory(&self) -> Result<PathBuf> {
        let mut text = "[all:vars]\nansible_connection=nsenter\nansible_python_interpreter=/usr/bin/python3\nansible_become=false\n[all]\n".to_owned();
        for (name, machine) in &self.machines {
            let leader = machine.leader().context("the machine does not run")?;
            text.push_str(&format!("{name} ansible_host={leader}\n"));
        }
        let path = self.path("inventory");
        fs::write(&path, text)?;
        Ok(path)
    }

    /// A report that was collected.
    pub fn report(&self, machine: &str, name: &str) -> Result<serde_json::Value> {
        let path = self.path("reports").join(machine).join(format!("{name}.json"));
        let text = fs::read(&path).with_context(|| format!("there is no {}", path.display()))?;
        Ok(serde_json::from_slice(&text)?)
    }
}

/// `name : ok=3 changed=1 ...`, for each machine.
fn recap(stdout: &str) -> BTreeMap<String, Recap> {
    let lines = stdout.split("PLAY RECAP").nth(1).unwrap_or_default().lines();
    let counts = |text: &str| {
        let pairs = text.split_whitespace().filter_map(|pair| pair.split_once('='));
        pairs.filter_map(|(name, count)| Some((name.to_owned(), count.parse().ok()?))).collect::<Recap>()
    };
    lines
        .filter_map(|line| line.split_once(" : "))
        .map(|(name, rest)| (name.trim().to_owned(), counts(rest)))
        .collect()
}

/// A virtual environment with Ansible, made once.
fn installed() -> Result<Cached> {
    need_host_programs(&[("python3", "python3-venv")])?;
    cache::tree("ansible", &[ANSIBLE], |dir| {
        let venv = dir.join("venv");
        host("python3").args(["-m", "venv"]).arg(&venv).ok()?;
        let pip = host(&venv.join("bin/python3").display().to_string()).args(["-m", "pip", "install", "-q"]);
        pip.args(["--disable-pip-version-check", ANSIBLE]).timeout(Duration::from_secs(600)).ok()?;
        Ok(())
    })
}

/// The populated tree, with the Python that Ansible's modules need.
fn with_python() -> Result<Cached> {
    let populated = populate::tree(Layout::Debian)?;
    let name = populated.file_name().context("no name")?.to_string_lossy().into_owned();
    cache::tree("fleet", &[&name, "python3"], |dir| {
        let tree = dir.join("tree");
        host("cp").args(["-a", "--reflink=auto"]).arg(populated.join("tree")).arg(&tree).ok()?;
        fs::copy(Path::new("/").join(RESOLVER), tree.join(RESOLVER))?;
        for words in ["update", "install -y --no-install-recommends python3", "clean"] {
            host("chroot")
                .arg(&tree)
                .args(["apt-get", "-qq", "-o", "Acquire::Check-Valid-Until=false"])
                .args(words.split(' '))
                .timeout(Duration::from_secs(300))
                .ok()?;
        }
        Ok(fs::write(tree.join(RESOLVER), "")?)
    })
}
