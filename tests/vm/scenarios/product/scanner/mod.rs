//! `nix-root-scan` on a migrated machine: how little it may do, and what it remembers.

mod holders;

use super::migrated;
use crate::harness::layout::Layout;
use crate::harness::machine::Machine;
use crate::harness::{nixcmd, product};
use anyhow::{Context, Result, ensure};

const SERVICE: &str = "nix-root-scan.service";
/// CAP_DAC_READ_SEARCH and CAP_SYS_PTRACE (`linux/capability.h`), as `/proc/PID/status` shows them.
const CAPABILITIES: &str = "0000000000080004";
/// What `systemd-analyze security` may say of it at most.
const MAX_EXPOSURE: f64 = 1.5;

#[test]
fn the_scanner_may_do_little_and_leaves_nothing() -> Result<()> {
    let (machine, _) = migrated(Layout::Debian, "scanner")?;
    let said = machine.root(&format!("systemd-analyze security --no-pager {SERVICE}"))?;
    let exposure = said.lines().last().context("systemd-analyze is silent")?;
    println!("{exposure}");
    let level = exposure.split_whitespace().find_map(|word| word.parse::<f64>().ok());
    ensure!(level.context("no level")? <= MAX_EXPOSURE, "{said}");

    nixcmd::collect_garbage(&machine)?;
    let pid = machine.root(&format!("systemctl show -P MainPID {SERVICE}"))?;
    ensure!(pid != "0", "the scanner that has just answered is gone");
    let status =
        machine.root(&format!("cat /proc/{pid}/status; echo User: $(stat -c %U /proc/{pid}/task)"))?;
    let field = |name: &str| -> Result<Vec<&str>> {
        let value = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        Ok(value.with_context(|| format!("no {name}: {status}"))?.split_whitespace().collect())
    };
    let uid = machine.root("id -u nix-root-scan")?;
    ensure!(field("Uid")? == [uid.as_str(); 4], "it runs as {:?}, not {uid}", field("Uid")?);
    ensure!(field("Groups")?.is_empty() || field("Groups")? == field("Gid")?[..1], "{:?}", field("Groups")?);
    for set in ["CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        ensure!(field(set)? == [CAPABILITIES], "{set} is {:?}", field(set)?);
    }
    ensure!(field("NoNewPrivs")? == ["1"] && field("Seccomp")? == ["2"], "{status}");
    let writable = machine.root(&format!(
        "nsenter -t {pid} -m setpriv --reuid=nix-root-scan --regid=nix-root-scan --clear-groups --inh-caps=-all,+dac_read_search --ambient-caps=-all,+dac_read_search \
         find / -path /proc -prune -o '(' -type d -o -type f ')' -writable -print"
    ))?;
    let elsewhere: Vec<_> =
        writable.lines().filter(|path| !path.starts_with("/var/lib/nix-root-scan")).collect();
    ensure!(elsewhere.is_empty(), "it can write to {elsewhere:#?}");
    ensure!(writable.lines().any(|path| path == "/var/lib/nix-root-scan"), "not even to its own: {writable}");
    let interfaces = machine.root(&format!("nsenter -t {pid} -n ls /sys/class/net /proc/self/net/dev >/dev/null; nsenter -t {pid} -n cut -d: -f1 -s /proc/self/net/dev"))?;
    ensure!(
        interfaces.split_whitespace().all(|name| name == "lo" || name == "Inter-"),
        "network: {interfaces}"
    );

    product::ok(&machine, "rollback --yes")?;
    machine.root(
        "test ! -e /var/lib/nix-root-scan; not id nix-root-scan; not systemctl cat nix-root-scan.timer",
    )?;
    Ok(())
}

/// A home that is not always there: bob's vault.
#[test]
fn roots_in_a_home_that_is_not_mounted_outlive_collections() -> Result<()> {
    let (machine, _) = migrated(Layout::Debian, "vault")?;
    let timer = machine.root("systemctl show nix-root-scan.timer -P ActiveState -P UnitFileState -P Unit")?;
    ensure!(timer.lines().collect::<Vec<_>>() == ["active", "enabled", SERVICE], "the timer: {timer}");
    let mount = "mount --bind /srv/vault /home/bob/vault";
    machine.root(&format!("install -d -o bob -m 0700 /srv/vault /home/bob/vault; {mount}"))?;
    let path = machine.user("bob", &format!("{} -o ~/vault/result", nixcmd::nix_build("bob-vault", "")))?;
    // As the timer does it; there was no collection since bob made it.
    machine.root(&format!("systemctl stop {SERVICE}; systemctl start {SERVICE}"))?;
    machine.root("for i in $(seq 100); do grep -q bob-vault /var/lib/nix-root-scan/remembered && exit; sleep 0.1; done; exit 1")?;
    machine.root("umount /home/bob/vault")?;
    // The first collection also removes the daemon's link.
    for round in 1..=2 {
        nixcmd::collect_garbage(&machine)?;
        ensure!(nixcmd::valid_paths(&machine)?.contains(&path), "round {round}: {path} was deleted");
    }
    let roots: serde_json::Value = serde_json::from_str(&product::ok(&machine, "roots --json")?)?;
    let roots = roots["roots"].as_array().context("no roots")?;
    let root = roots.iter().find(|root| root["path"] == *path).context("roots does not list it")?;
    ensure!(root["kind"] == "remembered" && root["user"] == "bob", "{root}");
    machine.root(mount)?;
    nixcmd::collect_garbage(&machine)?;
    ensure!(nixcmd::valid_paths(&machine)?.contains(&path), "mounted again, {path} was deleted");
    machine.user("bob", "rm ~/vault/result")?;
    ensure_deleted(&machine, &path)?;

    let path = machine.user("bob", &format!("{} -o ~/vault/other", nixcmd::nix_build("bob-other", "")))?;
    nixcmd::collect_garbage(&machine)?;
    machine.root("umount /home/bob/vault")?;
    nixcmd::collect_garbage(&machine)?;
    ensure!(nixcmd::valid_paths(&machine)?.contains(&path), "{path} was deleted");
    let said = product::ok(&machine, "roots --expire /home/bob/vault/other")?;
    ensure!(said.contains("1 remembered roots forgotten"), "{said}");
    ensure_deleted(&machine, &path)
}

fn ensure_deleted(machine: &Machine, path: &str) -> Result<()> {
    nixcmd::collect_garbage(machine)?;
    ensure!(!nixcmd::valid_paths(machine)?.contains(path), "{path} has no root any more and stayed");
    Ok(())
}
