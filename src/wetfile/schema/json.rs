//! The JSON Schema of a Wetfile, made of the tables that the reader uses.
//!
//! It says what can be said of a file without looking at anything else: keys, types, names, and which keys exclude each
//! other. What it accepts may still be wrong.

use serde_json::{Map, Value as Json, json};

use super::keys::{self, Key, Value};
use super::{ELEMENTS_MAX, FORMAT};
use crate::wetfile::name::NAME_BYTES_MAX;

/// The rule for names.
const NAME_PATTERN: &str = "^[a-z][a-z0-9]*(-[a-z0-9]+)*$";

/// The rule for versions of projects.
const VERSION_PATTERN: &str = "^[A-Za-z0-9.+_-]+$";

/// The dialect (json-schema.org, draft 2020-12).
const DIALECT: &str = "https://json-schema.org/draft/2020-12/schema";

/// The JSON Schema of Wetfiles as a text: what `docs/wetfile.schema.json` has.
pub fn json_schema() -> String {
    let mut schema = table(keys::ROOT, "A project of ww: its guests and images.");
    schema.insert("$schema".to_owned(), DIALECT.into());
    schema.insert("title".to_owned(), "Wetfile.toml".into());
    let text = serde_json::to_string_pretty(&schema).expect("texts, numbers and maps with texts as keys are JSON");
    format!("{text}\n")
}

fn table(keys: &[Key], about: &str) -> Map<String, Json> {
    let properties: Map<_, _> =
        keys.iter().map(|key| (key.name.to_owned(), described(&key.value, key.about))).collect();
    let required: Vec<&str> = keys.iter().filter(|key| key.is_required).map(|key| key.name).collect();
    let mut schema = Map::new();
    schema.insert("type".to_owned(), "object".into());
    if !about.is_empty() {
        schema.insert("description".to_owned(), about.into());
    }
    schema.insert("properties".to_owned(), properties.into());
    schema.insert("additionalProperties".to_owned(), false.into());
    if !required.is_empty() {
        schema.insert("required".to_owned(), required.into());
    }
    schema
}

fn described(value: &Value, about: &str) -> Json {
    let mut schema = schema(value);
    if let Json::Object(schema) = &mut schema {
        schema.insert("description".to_owned(), about.into());
    }
    schema
}

fn schema(value: &Value) -> Json {
    match value {
        Value::Format => json!({ "const": FORMAT }),
        Value::Text | Value::Cid => json!({ "type": "string" }),
        Value::OneOf(texts) => json!({ "enum": texts }),
        Value::Name => json!({ "type": "string", "pattern": NAME_PATTERN, "maxLength": NAME_BYTES_MAX }),
        Value::Version => json!({ "type": "string", "pattern": VERSION_PATTERN, "maxLength": NAME_BYTES_MAX }),
        Value::Flag => json!({ "type": "boolean" }),
        Value::True => json!({ "const": true }),
        Value::Texts => json!({ "type": "array", "items": { "type": "string" }, "maxItems": ELEMENTS_MAX }),
        Value::Names => json!({
            "type": "array", "items": schema(&Value::Name), "maxItems": ELEMENTS_MAX, "uniqueItems": true,
        }),
        Value::Command => json!({ "anyOf": [
            { "type": "string" },
            { "type": "array", "items": { "type": "string" }, "minItems": 1, "maxItems": ELEMENTS_MAX },
        ] }),
        Value::Variables(keys) => json!({
            "type": "object",
            "propertyNames": { "pattern": "^(?!WW_)[A-Za-z_][A-Za-z0-9_]*$" },
            "additionalProperties": { "anyOf": [{ "type": "string" }, table(keys, "A variable.")] },
        }),
        Value::Limits => json!({
            "type": "object",
            "additionalProperties": { "anyOf": [{ "type": "string" }, { "type": "integer", "minimum": 0 }] },
        }),
        Value::Sources { keys, kinds } => json!({
            "type": "object",
            "additionalProperties": source(keys, kinds),
            "maxProperties": ELEMENTS_MAX,
        }),
        Value::Choice(keys) => {
            let mut schema = table(keys, "");
            schema.insert("minProperties".to_owned(), 1.into());
            schema.insert("maxProperties".to_owned(), 1.into());
            schema.into()
        }
        Value::Table(keys) => table(keys, "").into(),
        Value::Named(keys, max) => json!({
            "type": "object",
            "propertyNames": { "pattern": NAME_PATTERN, "maxLength": NAME_BYTES_MAX },
            "additionalProperties": table(keys, ""),
            "maxProperties": max,
        }),
        Value::Anything => json!({}),
    }
}

/// A source: of the keys that say what it is there is one, and a glob needs a path.
fn source(keys: &[Key], kinds: &[&str]) -> Json {
    let mut schema = table(keys, "Where what is at this path comes from.");
    let choices: Vec<Json> = kinds.iter().map(|kind| json!({ "required": [kind] })).collect();
    schema.insert("oneOf".to_owned(), choices.into());
    schema.insert("dependentRequired".to_owned(), json!({ "glob": ["path"] }));
    schema.into()
}
