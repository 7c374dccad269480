//! Nix's `build.json` (`startChild` in its `external-derivation-builder.cc`, version 1). Only the client reads it, as the daemon's own account.

use crate::wire::Request;
use crate::{Failure, Result};
use serde_json::{Map, Value};

/// What the document says that a build needs.
#[derive(Debug, PartialEq, Eq)]
pub struct Document {
    builder: String,
    args: Vec<String>,
    env: Vec<(String, String)>,
    store: String,
    build_dir: String,
    inputs: Vec<String>,
    outputs: Vec<String>,
    /// The directory whose files the builder is to find in its own.
    pub prepared: String,
}

impl Document {
    /// Reads the document.
    ///
    /// # Errors
    /// When it is no such document, or one of a Nix that says more than this program knows: leaving out what it wants would be a wrong build.
    pub fn parse(text: &[u8]) -> Result<Self> {
        let value: Value = serde_json::from_slice(text).map_err(|error| wrong(&error.to_string()))?;
        let Value::Object(mut map) = value else { return Err(wrong("it is no object")) };
        if map.remove("version") != Some(Value::from(1)) {
            return Err(wrong("its version is not 1"));
        }
        let store = string(&mut map, "storeDir")?;
        if string(&mut map, "realStoreDir")? != store {
            return Err(wrong(
                "the store lies somewhere else than it says, which the broker does not support",
            ));
        }
        // For people: the platform, and the directory above the prepared one.
        string(&mut map, "system")?;
        string(&mut map, "topTmpDir")?;
        let document = Self {
            builder: string(&mut map, "builder")?,
            args: strings(&mut map, "args")?,
            env: pairs(&mut map, "env")?,
            store,
            build_dir: string(&mut map, "tmpDirInSandbox")?,
            inputs: strings(&mut map, "inputPaths")?,
            outputs: pairs(&mut map, "outputs")?.into_iter().map(|(_, path)| path).collect(),
            prepared: string(&mut map, "tmpDir")?,
        };
        match map.keys().next() {
            None => Ok(document),
            Some(key) => Err(wrong(&format!("it has '{key}', which this nix-build-broker does not know"))),
        }
    }

    /// What to ask the broker.
    #[must_use]
    pub fn request<'a>(&'a self, files: &'a [(Vec<u8>, Vec<u8>)]) -> Request<'a> {
        let bytes = |list: &'a [String]| list.iter().map(|text| text.as_bytes()).collect();
        Request {
            builder: self.builder.as_bytes(),
            args: bytes(&self.args),
            env: self.env.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())).collect(),
            store: self.store.as_bytes(),
            build_dir: self.build_dir.as_bytes(),
            inputs: bytes(&self.inputs),
            outputs: bytes(&self.outputs),
            files: files.iter().map(|(name, text)| (name.as_slice(), text.as_slice())).collect(),
        }
    }
}

fn wrong(what: &str) -> Failure {
    Failure::new(format!("Nix's description of the build is not one of version 1: {what}"))
}

fn string(map: &mut Map<String, Value>, key: &str) -> Result<String> {
    match map.remove(key) {
        Some(Value::String(text)) => Ok(text),
        _ => Err(wrong(&format!("'{key}' is no text"))),
    }
}

fn strings(map: &mut Map<String, Value>, key: &str) -> Result<Vec<String>> {
    let Some(Value::Array(list)) = map.remove(key) else { return Err(wrong(&format!("'{key}' is no list"))) };
    let text = |value| match value {
        Value::String(text) => Ok(text),
        _ => Err(wrong(&format!("'{key}' has what is no text"))),
    };
    list.into_iter().map(text).collect()
}

fn pairs(map: &mut Map<String, Value>, key: &str) -> Result<Vec<(String, String)>> {
    let Some(Value::Object(found)) = map.remove(key) else {
        return Err(wrong(&format!("'{key}' is no object")));
    };
    let pair = |(name, value)| match value {
        Value::String(text) => Ok((name, text)),
        _ => Err(wrong(&format!("'{key}' has what is no text"))),
    };
    found.into_iter().map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"{"args":["-e"],"builder":"/nix/store/b/sh","env":{"out":"/nix/store/o"},
        "inputPaths":["/nix/store/b"],"outputs":{"out":"/nix/store/o"},"realStoreDir":"/nix/store","storeDir":"/nix/store",
        "system":"x","tmpDir":"/t/build","tmpDirInSandbox":"/build","topTmpDir":"/t","version":1}"#;

    #[test]
    fn the_document_of_nix() {
        let document = Document::parse(GOOD.as_bytes()).unwrap();
        assert_eq!(document.prepared, "/t/build");
        let request = document.request(&[]);
        assert_eq!((request.builder, request.build_dir), (&b"/nix/store/b/sh"[..], &b"/build"[..]));
        assert_eq!(
            (request.env.as_slice(), request.outputs.len()),
            (&[(&b"out"[..], &b"/nix/store/o"[..])][..], 1)
        );
    }

    #[test]
    fn another_document() {
        for (from, to) in [
            ("\"version\":1", "\"version\":2"),
            ("\"version\":1", "\"version\":1,\"new\":true"),
            ("\"realStoreDir\":\"/nix/store\"", "\"realStoreDir\":\"/mnt/nix/store\""),
            ("[\"-e\"]", "[1]"),
            ("[\"-e\"]", "\"-e\""),
            ("\"env\":{", "\"env\":{\"a\":1,"),
            ("\"tmpDir\"", "\"tmp\""),
            ("{\"args\"", "[{\"args\""),
        ] {
            let text = GOOD.replacen(from, to, 1);
            assert!(Document::parse(text.as_bytes()).is_err(), "{text}");
        }
    }
}
