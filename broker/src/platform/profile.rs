//! The words of `sandbox-exec(1)`: the profile is a fixed file (`platform/macos/build.sb`), and what differs from build to build are its parameters.

use crate::policy::Build;
use crate::{Result, while_doing};
use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// `sandbox-exec -f FILE -D NAME=VALUE... PROGRAM WORD...`. Values are paths of the broker's own directory and of validated store paths.
///
/// # Errors
/// Never for a path from the command line, which has no NUL.
pub fn words(profile: &Path, store: &Path, build: &Build, dir: &Path) -> Result<Vec<CString>> {
    let mut words: Vec<Vec<u8>> =
        vec![b"sandbox-exec".to_vec(), b"-f".to_vec(), profile.as_os_str().as_bytes().to_vec()];
    let mut define = |name: String, value: &[u8]| {
        words.push(b"-D".to_vec());
        words.push([name.as_bytes(), b"=", value].concat());
    };
    define("BUILD".to_owned(), dir.as_os_str().as_bytes());
    for (number, output) in build.outputs.iter().enumerate() {
        define(format!("OUT_{number}"), store.join(output.as_path()).as_os_str().as_bytes());
    }
    if build.network {
        define("NETWORK".to_owned(), b"yes");
    }
    words.push(build.builder.as_bytes().to_vec());
    let mut words: Vec<CString> = words
        .into_iter()
        .map(CString::new)
        .collect::<std::result::Result<_, _>>()
        .map_err(while_doing("use a path"))?;
    // sandbox-exec calls the program by its path; its own name cannot be given.
    words.extend(build.argv.iter().skip(1).cloned());
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{MOST_OUTPUTS, StoreName};

    const OUT: &str = "0123456789abcdfghijklmnpqrsvwxyz-out";

    #[test]
    fn the_words() {
        let build = Build {
            builder: c"/nix/store/x/bin/sh".to_owned(),
            argv: vec![c"sh".to_owned(), c"-e".to_owned()],
            env: vec![],
            inputs: Default::default(),
            outputs: vec![StoreName::new(OUT.as_bytes()).unwrap()],
            files: vec![],
            network: true,
        };
        let words =
            words(Path::new("/p.sb"), Path::new("/nix/store"), &build, Path::new("/w/7/build")).unwrap();
        let words: Vec<_> = words.iter().map(|word| word.to_str().unwrap()).collect();
        let out = format!("OUT_0=/nix/store/{OUT}");
        assert_eq!(
            words,
            [
                "sandbox-exec",
                "-f",
                "/p.sb",
                "-D",
                "BUILD=/w/7/build",
                "-D",
                &out,
                "-D",
                "NETWORK=yes",
                "/nix/store/x/bin/sh",
                "-e"
            ]
        );
    }

    /// The profile has a place for each output that the policy takes, and no other parameters.
    #[test]
    fn the_profile_has_these_parameters() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../platform/macos/build.sb");
        let text = std::fs::read_to_string(file).unwrap();
        let rules: String = text.lines().filter(|line| !line.trim_start().starts_with(';')).collect();
        let mut found: Vec<_> =
            rules.split("(param \"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
        found.sort_unstable();
        found.dedup();
        let mut expected: Vec<_> = (0..MOST_OUTPUTS).map(|number| format!("OUT_{number}")).collect();
        expected.extend(["BUILD".to_owned(), "NETWORK".to_owned()]);
        expected.sort_unstable();
        assert_eq!(found, expected);
        assert_eq!(rules.matches('(').count(), rules.matches(')').count());
    }
}
