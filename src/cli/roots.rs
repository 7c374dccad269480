//! `roots`: what keeps store paths alive, as the scanner sees it.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use schemars::JsonSchema;
use serde::Serialize;

use super::args::{RootsArgs, Status};
use super::exit::Exit;
use super::runs::lock_of_runs;
use super::{Session, require_root};
use crate::platform::paths;
use crate::report::Document;
use crate::system::command;

/// What the scanner's unit gives it, and nothing else.
const CAPABILITIES: &str = "-all,+dac_read_search,+sys_ptrace";

/// The document of `roots --json`.
#[derive(JsonSchema, Serialize)]
pub struct Roots {
    /// In the order in which the scanner finds them.
    roots: Vec<Root>,
}

impl Document for Roots {
    const KIND: &'static str = "roots";
}

/// The document of `roots --expire PATH --json` and `roots --expire-older-than DAYS --json`.
#[derive(JsonSchema, Serialize)]
pub struct Expired {
    /// How many remembered roots were forgotten.
    forgotten: u64,
}

impl Document for Expired {
    const KIND: &'static str = "roots-expired";
}

/// One place that keeps a store path alive.
#[derive(Debug, JsonSchema, Serialize, PartialEq)]
struct Root {
    /// The store path.
    path: String,
    /// `process`, `kernel`, `link`, `indirect` or `remembered`.
    kind: String,
    /// Of a process.
    pid: Option<u32>,
    /// Uid of the process, or of the link's owner.
    uid: Option<u32>,
    /// The name of that uid.
    user: Option<String>,
    /// Since when it cannot be seen and is only remembered, in seconds since 1970.
    lost_since: Option<u64>,
    /// A file of `/proc`, a link, or two links with an arrow between; hostile characters are escaped.
    place: String,
}

pub fn roots(session: &Session, args: &RootsArgs) -> Result<Exit> {
    require_root("listing roots")?;
    let user = session.options()?.scan_user;
    if let Some(path) = &args.expire {
        let path = path.to_str().context("the path is not UTF-8: give nix-root-scan --forget the bytes")?;
        return expire(session, &user, &["--forget", path]);
    }
    if let Some(days) = args.expire_older_than {
        return expire(session, &user, &["--forget-older-than", &days.to_string()]);
    }
    let text = scanner(&user, CAPABILITIES, &["--roots"])?;
    let roots = text.lines().map(parse).collect::<Option<Vec<_>>>();
    let roots = roots.context("nix-root-scan is of another version than nix-unroot: install both anew")?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
    roots.iter().for_each(|root| session.output.line(&line(root, now)));
    session.output.document(&Roots { roots })?;
    Ok(Exit::Done)
}

fn expire(session: &Session, user: &str, arguments: &[&str]) -> Result<Exit> {
    // Not beside a run that removes what is remembered, or proves that it counts.
    let _lock = match lock_of_runs(session)? {
        Ok(lock) => lock,
        Err(ended) => return ended.finish(session, Status::default()),
    };
    let said = scanner(user, "-all", arguments)?;
    let count = said.trim().strip_suffix(" forgotten").and_then(|count| count.parse::<u64>().ok());
    let count = count.context("nix-root-scan is of another version than nix-unroot: install both anew")?;
    session.output.line(&format!("{count} remembered roots forgotten"));
    session.output.document(&Expired { forgotten: count })?;
    Ok(Exit::Done)
}

/// Runs the scanner as its own user.
fn scanner(user: &str, capabilities: &str, arguments: &[&str]) -> Result<String> {
    if users::get_user_by_name(user).is_none() {
        bail!(
            "there is no user {user:?}: Nix is not run unprivileged by nix-unroot here, see nix-unroot inspect"
        );
    }
    let program = format!("{}/{}", paths::LIBEXEC_DIR, paths::ROOT_SCAN);
    let (inherited, ambient, bounding) = (
        format!("--inh-caps={capabilities}"),
        format!("--ambient-caps={capabilities}"),
        format!("--bounding-set={capabilities}"),
    );
    let mut all = vec!["--reuid", user, "--regid", user, "--clear-groups", "--no-new-privs"];
    all.extend([&inherited, &ambient, &bounding].map(String::as_str));
    all.extend(["--", &program]);
    all.extend(arguments);
    Ok(command::run("setpriv", &all)?)
}

/// A line of `nix-root-scan --roots`.
fn parse(line: &str) -> Option<Root> {
    let fields: Vec<_> = line.split('\t').collect();
    let [path, kind, uid, lost, place] = fields[..] else { return None };
    let uid = if uid == "-" { None } else { Some(uid.parse().ok()?) };
    let pid = (kind == "process").then(|| place.split('/').nth(2)?.parse().ok()).flatten();
    Some(Root {
        path: path.to_owned(),
        kind: kind.to_owned(),
        pid,
        uid,
        user: uid.and_then(users::get_user_by_uid).map(|user| user.name().to_string_lossy().into_owned()),
        lost_since: if lost == "-" { None } else { Some(lost.parse().ok()?) },
        place: place.to_owned(),
    })
}

fn line(root: &Root, now: u64) -> String {
    let owner = match (&root.user, root.uid) {
        (Some(user), _) => user.clone(),
        (None, Some(uid)) => uid.to_string(),
        (None, None) => "-".to_owned(),
    };
    let age = root.lost_since.map_or(String::new(), |time| {
        let hours = now.saturating_sub(time) / 3600;
        format!("  (not seen for {} days {} hours)", hours / 24, hours % 24)
    });
    format!("{:<10} {owner:<12} {}  {}{age}", root.kind, root.path, root.place)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_scanner_writes() {
        let root = parse("/nix/store/a\tremembered\t4000000000\t3600\t/auto/x -> /home/a b/result").unwrap();
        assert_eq!((root.uid, root.lost_since, root.pid), (Some(4_000_000_000), Some(3600), None));
        assert_eq!(
            line(&root, 3600 + 49 * 3600),
            "remembered 4000000000   /nix/store/a  /auto/x -> /home/a b/result  (not seen for 2 days 1 hours)"
        );
        let root = parse("/nix/store/a\tprocess\t0\t-\t/proc/17/fd/3").unwrap();
        assert_eq!((root.pid, root.user.as_deref()), (Some(17), Some("root")));
        for bad in ["", "/nix/store/a\t/proc/1/exe", "a\tlink\tx\t-\tb", "a\tlink\t-\t-\tb\tc"] {
            assert_eq!(parse(bad), None, "{bad:?}");
        }
    }
}
