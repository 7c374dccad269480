//! What a migration would break is told before, and mended where that was asked for.

use super::target::assert_migrated;
use super::{ready, trust};
use crate::harness::layout::Layout;
use crate::harness::machine::Machine;
use crate::harness::{nixcmd, product};
use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// Second slot of Nix's default range: Nix refuses to build when the name service knows its first id.
const SECOND_SLOT: u32 = 872_480_768;

/// Everything at once, on one machine.
const CONDITIONS: &str = r#"
    nix key generate-secret --key-name test --extra-experimental-features nix-command >/etc/nix/sign.key
    for f in netrc sign.key ca.pem tls.key builder.key machines tokens.conf; do touch /etc/nix/$f; chmod 0600 /etc/nix/$f; done
    echo 'access-tokens = github.com=secret' >/etc/nix/tokens.conf
    echo 'ssh://list.example riscv64-linux /root/.ssh/id_list' >/etc/nix/machines
    mkdir -p /root/.ssh /root/.aws /opt/hooks /var/cache/ccache
    touch /root/.ssh/{id_ed25519,id_list,known_hosts} /root/.aws/credentials; chmod 0600 /root/.ssh/* /root/.aws/*
    printf '#!/bin/sh\n' >/opt/hooks/post; chmod 0700 /opt/hooks/post; touch /opt/hooks/plugin.so; chmod 0600 /opt/hooks/plugin.so
    chgrp nixbld /var/cache/ccache; chmod 0770 /var/cache/ccache
    cat >>/etc/nix/nix.conf <<END
!include tokens.conf
secret-key-files = /etc/nix/sign.key
ssl-cert-file = /etc/nix/ca.pem
trusted-substituters = https://cache.example?tls-private-key=/etc/nix/tls.key
builders = ssh://direct.example riscv64-linux /etc/nix/builder.key ; @/etc/nix/machines
post-build-hook = /opt/hooks/post
diff-hook = /opt/hooks/post
pre-build-hook = /opt/hooks/post
build-hook = /opt/hooks/post
plugin-files = /opt/hooks/plugin.so
extra-sandbox-paths = /ccache=/var/cache/ccache
sandbox = relaxed
sandbox-fallback = true
use-cgroups = true
END
    mkdir -p /etc/systemd/system/nix-daemon.service.d /etc/cron.d /etc/apparmor.d
    printf '[Service]\nEnvironment=https_proxy=http://proxy:3128\n' >/etc/systemd/system/nix-daemon.service.d/proxy.conf
    printf '[Service]\nExecStart=/usr/bin/nix-collect-garbage -d\n' >/etc/systemd/system/nix-gc.service
    printf '[Service]\nExecStart=/usr/bin/gitlab-runner run\n' >/etc/systemd/system/gitlab-runner.service
    echo '0 4 * * * root nix-channel --update' >/etc/cron.d/auto-upgrade
    echo 'profile nix-daemon /usr/bin/nix-daemon { }' >/etc/apparmor.d/nix
    echo '{}' >/nix/receipt.json; install /bin/true /nix/nix-installer
    systemctl daemon-reload
"#;

/// In a mount namespace of its own, and on the machine's /dev, which is no disk: a kernel with SELinux and AppArmor that protects no hard links,
/// and a /dev/kvm for a group.
const OTHER_KERNEL: &str = "mount -t tmpfs x /sys; mkdir -p /sys/fs/selinux /sys/module/apparmor/parameters
    echo 1 >/sys/fs/selinux/enforce; echo Y >/sys/module/apparmor/parameters/enabled
    echo 0 >/run/links; mount --bind /run/links /proc/sys/fs/protected_hardlinks
    touch /dev/kvm; chmod 0660 /dev/kvm";

/// Key of each finding, and what has to be told of this machine.
const EXPECTED: [(&str, &[&str]); 20] = [
    ("nix-conf-only-root-can-read", &["/etc/nix/tokens.conf", "0600"]),
    (
        "secrets-only-root-can-read",
        &[
            "/etc/nix/netrc (netrc-file, 0600)",
            "/etc/nix/sign.key (secret-key-files",
            "/etc/nix/ca.pem",
            "/etc/nix/tls.key",
            "/etc/nix/builder.key (builders",
            "/etc/nix/machines",
            "/root/.ssh/id_list (builders, 0600, in /root)",
        ],
    ),
    (
        "hooks-ran-as-root",
        &[
            "post-build-hook",
            "diff-hook",
            "pre-build-hook",
            "build-hook = /opt/hooks/post",
            "may not read and execute /opt/hooks/post",
        ],
    ),
    ("plugins-loaded", &["/opt/hooks/plugin.so"]),
    ("sandbox-paths-closed", &["/var/cache/ccache (sandbox-paths, 0770)"]),
    ("builders-over-ssh", &["ssh://direct.example", "ssh://list.example", "known_hosts"]),
    ("root-home-credentials", &["/root/.aws/credentials"]),
    ("sandbox-off", &["relaxed"]),
    ("sandbox-fallback", &["true"]),
    ("builds-in-cgroups", &["use-cgroups"]),
    ("proxies-carried-over", &["https_proxy=http://proxy:3128"]),
    ("unit-drop-ins", &["proxy.conf"]),
    ("root-jobs-run-nix", &["nix-collect-garbage -d", "gitlab-runner run", "nix-channel --update"]),
    ("units-of-packages", &["nix-setup-systemd"]),
    ("installers-leftovers", &["/nix/receipt.json, /nix/nix-installer"]),
    ("subid-range-taken", &["a container", "872415232", "the account nssuser at 872480768"]),
    ("selinux-enforcing", &["enforcing"]),
    ("apparmor-confines-nix", &["/etc/apparmor.d/nix"]),
    ("kvm-closed", &["0660"]),
    ("hard-links-unprotected", &["fs.protected_hardlinks is 0"]),
];

/// Each condition is found, told with its particulars, and none of them is found on a machine that has none.
#[test]
fn every_condition_is_found() -> Result<()> {
    let (machine, _) = ready(Layout::Debian, "preflight")?;
    let quiet = findings(&machine, "")?;
    machine.root(CONDITIONS)?;
    trust::name_service(&machine, SECOND_SLOT)?;
    machine.background("root", "unshare --user --map-users=0:872415232:65536 sleep 1000")?;
    let found = findings(&machine, OTHER_KERNEL)?;
    for (key, parts) in EXPECTED {
        let expected_always = key == "units-of-packages";
        ensure!(
            quiet.iter().any(|(known, _)| known == key) == expected_always,
            "{key} is found without the condition"
        );
        let (_, seen) = found
            .iter()
            .find(|(known, _)| known == key)
            .with_context(|| format!("{key} is not found: {found:#?}"))?;
        for part in parts {
            ensure!(seen.contains(part), "{key} does not tell of {part}: {seen}");
        }
    }
    // What the gate could not work with blocks the migration, and nothing happens.
    let blocked = product::run(&machine, "migrate --yes")?.exits(3)?;
    ensure!(blocked.stdout.contains("--share-conf"), "{blocked}");
    Ok(())
}

/// Keys of the findings, with what was seen.
fn findings(machine: &Machine, prepare: &str) -> Result<Vec<(String, String)>> {
    let script = format!(
        "unshare -m sh -c {}",
        crate::harness::machine::quote(&format!(
            "set -e; {prepare}\n{}/nix-unroot inspect --json",
            product::DIR
        ))
    );
    let document: Value = serde_json::from_str(&machine.root(&script)?)?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let findings = document["findings"].as_array().context("no findings")?;
    Ok(findings.iter().map(|finding| (text(&finding["key"]), text(&finding["seen"]))).collect())
}

/// With the options that the findings name, the daemon can read what it needs; and a rollback takes all of it back.
#[test]
fn what_was_asked_for_is_shared_and_taken_back() -> Result<()> {
    let (machine, _) = ready(Layout::Official, "share")?;
    machine.root(
        r#"nix key generate-secret --key-name test --extra-experimental-features nix-command >/etc/nix/sign.key
        cd /etc/nix; touch tls.key; echo 'machine cache.example password x' >netrc; echo 'fallback = true' >tokens.conf
        echo 'ssh://list.example riscv64-linux /etc/nix/builder.key' >machines; touch builder.key
        chmod 0600 netrc tls.key tokens.conf machines; chmod 0400 sign.key builder.key
        printf '%s\n' '!include tokens.conf' 'secret-key-files = /etc/nix/sign.key' \
            'trusted-substituters = https://cache.example?tls-private-key=/etc/nix/tls.key' >>nix.conf
        mkdir -p /root/.ssh /root/.aws; echo id >/root/.ssh/id_ed25519; echo hosts >/root/.ssh/known_hosts; echo aws >/root/.aws/credentials
        chmod 0600 /root/.ssh/* /root/.aws/*; echo '{"planner": {"settings": {}}}' >/nix/receipt.json; install /bin/true /nix/nix-installer
        systemctl restart nix-daemon"#,
    )?;
    // What was built stays, so not the whole machine is compared here, as the tests of rollback do.
    let state = || {
        machine.root(
            "cd /; stat -c '%n %U:%G %a' etc/nix nix nix/*
             stat -c '%n %U:%G %a %y' etc/nix/* nix/*installer nix/*.json root/.ssh/* root/.aws/*
             sha256sum etc/nix/* nix/*installer nix/*.json; ls -d var/lib/nix* || true",
        )
    };
    let before = state()?;
    let options = "--share-conf --share-netrc --share-keys --share-certificates --share-ssh --share-aws";
    product::ok(&machine, &format!("migrate --yes {options}"))?;
    assert_migrated(&machine)?;
    // As the daemon: its own ids, no other group.
    let as_nix = |script: &str| {
        machine.root(&format!("setpriv --reuid=nix --regid=nix --clear-groups sh -c '{script}'"))
    };
    as_nix("cd /etc/nix; cat netrc tls.key tokens.conf machines sign.key builder.key >/dev/null")?;
    let copies = as_nix(
        "cd /var/lib/nix-daemon; cat .ssh/id_ed25519 .ssh/known_hosts .aws/credentials; stat -c \"%U %a\" .ssh/id_ed25519",
    )?;
    ensure!(copies == "id\nhosts\naws\nnix 600", "{copies}");
    let modes = machine.root("cd /etc/nix; stat -c '%U:%G %a' netrc sign.key; ls /nix")?;
    ensure!(modes == "root:nix 640\nroot:nix 440\nstore\nvar", "{modes}");
    machine.root("! setpriv --reuid=bob --regid=bob --clear-groups cat /etc/nix/netrc")?;
    // The daemon signs with a key that it can read only through its group.
    let built = nixcmd::build(&machine, "bob", "bob-signed", "")?;
    let info = machine.root(&format!("nix path-info --extra-experimental-features nix-command --json --json-format 1 --store daemon {built}"))?;
    ensure!(info.contains("test:"), "not signed: {info}");
    product::ok(&machine, "rollback --yes")?;
    let after = state()?;
    ensure!(after == format!("{before}\nvar/lib/nix-unroot"), "before: {before}\nafter: {after}");
    Ok(())
}
