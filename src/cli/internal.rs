//! What this program runs of itself with another user's rights: `nix-unroot internal-NAME ARGS`. Not for people, and
//! not in `--help`.

use std::ffi::OsString;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use crate::system::own_program;

/// Runs the child that the arguments name; `None` when they name none.
pub fn run(args: &[OsString]) -> Option<ExitCode> {
    let (name, args) = args.split_first()?;
    let code = match (name.to_str()?, args) {
        (own_program::BECOME, [uid, gid, rest @ ..]) => match own_program::become_user(uid, gid) {
            // What is none of these commands is not for another user's rights.
            Ok(()) => return Some(if rest.is_empty() { 0.into() } else { run(rest).unwrap_or(1.into()) }),
            Err(error) => {
                let _ = writeln!(std::io::stderr(), "cannot become the user {}: {error}", uid.display());
                1
            }
        },
        ("internal-check-database", [path]) => match crate::actions::database_child_main(Path::new(path)) {
            Ok(()) => 0,
            Err(error) => {
                let _ = writeln!(std::io::stderr(), "{error:#}");
                1
            }
        },
        (crate::actions::ADDED_PATHS_COMMAND, args) => crate::actions::added_paths_child_main(args),
        (crate::actions::PROFILE_COMMAND, args) => crate::actions::profile_child_main(args),
        (crate::archive::UNPACK_COMMAND, args) => crate::archive::child_main(args),
        (crate::verify::HANDSHAKE_COMMAND, args) => crate::verify::handshake_child_main(args),
        (name, args) => crate::facts::child_main(name, args)?,
    };
    Some(code.into())
}
