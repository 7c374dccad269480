//! What holds for every plan that ships.

use super::*;
use crate::archive::Source;
use crate::facts::SingleUser;
use crate::facts::sample::debian_sample;
use crate::types::{Sha256Digest, StorePath, SubidEntry, SubidRange};

fn plan() -> Plan {
    Plan::make(&debian_sample(), &Options::default()).unwrap()
}

/// Every plan that ships: a migration without and with a newer Nix, an installation with everything and with little, and a
/// person's store with that person's Nix and with another.
fn plans() -> Vec<Plan> {
    let archive = Some(Source {
        from: "https://example.org/nix.tar.xz".to_owned(),
        sha256: Sha256Digest::parse(&"0".repeat(64)).unwrap(),
    });
    let mut bare = debian_sample();
    bare.nix.clear();
    bare.flavour = crate::facts::Flavour::None;
    let mut single = debian_sample();
    single.units.clear();
    single.flavour = crate::facts::Flavour::OfficialSingleUser { owner: 1000 };
    single.single_user = Some(persons());
    let options = Options { archive, extra_conf: Some("cores = 2".to_owned()), ..Options::default() };
    let install = Options { purpose: Purpose::Install, ..options.clone() };
    vec![
        plan(),
        Plan::make(&debian_sample(), &options).unwrap(),
        Plan::make(&bare, &install).unwrap(),
        Plan::make(
            &bare,
            &Options { change_shells: false, start: false, extra_conf: None, ..install.clone() },
        )
        .unwrap(),
        Plan::make(&single, &Options::default()).unwrap(),
        Plan::make(&single, &Options { extra_conf: None, ..options }).unwrap(),
    ]
}

/// alice's store, with a Nix in it.
fn persons() -> SingleUser {
    SingleUser {
        uid: 1000,
        gid: 100,
        name: Some("alice".to_owned()),
        own_directories: vec!["profiles/per-user/alice".into()],
        nix: StorePath::from_base_name(&format!("{}-nix-2.34.8", "0".repeat(32))),
    }
}

#[test]
fn the_same_facts_give_the_same_plan_to_the_byte() {
    assert_eq!(plan().to_toml().unwrap(), plan().to_toml().unwrap());
    assert_eq!(plan().made_from, plan().made_from);
}

#[test]
fn a_plan_survives_both_of_its_forms() {
    for plan in plans() {
        assert_eq!(Plan::read(&plan.to_toml().unwrap()).unwrap(), plan);
        assert_eq!(Plan::read(&plan.to_json().unwrap()).unwrap(), plan);
    }
}

#[test]
fn every_step_says_why_what_and_how_it_is_undone() {
    for step in plans().into_iter().flat_map(|plan| plan.steps) {
        assert!(step.why.len() > 10, "{}", step.id);
        assert!(step.action.changes().len() > 10, "{}", step.id);
        assert!(step.action.undone_by().len() > 10, "{}", step.id);
    }
}

#[test]
fn a_stage_is_one_group_of_steps() {
    for plan in plans() {
        let stages = plan.stages_in_order();
        assert_eq!(stages.len(), plan.stages.len(), "{stages:?}");
    }
}

#[test]
fn nothing_is_left_to_fill_in() {
    for plan in plans() {
        let text = plan.to_toml().unwrap();
        assert!(!text.contains("{{"), "{text}");
    }
}

#[test]
fn everything_that_root_executes_or_reads_lies_outside_nix() {
    for step in plans().into_iter().flat_map(|plan| plan.steps) {
        let (path, text) = match &step.action {
            Action::WriteFile(_) | Action::PutSymlink(_) | Action::InstallProgram(_) => {
                let value = serde_json::to_value(&step.action).unwrap();
                (
                    value["path"].as_str().unwrap().to_owned(),
                    value["target"].as_str().unwrap_or_default().to_owned(),
                )
            }
            _ => continue,
        };
        assert!(!path.starts_with("/nix/"), "{}: {path}", step.id);
        assert!(!text.starts_with("/nix/"), "{}: {text}", step.id);
    }
}

#[test]
fn a_plan_depends_on_what_it_changes_and_on_nothing_else() {
    let plan = plan();
    let facts = debian_sample();
    let of = |facts: &Facts, options: &Options| Plan::make(facts, options).unwrap();
    assert_ne!(of(&facts, &Options { nix_user: "store".to_owned(), ..Options::default() }), plan);
    let mut moved = facts.clone();
    moved.nix[0].path = "/opt/nix/bin/nix-daemon".into();
    assert_ne!(of(&moved, &Options::default()), plan);
    let mut busier = facts;
    busier.processes.clear();
    busier.unread.clear();
    assert_eq!(of(&busier, &Options::default()), plan, "what runs right now is not part of a plan");
}

#[test]
fn the_new_socket_admits_whom_the_old_one_admitted() {
    let line = |edit: &dyn Fn(&mut crate::facts::Unit)| {
        let mut facts = debian_sample();
        facts.owners.retain(|owner| !owner.path.ends_with("socket"));
        facts.units.iter_mut().filter(|unit| unit.name.as_str() == "nix-daemon.socket").for_each(edit);
        let text = Plan::make(&facts, &Options::default()).unwrap().to_toml().unwrap();
        let of = |key: &str| text.lines().find(|line| line.starts_with(key)).unwrap_or_default().to_owned();
        (of("SocketMode="), of("SocketGroup="))
    };
    assert_eq!(line(&|_| {}), ("SocketMode=0666".to_owned(), "SocketGroup=root".to_owned()));
    let closed = line(&|unit| {
        unit.socket_mode = Some("0660".to_owned());
        unit.socket_group = Some("nix-users".to_owned());
    });
    assert_eq!(closed, ("SocketMode=0660".to_owned(), "SocketGroup=nix-users".to_owned()));
}

#[test]
fn an_unknown_parameter_or_format_is_refused() {
    let text = plan().to_toml().unwrap();
    assert!(Plan::read(&text.replacen("format = 1", "format = 2", 1)).is_err());
    assert!(Plan::read(&text.replacen("mode = \"0755\"", "mode = \"0755\"\nmood = 1", 1)).is_err());
}

#[test]
fn the_range_keeps_clear_of_everybody_elses() {
    let count = SubidRange::NIX_DEFAULT.count;
    let entry = |owner: &str, start, count| SubidEntry {
        owner: owner.to_owned(),
        range: SubidRange { start, count },
    };
    let start = |edit: &dyn Fn(&mut Facts)| {
        let mut facts = debian_sample();
        facts.subuid.clear();
        facts.subgid.clear();
        edit(&mut facts);
        build_range(&facts, &Options::default()).unwrap().start
    };
    let default = SubidRange::NIX_DEFAULT.start;
    assert_eq!(start(&|_| {}), default);
    assert_eq!(start(&|facts| facts.subuid.push(entry("alice", default + 5, 1))), default + SubidRange::SLOT);
    assert_eq!(start(&|facts| facts.subgid.push(entry("alice", default, count))), default + count);
    assert_eq!(start(&|facts| facts.users[0].uid = default + count - 1), default + count);
    assert_eq!(
        start(&|facts| facts.subuid.push(entry("nix", 1_048_576, 65_536))),
        1_048_576,
        "it has one already"
    );
    assert_eq!(
        start(&|facts| facts.subuid.push(entry("nix", 1_048_576, 1000))),
        default,
        "but one that is too small is no use"
    );
}

#[test]
fn what_was_chosen_is_in_an_installation_and_what_was_declined_is_not() {
    let plans = plans();
    let has = |plan: &Plan, id: &str| plan.steps.iter().any(|step| step.id == id);
    for id in ["configure-choice", "write-shell-snippet", "write-fish-snippet", "start-daemon", "verify"] {
        assert!(has(&plans[2], id) && !has(&plans[3], id), "{id}");
    }
    for id in ["fetch-archive", "unpack-archive", "install-profile", "forget-archive"] {
        for (index, plan) in plans.iter().enumerate() {
            assert_eq!(has(plan, id), ![0, 4].contains(&index), "{index}: {id}");
        }
    }
    let at = |id: &str| plans[2].steps.iter().position(|step| step.id == id).unwrap();
    assert_eq!(at("fetch-archive"), 0, "nothing is changed before the digest has matched");
    assert!(at("hand-over-database") < at("keep-stopped-for-rollback"));
    assert!(at("keep-stopped-for-rollback") < at("write-daemon-socket"), "units come last, and go first");
}

/// Undoing goes backwards, and a machine may restart between any two steps: while anything changes hands, in either
/// direction, the old and the new daemon must be masked and stopped.
#[test]
fn nothing_can_run_while_anything_changes_hands() {
    let plans = plans();
    [&plans[0], &plans[1], &plans[4], &plans[5]].into_iter().for_each(nothing_can_run);
}

/// systemd reads its units once they have changed, and before anything is started: forward, and on the way back.
#[test]
fn systemd_reads_what_changed_in_either_direction() {
    for plan in plans() {
        let steps: Vec<_> =
            plan.steps.iter().map(|step| serde_json::to_value(&step.action).unwrap()).collect();
        let all = |wanted: &dyn Fn(&serde_json::Value) -> bool| -> Vec<usize> {
            steps.iter().enumerate().filter(|(_, step)| wanted(step)).map(|(at, _)| at).collect()
        };
        let reload = |way: &str| {
            all(&|step| step["action"] == "reload-units" && (step["only"].is_null() || step["only"] == way))
        };
        let changes = all(&|step| {
            step["path"].as_str().is_some_and(|path| path.starts_with("/etc/systemd/system/"))
                && step["action"] != "create-directory"
        });
        let (first, last) = (changes[0], changes[changes.len() - 1]);
        let started = all(&|step| step["action"] == "start-units").into_iter().min().unwrap_or(steps.len());
        assert!(reload("forward").iter().any(|at| last < *at && *at < started), "{}", plan.name);
        let stopped = all(&|step| step["action"] == "stop-units").into_iter().max();
        assert!(
            reload("back").iter().any(|at| *at < first && stopped.is_none_or(|stopped| stopped < *at)),
            "{}",
            plan.name
        );
        // What is looked after while it is masked is seen as masked.
        let masked = all(&|step| {
            step["target"] == "/dev/null" && step["path"] == "/etc/systemd/system/nix-daemon.socket"
        });
        for mask in masked {
            let kept = all(&|step| step["action"] == "keep-stopped")[0];
            assert!(reload("forward").iter().any(|at| mask < *at && *at < kept), "{}", plan.name);
        }
    }
}

fn nothing_can_run(plan: &Plan) {
    let at = |id: &str| plan.steps.iter().position(|step| step.id == id).unwrap();
    let first = plan.steps.iter().position(|step| step.action.name() == "reown").unwrap();
    let last = plan.steps.iter().rposition(|step| step.action.name() == "reown").unwrap();
    for id in [
        "mask-root-daemon",
        "mask-socket",
        "configure-nix",
        "mask-tmpfiles",
        "reload-masked-units",
        "keep-stopped",
    ] {
        assert!(at(id) < first, "{id} comes before anything changes hands, and is undone after");
    }
    assert!(at("mask-socket") < at("reload-masked-units") && at("reload-masked-units") < at("keep-stopped"));
    for id in [
        "keep-stopped-for-rollback",
        "write-tmpfiles",
        "write-daemon-socket",
        "start-root-scan",
        "start-daemon",
        "verify",
    ] {
        assert!(at(id) > last, "{id} comes after everything changed hands, and is undone before");
    }
    assert!(
        at("keep-stopped-for-rollback") < at("reload-old-units"),
        "undone after systemd read the units again"
    );
    assert!(at("reload-old-units") < at("write-daemon-socket"));
    assert!(at("start-root-scan") < at("start-daemon"), "a daemon asks only a scanner that runs");
}

/// Exceptions are made only where the machine needs them.
#[test]
fn what_a_machine_needs_is_in_its_plan_and_nothing_else() {
    let seen = |edit: &dyn Fn(&mut Facts)| {
        let mut facts = debian_sample();
        edit(&mut facts);
        let plan = Plan::make(&facts, &Options::default()).unwrap();
        let text = plan.to_toml().unwrap();
        let of = |key: &str| text.lines().find(|line| line.starts_with(key)).unwrap_or_default().to_owned();
        let ids: Vec<_> = plan.steps.iter().map(|step| step.id.clone()).collect();
        let has = |id: &str| ids.iter().any(|listed| listed == id);
        assert_eq!(has("write-apparmor-profile"), has("load-apparmor-profile"));
        (
            of("AmbientCapabilities="),
            of("sandbox ="),
            has("load-apparmor-profile"),
            has("admit-unsandboxed-builds"),
        )
    };
    let set = |value: &'static str| {
        move |facts: &mut Facts| {
            facts.nix_conf[0].settings = Some(vec![("sandbox".to_owned(), value.to_owned())]);
        }
    };
    let two = || "AmbientCapabilities=CAP_SETUID CAP_SETGID".to_owned();
    let (strict, relaxed) = (|| "sandbox = true".to_owned(), "sandbox = relaxed".to_owned());
    assert_eq!(seen(&|_| {}), (two(), strict(), false, false));
    let clone = seen(&|facts| facts.user_namespaces.unprivileged_clone = Some(false));
    assert_eq!(clone, (two() + " CAP_SYS_ADMIN", strict(), false, false));
    let apparmor = seen(&|facts| facts.user_namespaces.apparmor_restricted = true);
    assert_eq!(apparmor, (two(), strict(), true, false));
    assert_eq!(seen(&set("relaxed")), (two(), relaxed, false, true));
    assert_eq!(seen(&set("false")), (two(), strict(), false, true));
}

/// Root takes a person's directories from the top, before anything below is looked at by its path, and gives them back last.
#[test]
fn a_persons_store_is_taken_from_the_top_and_root_parses_nothing_in_it() {
    let mut facts = debian_sample();
    facts.single_user = Some(persons());
    let of = |path: &str, uid| crate::facts::PathOwner { path: path.into(), uid, gid: 100, mode: 0o755 };
    facts.owners.retain(|owner| !owner.path.starts_with("/nix"));
    for path in ["/nix", "/nix/store", "/nix/var", "/nix/var/nix", "/nix/var/nix/builds"] {
        facts.owners.push(of(path, 1000));
    }
    facts.owners.push(of("/nix/var/log", 0));
    let plan = Plan::make(&facts, &Options::default()).unwrap();
    let values: Vec<_> = plan.steps.iter().map(|step| serde_json::to_value(step).unwrap()).collect();
    let taken: Vec<_> =
        values.iter().filter(|step| step["id"].as_str().unwrap().starts_with("take-directory")).collect();
    let paths: Vec<_> = taken.iter().map(|step| step["path"].as_str().unwrap()).collect();
    assert_eq!(paths, ["/nix", "/nix/store", "/nix/var", "/nix/var/nix"]);
    let at = |id: &str| plan.steps.iter().position(|step| step.id == id).unwrap();
    assert!(at("keep-stopped") < at("take-directory-1") && at("take-directory-4") < at("make-state-1"));
    assert!(at("reown-logs") < at("no-writers") && at("no-writers") < at("hand-over-database"));
    assert!(at("hand-over-database") < at("keep-database-copy"), "its owner checks it, not root");
    assert!(!plan.steps.iter().any(|step| step.id == "back-up-database"));
    let made =
        |path: &str| values.iter().any(|step| step["action"] == "create-directory" && step["path"] == path);
    assert!(
        !made("/nix/var/nix/builds") && made("/nix/var/nix/gc-socket"),
        "what is the person's is re-owned"
    );
    let reowned: Vec<_> = values.iter().filter(|step| step["action"] == "reown").collect();
    for step in &reowned {
        assert_eq!(step["plain"], serde_json::json!({"uid": 1000, "gid": 100}));
        assert!(step["also_from"].as_array().unwrap().contains(&1000.into()));
    }
    assert_eq!(
        reowned[1]["skip"],
        serde_json::json!(["daemon-socket", "gc-roots-socket", "profiles/per-user/alice"])
    );
    assert!(
        plan.to_toml().unwrap().contains("default/bin/nix-daemon"),
        "the daemon is not run from a person's profile"
    );
}

/// Without an init system the units are written all the same, and a program that starts what they say; nothing is started but for the proof.
#[test]
fn without_an_init_system_a_program_starts_the_daemon() {
    let install = Options {
        without_init: true,
        environment: vec![("http_proxy".to_owned(), "http://it's:1".to_owned())],
        ..Options::default()
    };
    let plan = Plan::make(&debian_sample(), &install).unwrap();
    let has = |plan: &Plan, action: &str| plan.steps.iter().any(|step| step.action.name() == action);
    assert!(!has(&plan, "start-units") && has(&self::plan(), "start-units"));
    let texts = plan.steps.iter().filter_map(|step| match &step.action {
        Action::WriteFile(file) if file.path.ends_with("start-nix-daemon") => Some((&file.mode, &file.text)),
        _ => None,
    });
    let [(mode, text)] = texts.collect::<Vec<_>>()[..] else { panic!("not one such program") };
    assert_eq!(mode, "0755");
    assert!(text.contains(r"http_proxy='http://it'\''s:1'") && !text.contains("{{"), "{text}");
    let checked = std::process::Command::new("sh").args(["-n", "-c", text]).status().unwrap();
    assert!(checked.success());
    let Some(Action::Verify(verify)) = plan.steps.last().map(|step| &step.action) else { panic!("no proof") };
    assert_eq!(verify.started_by.as_deref(), Some(std::path::Path::new(crate::platform::paths::START)));
}
