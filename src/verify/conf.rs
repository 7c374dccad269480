//! What `nix.conf` comes to, read the way Nix does (`parseConfigFiles` of `src/libutil/configuration.cc`).

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;

use super::CheckError;

/// How deep files may include each other.
const DEEPEST: usize = 16;
/// The most that is read of one.
const LARGEST: u64 = 1 << 20;

/// The settings of `files`, a later line before an earlier one. Files that are not there are passed over. The
/// `extra-` form is a name of its own here.
pub(super) fn read(files: &[PathBuf]) -> Result<BTreeMap<String, String>, CheckError> {
    let mut settings = BTreeMap::new();
    for file in files.iter().filter(|file| file.exists()) {
        read_into(&mut settings, file, 0)?;
    }
    Ok(settings)
}

fn read_into(settings: &mut BTreeMap<String, String>, file: &Path, depth: usize) -> Result<(), CheckError> {
    if depth > DEEPEST {
        return Err(CheckError::Other(format!("{}: files include each other too deeply", file.display())));
    }
    for line in text_of(file)?.lines() {
        let words: Vec<_> = line.split('#').next().unwrap_or_default().split_whitespace().collect();
        match words.as_slice() {
            [] => {}
            ["include" | "!include", path] => {
                let path = file.parent().unwrap_or(Path::new("/")).join(path);
                if path.exists() {
                    read_into(settings, &path, depth + 1)?;
                } else if words[0] == "include" {
                    return Err(CheckError::Other(format!(
                        "{} includes {}, which is not there",
                        file.display(),
                        path.display()
                    )));
                }
            }
            [name, "=", value @ ..] => drop(settings.insert((*name).to_owned(), value.join(" "))),
            _ => {
                return Err(CheckError::Other(format!(
                    "{}: Nix cannot read the line {line:?}",
                    file.display()
                )));
            }
        }
    }
    Ok(())
}

fn text_of(file: &Path) -> Result<String, CheckError> {
    let failed = || CheckError::io("cannot read", file);
    let open =
        OpenOptions::new().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(file).map_err(failed())?;
    let mut text = String::new();
    open.take(LARGEST).read_to_string(&mut text).map_err(failed())?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn reads_as_nix_does() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::write(at("a"), "store = auto # no\n\nbuild-users-group =\ninclude b\n!include c\nx = 1  2\n")
            .unwrap();
        fs::write(at("b"), "store = daemon\n").unwrap();
        fs::write(at("user"), "x = 3\n").unwrap();
        let settings = read(&[at("a"), at("user"), at("none")]).unwrap();
        let get = |name: &str| settings.get(name).map(String::as_str);
        assert_eq!((get("store"), get("build-users-group"), get("x")), (Some("daemon"), Some(""), Some("3")));
    }

    #[test]
    fn says_what_is_wrong() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        for (text, expected) in [
            ("include none", "not there"),
            ("include self", "too deeply"),
            ("store daemon", "cannot read the line"),
        ] {
            fs::write(at("self"), text).unwrap();
            let error = read(&[at("self")]).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
