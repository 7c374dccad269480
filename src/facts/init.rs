//! The init system.

use super::machine::As;
use super::reader::Reader;
use super::{Init, Os};

pub(crate) fn gather(reader: &Reader<'_>, os: &Os) -> Init {
    if os.family == "macos" {
        return Init::Launchd;
    }
    // The test of sd_booted(3).
    if !reader.machine.exists("/run/systemd/system") {
        let name = reader.text("/proc/1/comm").unwrap_or_default().trim().to_owned();
        return Init::Other { name: if name.is_empty() { "unknown".to_owned() } else { name } };
    }
    match reader.machine.run(As::Self_, "systemctl", &["--version"]) {
        Ok(said) => {
            Init::Systemd { version: said.split_whitespace().nth(1).and_then(|word| word.parse().ok()) }
        }
        Err(why) => {
            reader.note("systemctl --version", why);
            Init::Systemd { version: None }
        }
    }
}
