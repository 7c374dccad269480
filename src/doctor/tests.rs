use super::*;
use crate::actions::drift::{Aspect, Drift};
use crate::facts::sample::debian_sample;
use crate::plan::{Options, Plan};

fn migration() -> Plan {
    Plan::make(&debian_sample(), &Options::default()).unwrap()
}

/// A drift of the step `id` of the migration.
fn drifted(id: &str, repair: Repair) -> Drifted {
    let step = migration().steps.into_iter().find(|step| step.id == id).unwrap();
    let path = match &step.action {
        Action::WriteFile(file) => file.path.clone(),
        Action::AppendBlock(block) => block.path.clone(),
        Action::InstallProgram(program) => program.path.clone(),
        _ => PathBuf::from("nix-daemon.socket"),
    };
    Drifted { run: 1, step, drift: Drift::new(&path, Aspect::Content, "it is gone", repair) }
}

/// The ids of the plan's steps.
fn steps(drifts: &[Drifted], is_all: bool, options: &Options) -> Vec<String> {
    let repairs = Repairs { drifts: drifts.iter().collect(), is_all };
    let plan = plan(&migration(), &repairs, options).unwrap();
    plan.map_or(Vec::new(), |plan| {
        assert!(plan.goes_on_top && plan.is_undoable());
        assert_eq!(plan.stages_in_order().len(), plan.stages.len());
        plan.steps.into_iter().map(|step| step.id).collect()
    })
}

#[test]
fn nix_is_stopped_only_for_what_it_relies_on() {
    let conf = drifted("configure-nix", Repair::Again);
    let unit = drifted("write-scan-unit", Repair::Again);
    let options = Options::default();
    assert_eq!(steps(std::slice::from_ref(&conf), true, &options), ["configure-nix", "verify"]);
    assert_eq!(steps(std::slice::from_ref(&conf), false, &options), ["configure-nix"]);
    let all = [
        "stop",
        "reload-for-rollback",
        "keep-stopped",
        "configure-nix",
        "write-scan-unit",
        "keep-stopped-for-rollback",
        "reload-units",
        "start-root-scan",
        "start-daemon",
        "verify",
    ];
    assert_eq!(steps(&[conf, unit], true, &options), all);
    let without: Vec<_> =
        all.into_iter().filter(|id| !id.starts_with("configure") && !id.starts_with("write")).collect();
    assert_eq!(steps(&[drifted("start-daemon", Repair::Restart)], true, &options), without);
}

#[test]
fn what_cannot_be_repaired_makes_no_plan_and_says_what_to_do() {
    let options = Options::default();
    for repair in [Repair::Never("by hand".to_owned()), Repair::Notice("as you like".to_owned())] {
        let drifts = [drifted("write-tmpfiles", repair)];
        assert!(steps(&drifts, false, &options).is_empty());
        assert!(["by hand", "as you like"].contains(&entries(&drifts, &options)[0].remedy.as_str()));
    }
    // A program that only this program itself could come from.
    let installed = [drifted("install-nix-unroot", Repair::Again)];
    let entry = entries(&installed, &options).remove(0);
    assert!(entry.cure == Cure::ByHand && entry.remedy.contains("unpack the release"), "{entry:?}");
    let elsewhere = Options { program: std::env::current_exe().unwrap(), ..options };
    let beside = Options { helpers: "/usr/bin".into(), ..elsewhere };
    assert_eq!(entries(&[drifted("install-gate", Repair::Again)], &beside)[0].cure, Cure::ByHand);
}

#[test]
fn a_step_of_two_runs_is_told_apart() {
    let mut twice = [drifted("write-tmpfiles", Repair::Again), drifted("write-tmpfiles", Repair::Again)];
    assert_eq!(steps(&twice, true, &Options::default()), ["write-tmpfiles", "verify"]);
    if let Action::WriteFile(file) = &mut twice[1].step.action {
        file.text.push('#');
    }
    assert_eq!(
        steps(&twice, true, &Options::default()),
        ["write-tmpfiles", "write-tmpfiles-again-1", "verify"]
    );
}

#[test]
fn times_are_told_in_words() {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs() as i64;
    for (seconds, words) in
        [(5, "5 seconds ago"), (600, "10 minutes ago"), (7_300, "2 hours ago"), (900_000, "10 days ago")]
    {
        assert_eq!(ago(now - seconds), words);
    }
}

/// Without its accounts nothing can be started, so nothing is stopped for a rollback to start; and nobody can say what else drifted.
#[test]
fn accounts_come_first_and_alone() {
    let mut user = drifted("create-nix-user", Repair::Again);
    user.drift.path = "nix".into();
    let all = [user, drifted("write-scan-unit", Repair::Again), drifted("start-daemon", Repair::Restart)];
    let expected = [
        "keep-account-backups",
        "create-nix-user",
        "keep-stopped-for-rollback",
        "reload-units",
        "start-root-scan",
        "start-daemon",
    ];
    assert_eq!(steps(&all, true, &Options::default()), expected);
}
