//! The values of plans for Macs.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use toml::{Table, Value};

use super::mac_install::{self, BuildUsers};
use super::options::{Options, Purpose};
use crate::facts::macos::{self, DAEMON, HOOK, Job, MARK, Mac};
use crate::facts::{Facts, PathOwner};
use crate::platform::launchd;
use crate::types::SubidRange;

/// Jobs that are ours alone, in the order in which they are loaded: the daemon's comes last.
const OUR_JOBS: [&str; 2] = [launchd::BROKER, launchd::ROOT_SCAN];
/// Home of the daemon's user while it runs. There is no `/var/lib` on a Mac.
const HOME: &str = "/var/db/nix-daemon";
/// Ids of accounts that belong to no person: what sysadminctl(8) takes with `-roleAccount`. Apple takes new ones from below, so
/// they are looked for from above.
const ROLE_IDS: std::ops::RangeInclusive<u32> = 200..=400;
/// Files of the shells that a Mac comes with, which an installation adds to.
const SHELL_FILES: [&str; 2] = ["/etc/bashrc", "/etc/zshrc"];
/// Where Rosetta lies, which runs programs for Intel's processors on Apple's.
const ROSETTA: &str = "/Library/Apple/usr/share/rosetta/rosetta";

/// Values that only a Mac has, and those that are others there.
///
/// # Errors
/// When the Mac lacks what the plan builds on.
pub fn values(facts: &Facts, mac: &Mac, options: &Options) -> Result<Vec<(&'static str, Option<Value>)>> {
    let list_of = |label: &str| format!("{}/{label}.plist", macos::JOBS);
    let daemon = mac.job(DAEMON);
    let daemon_list = daemon.map_or_else(|| list_of(DAEMON), |job| job.path.display().to_string());
    let (uid, gid) = ids(facts, options)?;
    let builders = BuildUsers::choose(facts, options, build_uids)?;
    let BuildUsers { gid: build_gid, uids: builds, .. } = builders;
    let socket = facts.owner_of("/nix/var/nix/daemon-socket");
    ensure!(
        socket.is_none_or(|directory| directory.mode & 0o001 != 0),
        "/nix/var/nix/daemon-socket is closed to others, and launchd makes the new socket elsewhere: say in nix.conf who may connect \
         (allowed-users), and open the directory (chmod 0755)"
    );
    let ours = OUR_JOBS.iter().map(|label| ((*label).to_owned(), list_of(label)));
    let ours: Vec<_> = ours.chain([(DAEMON.to_owned(), daemon_list.clone())]).collect();
    let old = daemon.into_iter().chain(mac.job(HOOK));
    let old = old.map(|job| (job.label.clone(), job.path.display().to_string()));
    let labels =
        ours.iter().map(|(label, _)| label.clone()).chain(mac.job(HOOK).map(|job| job.label.clone()));
    let hooks = mac.job(HOOK).map(|job| job.path.display().to_string());
    let shells = match (options.change_shells, options.purpose == Purpose::Install) {
        (false, _) => strings([]),
        (true, true) => strings(SHELL_FILES.map(str::to_owned)),
        (true, false) => strings(
            mac.shell_files.iter().filter(|file| file.has_block).map(|file| file.path.display().to_string()),
        ),
    };
    let skip = ["daemon-socket", "gc-roots-socket", "build-broker"].map(str::to_owned);
    let daemon_program = facts.nix.iter().map(|nix| &nix.path).find(|path| path.starts_with("/nix"));
    let daemon_program =
        daemon_program.map_or_else(|| "/nix/var/nix/profiles/default/bin/nix-daemon".into(), Clone::clone);
    let of_install =
        mac_install::values(mac, &builders, facts.build_users.group.as_deref().unwrap_or("nixbld"));
    let values = vec![
        ("nix_uid", number(uid)),
        ("nix_gid", number(gid)),
        ("subid_start", number(builds.start)),
        ("subid_count", number(builds.count)),
        ("state_skip", strings(skip)),
        ("mac_uid", text(&uid.to_string())),
        ("mac_gid", text(&gid.to_string())),
        ("mac_home", text(HOME)),
        ("mac_label", text(DAEMON)),
        ("mac_labels", strings(labels)),
        ("mac_old_jobs", jobs(old)),
        ("mac_jobs", jobs(ours.into_iter())),
        ("mac_hooks", strings(hooks)),
        ("mac_volumes", strings(mac.volume.as_ref().map(|volume| volume.uuid.clone()))),
        ("mac_daemon_list", text(&daemon_list)),
        ("mac_daemon", text(&escaped(&daemon_program.to_string_lossy()))),
        ("mac_systems", text(&systems(facts).join(","))),
        ("mac_build_uids", text(&format!("{}:{}", builds.start, builds.count))),
        ("mac_build_gid", text(&build_gid.to_string())),
        ("mac_environment", text(&environment(daemon, &options.environment))),
        ("mac_shells", options.change_shells.then_some(Value::Boolean(true))),
        ("mac_shell_files", shells),
    ];
    Ok(values.into_iter().chain(of_install).collect())
}

fn text(text: &str) -> Option<Value> {
    Some(Value::String(text.to_owned()))
}

fn number(number: u32) -> Option<Value> {
    Some(Value::Integer(number.into()))
}

fn strings(items: impl IntoIterator<Item = String>) -> Option<Value> {
    Some(Value::Array(items.into_iter().map(Value::String).collect()))
}

/// Jobs as the actions take them.
fn jobs(jobs: impl Iterator<Item = (String, String)>) -> Option<Value> {
    let table = |(label, path)| {
        Value::Table(Table::from_iter([
            ("label".to_owned(), Value::String(label)),
            ("path".to_owned(), Value::String(path)),
        ]))
    };
    Some(Value::Array(jobs.map(table).collect()))
}

/// Uid and gid of the store's owner: those that it has, those that were chosen, or the same free number for both.
fn ids(facts: &Facts, options: &Options) -> Result<(u32, u32)> {
    let user = facts.users.iter().find(|user| user.name == options.nix_user).map(|user| user.uid);
    let group = facts.groups.iter().find(|group| group.name == options.nix_group).map(|group| group.gid);
    let is_free = |id: &u32| {
        !facts.users.iter().any(|user| user.uid == *id || user.gid == *id)
            && !facts.groups.iter().any(|group| group.gid == *id)
    };
    let (wanted_uid, wanted_gid) = (user.or(options.nix_uid), group.or(options.nix_gid));
    let free = match (wanted_uid, wanted_gid) {
        (Some(_), Some(_)) => 0,
        _ => ROLE_IDS.rev().find(is_free).context(
            "no id from 200 to 400 is free for both a user and a group: name some with --nix-uid and --nix-gid",
        )?,
    };
    Ok((wanted_uid.unwrap_or(free), wanted_gid.unwrap_or(free)))
}

/// The longest run of consecutive uids of a Mac's build users: the broker takes a range.
///
/// # Errors
/// When there are none.
fn build_uids(facts: &Facts) -> Result<SubidRange> {
    let mut uids: Vec<_> = facts.build_users.members.iter().map(|(_, uid)| *uid).collect();
    uids.sort_unstable();
    uids.dedup();
    let runs = uids.chunk_by(|a, b| a + 1 == *b);
    let longest = runs.rev().max_by_key(|run| run.len()).context("there are no build users")?;
    let count = u32::try_from(longest.len()).context("there are more build users than ids")?;
    SubidRange::new(longest[0], count).context("the build users' uids are not what uids are")
}

/// Systems that builds can be for: all that Nix would build for by itself.
fn systems(facts: &Facts) -> Vec<String> {
    match facts.os.arch.as_str() {
        "aarch64" | "arm64" => {
            let rosetta = facts.owners.iter().any(|PathOwner { path, .. }| path == Path::new(ROSETTA));
            let intel = rosetta.then(|| "x86_64-darwin".to_owned());
            std::iter::once("aarch64-darwin".to_owned()).chain(intel).collect()
        }
        other => vec![format!("{other}-darwin")],
    }
}

/// Lines of a property list's dictionary: variables that the old daemon's job had, and those that were chosen.
fn environment(daemon: Option<&Job>, chosen: &[(String, String)]) -> String {
    let of_job = daemon.into_iter().flat_map(|job| &job.environment).filter(|(name, _)| *name != MARK);
    let mut variables: BTreeMap<&str, &str> =
        of_job.map(|(name, value)| (name.as_str(), value.as_str())).collect();
    variables.extend(chosen.iter().map(|(name, value)| (name.as_str(), value.as_str())));
    let line = |(name, value): (&str, &str)| {
        format!("\t\t<key>{}</key>\n\t\t<string>{}</string>\n", escaped(name), escaped(value))
    };
    variables.into_iter().map(line).collect()
}

/// A text between two tags.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::super::Plan;
    use super::*;
    use crate::facts::sample::debian_sample;

    /// A Mac of NixOS's installer.
    fn plan() -> Plan {
        let mut facts = debian_sample();
        facts.os.family = "macos".to_owned();
        facts.units.clear();
        facts.build_users.gid = Some(350);
        for owner in facts.owners.iter_mut().filter(|owner| owner.path.ends_with("daemon-socket")) {
            owner.mode = 0o755;
        }
        let job = |label: &str, program: &str| Job {
            label: label.to_owned(),
            path: format!("/Library/LaunchDaemons/{label}.plist").into(),
            real_path: format!("/Library/LaunchDaemons/{label}.plist").into(),
            owner: 0,
            user: None,
            program: Some(program.into()),
            nix_paths: vec![program.into()],
            build_uids: None,
            marked: false,
            environment: BTreeMap::from([("https_proxy".to_owned(), "http://p".to_owned())]),
            loaded: true,
            pid: None,
            disabled: false,
        };
        facts.mac = Some(Mac {
            jobs: vec![
                job(DAEMON, "/nix/var/nix/profiles/default/bin/nix-daemon"),
                job(HOOK, "/nix/nix-installer"),
            ],
            shell_files: vec![macos::ShellFile {
                path: "/etc/zshrc".into(),
                has_block: true,
                has_backup: false,
            }],
            ..Mac::default()
        });
        let options =
            Options { nix_user: "_nix".to_owned(), nix_group: "_nix".to_owned(), ..Options::default() };
        Plan::make(&facts, &options).unwrap()
    }

    #[test]
    fn the_plan_is_whole_and_says_what_it_does() {
        let plan = plan();
        let text = plan.to_toml().unwrap();
        assert!(!text.contains("{{") && text.contains("<string>http://p</string>"), "{text}");
        assert_eq!(Plan::read(&text).unwrap(), plan);
        assert_eq!(plan.stages_in_order().len(), plan.stages.len());
        for step in &plan.steps {
            let words = [step.why.as_str(), &step.action.changes(), &step.action.undone_by()].map(str::len);
            assert!(words.iter().all(|length| *length > 10), "{}", step.id);
        }
    }

    /// Undoing goes backwards, and a Mac may restart between any two steps: while anything changes hands, the old daemon is disabled, and
    /// the new one has no property list.
    #[test]
    fn nothing_can_run_while_anything_changes_hands() {
        let plan = plan();
        let at =
            |id: &str| plan.steps.iter().position(|step| step.id == id).unwrap_or_else(|| panic!("{id}"));
        let reowned = |step: &&super::super::Step| step.action.name() == "reown";
        let first = plan.steps.iter().position(|step| reowned(&step)).unwrap();
        let last = plan.steps.iter().rposition(|step| reowned(&step)).unwrap();
        for id in
            ["stop-root-daemon", "disable-root-daemon", "remove-hook-1", "configure-nix", "keep-stopped"]
        {
            assert!(at(id) < first, "{id} comes before anything changes hands, and is undone after");
        }
        for id in [
            "keep-stopped-for-rollback",
            "write-broker-job",
            "write-scan-job",
            "write-daemon-job",
            "enable-job-1",
            "start-jobs",
            "verify",
        ] {
            assert!(at(id) > last, "{id} comes after everything changed hands, and is undone before");
        }
        assert!(
            at("stop-root-daemon") < at("disable-root-daemon"),
            "a rollback enables it before it loads it"
        );
        assert!(at("keep-stopped-for-rollback") < at("write-broker-job"), "undone when the lists are gone");
        assert!(at("write-daemon-job") < at("enable-job-3") && at("enable-job-3") < at("start-jobs"));
        let jobs = serde_json::to_value(&plan.steps[at("start-jobs")]).unwrap();
        assert_eq!(
            jobs["jobs"][2]["label"], DAEMON,
            "a daemon asks only a scanner and a broker that are there"
        );
    }

    #[test]
    fn everything_that_root_executes_or_reads_lies_outside_nix() {
        for step in plan().steps {
            let value = serde_json::to_value(&step.action).unwrap();
            if matches!(step.action.name(), "write-file" | "install-program" | "create-log") {
                assert!(!value["path"].as_str().unwrap().starts_with("/nix/"), "{}", step.id);
            }
            if let Some(text) = value["text"].as_str().filter(|text| text.contains("<plist")) {
                let program = text.split("<key>ProgramArguments</key>").nth(1).unwrap();
                let program = program.split("<string>").nth(1).unwrap();
                assert!(!program.starts_with("/nix/"), "{}: {program}", step.id);
            }
        }
    }

    #[test]
    fn ids_are_free_and_from_above() {
        let mut facts = debian_sample();
        let options =
            Options { nix_user: "_nix".to_owned(), nix_group: "_nix".to_owned(), ..Options::default() };
        assert_eq!(ids(&facts, &options).unwrap(), (400, 400));
        facts.groups[0].gid = 400;
        facts.users[0].uid = 399;
        assert_eq!(ids(&facts, &options).unwrap(), (398, 398));
        assert_eq!(ids(&facts, &Options { nix_uid: Some(7), ..options.clone() }).unwrap(), (7, 398));
        facts.users[0].name = "_nix".to_owned();
        assert_eq!(ids(&facts, &options).unwrap(), (399, 398), "those that it has");
    }

    #[test]
    fn the_longest_run_of_build_users_is_taken() {
        let mut facts = debian_sample();
        for (uids, expected) in
            [(&[351, 352, 353][..], (351, 3)), (&[301, 351, 352], (351, 2)), (&[301, 302, 351], (301, 2))]
        {
            facts.build_users.members = uids.iter().map(|uid| (uid.to_string(), *uid)).collect();
            let run = build_uids(&facts).unwrap();
            assert_eq!((run.start, run.count), expected, "{uids:?}");
        }
        facts.build_users.members.clear();
        assert!(build_uids(&facts).is_err());
    }

    #[test]
    fn systems_are_those_that_the_machine_runs() {
        let mut facts = debian_sample();
        facts.os.arch = "aarch64".to_owned();
        assert_eq!(systems(&facts), ["aarch64-darwin"]);
        facts.owners.push(PathOwner { path: ROSETTA.into(), uid: 0, gid: 0, mode: 0o755 });
        assert_eq!(systems(&facts), ["aarch64-darwin", "x86_64-darwin"]);
        facts.os.arch = "x86_64".to_owned();
        assert_eq!(systems(&facts), ["x86_64-darwin"]);
    }

    #[test]
    fn variables_are_escaped_and_what_was_chosen_wins() {
        let chosen = [("A".to_owned(), "<&>".to_owned())];
        assert_eq!(environment(None, &chosen), "\t\t<key>A</key>\n\t\t<string>&lt;&amp;&gt;</string>\n");
    }
}
