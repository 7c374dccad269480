//! What an archive holds, as the steps after unpacking need it.

use std::collections::BTreeSet;

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use crate::types::StorePath;

/// What an unpacked archive holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contents {
    /// Nix's own store path.
    pub nix: StorePath,
    /// The store path with certificates, in archives that bring one.
    pub certificates: Option<StorePath>,
    /// All store paths.
    pub paths: BTreeSet<StorePath>,
    /// What the database is to know of them, in the form of `nix-store --load-db`.
    pub registration: String,
}

impl Contents {
    /// Checks that the parts of an archive belong together.
    ///
    /// # Errors
    /// When the installer names no Nix, or registration and store do not hold the same paths.
    pub(super) fn new(installer: &str, registration: String, paths: BTreeSet<StorePath>) -> Result<Self> {
        let nix = assigned(installer, "nix")
            .context("the archive's `install` does not say which store path is Nix")?;
        let certificates = assigned(installer, "cacert");
        for path in [Some(&nix), certificates.as_ref()].into_iter().flatten() {
            ensure!(paths.contains(path), "the archive names {path}, which it does not hold");
        }
        let registered = registered(&registration)?;
        if let Some(path) = paths.symmetric_difference(&registered).next() {
            bail!("the archive's registration and its store differ in {path}");
        }
        Ok(Self { nix, certificates, paths, registration })
    }
}

/// The store path of a line `name="/nix/store/..."` of a shell script.
fn assigned(script: &str, name: &str) -> Option<StorePath> {
    let value = script.lines().find_map(|line| line.trim().strip_prefix(name)?.strip_prefix('='))?;
    StorePath::try_from(value.trim().trim_matches('"').to_owned()).ok()
}

/// The paths of a registration: for each path its hash, its size, its deriver, the number of references and the references,
/// one a line (`decodeValidPathInfo` of Nix's `src/libstore/store-api.cc`). References must be among the paths.
fn registered(text: &str) -> Result<BTreeSet<StorePath>> {
    let mut lines = text.lines();
    let mut line = || lines.next().context("the archive's registration ends too early");
    let path = |text: &str| StorePath::try_from(text.to_owned()).map_err(anyhow::Error::msg);
    let (mut paths, mut references) = (BTreeSet::new(), BTreeSet::new());
    while let Ok(first) = line() {
        ensure!(paths.insert(path(first)?), "the archive registers {first} twice");
        let _hash_and_size = (line()?, line()?);
        let _deriver = line()?;
        let count: usize =
            line()?.parse().with_context(|| format!("the registration of {first} has no count"))?;
        for _ in 0..count {
            references.insert(path(line()?)?);
        }
    }
    if let Some(missing) = references.difference(&paths).next() {
        bail!("the archive registers a reference to {missing}, which it does not hold");
    }
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(letter: &str, name: &str) -> StorePath {
        StorePath::from_base_name(&format!("{}-{name}", letter.repeat(32))).unwrap()
    }

    fn entry(path: &StorePath, references: &[&StorePath]) -> String {
        let references: Vec<_> = references.iter().map(ToString::to_string).collect();
        format!("{path}\nsha256:00\n120\n\n{}\n{}\n", references.len(), references.join("\n"))
            .replace("\n\n\n", "\n\n")
            .trim_end()
            .to_owned()
            + "\n"
    }

    #[test]
    fn parts_that_belong_together_make_contents() {
        let (nix, certificates) = (path("a", "nix-2.34.8"), path("b", "nss-cacert-3"));
        let registration = entry(&nix, &[&nix]) + &entry(&certificates, &[]);
        let installer = format!("#!/bin/sh\nset -e\nnix=\"{nix}\"\ncacert={certificates}\n");
        let paths: BTreeSet<_> = [nix.clone(), certificates.clone()].into();
        let contents = Contents::new(&installer, registration.clone(), paths.clone()).unwrap();
        assert_eq!((contents.nix, contents.certificates), (nix.clone(), Some(certificates.clone())));

        let refused = |installer: &str, registration: &str, paths: &BTreeSet<StorePath>| {
            Contents::new(installer, registration.to_owned(), paths.clone()).unwrap_err().to_string()
        };
        assert!(refused("echo", &registration, &paths).contains("does not say"));
        let other = format!("nix={}\n", path("c", "nix-2.34.8"));
        assert!(refused(&other, &registration, &paths).contains("does not hold"));
        let fewer: BTreeSet<_> = [nix.clone()].into();
        assert!(refused(&format!("nix={nix}"), &registration, &fewer).contains("differ"));
        assert!(refused(&installer, &entry(&nix, &[]), &paths).contains("differ"));
        let dangling = entry(&nix, &[&certificates]);
        assert!(refused(&format!("nix={nix}"), &dangling, &fewer).contains("reference"));
        let cut = registration.trim_end().rsplit_once('\n').unwrap().0;
        assert!(refused(&installer, cut, &paths).contains("too early"));
        assert!(refused(&installer, &(registration.clone() + &registration), &paths).contains("twice"));
    }
}
