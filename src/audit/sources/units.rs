//! Units, what they start as root, and systemd's generators.

use std::path::{Path, PathBuf};

use super::super::Danger::High;
use super::super::resolve::resolve;
use super::{Found, Scene, Source, absolute};
use crate::facts::{EXEC, UnitText, all_units, nix_paths_named, unit_program};

pub const SOURCES: &[Source] = &[
    Source {
        key: "unit-file",
        danger: High,
        trigger: "systemd reads it at boot and when units are reloaded; it says what runs as root",
        remedy: "replace the link by a file of root's",
        copies: true,
        find: files,
    },
    Source {
        key: "unit-program",
        danger: High,
        trigger: "systemd starts it, or reads its environment, for a service of root's",
        remedy: "run the service as another user (User=), or install the program outside /nix",
        copies: false,
        find: programs,
    },
    Source {
        key: "systemd-generator",
        danger: High,
        trigger: "systemd runs it as root at boot, at a reload, or around sleep and shutdown",
        remedy: "install it outside /nix, or remove it",
        copies: false,
        find: |scene| directories(scene, &GENERATORS),
    },
];

const GENERATORS: [&str; 10] = [
    "/etc/systemd/system-generators",
    "/run/systemd/system-generators",
    "/usr/local/lib/systemd/system-generators",
    "/usr/lib/systemd/system-generators",
    "/etc/systemd/system-environment-generators",
    "/usr/local/lib/systemd/system-environment-generators",
    "/usr/lib/systemd/system-environment-generators",
    "/usr/lib/systemd/system-shutdown",
    "/usr/lib/systemd/system-sleep",
    "/etc/systemd/system-sleep",
];
/// Settings of a service that name files that systemd reads for it.
const FILES: [&str; 3] = ["EnvironmentFile", "LoadCredential", "RootDirectory"];

/// The directories themselves, and what is in those that the subject cannot change.
pub fn directories(scene: &Scene<'_>, directories: &[&str]) -> Vec<Found> {
    let there = directories.iter().filter(|path| scene.reader.machine.exists(path));
    there
        .flat_map(|path| {
            let safe = resolve(scene.reader, scene.subject, Path::new(path)).is_none();
            let entries = if safe { scene.reader.list(path) } else { Vec::new() };
            std::iter::once(PathBuf::from(path)).chain(entries)
        })
        .map(Found::name)
        .collect()
}

fn files(scene: &Scene<'_>) -> Vec<Found> {
    let units = all_units(scene.reader);
    units
        .into_iter()
        .flat_map(|unit| std::iter::once(unit.fragment).chain(unit.drop_ins))
        .map(Found::name)
        .collect()
}

fn programs(scene: &Scene<'_>) -> Vec<Found> {
    let trusted = |unit: &UnitText| {
        let mut files = std::iter::once(&unit.fragment).chain(&unit.drop_ins);
        files.all(|file| scene.trusted_text(file).is_some())
    };
    all_units(scene.reader).iter().filter(|unit| trusted(unit)).flat_map(named).collect()
}

/// Programs started as root or with capabilities, what else of `/nix` their command lines name, and files that systemd reads for them.
fn named(unit: &UnitText) -> Vec<Found> {
    let has_capabilities = !unit.values("AmbientCapabilities").is_empty();
    let mut names = Vec::new();
    for line in EXEC.iter().flat_map(|key| unit.values(key)) {
        let always = line.chars().take_while(|c| "@-:+!|".contains(*c)).any(|c| c == '+' || c == '!');
        if unit.is_roots() || always {
            names.extend(nix_paths_named(&line));
        }
        if unit.is_roots() || always || has_capabilities {
            names.extend(unit_program(&line));
        }
    }
    if unit.is_roots() || has_capabilities {
        let files = FILES.iter().flat_map(|key| unit.values(key));
        names.extend(files.filter_map(|value| {
            let value = value.trim_start_matches('-');
            absolute(value.rsplit(':').next().unwrap_or(value))
        }));
    }
    names.sort();
    names.dedup();
    names
        .into_iter()
        .filter(|name| name.is_absolute())
        .map(|name| Found::name(name).by(&unit.fragment))
        .collect()
}
