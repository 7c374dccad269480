//! Which package of the distribution owns a file: dpkg's and pacman's databases are text, rpm answers for itself.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::machine::As;
use super::reader::Reader;

/// A package.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Package {
    /// `dpkg`, `rpm` or `pacman`.
    pub manager: &'static str,
    pub name: String,
    /// With the distribution's own revision.
    pub version: String,
}

impl Package {
    /// The version without epoch and distribution's revision: `1:2.34.8+dfsg-1` is `2.34.8`.
    pub fn upstream_version(&self) -> &str {
        let version = self.version.split_once(':').map_or(self.version.as_str(), |(_, rest)| rest);
        version.split(['-', '+', '~']).next().unwrap_or(version)
    }

    /// The distribution whose packages these are, as far as the manager tells.
    pub fn distribution(&self) -> &'static str {
        match self.manager {
            "dpkg" => "debian",
            "rpm" => "fedora",
            _ => "arch",
        }
    }
}

/// Owners of those `paths` that belong to a package. Files below `/nix` belong to none.
pub(crate) fn owners(reader: &Reader<'_>, paths: &[PathBuf]) -> BTreeMap<PathBuf, Package> {
    let wanted: BTreeMap<PathBuf, &PathBuf> = paths
        .iter()
        .filter(|path| !path.starts_with("/nix"))
        .flat_map(|path| [(path.clone(), path), (other_name(path), path)])
        .collect();
    if wanted.is_empty() {
        return BTreeMap::new();
    }
    let mut found = dpkg(reader, &wanted);
    found.extend(pacman(reader, &wanted));
    found.extend(rpm(reader, paths));
    found
}

/// A merged `/usr` makes `/lib/x` and `/usr/lib/x` one file, of which the database knows one name.
fn other_name(path: &Path) -> PathBuf {
    match path.strip_prefix("/usr") {
        Ok(below) => Path::new("/").join(below),
        Err(_) => Path::new("/usr").join(path.strip_prefix("/").unwrap_or(path)),
    }
}

/// `/var/lib/dpkg/info/PACKAGE[:ARCH].list` has a path a line; `/var/lib/dpkg/status` the versions.
fn dpkg(reader: &Reader<'_>, wanted: &BTreeMap<PathBuf, &PathBuf>) -> BTreeMap<PathBuf, Package> {
    let lists = reader.list("/var/lib/dpkg/info");
    let lists = lists.iter().filter(|path| path.extension().is_some_and(|extension| extension == "list"));
    let mut names = BTreeMap::new();
    for list in lists {
        let stem = list.file_stem().unwrap_or_default().to_string_lossy();
        let name = stem.split(':').next().unwrap_or_default();
        let text = reader.text(list).unwrap_or_default();
        for path in text.lines().filter_map(|line| wanted.get(Path::new(line))) {
            names.insert((*path).clone(), name.to_owned());
        }
    }
    if names.is_empty() {
        return BTreeMap::new();
    }
    let versions = dpkg_versions(&reader.text("/var/lib/dpkg/status").unwrap_or_default());
    let package = |name: String| {
        let version = versions.get(&name)?.clone();
        Some(Package { manager: "dpkg", name, version })
    };
    names.into_iter().filter_map(|(path, name)| Some((path, package(name)?))).collect()
}

/// Versions of what is installed. A removed package keeps its stanza, with another `Status:`.
fn dpkg_versions(status: &str) -> BTreeMap<String, String> {
    let stanza = |stanza: &str| {
        let field = |key| stanza.lines().find_map(|line| line.strip_prefix(key)).map(str::trim);
        let installed = field("Status:")?.ends_with(" installed");
        installed.then_some((field("Package:")?.to_owned(), field("Version:")?.to_owned()))
    };
    status.split("\n\n").filter_map(stanza).collect()
}

/// `/var/lib/pacman/local/NAME-VERSION-RELEASE/files` has a path a line, without the leading slash.
fn pacman(reader: &Reader<'_>, wanted: &BTreeMap<PathBuf, &PathBuf>) -> BTreeMap<PathBuf, Package> {
    let mut found = BTreeMap::new();
    for directory in reader.list("/var/lib/pacman/local") {
        let full = directory.file_name().unwrap_or_default().to_string_lossy();
        let mut parts = full.rsplitn(3, '-');
        let (Some(release), Some(version), Some(name)) = (parts.next(), parts.next(), parts.next()) else {
            continue;
        };
        let files = reader.text(directory.join("files")).unwrap_or_default();
        for path in files.lines().filter_map(|line| wanted.get(&Path::new("/").join(line))) {
            let version = format!("{version}-{release}");
            found.insert((*path).clone(), Package { manager: "pacman", name: name.to_owned(), version });
        }
    }
    found
}

/// rpm's database is not text. It is asked as `nobody`, because as root even a query may write lock files.
fn rpm(reader: &Reader<'_>, paths: &[PathBuf]) -> BTreeMap<PathBuf, Package> {
    let here = ["/usr/lib/sysimage/rpm", "/var/lib/rpm"].iter().any(|path| reader.machine.exists(path));
    let known =
        here && reader.machine.list(Path::new("/var/lib/dpkg/info")).is_ok_and(|names| names.is_empty());
    let ask = |path: &PathBuf| {
        let file = path.to_string_lossy();
        let args = ["-qf", "--queryformat", "%{NAME} %{VERSION}-%{RELEASE}\\n", &file];
        let said = reader.machine.run(As::Nobody, "rpm", &args).ok()?;
        let (name, version) = said.lines().next()?.split_once(' ')?;
        Some((path.clone(), Package { manager: "rpm", name: name.to_owned(), version: version.to_owned() }))
    };
    let outside = paths.iter().filter(|path| !path.starts_with("/nix"));
    if known { outside.filter_map(ask).collect() } else { BTreeMap::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_lose_what_a_distribution_adds() {
        let rows = [
            ("2.34.8+dfsg-1+b1", "2.34.8"),
            ("1:2.31.2-3.fc44", "2.31.2"),
            ("2.35.1-1", "2.35.1"),
            ("2.8.0", "2.8.0"),
        ];
        for (version, upstream) in rows {
            let package = Package { manager: "dpkg", name: "nix".to_owned(), version: version.to_owned() };
            assert_eq!(package.upstream_version(), upstream);
        }
    }

    #[test]
    fn a_removed_package_has_no_version() {
        let status = "Package: nix-bin\nStatus: install ok installed\nVersion: 2.34.8-1\n\nPackage: old\nStatus: deinstall ok \
                      config-files\nVersion: 1\n";
        let versions = dpkg_versions(status);
        assert_eq!(versions.get("nix-bin").map(String::as_str), Some("2.34.8-1"));
        assert_eq!(versions.get("old"), None);
    }
}
