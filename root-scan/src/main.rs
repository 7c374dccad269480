//! `nix-root-scan`: the thin command line. See the library.

use std::fmt::Display;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use nix_root_scan::activation::{self, NoSocket};
use nix_root_scan::doubt::printable;
use nix_root_scan::memory::{Memory, Remembered};
use nix_root_scan::roots::{Place, Roots};
use nix_root_scan::scan::{self, Places};
use nix_root_scan::store_path::StorePath;
use nix_root_scan::{helper, list};

const USAGE: &str = "\
Tells an unprivileged Nix daemon which store paths are alive.

Usage:
  nix-root-scan                             as a systemd service (nix-root-scan.socket)
  nix-root-scan --print                     list every live store path and where it was seen
  nix-root-scan --roots                     the same with kind, owner's uid, and since when it is only remembered
  nix-root-scan --list-remembered           list the roots that are remembered
  nix-root-scan --forget PATH               forget those of this link (either of the two)
  nix-root-scan --forget-older-than DAYS    forget those that could not be seen for so long

  --state-dir DIR     Nix's state directory [/nix/var/nix]
  --memory DIR        where roots are remembered [/var/lib/nix-root-scan]

--print and --roots need root, or CAP_DAC_READ_SEARCH and CAP_SYS_PTRACE. To forget, run as the user nix-root-scan:
nix-unroot roots does.

Exit status: 0 done; 1 something could not be seen, so a live path may be missing; 2 usage.
";
/// How long the service waits for another client.
const IDLE: Duration = Duration::from_secs(60);

/// What to do.
enum Task {
    Serve,
    Print,
    Roots,
    ListRemembered,
    Forget(PathBuf),
    ForgetOlder(u64),
}

fn main() -> ExitCode {
    let mut places = Places::default();
    let mut task = Task::Serve;
    let mut arguments = std::env::args_os().skip(1);
    while let Some(argument) = arguments.next() {
        let mut absolute = || arguments.next().map(PathBuf::from).filter(|path| path.is_absolute());
        match argument.as_bytes() {
            b"--print" => task = Task::Print,
            b"--roots" => task = Task::Roots,
            b"--list-remembered" => task = Task::ListRemembered,
            b"--forget" => match absolute() {
                Some(path) => task = Task::Forget(path),
                None => return usage("--forget needs an absolute path"),
            },
            b"--forget-older-than" => match arguments.next().and_then(|days| days.to_str()?.parse().ok()) {
                Some(days) => task = Task::ForgetOlder(days),
                None => return usage("--forget-older-than needs a number of days"),
            },
            b"--state-dir" => match absolute() {
                Some(directory) => places.state_dir = directory,
                None => return usage("--state-dir needs an absolute path"),
            },
            b"--memory" => match absolute() {
                Some(directory) => places.memory = directory,
                None => return usage("--memory needs an absolute path"),
            },
            // Not for people: see the library's `helper`.
            text if text == helper::ARGUMENT.as_bytes() => match absolute() {
                Some(proc) => return helper::run(&proc),
                None => return usage("--look is for this program itself"),
            },
            b"--help" | b"-h" => {
                // A closed pipe is no failure of ours.
                let _ = io::stdout().write_all(USAGE.as_bytes());
                return ExitCode::SUCCESS;
            }
            _ => return usage(&format!("unknown argument {}", printable(argument.as_ref()))),
        }
    }
    match task {
        Task::Serve => serve(&places),
        Task::Print => print(&places, list::short),
        Task::Roots => print(&places, |path, place| list::long(path, place, &places.proc)),
        Task::ListRemembered => match Memory::read(&places.memory) {
            Ok(memory) => written(write_lines(list::remembered(&memory))),
            Err(doubt) => failed(&doubt),
        },
        Task::Forget(path) => forget(&places, |link, root| link == path || root.target == path),
        Task::ForgetOlder(days) => {
            let now =
                SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |time| time.as_secs());
            let limit = now.saturating_sub(days.saturating_mul(24 * 60 * 60));
            forget(&places, |_, root| root.lost.is_some_and(|time| time <= limit))
        }
    }
}

fn serve(places: &Places) -> ExitCode {
    match activation::listener() {
        Ok(listener) => match activation::serve(&listener, places, IDLE) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => failed(&format!("the socket failed: {error}")),
        },
        Err(NoSocket::NotActivated) => usage("no socket was passed: this is started by nix-root-scan.socket"),
        Err(NoSocket::Wrong(why)) => failed(&why),
        #[cfg(target_os = "macos")]
        Err(NoSocket::Failed(why)) => failed(&why),
    }
}

/// One line for each path and place. Changes nothing that is remembered.
fn print(places: &Places, line: impl Fn(&StorePath, &Place) -> String) -> ExitCode {
    let mut roots = Roots::with_places();
    let scanned =
        Memory::read(&places.memory).and_then(|mut memory| scan::everything(places, &mut memory, &mut roots));
    let out = write_lines(roots.places().map(|(path, place)| line(path, place)));
    match scanned {
        Err(doubt) => failed(&format!("this list is not complete: {doubt}")),
        Ok(()) => written(out),
    }
}

fn forget(places: &Places, which: impl FnMut(&Path, &Remembered) -> bool) -> ExitCode {
    let forgotten = Memory::open(&places.memory).and_then(|mut memory| {
        let count = memory.forget(which);
        memory.save().map(|()| count)
    });
    match forgotten {
        Ok(count) => written(write_lines([format!("{count} forgotten")].into_iter())),
        Err(doubt) => failed(&doubt),
    }
}

fn write_lines(mut lines: impl Iterator<Item = String>) -> io::Result<()> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    lines.try_for_each(|line| writeln!(out, "{line}")).and_then(|()| out.flush())
}

fn written(result: io::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&format!("cannot write the list: {error}")),
    }
}

fn failed(why: &impl Display) -> ExitCode {
    eprintln!("nix-root-scan: {why}");
    ExitCode::FAILURE
}

fn usage(problem: &str) -> ExitCode {
    eprint!("nix-root-scan: {problem}\n\n{USAGE}");
    ExitCode::from(2)
}
