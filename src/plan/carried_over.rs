//! What an administrator added to the old daemon's unit and the new one must keep.

use crate::facts::Facts;

/// Settings of `[Service]` that say nothing of how the old daemon ran as root: proxies, certificates, limits.
const KEPT: [&str; 5] = ["Environment", "EnvironmentFile", "PassEnvironment", "UnsetEnvironment", "Nice"];
const KEPT_PREFIXES: [&str; 8] = ["Limit", "CPU", "IO", "Memory", "Tasks", "OOM", "Slice", "Allowed"];

/// The lines of drop-ins of `nix-daemon.service` that go into the new unit, with the file that each came from, and what
/// the daemon's environment gets besides.
pub fn carried_over(facts: &Facts, environment: &[(String, String)]) -> String {
    let drop_ins = facts
        .units
        .iter()
        .filter(|unit| unit.name.as_str() == "nix-daemon.service")
        .flat_map(|unit| &unit.drop_ins);
    let mut text = String::new();
    for drop_in in drop_ins {
        let lines: Vec<_> = service_lines(&drop_in.text).filter(|line| is_kept(line)).collect();
        if !lines.is_empty() {
            text.push_str(&format!("# from {}\n{}\n", drop_in.path.display(), lines.join("\n")));
        }
    }
    for (name, value) in environment {
        text.push_str(&format!("Environment=\"{name}={}\"\n", escaped(value)));
    }
    text
}

/// A value between double quotes in a unit: systemd.syntax(7) for quotes and backslashes, and `%` begins a specifier.
fn escaped(value: &str) -> String {
    value.replace('\\', r"\\").replace('"', "\\\"").replace('%', "%%")
}

/// The lines of the `[Service]` section, continued lines joined with their backslash and newline kept.
fn service_lines(text: &str) -> impl Iterator<Item = String> {
    let mut section = String::new();
    let mut lines: Vec<String> = Vec::new();
    let mut continued = false;
    for line in text.lines() {
        if continued {
            if let Some(last) = lines.last_mut() {
                last.push('\n');
                last.push_str(line);
            }
        } else if line.trim_start().starts_with('[') {
            section = line.trim().to_owned();
        } else if section == "[Service]" && !line.trim_start().starts_with(['#', ';']) {
            lines.push(line.to_owned());
        } else {
            continue;
        }
        continued = line.ends_with('\\') && section == "[Service]";
    }
    lines.into_iter()
}

fn is_kept(line: &str) -> bool {
    let Some((name, _)) = line.split_once('=') else { return false };
    let name = name.trim();
    KEPT.contains(&name) || KEPT_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxies_and_limits_stay_and_the_rest_does_not() {
        let text = "[Unit]\nAfter=x\n[Service]\n# note\nEnvironment=\"https_proxy=http://p:1\" \\\n  \"no_proxy=a\"\n\
                    ExecStart=\nExecStart=/bin/evil\nUser=root\nLimitNOFILE=99\nMemoryMax = 4G\n";
        let kept: Vec<_> = service_lines(text).filter(|line| is_kept(line)).collect();
        assert_eq!(
            kept,
            [
                "Environment=\"https_proxy=http://p:1\" \\\n  \"no_proxy=a\"",
                "LimitNOFILE=99",
                "MemoryMax = 4G"
            ]
        );
    }
}
