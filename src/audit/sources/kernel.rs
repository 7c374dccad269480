//! Programs that the kernel starts as root.

use std::path::{Path, PathBuf};

use super::super::Danger::High;
use super::{Found, Scene, Source, absolute};

pub const SOURCES: &[Source] = &[Source {
    key: "kernel-helper",
    danger: High,
    trigger: "the kernel starts it as root, when a program dumps core, a module is wanted or a file is executed",
    remedy: "set it to a program outside /nix, and look in /etc/sysctl.d and /etc/binfmt.d for what set it",
    copies: false,
    find: helpers,
}];

const SETTINGS: [&str; 5] = [
    "/proc/sys/kernel/core_pattern",
    "/proc/sys/kernel/modprobe",
    "/proc/sys/kernel/poweroff_cmd",
    "/sys/kernel/uevent_helper",
    "/sys/module/firmware_class/parameters/path",
];

fn helpers(scene: &Scene<'_>) -> Vec<Found> {
    let mut found = Vec::new();
    for path in SETTINGS {
        let text = scene.reader.text(path).unwrap_or_default();
        // A core pattern that is no program is where the core goes.
        let program = match path.ends_with("core_pattern") {
            true => text.strip_prefix('|'),
            false => Some(text.as_str()),
        };
        let word = program.and_then(|text| text.split_whitespace().next()).and_then(absolute);
        found.extend(word.map(|name| Found::name(name).by(Path::new(path))));
    }
    let formats = scene.reader.list("/proc/sys/fs/binfmt_misc").into_iter();
    // These two are no formats.
    for file in formats.filter(|file| !file.ends_with("register") && !file.ends_with("status")) {
        let text = scene.reader.text(&file).unwrap_or_default();
        let interpreter = text.lines().find_map(|line| line.strip_prefix("interpreter "));
        found.extend(interpreter.map(|name| Found::name(PathBuf::from(name)).by(&file)));
    }
    found
}
