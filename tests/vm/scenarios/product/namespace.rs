//! What the namespace that the daemon runs in must not take away, and kernels that restrict such namespaces.

use super::interrupted::KILLED;
use super::target::{assert_migrated, assert_trust, subuids};
use super::{migrate, ready};
use crate::harness::exec::Outcome;
use crate::harness::layout::Layout;
use crate::harness::machine::{Machine, quote};
use crate::harness::nixcmd::nix_build;
use crate::harness::product;
use anyhow::{Context, Result, ensure};

/// A package that also has more attributes than those of `world.nix`.
const MORE_NIX: &str = r#"{ name, script, more }:
let bb = "${/opt/nix-unroot-tests/tools}/busybox"; in
derivation ({ inherit name bb; system = builtins.currentSystem; builder = bb; args = [ "sh" "-ec" script ]; } // import (builtins.toFile "more.nix" more))
"#;
const MORE: &str = "/opt/more.nix";

/// Attributes of a build whose output is known to be the line "ok".
const FIXED: &str = r#"outputHashMode = "flat"; outputHashAlgo = "sha256"; outputHash = builtins.hashString "sha256" "ok\n";"#;

fn more(name: &str, script: &str, attributes: &str) -> String {
    format!(
        "nix-build --no-out-link {MORE} --argstr name {name} --argstr script {} --argstr more {}",
        quote(script),
        quote(&format!("{{ {attributes} }}"))
    )
}

/// An administrator who exempted some builds from the sandbox finds them exempt afterwards, without a further step.
#[test]
fn builds_that_were_exempt_from_the_sandbox_stay_exempt() -> Result<()> {
    let (machine, _) = ready(Layout::Debian, "relaxed")?;
    machine.write_file(MORE, "0644", MORE_NIX)?;
    machine.root("echo 'sandbox = relaxed' >>/etc/nix/nix.conf; systemctl restart nix-daemon.service")?;
    // Sees the whole machine, and says who it is.
    let exempt = |name: &str| {
        let script = "$bb test -e /home/bob && $bb id -u >$out";
        let path = machine.user("bob", &more(name, script, "__noChroot = true;"))?;
        Ok::<u32, anyhow::Error>(machine.root(&format!("cat {path}"))?.parse()?)
    };
    let list = "getfacl -cp /nix/store; stat -c '%U:%G %a' /nix/store; getfattr -m - -e hex -d /nix/store";
    let before = machine.root(list)?;
    exempt("bob-exempt-before")?;
    migrate(&machine)?;
    let range = subuids(&machine)?;
    let uid = exempt("bob-exempt-after")?;
    ensure!(range.contains(&uid), "it ran as {uid}, outside of {range:?}");
    let entry = format!("group:{}:rwx", range.end - 1);
    let now = machine.root(list)?;
    ensure!(now.contains(&entry), "no {entry} in: {now}");
    // Whoever is not exempt is in a sandbox.
    let sees = machine.try_user("bob", &nix_build("bob-inside", "$bb test -e /home/bob"))?;
    ensure!(sees.status != 0, "an ordinary build was not sandboxed: {sees}");
    product::ok(&machine, "verify")?;
    product::ok(&machine, "rollback --yes")?;
    let after = machine.root(list)?;
    ensure!(after == before, "before:\n{before}\nafter:\n{after}");
    exempt("bob-exempt-again")?;
    Ok(())
}

/// Everything that a drop-in of the old unit put into the root daemon's environment.
#[test]
fn the_old_units_environment_reaches_the_daemon_and_its_builds() -> Result<()> {
    let (machine, _) = ready(Layout::Debian, "environment")?;
    machine.write_file(MORE, "0644", MORE_NIX)?;
    machine.write_file("/etc/nix/daemon.env", "0600", "FROM_FILE=file\n")?;
    machine.write_file(
        "/etc/systemd/system/nix-daemon.service.d/site.conf",
        "0644",
        "[Service]\nEnvironment=https_proxy=http://proxy:3128 \"no_proxy=localhost, .example\"\n\
         Environment=NIX_SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt \\\n  TMPDIR=/var/tmp/nix-site\n\
         EnvironmentFile=/etc/nix/daemon.env\nLimitNOFILE=12345\n",
    )?;
    machine.root(
        "install -d -m 1777 /var/tmp/nix-site; systemctl daemon-reload; systemctl restart nix-daemon.service",
    )?;
    let expected = [
        ("https_proxy", "http://proxy:3128"),
        ("no_proxy", "localhost, .example"),
        ("NIX_SSL_CERT_FILE", "/etc/ssl/certs/ca-certificates.crt"),
        ("TMPDIR", "/var/tmp/nix-site"),
        ("FROM_FILE", "file"),
    ];
    let check = |when: &str, user: &str| {
        // A fixed-output build sees of the daemon's environment what it asks for.
        let script = format!(
            "test \"$https_proxy\" = {} -a \"$no_proxy\" = {} -a \"$FROM_FILE\" = file; echo ok >$out",
            quote(expected[0].1),
            quote(expected[1].1)
        );
        let variables = r#"impureEnvVars = [ "https_proxy" "no_proxy" "FROM_FILE" ];"#;
        machine.user("bob", &more(&format!("bob-fetch-{when}"), &script, &format!("{FIXED} {variables}")))?;
        machine.background("bob", &nix_build(&format!("bob-slow-{when}"), "$bb sleep 60"))?;
        machine.root(
            "for i in $(seq 100); do pgrep -f 'busybox sleep 60$' && exit 0; sleep 0.1; done; exit 1",
        )?;
        // The process that serves the build.
        let environment = machine.root(&format!(
            "p=$(pgrep -u {user} -n -f '^[^ ]*nix-daemon'); tr '\\0' '\\n' </proc/$p/environ; grep 'open files' /proc/$p/limits"
        ))?;
        for (name, value) in expected {
            let line = format!("{name}={value}");
            ensure!(environment.lines().any(|seen| seen == line), "{when}: {line} is not in:\n{environment}");
        }
        ensure!(environment.contains(" 12345 "), "{when}: another limit: {environment}");
        machine.root(&format!("pkill -f '[n]ix-build.*bob-slow-{when}'"))?;
        Ok(())
    };
    check("before", "root")?;
    migrate(&machine)?;
    check("after", "nix")
}

/// Where nobody may have a user namespace there is nothing to migrate to, and that is said before anything is changed.
pub fn assert_refused_without_namespaces(machine: &Machine) -> Result<()> {
    let was = machine.root("sysctl -n user.max_user_namespaces; sysctl -qw user.max_user_namespaces=0")?;
    let refused = product::run(machine, "migrate --yes")?.exits(3)?;
    let said = refused.stdout.clone() + &refused.stderr;
    ensure!(said.contains("user.max_user_namespaces is 0"), "{refused}");
    ensure!(said.contains("sysctl -w user.max_user_namespaces=63000"), "no remedy: {refused}");
    machine.root(&format!(
        "sysctl -qw user.max_user_namespaces={was}; test ! -e /etc/subuid || ! grep ^nix: /etc/subuid"
    ))?;
    Ok(())
}

/// Migrates, and builds, on a kernel that lets no unprivileged process make a user namespace: by Debian's setting, and, as far as `inspect`
/// is concerned, by Ubuntu's. This kernel has AppArmor but not that setting, so it is shown to this one program.
pub fn migrate_restricted(machine: &Machine) -> Result<()> {
    machine.root("sysctl -qw kernel.unprivileged_userns_clone=0")?;
    // Here alone steps load a profile, so here they die.
    for (number, instant) in [
        "do:write-apparmor-profile:applied",
        "do:load-apparmor-profile:recorded",
        "do:load-apparmor-profile:1:command-inside",
        "do:load-apparmor-profile:applied",
    ]
    .iter()
    .enumerate()
    {
        restricted(machine, &format!("NIX_UNROOT_CHECKPOINT={instant}"))?.exits(KILLED)?;
        if number % 2 == 1 {
            let on_the_way_back = format!(
                "NIX_UNROOT_CHECKPOINT=undo:load-apparmor-profile:{}",
                ["recorded", "applied"][number / 2]
            );
            machine
                .try_root(&format!("{on_the_way_back} {}/nix-unroot rollback --yes", product::DIR))?
                .exits(KILLED)?;
        }
        product::ok(machine, "rollback --yes")?;
        assert_no_profile(machine)?;
        machine.root("! getent passwd nix")?;
    }
    let died = "NIX_UNROOT_CHECKPOINT=do:load-apparmor-profile:1:command-ended";
    let said = restricted(machine, died)?.exits(KILLED)?.stdout;
    product::ok(machine, "resume --yes")?;
    ensure!(said.contains("userns-restricted"), "the restriction is not told: {said}");
    assert_migrated(machine)?;
    assert_trust(machine)?;
    assert_profile(machine)?;
    // Nix makes no further user namespace for a build here, so it sees its real uid.
    let path = machine
        .user("bob", &format!("{} --no-out-link", nix_build("bob-restricted", "$bb id -u >$out/uid")))?;
    let uid: u32 = machine.root(&format!("cat {path}/uid"))?.parse()?;
    let range = subuids(machine)?;
    ensure!(range.contains(&uid), "the build ran as {uid}, outside of {range:?}");
    machine.root("sysctl -qw kernel.unprivileged_userns_clone=1")?;
    Ok(())
}

/// A migration that is shown Ubuntu's setting; what it says is on its standard output.
fn restricted(machine: &Machine, environment: &str) -> Result<Outcome> {
    let script = format!(
        "unshare -m sh -ec 'cp /proc/sys/kernel/unprivileged_userns_clone /run/clone; mount -t tmpfs none /proc/sys/kernel
         mv /run/clone /proc/sys/kernel/unprivileged_userns_clone; echo 1 >/proc/sys/kernel/apparmor_restrict_unprivileged_userns
         exec env {environment} {}/nix-unroot migrate --yes' 2>&1",
        product::DIR
    );
    machine.shell("root", &script)?.timeout(std::time::Duration::from_secs(900)).run()
}

/// The gate's AppArmor profile is what the daemon runs under, and it is what lets the daemon work: with one that allows all but user
/// namespaces in its place there is no service.
fn assert_profile(machine: &Machine) -> Result<()> {
    let profile = "/etc/apparmor.d/nix-daemon-gate";
    let label = "(echo; sleep 3) | su -s /bin/sh bob -c 'exec perl -MIO::Socket::UNIX -e \"IO::Socket::UNIX->new(Peer => q(/nix/var/nix/daemon-socket/socket)) or die; sleep 4\"' &
                 for i in $(seq 30); do p=$(pgrep -u nix -n -f '^[^ ]*nix-daemon.*--stdio' || true); [ -z \"$p\" ] || break; sleep 0.2; done; cat /proc/$p/attr/current; wait";
    let seen = machine.root(label)?;
    ensure!(seen.contains("nix-daemon-gate (unconfined)"), "the daemon's label: {seen}");
    let without = format!(
        "sed 's/flags=(unconfined)//; s/^  userns,/  file, capability, network, mount, umount, pivot_root, ptrace, signal, unix,/' {profile} >/run/without; \
         apparmor_parser --replace --skip-cache /run/without"
    );
    machine.root(&without)?;
    let refused =
        machine.try_user("bob", "nix store info --extra-experimental-features nix-command --store daemon")?;
    ensure!(
        refused.status != 0,
        "this kernel does not restrict user namespaces by profile, so nothing is shown: {refused}"
    );
    machine.root(&format!("apparmor_parser --replace --skip-cache {profile}"))?;
    assert_trust(machine)
}

/// Nothing of the profile is left.
pub fn assert_no_profile(machine: &Machine) -> Result<()> {
    machine.root("test ! -e /etc/apparmor.d/nix-daemon-gate; ! grep nix-daemon-gate /sys/kernel/security/apparmor/profiles")?;
    Ok(())
}

/// After a reboot the kernel restricts nothing, and the unit gets what it has on machines that never did.
pub fn lift_restrictions(machine: &Machine) -> Result<()> {
    let unit = "/etc/systemd/system/nix-daemon-gate.service";
    let granted = machine.root(&format!("grep -c 'CAP_SETGID CAP_SYS_ADMIN$' {unit}"))?;
    ensure!(granted.parse::<u32>().context("no count")? == 2, "the unit grants something else");
    machine.root(&format!(
        "sed -i.restricted 's/ CAP_SYS_ADMIN$//' {unit}; systemctl daemon-reload
         apparmor_parser --replace --skip-cache /etc/apparmor.d/nix-daemon-gate; systemctl stop nix-daemon-gate.service"
    ))?;
    Ok(())
}

/// The unit as the migration wrote it, so that a rollback finds its own.
pub fn restore_unit(machine: &Machine) -> Result<()> {
    machine.root("cd /etc/systemd/system; mv nix-daemon-gate.service.restricted nix-daemon-gate.service; systemctl daemon-reload; systemctl stop nix-daemon-gate.service")?;
    Ok(())
}
