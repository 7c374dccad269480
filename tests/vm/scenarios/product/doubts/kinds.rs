//! Reads from the scanner's sources which doubts there are, so that one without a case does not go unnoticed.

use super::cases::{CASES, Kind};
use anyhow::{Context, Result, ensure};
use std::fs;
use std::path::Path;

const SOURCES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/root-scan/src");

#[test]
fn every_kind_of_doubt_has_a_case() -> Result<()> {
    let variants = variants()?;
    for variant in &variants {
        let has_case = CASES.iter().any(|case| matches!(case.kind, Kind::Doubt(kind) if kind == variant));
        ensure!(has_case, "no case brings about a Doubt::{variant}: add one to cases.rs");
    }
    for case in CASES {
        if let Kind::Doubt(kind) = case.kind {
            ensure!(variants.iter().any(|variant| variant == kind), "there is no Doubt::{kind} any more");
        }
    }
    let reasons = reasons(Path::new(SOURCES))?;
    for reason in &reasons {
        let told = pieces(reason).any(|piece| CASES.iter().any(|case| case.journal.contains(piece)));
        ensure!(told, "no case brings about {reason:?}: add one to cases.rs");
    }
    println!(
        "{} kinds of doubt, {} limits and ways to be blind, {} cases",
        variants.len(),
        reasons.len(),
        CASES.len()
    );
    ensure!(reasons.len() > 8, "the sources look different now; only found {reasons:?}");
    Ok(())
}

/// The names of the variants of `enum Doubt`.
fn variants() -> Result<Vec<String>> {
    let text = fs::read_to_string(Path::new(SOURCES).join("doubt.rs"))?;
    let (_, rest) = text.split_once("pub enum Doubt {\n").context("no enum Doubt in doubt.rs")?;
    let (body, _) = rest.split_once("\n}\n").context("the enum has no end")?;
    let names = body.lines().filter_map(|line| line.strip_prefix("    "));
    let names = names.filter(|line| line.starts_with(|c: char| c.is_ascii_uppercase()));
    Ok(names.map(|line| line.chars().take_while(char::is_ascii_alphanumeric).collect()).collect())
}

/// The texts that say which limit was met, and why processes may be hidden.
fn reasons(directory: &Path) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(reasons(&path)?);
            continue;
        }
        // There is no Mac to bring those about.
        if path.file_name().is_some_and(|name| name == "macos.rs") {
            continue;
        }
        let text = fs::read_to_string(&path)?;
        let (code, _) = text.split_once("#[cfg(test)]\nmod tests").unwrap_or((&text, ""));
        for before in ["Doubt::Blind(", "what: \""] {
            let after = code.split(before).skip(1);
            // The literal may be on the next line, and `before` may hold its first quote.
            let literal = |text: &str| text.trim_start_matches(|c| c != '"').get(1..).map(String::from);
            let rest = after
                .filter_map(|text| if before.ends_with('"') { Some(text.to_owned()) } else { literal(text) });
            found.extend(rest.filter_map(|text| text.split('"').next().map(String::from)));
        }
    }
    Ok(found)
}

/// What stands between the placeholders of a format, if it is enough to tell one text from another.
fn pieces(format: &str) -> impl Iterator<Item = &str> {
    let parts = format.split(['{', '}']).step_by(2);
    parts.map(|part| part.trim_matches([' ', ':', ';'])).filter(|part| part.len() > 8)
}
