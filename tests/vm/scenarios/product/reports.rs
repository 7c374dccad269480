//! What is told of a machine: documents that fit their schemas, pages, and findings that were accepted.

use std::collections::BTreeSet;
use std::path::Path;

use super::ready;
use crate::harness::exec::host;
use crate::harness::layout::Layout;
use crate::harness::machine::Machine;
use crate::harness::product;
use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// Every command with `--json`, in an order in which each has something to tell, and its exit status. The first is run
/// before a migration, when there is nothing to verify.
const COMMANDS: [(&str, i32); 20] = [
    ("verify", 1),
    ("inspect --accept no-such-key", 2),
    ("inspect", 0),
    ("plan", 0),
    ("migrate --dry-run", 0),
    ("migrate --dry-run --nix-user alice", 3),
    ("audit", 0),
    ("uninstall --dry-run", 0),
    ("migrate --yes", 0),
    ("migrate --yes", 0),
    ("inspect", 0),
    ("verify", 0),
    ("doctor", 0),
    ("audit", 0),
    ("audit --fix --dry-run", 0),
    ("roots", 0),
    ("roots --expire-older-than 9999", 0),
    ("rollback --yes", 0),
    ("history", 0),
    ("config", 0),
];

#[test]
fn every_document_fits_its_schema() -> Result<()> {
    let (machine, _) = ready(Layout::Debian, "reports-json")?;
    // Something that `audit --fix` has a plan for.
    machine.root("mkdir -p /nix/var/nix/profiles/lib; printf '[Service]\\nExecStart=/bin/true\\n' >/nix/var/nix/profiles/lib/x.service
        ln -s /nix/var/nix/profiles/lib/x.service /etc/systemd/system/x.service")?;
    let (root, dir) = (Path::new(env!("CARGO_MANIFEST_DIR")), tempfile::tempdir()?);
    let mut kinds = BTreeSet::new();
    let mut validate =
        host("/usr/bin/python3").arg(root.join("tests/report/validate.py")).arg(root.join("schemas"));
    for (index, (arguments, status)) in COMMANDS.into_iter().enumerate() {
        let said = product::run(&machine, &format!("{arguments} --json"))?.exits(status)?;
        let document: Value =
            serde_json::from_str(&said.stdout).with_context(|| format!("no single document: {said}"))?;
        let kind = document["kind"].as_str().with_context(|| format!("{arguments}: no kind"))?.to_owned();
        let schema = product::ok(&machine, &format!("schema {kind}"))?;
        let kept = std::fs::read_to_string(root.join(format!("schemas/{kind}.json")))?;
        ensure!(schema.trim() == kept.trim(), "schemas/{kind}.json is not what the program prints");
        kinds.insert(kind);
        let path = dir.path().join(format!("{index}-{}.json", arguments.replace(' ', "-")));
        std::fs::write(&path, said.stdout)?;
        validate = validate.arg(path);
    }
    validate
        .run()?
        .ok()
        .context("a document does not fit (or this needs Debian's package python3-jsonschema)")?;
    let names = product::ok(&machine, "schema")?.lines().map(str::to_owned).collect();
    ensure!(kinds == names, "not every kind of document was made: {kinds:?} of {names:?}");
    Ok(())
}

#[test]
fn a_page_is_written_and_no_link_followed() -> Result<()> {
    let (machine, _) = ready(Layout::Debian, "reports-html")?;
    let read = |name: &str| machine.root(&format!("cat /root/{name}"));
    product::ok(&machine, "inspect --html /root/inspect.html")?;
    product::ok(&machine, "migrate --dry-run --html /root/plan.html")?;
    product::ok(&machine, "audit --html /root/audit.html")?;
    for (name, parts) in [
        ("inspect.html", ["<h2>Findings</h2>", "id=\"units-of-packages\"", "<figcaption>After</figcaption>"]),
        ("plan.html", ["<h2>Plan</h2>", "<code>reown-store</code>", "nixbld"]),
        ("audit.html", ["to root</h1>", "after a migration</h2>", "<figcaption>Now</figcaption>"]),
    ] {
        let page = read(name)?;
        for part in parts {
            ensure!(page.contains(part), "{name} lacks {part:?}:\n{page}");
        }
    }
    let owner =
        machine.root("stat -c '%U %a' /root/plan.html; ls -A /root | grep -c nix-unroot-new || true")?;
    ensure!(owner == "root 600\n0", "{owner}");

    // A user would have root write elsewhere.
    machine.user("alice", "ln -s /etc ~/reports; ln -s /etc/passwd ~/page.html")?;
    let before = machine.root("sha256sum /etc/passwd; ls -lA --time-style=full-iso /etc")?;
    for (path, part) in [
        ("reports/page.html", "symbolic link"),
        ("reports/passwd", "symbolic link"),
        ("page.html", "no regular file"),
    ] {
        let said = product::run(&machine, &format!("inspect --html /home/alice/{path}"))?.exits(1)?;
        ensure!(said.stderr.contains(part), "{said}");
    }
    ensure!(
        machine.root("sha256sum /etc/passwd; ls -lA --time-style=full-iso /etc")? == before,
        "it wrote there"
    );
    product::run(&machine, "inspect --html /dev/null")?.exits(1)?;
    Ok(())
}

#[test]
fn an_accepted_blocker_stays_visible_and_does_not_block() -> Result<()> {
    let (machine, _) = ready(Layout::Debian, "reports-accept")?;
    let said = product::run(&machine, "migrate --yes --accept nix-too-old")?.exits(2)?;
    ensure!(
        said.stderr.contains("must be mended") && said.stderr.contains("builds-running-too-long"),
        "{said}"
    );

    // A build that has run for longer than is waited for, and will end soon.
    let build = "setsid setpriv --reuid nixbld1 --clear-groups sleep 12 </dev/null >/dev/null 2>&1 &";
    machine.root(&format!("{build} sleep 7"))?;
    let limit = "--drain-timeout 6";
    let blocked = product::run(&machine, &format!("migrate --yes {limit}"))?.exits(3)?;
    ensure!(blocked.stdout.contains("or --accept builds-running-too-long"), "{blocked}");

    machine.write_file("/root/conf.toml", "0600", "accept = ['builds-running-too-long']\n")?;
    let documents = [
        product::ok(&machine, &format!("migrate --dry-run --json {limit} --config /root/conf.toml"))?,
        machine.root(&format!(
            "NIX_UNROOT_ACCEPT=userns-impossible,builds-running-too-long {}/nix-unroot migrate --dry-run --json {limit}",
            product::DIR
        ))?,
    ];
    for document in documents {
        let document: Value = serde_json::from_str(&document)?;
        let found = document["findings"].as_array().context("no findings")?;
        let found =
            found.iter().find(|found| found["key"] == "builds-running-too-long").context("it is hidden")?;
        ensure!(
            found["accepted"] == true && document["blocked"] == false && !document["plan"].is_null(),
            "{document}"
        );
    }
    let page = format!("migrate --dry-run {limit} --accept builds-running-too-long --html /root/page.html");
    let text = product::ok(&machine, &page)?;
    ensure!(text.contains("accepted:"), "{text}");
    ensure!(machine.root("cat /root/page.html")?.contains("<h3>Accepted"), "the page hides it");

    product::ok(&machine, &format!("migrate --yes {limit} --accept builds-running-too-long"))?;
    super::target::assert_migrated(&machine)
}

/// A build that does not end costs the attempt, and nothing else: that is why it may be accepted.
#[test]
fn what_was_accepted_and_does_not_hold_is_undone() -> Result<()> {
    let (machine, _) = ready(Layout::Debian, "reports-undone")?;
    machine.root(
        "setsid setpriv --reuid nixbld1 --clear-groups sleep 9999 </dev/null >/dev/null 2>&1 & sleep 3",
    )?;
    let said =
        product::run(&machine, "migrate --yes --drain-timeout 2 --accept builds-running-too-long --json")?
            .exits(1)?;
    ensure!(said.stdout.contains("failed-and-undone"), "{said}");
    let left = machine.root("pgrep -u nixbld1 -x sleep; stat -c %U /nix/var/nix/db/db.sqlite; systemctl is-active nix-daemon.socket")?;
    ensure!(left.lines().skip(1).eq(["root", "active"]), "the build goes on, and so does Nix: {left}");
    still_works(&machine)
}

fn still_works(machine: &Machine) -> Result<()> {
    machine.user("alice", "nix store info --extra-experimental-features nix-command --store daemon").map(drop)
}
