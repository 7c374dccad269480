//! Documents for programs: JSON that says what it is, with a schema that is made from the Rust type.

use std::borrow::Cow;

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::system::text::escaped_json;

/// A document that `--json` prints: an object, to which `kind` and `version` are added in front.
pub trait Document: Serialize + JsonSchema {
    /// What it is; its schema is `schemas/KIND.json`.
    const KIND: &'static str;
    /// Goes up when a field goes, or changes its meaning; fields may be added without a new one.
    const VERSION: u32 = 1;
}

/// The document with its kind and version, as text.
///
/// # Errors
/// When something in it cannot be written as JSON: a path that is not UTF-8.
pub fn to_json<D: Document>(document: &D) -> serde_json::Result<String> {
    #[derive(Serialize)]
    struct Whole<'a, D> {
        kind: &'static str,
        version: u32,
        #[serde(flatten)]
        body: &'a D,
    }
    let whole = Whole { kind: D::KIND, version: D::VERSION, body: document };
    serde_json::to_string_pretty(&whole).map(|json| escaped_json(&json))
}

/// The JSON schema (draft 2020-12) of such a document.
pub fn schema<D: Document>() -> Value {
    let settings = SchemaSettings::draft2020_12().for_serialize();
    let mut schema: Value = settings.into_generator().into_root_schema_for::<D>().into();
    open(&mut schema);
    let body = schema.as_object_mut().map(std::mem::take).unwrap_or_default();
    let mut whole = Map::new();
    whole.insert("$schema".to_owned(), json!(SchemaSettings::draft2020_12().meta_schema));
    whole.insert("title".to_owned(), json!(format!("nix-unroot: {}", D::KIND)));
    for (name, value) in body {
        let value = match name.as_str() {
            "$schema" | "title" => continue,
            "properties" => with_head::<D>(value),
            "required" => json!(
                [&[json!("kind"), json!("version")][..], value.as_array().map_or(&[], Vec::as_slice)]
                    .concat()
            ),
            _ => value,
        };
        whole.insert(name, value);
    }
    Value::Object(whole)
}

fn with_head<D: Document>(properties: Value) -> Value {
    let mut all = Map::new();
    all.insert("kind".to_owned(), json!({ "description": "What this document is.", "const": D::KIND }));
    all.insert(
        "version".to_owned(),
        json!({ "description": "Fields may be added without a new version.", "const": D::VERSION }),
    );
    all.extend(properties.as_object().cloned().unwrap_or_default());
    Value::Object(all)
}

/// Readers must bear fields that are added later, so no object is closed; and links of the Rust documentation are no links here.
fn open(schema: &mut Value) {
    match schema {
        Value::Object(object) => {
            for key in ["additionalProperties", "unevaluatedProperties"] {
                if object.get(key) == Some(&Value::Bool(false)) {
                    object.remove(key);
                }
            }
            if let Some(Value::String(text)) = object.get_mut("description") {
                *text = plain(text).into_owned();
            }
            object.values_mut().for_each(open);
        }
        Value::Array(items) => items.iter_mut().for_each(open),
        _ => {}
    }
}

fn plain(text: &str) -> Cow<'_, str> {
    if text.contains("[`") { text.replace("[`", "`").replace("`]", "`").into() } else { text.into() }
}
