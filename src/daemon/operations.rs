//! The operations, one method each. Numbers are those of `WorkerProto::Op`.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use super::{Connection, DaemonError, Derivation};
use crate::system::text::printable;
use crate::types::StorePath;

/// Operation codes.
mod op {
    pub(super) const IS_VALID_PATH: u64 = 1;
    pub(super) const ADD_TO_STORE: u64 = 7;
    pub(super) const ADD_TEMP_ROOT: u64 = 11;
    pub(super) const ADD_INDIRECT_ROOT: u64 = 12;
    pub(super) const FIND_ROOTS: u64 = 14;
    pub(super) const SET_OPTIONS: u64 = 19;
    pub(super) const COLLECT_GARBAGE: u64 = 20;
    pub(super) const BUILD_DERIVATION: u64 = 36;
}

/// `gcDeleteSpecific` of `GCOptions::GCAction`.
const DELETE_SPECIFIC: u64 = 3;
/// How long a question about one path may take.
const SHORT: Duration = Duration::from_secs(60);
/// How long a build or a collection may take: either may wait for a lock that another one holds.
const LONG: Duration = Duration::from_secs(900);
/// Since this protocol a build's result tells its CPU time.
const CPU_TIMES_SINCE: u64 = 37;

/// How a build ended (`src/libstore/common-protocol.cc`, `buildResultStatusTable`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BuildStatus {
    /// The builder ran and succeeded.
    Built,
    /// The output was there already, or came from elsewhere.
    NotBuilt,
    /// It failed.
    Failed,
}

/// A build's result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BuildResult {
    /// How it ended.
    pub status: BuildStatus,
    /// Why it failed, in the daemon's words, made printable; empty otherwise.
    pub message: String,
}

/// One thing that keeps a store path alive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Root {
    /// The link, or a word in braces: `{censored}`, `{temp:PID}`. Made printable.
    pub link: String,
    /// Whether it is only the temporary root of a connection.
    pub temporary: bool,
}

impl Connection {
    /// Sets what the daemon does for this connection: builds here and one at a time, no substitutes, nothing said but
    /// errors; and single settings on top, which only a trusted client may set.
    ///
    /// # Errors
    /// When the daemon says no or the connection fails, as for every operation.
    pub fn set_options(&mut self, overrides: &[(&str, &str)]) -> Result<(), DaemonError> {
        self.begin("setting options", SHORT, op::SET_OPTIONS);
        // keep-failed, keep-going, fallback, verbosity, max-jobs, max-silent-time; build hook (obsolete), log level of
        // builds, two obsolete; cores, substitutes
        for number in [0, 0, 0, 0, 1, 0, 1, 3, 0, 0, 0, 0] {
            self.wire.put(number);
        }
        self.wire.put(overrides.len() as u64);
        for (name, value) in overrides {
            self.wire.put_bytes(name.as_bytes()).put_bytes(value.as_bytes());
        }
        self.wire.flush()?;
        self.until_answer()
    }

    /// Adds a regular file, addressed by its content; the daemon keeps it alive while this connection lasts.
    ///
    /// # Errors
    /// As for every operation.
    pub fn add_file(
        &mut self,
        name: &str,
        contents: &[u8],
        executable: bool,
    ) -> Result<StorePath, DaemonError> {
        self.begin("adding a file to the store", SHORT, op::ADD_TO_STORE);
        self.wire.put_bytes(name.as_bytes()).put_bytes(b"fixed:r:sha256").put(0).put(0);
        for frame in archive(contents, executable).chunks(64 << 10) {
            self.wire.put(frame.len() as u64).put_raw(frame);
        }
        self.wire.put(0).flush()?;
        self.until_answer()?;
        let path = self.store_path()?;
        // deriver, hash; references; time, size, whether it was built here; signatures; content address
        self.wire.bytes()?;
        self.wire.bytes()?;
        self.skip_strings()?;
        for _ in 0..3 {
            self.wire.number()?;
        }
        self.skip_strings()?;
        self.wire.bytes()?;
        Ok(path)
    }

    /// Builds `derivation`. Only a trusted client may ask for an input-addressed build this way.
    ///
    /// # Errors
    /// As for every operation. A build that fails is no error here but a [`BuildStatus::Failed`].
    pub fn build(&mut self, derivation: &Derivation) -> Result<BuildResult, DaemonError> {
        self.begin("building", LONG, op::BUILD_DERIVATION);
        self.wire.put_bytes(derivation.path.to_string().as_bytes());
        derivation.put(&mut self.wire);
        // The normal mode: neither repair nor check.
        self.wire.put(0).flush()?;
        self.until_answer()?;
        let status = match self.wire.number()? {
            0 => BuildStatus::Built,
            1 | 2 | 13 => BuildStatus::NotBuilt,
            3..=12 | 14 => BuildStatus::Failed,
            other => return Err(self.wire.nonsense(format!("{other} as a build's status"))),
        };
        let message = printable(&self.wire.text()?);
        // times built, whether it is nondeterministic, start, stop; user and system time, each optional; outputs
        for _ in 0..4 {
            self.wire.number()?;
        }
        if self.minor >= CPU_TIMES_SINCE {
            for _ in 0..2 {
                if self.wire.flag()? {
                    self.wire.number()?;
                }
            }
        }
        for _ in 0..self.wire.count()? {
            self.wire.bytes()?;
            self.wire.bytes()?;
        }
        Ok(BuildResult { status, message })
    }

    /// Whether the store holds `path`.
    ///
    /// # Errors
    /// As for every operation.
    pub fn is_valid(&mut self, path: &StorePath) -> Result<bool, DaemonError> {
        self.begin("asking for a path", SHORT, op::IS_VALID_PATH);
        self.wire.put_bytes(path.to_string().as_bytes()).flush()?;
        self.until_answer()?;
        self.wire.flag()
    }

    /// Keeps `path` alive while this connection lasts.
    ///
    /// # Errors
    /// As for every operation.
    pub fn add_temporary_root(&mut self, path: &StorePath) -> Result<(), DaemonError> {
        self.begin("adding a temporary root", SHORT, op::ADD_TEMP_ROOT);
        self.wire.put_bytes(path.to_string().as_bytes()).flush()?;
        self.until_answer()?;
        self.wire.number().map(drop)
    }

    /// Registers `link`, a symlink to a store path somewhere outside the store, as a root.
    ///
    /// # Errors
    /// As for every operation.
    pub fn add_indirect_root(&mut self, link: &Path) -> Result<(), DaemonError> {
        self.begin("adding an indirect root", SHORT, op::ADD_INDIRECT_ROOT);
        self.wire.put_bytes(link.as_os_str().as_bytes()).flush()?;
        self.until_answer()?;
        self.wire.number().map(drop)
    }

    /// What keeps each of `paths` alive by itself, in the order of `paths`. The daemon lists every root it has.
    ///
    /// # Errors
    /// As for every operation.
    pub fn roots_of(&mut self, paths: &[StorePath]) -> Result<Vec<Vec<Root>>, DaemonError> {
        self.begin("listing the roots", LONG, op::FIND_ROOTS);
        self.wire.flush()?;
        self.until_answer()?;
        let mut roots = vec![Vec::new(); paths.len()];
        for _ in 0..self.wire.count()? {
            let link = self.wire.text()?;
            let target = self.wire.text()?;
            for (path, roots) in paths.iter().zip(&mut roots) {
                if path.to_string() == target {
                    roots.push(Root { temporary: link.starts_with("{temp:"), link: printable(&link) });
                }
            }
        }
        Ok(roots)
    }

    /// Deletes exactly `paths`, none of which may be alive.
    ///
    /// # Errors
    /// As for every operation; [`DaemonError::Refused`] when one of them is alive, and then those before it in the
    /// daemon's order are gone.
    pub fn delete(&mut self, paths: &[StorePath]) -> Result<(), DaemonError> {
        self.begin("deleting paths", LONG, op::COLLECT_GARBAGE);
        self.wire.put(DELETE_SPECIFIC).put(paths.len() as u64);
        for path in paths {
            self.wire.put_bytes(path.to_string().as_bytes());
        }
        // liveness counts; no limit of bytes; three obsolete fields
        self.wire.put(0).put(u64::MAX).put(0).put(0).put(0).flush()?;
        self.until_answer()?;
        self.skip_strings()?;
        self.wire.number()?;
        self.wire.number().map(drop)
    }

    fn begin(&mut self, operation: &'static str, limit: Duration, code: u64) {
        self.wire.begin(operation, limit);
        self.wire.put(code);
    }

    fn store_path(&mut self) -> Result<StorePath, DaemonError> {
        let text = self.wire.text()?;
        StorePath::try_from(text).map_err(|reason| self.wire.nonsense(printable(&reason)))
    }

    fn skip_strings(&mut self) -> Result<(), DaemonError> {
        for _ in 0..self.wire.count()? {
            self.wire.bytes()?;
        }
        Ok(())
    }
}

/// One regular file as a Nix archive (`src/libutil/archive.cc`).
fn archive(contents: &[u8], executable: bool) -> Vec<u8> {
    let mut archive = Vec::with_capacity(contents.len() + 256);
    let mut put = |bytes: &[u8]| {
        archive.extend((bytes.len() as u64).to_le_bytes());
        archive.extend_from_slice(bytes);
        archive.resize(archive.len().next_multiple_of(8), 0);
    };
    for word in ["nix-archive-1", "(", "type", "regular"] {
        put(word.as_bytes());
    }
    if executable {
        put(b"executable");
        put(b"");
    }
    put(b"contents");
    put(contents);
    put(b")");
    archive
}

#[cfg(test)]
mod tests {
    use super::super::connection::message::LAST;
    use super::super::scripted::{Script, converse};
    use super::*;

    const HASH: &str = "0123456789abcdfghijklmnpqrsvwxyz";

    fn path(name: &str) -> StorePath {
        StorePath::from_base_name(&format!("{HASH}-{name}")).unwrap()
    }

    /// Runs `client` after a handshake; its result, and what it sent after that.
    fn after_greeting<T>(
        minor: u8,
        answer: Script,
        client: impl FnOnce(&mut Connection) -> T,
    ) -> (T, Vec<u8>) {
        let (result, sent) = converse(Script::greeting(minor, 1).then(answer), |stream| {
            client(&mut Connection::over(stream).unwrap())
        });
        (result, sent[if minor >= 38 { 40 } else { 32 }..].to_vec())
    }

    #[test]
    fn adds_a_file_as_a_framed_archive() {
        let answer = |name: &str| {
            Script::new()
                .number(LAST)
                .text(name)
                .text("")
                .text("hash")
                .number(0)
                .number(1)
                .number(2)
                .number(1)
                .number(1)
                .text("sig")
                .text("fixed:r:sha256:x")
        };
        let (added, sent) =
            after_greeting(38, answer(&path("f").to_string()), |daemon| daemon.add_file("f", b"hello", true));
        assert_eq!(added.unwrap(), path("f"));
        let archive = archive(b"hello", true);
        let expected = Script::new()
            .number(op::ADD_TO_STORE)
            .text("f")
            .text("fixed:r:sha256")
            .number(0)
            .number(0)
            .number(archive.len() as u64)
            .raw(&archive)
            .number(0);
        assert_eq!(sent, expected.into_bytes());
        let (added, _) = after_greeting(38, answer("/nix/store/../../etc/shadow"), |daemon| {
            daemon.add_file("f", b"", true)
        });
        assert!(added.unwrap_err().to_string().contains("is not a store path"));
    }

    #[test]
    fn a_build_result_is_read_to_its_end_in_every_protocol() {
        let derivation = Derivation {
            path: path("b.drv"),
            output: path("b"),
            inputs: vec![path("i")],
            system: "s".into(),
            builder: "/b".into(),
            environment: vec![("out".into(), path("b").to_string())],
        };
        for (minor, status, expected) in
            [(35, 0, BuildStatus::Built), (38, 2, BuildStatus::NotBuilt), (38, 9, BuildStatus::Failed)]
        {
            let answer = Script::new()
                .number(LAST)
                .number(status)
                .text("why\x07")
                .number(1)
                .number(0)
                .number(5)
                .number(6);
            let answer = if minor >= 37 { answer.number(1).number(9).number(0) } else { answer };
            let answer = answer.number(1).text("sha256:x!out").text("{}").number(LAST).number(1);
            // The question that follows shows that nothing of the result was left over.
            let (result, sent) = after_greeting(minor, answer, |daemon| {
                (daemon.build(&derivation).unwrap(), daemon.is_valid(&path("b")).unwrap())
            });
            assert_eq!(result, (BuildResult { status: expected, message: "why?".to_owned() }, true));
            let expected = Script::new()
                .number(op::BUILD_DERIVATION)
                .text(&path("b.drv").to_string())
                .number(1)
                .text("out")
                .text(&path("b").to_string())
                .text("")
                .text("")
                .number(1)
                .text(&path("i").to_string())
                .text("s")
                .text("/b")
                .number(0)
                .number(1)
                .text("out")
                .text(&path("b").to_string())
                .number(0)
                .number(op::IS_VALID_PATH)
                .text(&path("b").to_string());
            assert_eq!(sent, expected.into_bytes());
        }
    }

    #[test]
    fn roots_are_told_apart_and_only_those_asked_for_are_kept() {
        let answer = Script::new()
            .number(LAST)
            .number(4)
            .text("{temp:7}")
            .text(&path("a").to_string())
            .text("{censored}")
            .text(&path("a").to_string())
            .text("/home/x/\x1bresult")
            .text(&path("b").to_string())
            .text("/other")
            .text(&path("c").to_string());
        let (roots, _) =
            after_greeting(38, answer, |daemon| daemon.roots_of(&[path("b"), path("a")]).unwrap());
        let root = |link: &str, temporary| Root { link: link.to_owned(), temporary };
        assert_eq!(
            roots,
            [vec![root("/home/x/result", false)], vec![root("{temp:7}", true), root("{censored}", false)]]
        );
        let (roots, _) = after_greeting(38, Script::new().number(LAST).number(u64::MAX / 16), |daemon| {
            daemon.roots_of(&[])
        });
        assert!(matches!(roots, Err(DaemonError::Protocol { .. })));
    }

    #[test]
    fn a_path_that_is_alive_is_refused_in_the_daemons_words() {
        let (result, sent) =
            after_greeting(38, Script::new().error("still alive"), |daemon| daemon.delete(&[path("a")]));
        assert!(matches!(result, Err(DaemonError::Refused { message, .. }) if message == "still alive"));
        let expected = Script::new()
            .number(op::COLLECT_GARBAGE)
            .number(3)
            .number(1)
            .text(&path("a").to_string())
            .number(0)
            .number(u64::MAX)
            .number(0)
            .number(0)
            .number(0);
        assert_eq!(sent, expected.into_bytes());
        let answer = Script::new().number(LAST).number(1).text(&path("a").to_string()).number(10).number(0);
        after_greeting(38, answer, |daemon| daemon.delete(&[path("a")])).0.unwrap();
    }
}
