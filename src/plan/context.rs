//! The values that a plan's template is filled in with.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use toml::Value;

use super::carried_over::carried_over;
use super::mac;
use super::options::Options;
use super::range::build_range;
use super::single_user;
use crate::archive::Source;
use crate::facts::{Facts, Unsandboxed};
use crate::findings;
use crate::platform::paths;

/// The values of one machine. A name without a value (`None`) leaves out the parameter that it stands for.
#[derive(Clone, Debug)]
pub struct Context {
    pub(super) values: BTreeMap<String, Option<Value>>,
}

impl Context {
    /// The values that follow from what was found and what was chosen.
    ///
    /// # Errors
    /// When no daemon was found, or no range of ids is free.
    pub fn new(facts: &Facts, options: &Options) -> Result<Self> {
        let range = build_range(facts, options)
            .context("no range of build uids is free: name one with --subid-start and --subid-count")?;
        let person = facts.single_user.as_ref();
        let persons_nix = person.and_then(|person| person.nix.as_ref()).filter(|_| options.archive.is_none());
        let daemon = match (options.archive.is_some() || persons_nix.is_some(), facts.nix.first()) {
            (true, _) => PathBuf::from(paths::DEFAULT_PROFILE).join("bin/nix-daemon"),
            (false, Some(found)) => found.path.clone(),
            (false, None) => bail!("no Nix was found on this machine: nix-unroot install brings one"),
        };
        let text = |text: &str| Some(Value::String(text.to_owned()));
        let number = |number: u32| Some(Value::Integer(number.into()));
        let path = |path: &std::path::Path| Some(Value::String(path.to_string_lossy().into_owned()));
        let list = |items: &[&str]| Some(Value::Array(items.iter().map(|item| Value::from(*item)).collect()));
        let build_uids =
            facts.build_users.members.iter().map(|(_, uid)| Value::Integer((*uid).into())).collect();

        let found = options.for_findings(facts, None);
        let strings = |items: Vec<String>| Some(Value::Array(items.into_iter().map(Value::String).collect()));
        let shared = findings::shared(facts, &found);
        let shared = shared.iter().map(|path| path.to_string_lossy().into_owned()).collect();
        let copied = |wanted, directory: &str| strings(findings::copied(facts, wanted, Path::new(directory)));
        let left_behind = ["/nix/receipt.json", "/nix/nix-installer"]
            .into_iter()
            .filter(|path| !options.keep_installer && facts.owner_of(path).is_some());
        let keeps = facts.unsandboxed_builds();
        // Without lists there is no entry to make; who goes on all the same was told what will not work.
        let has_lists = facts.store.as_ref().is_none_or(|store| store.access_lists);

        let values = [
            ("nix_user", text(&options.nix_user)),
            ("nix_group", text(&options.nix_group)),
            ("nix_uid", options.nix_uid.and_then(number)),
            ("nix_gid", options.nix_gid.and_then(number)),
            ("scan_user", text(&options.scan_user)),
            ("scan_group", text(&options.scan_user)),
            ("subid_start", number(range.start)),
            ("subid_count", number(range.count)),
            ("drain_timeout", Some(Value::Integer(options.drain_timeout.try_into().unwrap_or(i64::MAX)))),
            ("program", path(&options.program)),
            ("helpers", path(&options.helpers)),
            ("libexec_dir", text(paths::LIBEXEC_DIR)),
            ("libexec_dirs", list(&["/usr/local/sbin", "/usr/local/libexec", paths::LIBEXEC_DIR])),
            ("home_dir", text(paths::DAEMON_HOME)),
            ("nix_daemon", path(&daemon)),
            ("nix_conf", text(paths::NIX_CONF)),
            ("build_group", text(facts.build_users.group.as_deref().unwrap_or("nixbld"))),
            ("build_uids", Some(Value::Array(build_uids))),
            ("old_units", list(&["nix-daemon.socket", "nix-daemon.service"])),
            ("state_dirs", strings(single_user::not_the_persons(facts, &STATE_DIRS))),
            ("log_dirs", strings(single_user::not_the_persons(facts, &["/nix/var/log/nix"]))),
            (
                "daemon_dirs",
                strings(single_user::not_the_persons(
                    facts,
                    &["/nix/var/nix/builds", "/nix/var/nix/gc-socket", "/nix/var/nix/userpool2"],
                )),
            ),
            ("person", person.and_then(|person| text(&single_user::name(person)))),
            ("persons_nix", persons_nix.and_then(|nix| text(&nix.to_string()))),
            ("taken_dirs", strings(single_user::taken_directories(facts))),
            ("taken_uids", Some(single_user::taken_uids(facts))),
            ("plain_owner", person.map(single_user::plain_owner)),
            ("state_skip", strings(single_user::kept_below_state(facts))),
            ("etc_dirs", list(&["/etc/nix", "/etc/tmpfiles.d"])),
            ("parent_dirs", list(&["/nix", "/nix/var", "/nix/var/log"])),
            ("socket_path", text(paths::DAEMON_SOCKET)),
            ("socket_mode", text(&socket_mode(facts))),
            ("socket_user", text("root")),
            ("socket_group", text(&socket_group(facts))),
            ("tmpfiles_lines", text(&tmpfiles_lines(facts, options))),
            ("carried_over", text(&carried_over(facts, &options.environment))),
            ("old_nix", text(&old_nix(facts))),
            ("archive_from", options.archive.as_ref().and_then(|archive| text(&archive.from))),
            (
                "archive_sha256",
                options.archive.as_ref().and_then(|archive| text(&archive.sha256.to_string())),
            ),
            ("archive_file", options.archive.as_ref().and_then(|archive| path(&archive_file(archive)))),
            ("certificates", options.certificates.as_deref().and_then(path)),
            ("proxy", options.proxy.as_deref().and_then(text)),
            ("extra_conf", options.extra_conf.as_deref().and_then(text)),
            ("change_shells", options.change_shells.then_some(Value::Boolean(true))),
            ("fish_dirs", list(if options.change_shells { &["/etc/fish", "/etc/fish/conf.d"] } else { &[] })),
            ("shell_files", list(&shell_files(facts, options))),
            ("start", options.start.then_some(Value::Boolean(true))),
            ("start_units", (options.start && !options.without_init).then_some(Value::Boolean(true))),
            ("init", (!options.without_init).then_some(Value::Boolean(true))),
            ("start_program", options.without_init.then(|| Value::from(paths::START))),
            ("environment_words", text(&environment_words(&options.environment))),
            ("shared_files", strings(shared)),
            ("ssh_files", copied(options.share.ssh, "/root/.ssh")),
            ("aws_files", copied(options.share.aws, "/root/.aws")),
            ("left_behind", strings(left_behind.map(str::to_owned).collect())),
            ("gate_capabilities", text(gate_capabilities(facts))),
            ("call_architectures", text(call_architectures(&facts.os.arch))),
            ("apparmor", facts.user_namespaces.apparmor_restricted.then_some(Value::Boolean(true))),
            ("sandbox", text(if keeps == Unsandboxed::Marked { "relaxed" } else { "true" })),
            (
                "unsandboxed_gid",
                (keeps != Unsandboxed::Never && has_lists).then(|| Value::Integer(range.last().into())),
            ),
        ];
        let of_mac = facts.mac.as_ref().map(|found| mac::values(facts, found, options)).transpose()?;
        let values = values.into_iter().chain(of_mac.into_iter().flatten());
        Ok(Self { values: values.map(|(name, value)| (name.to_owned(), value)).collect() })
    }

    /// Just these values.
    pub fn from_values<const N: usize>(values: [(&str, Value); N]) -> Self {
        Self { values: values.into_iter().map(|(name, value)| (name.to_owned(), Some(value))).collect() }
    }

    /// Just these values; the names without one are known, and have none here.
    pub fn from_options<const N: usize>(values: [(&str, Option<Value>); N]) -> Self {
        Self { values: values.into_iter().map(|(name, value)| (name.to_owned(), value)).collect() }
    }

    /// The value of `name`; `None` when it has none on this machine.
    ///
    /// # Errors
    /// When no such name exists: a mistake in a plan.
    pub fn value(&self, name: &str) -> Result<Option<&Value>> {
        match self.values.get(name) {
            Some(value) => Ok(value.as_ref()),
            None => bail!("a plan names {{{{{name}}}}}, which does not exist"),
        }
    }

    /// The values as they stand within texts.
    pub fn texts(&self) -> BTreeMap<String, String> {
        let text = |value: &Value| match value {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        self.values.iter().filter_map(|(name, value)| Some((name.clone(), text(value.as_ref()?)))).collect()
    }

    /// The same values, and `item`; of an item that is a table also `item.KEY`.
    pub fn with_item(&self, item: Value) -> Self {
        let mut context = self.clone();
        for (key, value) in item.as_table().into_iter().flatten() {
            context.values.insert(format!("item.{key}"), Some(value.clone()));
        }
        context.values.insert("item".to_owned(), Some(item));
        context
    }

    /// SHA-256 of all values: what a plan depends on.
    pub fn digest(&self) -> String {
        super::digest(&format!("{:?}", self.values))
    }
}

/// Files of shells that are not login shells; what is not there belongs to a shell that is not installed.
const SHELL_FILES: [&str; 4] = ["/etc/bash.bashrc", "/etc/bashrc", "/etc/zsh/zshrc", "/etc/zshrc"];

fn shell_files(facts: &Facts, options: &Options) -> Vec<&'static str> {
    SHELL_FILES.into_iter().filter(|path| options.change_shells && facts.owner_of(path).is_some()).collect()
}

/// The Nix that is there already, by path and provider.
fn old_nix(facts: &Facts) -> String {
    let version =
        |nix: &crate::facts::NixBinary| nix.version.as_ref().map(ToString::to_string).unwrap_or_default();
    facts
        .nix
        .first()
        .map_or_else(String::new, |nix| format!("{} {} ({})", nix.path.display(), version(nix), nix.provider))
}

/// Where an archive is kept until it is unpacked.
fn archive_file(archive: &Source) -> PathBuf {
    Path::new(paths::STATE_DIR).join("archives").join(format!("{}.archive", archive.sha256))
}

/// Directories that must exist before anything is re-owned, in the order in which they are made.
const STATE_DIRS: [&str; 5] =
    ["/nix/store", "/nix/var", "/nix/var/nix", "/nix/var/nix/daemon-socket", "/nix/var/log"];

/// What the gate's unit grants: two for the id maps; and where the kernel lets nobody else make a user namespace, the one that does.
/// The gate keeps it out of effect until then (`gate/src/namespace/mod.rs`).
fn gate_capabilities(facts: &Facts) -> &'static str {
    match facts.user_namespaces.unprivileged_clone {
        Some(false) => "CAP_SETUID CAP_SETGID CAP_SYS_ADMIN",
        _ => "CAP_SETUID CAP_SETGID",
    }
}

/// What builds for this machine and its 32-bit sibling call the kernel by (systemd.exec(5), `SystemCallArchitectures=`).
fn call_architectures(arch: &str) -> &'static str {
    match arch {
        "x86_64" => "native x86",
        "aarch64" => "native arm",
        _ => "native",
    }
}

/// Variables as words of a shell command.
fn environment_words(environment: &[(String, String)]) -> String {
    let word = |(name, value): &(String, String)| format!("{name}='{}'", value.replace('\'', r"'\''"));
    environment.iter().map(word).collect::<Vec<_>>().join(" ")
}

fn tmpfiles_lines(facts: &Facts, options: &Options) -> String {
    let Options { nix_user, nix_group, .. } = options;
    let mode = |path: &str, default: u32| facts.owner_of(path).map_or(default, |owner| owner.mode);
    let socket_dir = "/nix/var/nix/daemon-socket";
    let socket_group =
        facts.owner_of(socket_dir).map_or("root".to_owned(), |owner| group_name(facts, owner.gid));
    let per_user = ["/nix/var/nix/gcroots/per-user", "/nix/var/nix/profiles/per-user"];
    let mut lines = vec![
        format!("d {socket_dir} {:04o} root {socket_group} - -", mode(socket_dir, 0o755)),
        "d /nix/var/nix/gc-roots-socket 0755 root root - -".to_owned(),
        format!(
            "d /nix/var/nix/builds {:04o} {nix_user} {nix_group} 7d -",
            mode("/nix/var/nix/builds", 0o755)
        ),
    ];
    for path in per_user.iter().filter(|path| facts.owner_of(path).is_some()) {
        lines.push(format!("d {path} {:04o} {nix_user} {nix_group} - -", mode(path, 0o755)));
    }
    lines.join("\n")
}

/// As the old unit says; as the socket is, when it does not say; as systemd makes one, when there is none (systemd.socket(5)).
fn socket_mode(facts: &Facts) -> String {
    let said = facts.unit("nix-daemon.socket").and_then(|unit| unit.socket_mode.clone());
    let is = || facts.owner_of(paths::DAEMON_SOCKET).map(|socket| format!("{:04o}", socket.mode));
    said.or_else(is).unwrap_or_else(|| "0666".to_owned())
}

fn socket_group(facts: &Facts) -> String {
    let said = facts.unit("nix-daemon.socket").and_then(|unit| unit.socket_group.clone());
    let is = || facts.owner_of(paths::DAEMON_SOCKET).map(|socket| group_name(facts, socket.gid));
    said.or_else(is).unwrap_or_else(|| "root".to_owned())
}

fn group_name(facts: &Facts, gid: u32) -> String {
    let local = facts.groups.iter().find(|group| group.gid == gid);
    local.map_or_else(|| gid.to_string(), |group| group.name.clone())
}
