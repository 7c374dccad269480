//! A configuration file with all that it includes.

use super::failure;
use super::parse::{Line, Setting, parse};
use crate::Result;
use std::ffi::OsStr;
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

/// How deep files may include each other. Nix has no limit, and dies of a file that includes itself.
const MAX_DEPTH: usize = 32;

/// The settings of a file and of those that it includes, in the order in which they apply. A file that does not exist
/// has none.
///
/// # Errors
/// See [`super::load`].
pub fn read(file: &Path) -> Result<Vec<Setting>> {
    let mut settings = Vec::new();
    if let Some(text) = contents(file)? {
        collect(&text, file, 0, &mut settings)?;
    }
    Ok(settings)
}

/// The settings of a text that is not a file's, and of the files that it includes by absolute paths.
///
/// # Errors
/// See [`super::load`].
pub fn expand(text: &[u8], name: &Path) -> Result<Vec<Setting>> {
    let mut settings = Vec::new();
    collect(text, name, 0, &mut settings)?;
    Ok(settings)
}

fn collect(text: &[u8], file: &Path, depth: usize, settings: &mut Vec<Setting>) -> Result<()> {
    let lines = parse(text)
        .map_err(|line| failure(file, format!("line {line} is neither 'name = value' nor an include")))?;
    for line in lines {
        match line {
            Line::Setting(setting) => settings.push(setting),
            Line::Include { path, required } => {
                let included = resolve(file, Path::new(OsStr::from_bytes(&path)))?;
                if depth == MAX_DEPTH {
                    return Err(failure(
                        file,
                        format!("more than {MAX_DEPTH} files include each other; is there a cycle?"),
                    ));
                }
                match contents(&included)? {
                    Some(text) => collect(&text, &included, depth + 1, settings)?,
                    None if required => {
                        let included = included.display();
                        return Err(failure(
                            file,
                            format!("includes {included}, which does not exist; '!include' allows that"),
                        ));
                    }
                    None => {}
                }
            }
        }
    }
    Ok(())
}

/// What a path in `file` means: relative to the file's directory, and with `..` taken off by the text alone, as Nix does it (`canonPath`).
pub(crate) fn resolve(file: &Path, path: &Path) -> Result<PathBuf> {
    let joined = file.parent().unwrap_or(Path::new("")).join(path);
    if !joined.is_absolute() {
        return Err(failure(file, format!("includes {}, which is not an absolute path", path.display())));
    }
    let mut resolved = PathBuf::from("/");
    for component in joined.components() {
        match component {
            Component::Normal(name) => resolved.push(name),
            Component::ParentDir => drop(resolved.pop()),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    Ok(resolved)
}

/// The bytes of a file, or nothing when it does not exist.
fn contents(file: &Path) -> Result<Option<Vec<u8>>> {
    match std::fs::read(file) {
        Ok(text) => Ok(Some(text)),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
        Err(error) => Err(failure(
            file,
            format!(
                "{error}; the daemon's user has to be able to read it, or trust and limits in it would be lost: give it the daemon's group and mode 0640"
            ),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    /// A directory of its own for a test, removed at its end.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            let dir = std::env::temp_dir().join(format!("nix-daemon-gate-{name}-{}", std::process::id()));
            fs::create_dir_all(dir.join("sub")).unwrap();
            Self(dir)
        }

        fn write(&self, name: &str, text: &str) -> PathBuf {
            let file = self.0.join(name);
            fs::write(&file, text).unwrap();
            file
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn names(settings: &[Setting]) -> String {
        settings.iter().map(|s| String::from_utf8_lossy(&s.name).into_owned()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn includes_apply_where_they_stand_and_relative_to_their_file() {
        let dir = Scratch::new("includes");
        dir.write("sub/b", "c = 1\ninclude ../d\ninclude ./../d");
        dir.write("d", "d = 1");
        let top = dir.write("a", "a = 1\ninclude sub/b\n!include missing\n!include d/not-a-directory\ne = 1");
        assert_eq!(names(&read(&top).unwrap()), "a c d d e");
    }

    #[test]
    fn dots_are_taken_off_by_text() {
        let dir = Scratch::new("dots");
        dir.write("x", "x = 1");
        std::os::unix::fs::symlink("/usr/lib", dir.0.join("link")).unwrap();
        let top = dir.write("a", "include link/../x\ninclude nowhere/../x");
        assert_eq!(names(&read(&top).unwrap()), "x x");
        assert_eq!(
            resolve(Path::new("/etc/nix/nix.conf"), Path::new("../../../../a")).unwrap(),
            Path::new("/a")
        );
    }

    #[test]
    fn what_is_missing() {
        let dir = Scratch::new("missing");
        assert_eq!(read(&dir.0.join("nix.conf")).unwrap(), []);
        std::os::unix::fs::symlink("nowhere", dir.0.join("dangling")).unwrap();
        for include in ["missing", "dangling"] {
            let required = dir.write("a", &format!("include {include}"));
            assert!(read(&required).unwrap_err().to_string().contains("does not exist"), "{include}");
            let optional = dir.write("a", &format!("!include {include}"));
            assert_eq!(read(&optional).unwrap(), [], "{include}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_refused_even_when_it_need_not_exist() {
        let dir = Scratch::new("unreadable");
        // A directory cannot be read by anybody, so this holds for root too.
        assert!(read(&dir.0).is_err());
        for include in ["include", "!include"] {
            let top = dir.write("a", &format!("{include} sub"));
            assert!(read(&top).is_err(), "{include}");
        }
    }

    #[test]
    fn a_cycle_and_a_bad_line_below() {
        let dir = Scratch::new("cycle");
        let top = dir.write("a", "include a");
        assert!(read(&top).unwrap_err().to_string().contains("cycle"));
        dir.write("sub/bad", "x = 1\nnonsense");
        let top = dir.write("a", "include sub/bad");
        let failure = read(&top).unwrap_err().to_string();
        assert!(failure.contains("sub/bad: line 2"), "{failure}");
    }

    #[test]
    fn a_text_without_a_file_includes_absolute_paths_only() {
        let dir = Scratch::new("text");
        let file = dir.write("a", "a = 1");
        let text = format!("include {}", file.display());
        assert_eq!(names(&expand(text.as_bytes(), Path::new("NIX_CONFIG")).unwrap()), "a");
        assert!(expand(b"!include a", Path::new("NIX_CONFIG")).is_err());
    }
}
