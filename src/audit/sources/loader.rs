//! Libraries that programs of root's load, and modules of PAM.

use std::path::PathBuf;

use super::super::Danger::High;
use super::{Found, Scene, Source, absolute};

pub const SOURCES: &[Source] = &[
    Source {
        key: "loader",
        danger: High,
        trigger: "the dynamic linker takes libraries from there for every program, root's too",
        remedy: "take it out, and run ldconfig",
        copies: false,
        find: loader,
    },
    Source {
        key: "pam-module",
        danger: High,
        trigger: "login, sudo and sshd load it as root",
        remedy: "install the distribution's module, and name that",
        copies: false,
        find: pam,
    },
];

const MODULES: [&str; 4] = [
    "/usr/lib/security",
    "/usr/lib64/security",
    "/usr/lib/x86_64-linux-gnu/security",
    "/usr/lib/aarch64-linux-gnu/security",
];

fn loader(scene: &Scene<'_>) -> Vec<Found> {
    let mut files: Vec<PathBuf> = ["/etc/ld.so.conf", "/etc/ld.so.preload"].map(PathBuf::from).to_vec();
    files.extend(scene.reader.list("/etc/ld.so.conf.d"));
    let mut found: Vec<_> = ["/etc/ld.so.cache", "/etc/ld.so.conf.d"].map(Found::name).into();
    for file in files {
        let code = scene.code(&file).unwrap_or_default();
        let names = code.split([' ', '\t', '\n', ':', ',']).filter_map(absolute);
        found.extend(names.map(|name| Found::name(name).by(&file)));
        found.push(Found::name(file));
    }
    found
}

fn pam(scene: &Scene<'_>) -> Vec<Found> {
    let mut found = Vec::new();
    for file in scene.reader.list("/etc/pam.d") {
        let code = scene.code(&file).unwrap_or_default();
        let words = code.split_whitespace().filter(|word| word.ends_with(".so")).filter_map(absolute);
        found.extend(words.map(|name| Found::name(name).by(&file)));
    }
    found.extend(MODULES.iter().flat_map(|path| scene.reader.list(path)).map(Found::name));
    found
}
