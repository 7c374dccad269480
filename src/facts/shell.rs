//! Files that make shells see Nix.

use std::path::{Path, PathBuf};

use super::reader::Reader;
use super::{ShellSnippet, nix_paths};

const FILES: [&str; 17] = [
    "/etc/profile",
    "/etc/bash.bashrc",
    "/etc/bashrc",
    "/etc/bash.bash_logout",
    "/etc/zshenv",
    "/etc/zshrc",
    "/etc/zprofile",
    "/etc/csh.cshrc",
    "/etc/csh.login",
    "/etc/environment",
    "/root/.profile",
    "/root/.bashrc",
    "/root/.bash_profile",
    "/root/.bash_login",
    "/root/.zshrc",
    "/root/.zshenv",
    "/root/.config/fish/config.fish",
];
const DIRECTORIES: [&str; 6] = [
    "/etc/profile.d",
    "/etc/bash.bashrc.d",
    "/etc/zsh",
    "/etc/fish/conf.d",
    "/usr/share/fish/vendor_conf.d",
    "/root/.config/fish/conf.d",
];
/// Read by the service manager for its user's services, not by a shell.
const ENVIRONMENT: [&str; 2] = ["/etc/environment.d", "/usr/lib/environment.d"];

/// Files that root's shells read when they start, whether they are there or not.
pub(crate) fn startup_files(reader: &Reader<'_>) -> Vec<PathBuf> {
    FILES.iter().map(PathBuf::from).chain(DIRECTORIES.iter().flat_map(|path| reader.list(path))).collect()
}

/// In the order of their names.
pub(crate) fn gather(reader: &Reader<'_>) -> Vec<ShellSnippet> {
    let environment = ENVIRONMENT.iter().flat_map(|path| reader.list(path));
    let mut found: Vec<_> = startup_files(reader)
        .into_iter()
        .map(|path| (path, true))
        .chain(environment.map(|path| (path, false)))
        .filter_map(|(path, read_by_root)| snippet(reader, path, read_by_root))
        .collect();
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

fn snippet(reader: &Reader<'_>, path: PathBuf, read_by_root: bool) -> Option<ShellSnippet> {
    let text = reader.text(&path)?;
    let lines = text.lines().filter(|line| !line.trim_start().starts_with('#'));
    let code = lines.collect::<Vec<_>>().join("\n");
    let mut sources = nix_paths::named(&code);
    // A snippet that itself lies in the store.
    sources.extend(reader.machine.real(&path).ok().filter(|real| real.starts_with("/nix")));
    // A profile in a home is a link into the store; of root's own files that home is known.
    if path.starts_with("/root") {
        for home in ["$HOME/.nix-profile", "~/.nix-profile", "/root/.nix-profile"] {
            let in_home = nix_paths::paths_starting(&code, home);
            let below = in_home.iter().filter_map(|path| path.strip_prefix(home).ok());
            sources.extend(below.map(|below| Path::new("/root/.nix-profile").join(below)));
        }
    }
    (!sources.is_empty()).then_some(ShellSnippet { path, sources, read_by_root })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::Machine;
    use std::fs;

    #[test]
    fn snippets_of_every_shell() {
        let dir = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        let source = "# Nix\nif [ -e '/nix/a.sh' ]; then\n  . '/nix/a.sh'\nfi\n# End Nix\n";
        write("etc/profile.d/nix.sh", source);
        write("etc/profile.d/other.sh", "# /nix/a.sh\nexport PATH\n");
        write("etc/bash.bashrc", source);
        write("usr/lib/environment.d/nix-daemon.conf", "PATH=/nix/var/bin:$PATH\n");
        write(
            "root/.profile",
            "if [ -e $HOME/.nix-profile/etc/x.sh ]; then . $HOME/.nix-profile/etc/x.sh; fi\n",
        );
        let machine = Machine::at(dir.path());
        let found = gather(&Reader::new(&machine));
        let rows: Vec<_> = found
            .iter()
            .map(|one| (one.path.to_str().unwrap(), one.sources[0].to_str().unwrap(), one.read_by_root))
            .collect();
        assert_eq!(
            rows,
            [
                ("/etc/bash.bashrc", "/nix/a.sh", true),
                ("/etc/profile.d/nix.sh", "/nix/a.sh", true),
                ("/root/.profile", "/root/.nix-profile/etc/x.sh", true),
                ("/usr/lib/environment.d/nix-daemon.conf", "/nix/var/bin", false),
            ]
        );
    }
}
