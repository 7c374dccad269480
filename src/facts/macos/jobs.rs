//! launchd's jobs that have to do with Nix: their property lists (launchd.plist(5)), and what launchctl(1) says of them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::super::machine::As;
use super::super::nix_paths;
use super::super::reader::Reader;
use crate::platform::launchd;
use crate::types::SubidRange;

/// Property lists of jobs that root's launchd starts.
pub const DIRECTORY: &str = "/Library/LaunchDaemons";
/// Labels that are ours.
const OURS: &str = "org.nix-unroot.";
/// A variable in the environment of our jobs, by which one of a label that others use is told.
pub const MARK: &str = "NIX_UNROOT";

/// A job.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
pub struct Job {
    /// `Label`.
    pub label: String,
    /// Its property list.
    pub path: PathBuf,
    /// Where that really lies, after links.
    pub real_path: PathBuf,
    /// Owner of that file.
    pub owner: u32,
    /// `UserName`, when set: without it, root.
    pub user: Option<String>,
    /// What it runs: `Program`, or the first of `ProgramArguments`; behind `/bin/sh -c` what is executed there.
    pub program: Option<PathBuf>,
    /// Paths below `/nix` that it names.
    pub nix_paths: Vec<PathBuf>,
    /// Whether it has our mark.
    pub marked: bool,
    /// `EnvironmentVariables`, those that are texts.
    #[serde(default)]
    pub environment: BTreeMap<String, String>,
    /// Uids that builds get: what `--uids` of our broker's job says.
    #[serde(default)]
    pub build_uids: Option<SubidRange>,
    /// Whether launchd knows it: `launchctl print system/LABEL`.
    pub loaded: bool,
    /// Its process, when it runs.
    pub pid: Option<i32>,
    /// Whether `launchctl print-disabled system` says that it is not to be started.
    pub disabled: bool,
}

impl Job {
    /// Whether this tool wrote it.
    pub fn is_ours(&self) -> bool {
        self.label.starts_with(OURS) || self.marked
    }

    /// Whether it runs a program below `/nix` as root.
    pub fn is_root_from_nix(&self) -> bool {
        self.user.as_deref().is_none_or(|user| user == "root")
            && self.program.as_ref().is_some_and(|program| program.starts_with("/nix"))
    }
}

/// The keys that are read.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct PropertyList {
    label: String,
    program: Option<String>,
    #[serde(default)]
    program_arguments: Vec<String>,
    user_name: Option<String>,
    #[serde(default)]
    environment_variables: BTreeMap<String, plist::Value>,
}

pub(crate) fn gather(reader: &Reader<'_>) -> Vec<Job> {
    let lists = reader.list(DIRECTORY);
    let lists =
        lists.into_iter().filter(|path| path.extension().is_some_and(|extension| extension == "plist"));
    let mut jobs: Vec<_> = lists.filter_map(|path| job(reader, path)).collect();
    jobs.sort_by(|a, b| a.label.cmp(&b.label));
    if jobs.is_empty() {
        return jobs;
    }
    let disabled = disabled(reader);
    for job in &mut jobs {
        (job.loaded, job.pid) = state(reader, &job.label);
        job.disabled = disabled.contains(&job.label);
    }
    jobs
}

/// The job of a property list, when it has to do with Nix: by its name, or by what it names.
fn job(reader: &Reader<'_>, path: PathBuf) -> Option<Job> {
    let list: PropertyList = reader.property_list(&path)?;
    let line =
        list.program.iter().chain(&list.program_arguments).map(String::as_str).collect::<Vec<_>>().join(" ");
    let nix_paths = nix_paths::named(&line);
    let known =
        [super::DAEMON, super::MOUNTER, super::DETERMINATE_DAEMON, super::DETERMINATE_MOUNTER, super::HOOK];
    let marked = list.environment_variables.contains_key(MARK);
    if nix_paths.is_empty()
        && !known.contains(&list.label.as_str())
        && !list.label.starts_with(OURS)
        && !marked
    {
        return None;
    }
    let owner = reader.target_owner(&path)?.uid;
    Some(Job {
        program: list.program.map(PathBuf::from).or_else(|| program(&list.program_arguments)),
        label: list.label,
        real_path: reader.machine.real(&path).unwrap_or_else(|_| path.clone()),
        path,
        owner,
        user: list.user_name,
        nix_paths,
        build_uids: build_uids(&line),
        marked,
        environment: list
            .environment_variables
            .into_iter()
            .filter_map(|(name, value)| Some((name, value.into_string()?)))
            .collect(),
        loaded: false,
        pid: None,
        disabled: false,
    })
}

/// `--uids START:COUNT` of a command line.
fn build_uids(line: &str) -> Option<SubidRange> {
    let mut words = line.split_whitespace().skip_while(|word| *word != "--uids");
    let (start, count) = words.nth(1)?.split_once(':')?;
    SubidRange::new(start.parse().ok()?, count.parse().ok()?)
}

/// The program of a command line. Installers wait for the volume first: `/bin/sh -c "/bin/wait4path /nix && exec PROGRAM ..."`.
fn program(words: &[String]) -> Option<PathBuf> {
    let first = words.first()?;
    let [shell, "-c", script, ..] = words.iter().map(String::as_str).collect::<Vec<_>>()[..] else {
        return Some(first.into());
    };
    if !matches!(Path::new(shell).file_name()?.to_str()?, "sh" | "bash" | "zsh") {
        return Some(first.into());
    }
    let last = script.rsplit("&&").next().unwrap_or(script).trim();
    let last = last.strip_prefix("exec ").unwrap_or(last);
    last.split_whitespace().next().map(|word| word.trim_matches(['"', '\'']).into())
}

/// Whether launchd knows a job, and its process. The lines of `launchctl print` that are read are `pid = N`, one tab deep: deeper
/// ones belong to what the job has.
fn state(reader: &Reader<'_>, label: &str) -> (bool, Option<i32>) {
    let service = format!("system/{label}");
    match reader.machine.run_for(As::Self_, "launchctl", &["print", &service], &[0, launchd::NOT_FOUND]) {
        Ok(said) => {
            let loaded = said.lines().any(|line| line.starts_with(&format!("{service} = {{")));
            let pid = said.lines().find_map(|line| line.strip_prefix("\tpid = ")?.trim().parse().ok());
            (loaded, pid)
        }
        Err(why) => {
            reader.note(format!("launchctl print {service}"), why);
            (false, None)
        }
    }
}

/// Labels that are disabled.
fn disabled(reader: &Reader<'_>) -> Vec<String> {
    let said = match reader.machine.run(As::Self_, "launchctl", &["print-disabled", "system"]) {
        Ok(said) => said,
        Err(why) => {
            reader.note("launchctl print-disabled system", why);
            return Vec::new();
        }
    };
    launchd::disabled(&said)
}
