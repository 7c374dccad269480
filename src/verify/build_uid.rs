//! A real build, and who it was.

use super::build_report::BuildReport;
use super::daemon_uid::server_of;
use super::leftovers::{Leftovers, unique};
use super::process::{Process, own_namespace};
use super::sweep::NAME;
use super::{CheckError, Outcome, Target};
use crate::daemon::{BuildStatus, Connection, Derivation};
use crate::facts::macos;
use crate::system::checkpoint;
use crate::types::StorePath;

/// The program that is built with: static, so it needs nothing of the host.
pub(super) const BUILDER: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/verify-builder"));

/// Nothing may be left of the build, and nothing but the build may happen: no log, no other machine, no hook that
/// uploads what was built. Whether it is sandboxed is left to the machine.
const OPTIONS: [(&str, &str); 4] =
    [("keep-build-log", "false"), ("builders", ""), ("post-build-hook", ""), ("timeout", "300")];
/// Namespaces that a sandboxed build has of its own.
const NAMESPACES: [&str; 5] = ["ipc", "mnt", "net", "pid", "uts"];
const REMEDY: &str = "builds need auto-allocate-uids (with its experimental feature enabled first), an empty build-users-group, \
                      sandbox = true, and the nix user's range in /etc/subuid and /etc/subgid";

pub(super) fn check(target: &Target) -> Result<Outcome, CheckError> {
    let mut leftovers = Leftovers::new(&target.socket)?;
    let seen = build(target, &mut leftovers);
    // An error of the build comes first; then dropping cleans up.
    let outcome = seen?;
    leftovers.remove()?;
    Ok(outcome)
}

fn build(target: &Target, leftovers: &mut Leftovers) -> Result<Outcome, CheckError> {
    let mut connection = Connection::open(&target.socket)?;
    let server = server_of(&connection)?;
    match run(&mut connection, BUILDER, leftovers)? {
        Ok(report) => judge(target, &server, &report),
        Err(reason) => Ok(Outcome::failed(reason, REMEDY)),
    }
}

/// Builds with this program, which is added to the store first; its report, or why there is none.
pub(super) fn run(
    connection: &mut Connection,
    program: &[u8],
    leftovers: &mut Leftovers,
) -> Result<Result<BuildReport, String>, CheckError> {
    connection.set_options(&OPTIONS)?;
    let unique = unique()?;
    let builder = connection.add_file(&format!("{NAME}{unique}"), program, true)?;
    checkpoint::inside("path-added");
    leftovers.push(builder.clone());
    let output = path_named(&unique, "out")?;
    let derivation = Derivation {
        path: path_named(&unique, "build.drv")?,
        output: output.clone(),
        inputs: vec![builder.clone()],
        system: system(),
        builder: builder.to_string(),
        environment: vec![("out".to_owned(), output.to_string())],
    };
    leftovers.push(output.clone());
    // A build that fails leaves its lock.
    leftovers.push(path_named(&unique, "out.lock")?);
    let result = connection.build(&derivation)?;
    checkpoint::inside("built");
    if result.status != BuildStatus::Built {
        // No log is kept, so Nix's hint where to find it is left out.
        let reason = result.message.split("For full logs").next().unwrap_or_default().split_whitespace();
        let reason = reason.collect::<Vec<_>>().join(" ");
        return Ok(Err(format!("the build did not succeed: {reason}")));
    }
    // The connection is open still, and keeps the output alive against a collection that runs now.
    BuildReport::read(&output.to_path()).map(Ok)
}

fn judge(target: &Target, server: &Process, report: &BuildReport) -> Result<Outcome, CheckError> {
    // The build saw its map with the daemon's ids outside; the daemon's map, as we see it, has the host's.
    let outer = |id: Option<u32>, map: &str| -> Result<Option<u32>, CheckError> {
        let inner = id.and_then(|id| report.id_map(map)?.outside(id));
        let daemon = server.id_map(map)?;
        Ok(inner.and_then(|id| daemon.outside(id)))
    };
    let (uid, gid) = (outer(report.uid(), "uid_map")?, outer(report.gid(), "gid_map")?);
    let mut complaints = Vec::new();
    for (what, id, range) in [("uid", uid, target.uids), ("gid", gid, target.gids)] {
        match id {
            Some(id) if range.contains(id) && id != target.nix_uid => {}
            Some(id) => {
                complaints.push(format!(
                    "the build ran with {what} {id}, outside of {} to {}",
                    range.start,
                    range.last()
                ));
            }
            None => complaints.push(format!("the build's {what} cannot be told")),
        }
    }
    for kind in NAMESPACES {
        let its = report.namespace(kind);
        if its.is_none()
            || its == Some(own_namespace(kind)?.as_str())
            || its == Some(server.namespace(kind)?.as_str())
        {
            complaints.push(format!("the build had no {kind} namespace of its own: it was not sandboxed"));
        }
    }
    complaints.extend(report.sees().map(|path| format!("the build could see {path}")));
    if report.owner != target.nix_uid {
        complaints.push(format!("its output belongs to uid {}, not {}", report.owner, target.nix_uid));
    }
    let number = |id: Option<u32>| id.map_or_else(|| "unknown".to_owned(), |id| id.to_string());
    let seen = format!(
        "a sandboxed build ran with uid {} and gid {}; nothing of it is left",
        number(uid),
        number(gid)
    );
    Ok(Outcome::unless(&complaints, seen, REMEDY))
}

/// A store path that nobody has: its hash is no hash of anything. Hexadecimal digits are digits of Nix's base-32, except e.
fn path_named(unique: &str, name: &str) -> Result<StorePath, CheckError> {
    let hash = unique.replace('e', "z").repeat(2);
    StorePath::from_base_name(&format!("{hash}-{NAME}{name}"))
        .ok_or_else(|| CheckError::Other(format!("{unique:?} makes no store path")))
}

/// Nix's name of this machine.
fn system() -> String {
    let arch = match std::env::consts::ARCH {
        "x86" => "i686",
        "arm" => "armv7l",
        other => other,
    };
    let os = if macos::is_here() { "darwin" } else { std::env::consts::OS };
    format!("{arch}-{os}")
}
