//! The operating system.

use super::reader::Reader;
use super::{Os, macos};

pub(crate) fn gather(reader: &Reader<'_>) -> Os {
    let release =
        reader.text("/etc/os-release").or_else(|| reader.text("/usr/lib/os-release")).unwrap_or_default();
    let mac = macos::system_version(reader);
    let family = if mac.is_some() { "macos" } else { "linux" };
    let id = field(&release, "ID").filter(|_| mac.is_none()).unwrap_or_else(|| family.to_owned());
    let name = mac.or_else(|| field(&release, "PRETTY_NAME")).unwrap_or_else(|| id.clone());
    let (kernel, arch) = kernel(reader);
    Os { family: family.to_owned(), id, name, kernel, arch, container: container(reader) }
}

/// A field of os-release(5): a shell assignment, the value perhaps in quotes.
fn field(release: &str, key: &str) -> Option<String> {
    let value =
        release.lines().rev().find_map(|line| line.trim().strip_prefix(key)?.strip_prefix('='))?.trim();
    let quoted = |quote| value.strip_prefix(quote).and_then(|rest: &str| rest.strip_suffix(quote));
    Some(quoted('"').or_else(|| quoted('\'')).unwrap_or(value).replace('\\', ""))
}

/// Release and architecture of the kernel; of a directory, only what a `/proc` in it says.
fn kernel(reader: &Reader<'_>) -> (String, String) {
    let uname = reader.machine.is_live().then(|| nix::sys::utsname::uname().ok()).flatten();
    if let Some(uname) = uname {
        let text = |part: &std::ffi::OsStr| part.to_string_lossy().into_owned();
        return (text(uname.release()), text(uname.machine()));
    }
    let release = reader.text("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned();
    (release, std::env::consts::ARCH.to_owned())
}

/// The marks that `systemd-detect-virt --container` looks at, those that an ordinary user can read.
fn container(reader: &Reader<'_>) -> Option<String> {
    let manager = reader.text("/run/systemd/container").map(|text| text.trim().to_owned());
    let marks = [("/.dockerenv", "docker"), ("/run/.containerenv", "podman")];
    let mark =
        || marks.iter().find(|(path, _)| reader.machine.exists(path)).map(|(_, name)| (*name).to_owned());
    manager.filter(|name| !name.is_empty()).or_else(mark)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_os_release_lose_their_quotes() {
        let release = "NAME='Old'\nID=debian\nPRETTY_NAME=\"Debian GNU/Linux\"\nID_LIKE=x\n";
        assert_eq!(field(release, "ID").as_deref(), Some("debian"));
        assert_eq!(field(release, "PRETTY_NAME").as_deref(), Some("Debian GNU/Linux"));
        assert_eq!(field(release, "NAME").as_deref(), Some("Old"));
        assert_eq!(field(release, "VERSION"), None);
    }
}
