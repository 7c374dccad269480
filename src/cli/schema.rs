//! `schema`: the JSON schemas of all documents.

use anyhow::Result;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

use super::exit::Exit;
use super::{Session, UsageError, audit, config, doctor, history, inspect, migrate, roots, runs, uninstall};
use crate::plan::Plan;
use crate::report::{self, Document};
use crate::verify;

/// The document of whatever ended with an error before it had one of its own.
#[derive(JsonSchema, Serialize)]
pub struct Failure {
    /// What went wrong, and what to do about it.
    pub error: String,
    /// Whether something of the machine was changed before, and is changed still.
    pub changed: bool,
    /// The exit status.
    pub exit_status: u8,
}

impl Document for Failure {
    const KIND: &'static str = "error";
}

/// A kind of document.
struct Kind {
    name: &'static str,
    schema: fn() -> Value,
}

const fn kind<D: Document>() -> Kind {
    Kind { name: D::KIND, schema: report::schema::<D> }
}

/// Every kind of document that `--json` prints, and [`Plan`]s, which are also read.
const KINDS: &[Kind] = &[
    kind::<inspect::Inspection<'_>>(),
    kind::<Plan>(),
    kind::<migrate::Preview<'_>>(),
    kind::<runs::RunDocument>(),
    kind::<verify::Report>(),
    kind::<doctor::Examination>(),
    kind::<audit::Audit>(),
    kind::<roots::Roots>(),
    kind::<roots::Expired>(),
    kind::<uninstall::Removal<'_>>(),
    kind::<history::History>(),
    kind::<config::Configuration>(),
    kind::<Failure>(),
];

/// Prints a schema, or the names of all.
pub fn schema(session: &Session, name: Option<&str>) -> Result<Exit> {
    let names = KINDS.iter().map(|kind| kind.name).collect::<Vec<_>>();
    let Some(name) = name else {
        session.output.raw(&names.join("\n"))?;
        return Ok(Exit::Done);
    };
    let kind = KINDS.iter().find(|kind| kind.name == name).ok_or_else(|| {
        UsageError(format!("there is no document {name:?}; there are: {}", names.join(", ")))
    })?;
    session.output.raw(&serde_json::to_string_pretty(&(kind.schema)())?)?;
    Ok(Exit::Done)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::Path;

    use super::*;
    use crate::audit::{Danger, Fix, Hit};
    use crate::facts::{Unread, sample::debian_sample};
    use crate::findings;
    use crate::plan::Options;

    const RENEW: &str = "NIX_UNROOT_RENEW=1 cargo test --lib schemas_are_current";

    #[test]
    fn schemas_are_current() {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("schemas");
        let renew = std::env::var_os("NIX_UNROOT_RENEW").is_some();
        for kind in KINDS {
            let text = format!("{}\n", serde_json::to_string_pretty(&(kind.schema)()).unwrap());
            let path = directory.join(format!("{}.json", kind.name));
            if renew {
                fs::write(&path, &text).unwrap();
            }
            let kept = fs::read_to_string(&path).unwrap_or_default();
            assert!(
                kept == text,
                "{} is not what the types give: renew it with\n    {RENEW}",
                path.display()
            );
        }
        let kept =
            fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let names = KINDS.iter().map(|kind| format!("{}.json", kind.name));
        assert_eq!(kept.collect::<BTreeSet<_>>(), names.collect::<BTreeSet<_>>(), "no more, and no fewer");
    }

    /// What the validator says of these documents, each in a file of its own.
    fn validate(documents: &[String]) -> std::process::Output {
        let (root, dir) = (Path::new(env!("CARGO_MANIFEST_DIR")), tempfile::tempdir().unwrap());
        let files = documents.iter().enumerate().map(|(index, text)| {
            let path = dir.path().join(format!("{index}.json"));
            fs::write(&path, text).unwrap();
            path
        });
        let files: Vec<_> = files.collect();
        let mut python = std::process::Command::new("/usr/bin/python3");
        python.arg(root.join("tests/report/validate.py")).arg(root.join("schemas")).args(&files);
        python.output().expect("this needs Debian's package python3-jsonschema")
    }

    #[test]
    fn documents_fit_their_schemas() {
        let mut facts = debian_sample();
        facts.user_namespaces.probe = Err("no".to_owned());
        facts.mounts[0].read_only = true;
        let options =
            findings::Options { accept: vec!["userns-impossible".to_owned()], ..Default::default() };
        let findings = findings::collect(&facts, &options);
        let plan = Plan::make(&facts, &Options::default()).unwrap();
        let hit = |fix| Hit {
            key: "key".to_owned(),
            danger: Danger::High,
            name: "/a".into(),
            named_by: None,
            chain: vec!["hop".to_owned()],
            trigger: "when".to_owned(),
            remedy: "what".to_owned(),
            fix,
        };
        let guard = Fix::Guard { old: "a".to_owned(), new: "b".to_owned() };
        let hits = vec![hit(None), hit(Some(Fix::UserManagerPath)), hit(Some(guard))];
        let json = |text: serde_json::Result<String>| text.unwrap();
        let documents = [
            json(report::to_json(&inspect::Inspection { facts: &facts, findings: &findings })),
            json(report::to_json(&plan)),
            json(report::to_json(&migrate::Preview {
                migrated: false,
                blocked: false,
                changed: false,
                would_change: true,
                findings: &findings,
                plan: Some(&plan),
            })),
            json(report::to_json(&migrate::Preview {
                migrated: true,
                blocked: true,
                changed: false,
                would_change: false,
                findings: &[],
                plan: None,
            })),
            json(report::to_json(&runs::RunDocument::nothing())),
            json(report::to_json(&audit::Audit {
                migrated: false,
                subject: "builds".to_owned(),
                after_migration: Some(hits.clone()),
                hits,
                closed_by_migration: 1,
                unread: vec![Unread { what: "/root".to_owned(), why: "no".to_owned() }],
            })),
            json(report::to_json(&Failure { error: "no".to_owned(), changed: false, exit_status: 1 })),
        ];
        let said = validate(&documents);
        assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));

        // A validator that lets everything pass would prove nothing.
        let wrong = [
            documents[0].replace("\"severity\": \"blocker\"", "\"severity\": \"bad\""),
            documents[1].replace("\"action\": \"reown\"", "\"action\": \"rewon\""),
            documents[2].replace("\"version\": 1", "\"version\": 2"),
            documents[5].replace("\"subject\"", "\"object\""),
            documents[6].replace("\"exit_status\": 1", "\"exit_status\": \"1\""),
        ];
        for text in wrong {
            assert!(!documents.contains(&text), "nothing was changed");
            assert_eq!(validate(std::slice::from_ref(&text)).status.code(), Some(1), "{text}");
        }
    }

    /// Like documentation that nobody can find: a schema without a word for a field.
    #[test]
    fn every_field_is_explained() {
        fn look(place: &str, schema: &Value, missing: &mut Vec<String>) {
            let Value::Object(object) = schema else { return };
            for (name, field) in object.get("properties").and_then(Value::as_object).into_iter().flatten() {
                let explained = field.get("description").is_some() || field.get("const").is_some();
                if !explained {
                    missing.push(format!("{place}/{name}"));
                }
                look(&format!("{place}/{name}"), field, missing);
            }
            for (name, part) in object.get("$defs").and_then(Value::as_object).into_iter().flatten() {
                // One of the standard library's has no words of ours.
                if !name.starts_with("Result_of_") {
                    look(name, part, missing);
                }
            }
            for part in object.get("oneOf").and_then(Value::as_array).into_iter().flatten() {
                look(place, part, missing);
            }
        }
        let mut missing = Vec::new();
        KINDS.iter().for_each(|kind| look(kind.name, &(kind.schema)(), &mut missing));
        missing.sort();
        missing.dedup();
        assert_eq!(missing, Vec::<String>::new());
    }
}
