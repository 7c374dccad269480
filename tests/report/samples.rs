//! Pages of machines in different states.

use anyhow::Result;
use nix_unroot::audit::{Danger, Fix, Hit};
use nix_unroot::facts::sample::debian_sample;
use nix_unroot::facts::{DropIn, Facts, Flavour, NixProcess, PathOwner, ProcessRole, Unread};
use nix_unroot::findings::{self, collect};
use nix_unroot::plan::{Options, Plan};
use nix_unroot::report::{About, Overview, Report, Ways, page};
use nix_unroot::types::{UnitName, parse_subid_file};

/// A page, and what has to be found on it.
pub struct Sample {
    pub name: &'static str,
    pub headings: Vec<&'static str>,
    pub page: String,
}

pub fn all() -> Result<Vec<Sample>> {
    Ok(vec![ready()?, blocked()?, migrated()?, audit()?])
}

fn about() -> About {
    About { host: "build-07.example.org".to_owned(), time: "2026-11-21 16:05 UTC".to_owned() }
}

fn report<'a>(facts: &'a Facts, findings: &'a [findings::Finding], plan: Option<&'a Plan>) -> Report<'a> {
    let migrated = facts.flavour == Flavour::Unprivileged;
    let overview = Overview::of_findings(findings, migrated, plan);
    Report { about: about(), overview, facts, findings, plan, audit: vec![], unread: &[] }
}

/// A machine that can be migrated, with some warnings.
fn ready() -> Result<Sample> {
    let mut facts = debian_sample();
    let settings = [
        ("sandbox", "relaxed"),
        ("post-build-hook", "/opt/hooks/push-to-cache"),
        ("netrc-file", "/etc/nix/netrc"),
    ];
    facts.nix_conf[0].settings =
        Some(settings.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec());
    facts.units[0].drop_ins.push(DropIn {
        path: "/etc/systemd/system/nix-daemon.service.d/proxy.conf".into(),
        text: "[Service]\nEnvironment=https_proxy=http://proxy.example.org:3128\n".to_owned(),
    });
    facts.owners.push(PathOwner { path: "/nix/receipt.json".into(), uid: 0, gid: 0, mode: 0o644 });
    let findings = collect(&facts, &findings::Options::default());
    let plan = Plan::make(&facts, &Options::default())?;
    let headings = vec![
        "this machine can be migrated: read the warnings first",
        "Findings",
        "Before and after",
        "Before",
        "After",
        "Plan",
        "This machine",
    ];
    Ok(Sample { name: "ready", headings, page: page(&report(&facts, &findings, Some(&plan)))? })
}

/// A machine that cannot, with names that were chosen to break a page.
fn blocked() -> Result<Sample> {
    let evil = "</dd></article><script>console.error('run')</script><img src='https://example.org/x.png'>\u{202e}\u{1b}[2J";
    let mut facts = debian_sample();
    facts.mounts[0].read_only = true;
    facts.mounts[0].source = format!("//server/{}", "very-long-name-without-a-space".repeat(12));
    facts.database.as_mut().expect("the sample has one").integrity = Some(evil.to_owned());
    facts.units[0].user = Some("x".repeat(90));
    facts.shell_snippets[0].path = evil.into();
    let (command, role) = (evil.to_owned(), ProcessRole::Build);
    facts.processes.push(NixProcess { pid: 77, uid: 980, role, command, age_seconds: 4000 });
    facts.unread.push(Unread { what: evil.to_owned(), why: "permission denied".to_owned() });
    let accept = vec!["builds-running-too-long".to_owned()];
    let findings = collect(&facts, &findings::Options { accept, ..Default::default() });
    let headings = vec!["2 blockers stand in the way", "Findings", "Who does what", "This machine"];
    Ok(Sample { name: "blocked", headings, page: page(&report(&facts, &findings, None))? })
}

fn migrated_facts() -> Facts {
    let mut facts = debian_sample();
    facts.flavour = Flavour::Unprivileged;
    facts.units[0].file_state = "masked".to_owned();
    for (name, user, capabilities) in [
        ("nix-daemon-gate.service", "nix", "CAP_SETUID CAP_SETGID CAP_SYS_ADMIN"),
        ("nix-root-scan.service", "nix-root-scan", "CAP_DAC_READ_SEARCH CAP_SYS_PTRACE"),
    ] {
        let mut unit = facts.units[0].clone();
        unit.name = UnitName::parse(name).expect("a unit's name");
        unit.file_state = "static".to_owned();
        (unit.user, unit.capabilities) = (Some(user.to_owned()), Some(capabilities.to_owned()));
        facts.units.push(unit);
    }
    facts.subuid = parse_subid_file("nix:872415232:8388608\n");
    facts
}

fn migrated() -> Result<Sample> {
    let facts = migrated_facts();
    let findings = collect(&facts, &findings::Options::default());
    let headings = vec!["Nix runs unprivileged here: there is nothing to do", "Who does what", "Now"];
    Ok(Sample { name: "migrated", headings, page: page(&report(&facts, &findings, None))? })
}

fn audit() -> Result<Sample> {
    let facts = migrated_facts();
    let hit = |key: &str, danger, name: &str, chain: &[&str], fix| Hit {
        key: key.to_owned(),
        danger,
        name: name.into(),
        named_by: (danger == Danger::Medium).then(|| "/etc/crontab".into()),
        chain: chain.iter().map(|&hop| hop.to_owned()).collect(),
        trigger: "at the next boot".to_owned(),
        remedy: "put a copy of the file in the place of the link".to_owned(),
        fix,
    };
    let copy = Fix::Copy { text: "[Unit]\n".to_owned() };
    let hits = [
        hit(
            "unit",
            Danger::High,
            "/etc/systemd/system/report.service",
            &[
                "/etc/systemd/system/report.service is a link to /nix/var/nix/profiles/default/lib/report.service",
                "/nix/var/nix/profiles belongs to nix",
            ],
            Some(copy),
        ),
        hit(
            "cron",
            Danger::Medium,
            "/nix/var/nix/profiles/default/bin/backup",
            &["/nix/var/nix/profiles belongs to nix"],
            None,
        ),
        hit("path", Danger::Low, "/usr/local/bin", &["members of the group nix may write there"], None),
    ];
    let unread = [Unread {
        what: "/root/.bashrc".to_owned(),
        why: "permission denied (run as root to see it)".to_owned(),
    }];
    let base = report(&facts, &[], None);
    let overview = Overview::of_audit(&hits, "the user nix");
    let ways = |title: &str, note: &str, hits| Ways { title: title.to_owned(), note: note.to_owned(), hits };
    let audit =
        vec![ways("from the user nix to root", "", &hits[..]), ways("after a migration", "A note.", &[])];
    let page = page(&Report { overview, audit, unread: &unread, ..base })?;
    let headings = vec![
        "3 ways from the user nix to root",
        "from the user nix to root",
        "after a migration",
        "Not read",
    ];
    Ok(Sample { name: "audit", headings, page })
}
