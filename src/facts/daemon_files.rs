//! Files that the daemon reads or runs, today with root's rights, and whether somebody else could.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::reader::Reader;
use super::{Builder, ConfFile, DaemonFile, FileKind, Unit, nix_conf};

/// Settings that name files, and what those are.
const SETTINGS: [(&str, FileKind); 8] = [
    ("secret-key-files", FileKind::SigningKey),
    ("ssl-cert-file", FileKind::Certificate),
    ("post-build-hook", FileKind::Hook),
    ("diff-hook", FileKind::Hook),
    ("pre-build-hook", FileKind::Hook),
    ("build-hook", FileKind::Hook),
    ("plugin-files", FileKind::Plugin),
    ("sandbox-paths", FileKind::SandboxPath),
];
/// Settings that hold addresses of stores, which may name files as parameters.
const STORES: [&str; 3] = ["substituters", "trusted-substituters", "store"];
/// Those parameters (`src/libstore/include/nix/store/{http,ssh,s3}-*-store.hh`).
const PARAMETERS: [(&str, FileKind); 4] = [
    ("tls-certificate", FileKind::Certificate),
    ("tls-private-key", FileKind::Certificate),
    ("secret-key", FileKind::SigningKey),
    ("ssh-key", FileKind::SshKey),
];

/// Those that exist, each once, in the order of their names.
pub(crate) fn gather(
    reader: &Reader<'_>,
    conf: &[ConfFile],
    builders: &[Builder],
    units: &[Unit],
) -> Vec<DaemonFile> {
    let effective = |name: &str| nix_conf::effective(conf, name).unwrap_or_default();
    let mut named: Vec<(FileKind, String, PathBuf)> = Vec::new();
    let mut add = |kind: FileKind, by: &str, path: &str| {
        if path.starts_with('/') {
            named.push((kind, by.to_owned(), path.into()));
        }
    };
    for file in conf {
        add(FileKind::Conf, "nix.conf", &file.path.to_string_lossy());
    }
    add(FileKind::Netrc, "netrc-file", &nix_conf::netrc(conf));
    for (setting, kind) in SETTINGS {
        for word in effective(setting).split_whitespace() {
            let path = if kind == FileKind::SandboxPath { sandbox_source(word) } else { word };
            add(kind, setting, path);
        }
    }
    let stores = STORES.map(|setting| (setting, effective(setting)));
    let addresses = stores.iter().flat_map(|(by, text)| text.split_whitespace().map(move |uri| (*by, uri)));
    for (by, uri) in addresses.chain(builders.iter().map(|builder| ("builders", builder.uri.as_str()))) {
        parameters(uri).for_each(|(kind, path)| add(kind, by, path));
    }
    for builder in builders {
        builder.list.iter().for_each(|list| add(FileKind::Machines, "builders", &list.to_string_lossy()));
        builder.key.iter().for_each(|key| add(FileKind::SshKey, "builders", &key.to_string_lossy()));
    }
    for certificate in certificates_of_units(units) {
        add(FileKind::Certificate, "NIX_SSL_CERT_FILE", &certificate);
    }
    let mut seen = BTreeSet::new();
    named.retain(|(kind, _, path)| seen.insert((*kind, path.clone())));
    let mut files: Vec<_> =
        named.into_iter().filter_map(|(kind, named_by, path)| look(reader, kind, named_by, path)).collect();
    files.sort_by(|a, b| a.path.cmp(&b.path));
    files
}

/// `TARGET=SOURCE?` and `SOURCE?`: what a build sees is bound from the source.
fn sandbox_source(word: &str) -> &str {
    let word = word.strip_suffix('?').unwrap_or(word);
    word.split_once('=').map_or(word, |(_, source)| source)
}

fn parameters(uri: &str) -> impl Iterator<Item = (FileKind, &str)> {
    let query = uri.split_once('?').map_or("", |(_, query)| query);
    query.split('&').filter_map(|pair| {
        let (name, value) = pair.split_once('=')?;
        let kind = PARAMETERS.iter().find(|(known, _)| *known == name)?.1;
        Some((kind, value))
    })
}

/// Certificates that drop-ins of the daemon's unit set, as the installers do.
fn certificates_of_units(units: &[Unit]) -> Vec<String> {
    let daemon = units.iter().filter(|unit| unit.name.as_str() == "nix-daemon.service");
    let texts = daemon.flat_map(|unit| &unit.drop_ins).map(|file| file.text.as_str());
    texts
        .flat_map(|text| text.split(|c: char| c.is_whitespace() || c == '"' || c == '\''))
        .filter_map(|word| word.rsplit_once("NIX_SSL_CERT_FILE=").map(|(_, path)| path.to_owned()))
        .collect()
}

fn look(reader: &Reader<'_>, kind: FileKind, named_by: String, path: PathBuf) -> Option<DaemonFile> {
    let owner = reader.target_owner(&path)?;
    let real = reader.machine.real(&path).ok()?;
    let closed = real.ancestors().skip(1).filter(|directory| {
        let found = reader.machine.stat(directory).ok();
        found.is_some_and(|found| found.mode() & 0o001 == 0)
    });
    // The outermost one says most.
    let closed_directory = closed.last().map(Path::to_owned);
    let (uid, gid, mode) = (owner.uid, owner.gid, owner.mode);
    let directory = reader.machine.stat(&real).is_ok_and(|found| found.is_dir());
    Some(DaemonFile { kind, named_by, path, real, directory, uid, gid, mode, closed_directory })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::{DropIn, Machine, builders};
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    #[test]
    fn every_way_to_name_a_file_is_known() {
        let dir = tempfile::tempdir().unwrap();
        let write = |path: &str, mode: u32, text: &str| {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        };
        let conf = "!include secret.conf\nsecret-key-files = /k/sign /k/none\npost-build-hook = /k/hook\n\
            extra-sandbox-paths = /bin/sh=/k/sh? /k/ccache\nplugin-files = /k/plugin.so\n\
            substituters = https://c?tls-certificate=/k/crt&tls-private-key=/k/tls ssh://h?ssh-key=/root/.ssh/sub\n\
            builders = ssh://b x86_64-linux /root/.ssh/b ; @/k/machines\nssl-cert-file = /k/ca\n";
        write("etc/nix/nix.conf", 0o644, conf);
        write("etc/nix/secret.conf", 0o600, "access-tokens = x\n");
        write("run/netrc", 0o600, "");
        symlink("/run/netrc", dir.path().join("etc/nix/netrc")).unwrap();
        for name in ["sign", "hook", "sh", "ccache", "plugin.so", "crt", "tls", "ca", "unit"] {
            write(&format!("k/{name}"), 0o600, "");
        }
        write("k/machines", 0o644, "# none\nssh://m x86_64-linux /root/.ssh/m 4\n");
        ["b", "m", "sub"].iter().for_each(|key| write(&format!("root/.ssh/{key}"), 0o600, ""));
        fs::set_permissions(dir.path().join("root"), fs::Permissions::from_mode(0o700)).unwrap();
        let machine = Machine::at(dir.path()).owned_by_root();
        let reader = Reader::new(&machine);
        let conf = nix_conf::gather(&reader);
        let builders = builders::gather(&reader, &conf);
        let mut unit = crate::facts::sample::debian_sample().units[0].clone();
        let text = "[Service]\nEnvironment=\"NIX_SSL_CERT_FILE=/k/unit\" x=y\n".to_owned();
        unit.drop_ins.push(DropIn { path: "/x".into(), text });
        let files = gather(&reader, &conf, &builders, &[unit]);
        let found: Vec<_> = files
            .iter()
            .map(|file| (file.path.to_str().unwrap(), file.kind, file.closed_directory.is_some()))
            .collect();
        use FileKind::*;
        assert_eq!(
            found,
            [
                ("/etc/nix/netrc", Netrc, false),
                ("/etc/nix/nix.conf", Conf, false),
                ("/etc/nix/secret.conf", Conf, false),
                ("/k/ca", Certificate, false),
                ("/k/ccache", SandboxPath, false),
                ("/k/crt", Certificate, false),
                ("/k/hook", Hook, false),
                ("/k/machines", Machines, false),
                ("/k/plugin.so", Plugin, false),
                ("/k/sh", SandboxPath, false),
                ("/k/sign", SigningKey, false),
                ("/k/tls", Certificate, false),
                ("/k/unit", Certificate, false),
                ("/root/.ssh/b", SshKey, true),
                ("/root/.ssh/m", SshKey, true),
                ("/root/.ssh/sub", SshKey, true),
            ]
        );
        assert_eq!(files[0].real, Path::new("/run/netrc"), "a link's target counts");
        assert_eq!((files[0].uid, files[0].mode), (0, 0o600));
    }
}
