//! The JSON Schema, held against the Wetfiles that there are.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value as Json;

use super::*;

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// What a value breaks of a schema, as far as the words go that ours has; any other word is a failure of the test.
fn broken(schema: &Json, value: &Json, place: &str) -> Vec<String> {
    let Json::Object(words) = schema else { panic!("{schema} is no schema") };
    let is_valid = |schema: &Json, value: &Json| broken(schema, value, place).is_empty();
    let number = |word: &Json| usize::try_from(word.as_u64().unwrap()).unwrap();
    let texts =
        |word: &Json| word.as_array().unwrap().iter().map(|text| text.as_str().unwrap().to_owned()).collect::<Vec<_>>();
    let mut wrong = Vec::new();
    for (word, rule) in words {
        let holds = match (word.as_str(), value) {
            ("$schema" | "title" | "description" | "properties", _) => true,
            ("type", value) => match rule.as_str().unwrap() {
                "object" => value.is_object(),
                "array" => value.is_array(),
                "string" => value.is_string(),
                "boolean" => value.is_boolean(),
                "integer" => value.is_i64() || value.is_u64(),
                other => panic!("unknown type {other}"),
            },
            ("const", value) => rule == value,
            ("enum", value) => rule.as_array().unwrap().contains(value),
            ("anyOf", value) => rule.as_array().unwrap().iter().any(|schema| is_valid(schema, value)),
            ("oneOf", value) => rule.as_array().unwrap().iter().filter(|schema| is_valid(schema, value)).count() == 1,
            ("minimum", value) => value.as_i64().is_none_or(|value| value >= rule.as_i64().unwrap()),
            ("pattern", Json::String(text)) => fits(rule.as_str().unwrap(), text),
            ("maxLength", Json::String(text)) => text.chars().count() <= number(rule),
            ("items", Json::Array(items)) => items.iter().all(|item| is_valid(rule, item)),
            ("minItems", Json::Array(items)) => items.len() >= number(rule),
            ("maxItems", Json::Array(items)) => items.len() <= number(rule),
            ("uniqueItems", Json::Array(items)) => {
                items.iter().map(Json::to_string).collect::<BTreeSet<_>>().len() == items.len()
            }
            ("required", Json::Object(object)) => texts(rule).iter().all(|key| object.contains_key(key)),
            ("dependentRequired", Json::Object(object)) => rule.as_object().unwrap().iter().all(|(key, needs)| {
                !object.contains_key(key) || texts(needs).iter().all(|key| object.contains_key(key))
            }),
            ("minProperties", Json::Object(object)) => object.len() >= number(rule),
            ("maxProperties", Json::Object(object)) => object.len() <= number(rule),
            ("propertyNames", Json::Object(object)) => {
                object.keys().all(|key| is_valid(rule, &Json::String(key.clone())))
            }
            ("additionalProperties", Json::Object(object)) => {
                let known = words.get("properties").and_then(Json::as_object);
                let others = object.iter().filter(|(key, _)| known.is_none_or(|known| !known.contains_key(*key)));
                others.into_iter().all(|(_, value)| *rule != Json::Bool(false) && is_valid(rule, value))
            }
            (
                "pattern"
                | "maxLength"
                | "items"
                | "minItems"
                | "maxItems"
                | "uniqueItems"
                | "required"
                | "dependentRequired"
                | "minProperties"
                | "maxProperties"
                | "propertyNames"
                | "additionalProperties",
                _,
            ) => true,
            (other, _) => panic!("unknown word {other}"),
        };
        if !holds {
            wrong.push(format!("{place}: {word} {rule}"));
        }
    }
    if let (Some(Json::Object(properties)), Json::Object(object)) = (words.get("properties"), value) {
        for (key, schema) in properties {
            wrong
                .extend(object.get(key).into_iter().flat_map(|value| broken(schema, value, &format!("{place}/{key}"))));
        }
    }
    wrong
}

/// The patterns that ours has, each by another way to say it.
fn fits(pattern: &str, text: &str) -> bool {
    let consists_of = |others: &[u8]| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || others.contains(&byte));
    match pattern {
        "^[a-z][a-z0-9]*(-[a-z0-9]+)*$" => text.len() > NAME_BYTES_MAX_TESTED || is_name(text),
        "^[A-Za-z0-9.+_-]+$" => !text.is_empty() && consists_of(b".+_-"),
        "^(?!WW_)[A-Za-z_][A-Za-z0-9_]*$" => {
            let starts = text.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_');
            starts && !text.starts_with("WW_") && consists_of(b"_")
        }
        other => panic!("unknown pattern {other}"),
    }
}

/// The length of names is a rule of its own.
const NAME_BYTES_MAX_TESTED: usize = crate::wetfile::NAME_BYTES_MAX;

fn check(text: &str) -> Vec<String> {
    let value: toml::Table = text.parse().unwrap();
    let schema: Json = serde_json::from_str(&json_schema()).unwrap();
    broken(&schema, &serde_json::to_value(value).unwrap(), "")
}

#[test]
fn the_committed_schema_is_the_generated_one() {
    let path = repository().join("docs/wetfile.schema.json");
    let committed = fs::read_to_string(&path).unwrap_or_default();
    assert!(committed == json_schema(), "write it anew: `ww schema > docs/wetfile.schema.json`");
}

/// Every file below a folder that has this name.
fn files_called(name: &str, folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let path = entry.path();
        if entry.file_type().unwrap().is_dir() && entry.file_name() != "target" && entry.file_name() != ".git" {
            files_called(name, &path, found);
        } else if entry.file_name() == name {
            found.push(path);
        }
    }
}

#[test]
fn every_wetfile_here_and_in_the_documentation_is_valid() {
    let mut files = Vec::new();
    files_called(crate::wetfile::FILE_NAME, repository(), &mut files);
    let mut texts: Vec<String> = files.iter().map(|path| fs::read_to_string(path).unwrap()).collect();
    assert!(texts.len() > 1, "they were not found");
    for page in fs::read_dir(repository().join("docs")).unwrap().map(|entry| entry.unwrap().path()) {
        let page = fs::read_to_string(page).unwrap();
        let blocks = page.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next());
        texts.extend(blocks.filter(|block| block.contains("wetfile = 1")).map(str::to_owned));
    }
    assert!(texts.len() > files.len() + 1, "those of the documentation were not found");
    for text in texts {
        assert!(check(&text).is_empty(), "{:?}\n{text}", check(&text));
    }
}

/// What is wrong with these shows only to those who look at other parts of the file, or at the disk.
const NOT_SEEN: &[&str] = &[
    "colliding_files",
    "conflicting_key",
    "cycle",
    "cycle_images",
    "cycle_itself",
    "cycle_mixed",
    "cycle_one_cut",
    "cycle_twice",
    "duplicate_embed_and_need",
    "invalid_cargo",
    "invalid_glob",
    "invalid_image_path",
    "invalid_out",
    "invalid_path",
    "invalid_placeholder",
    "layers",
    "missing_path",
    "no_main",
    "not_a_folder",
    "out_overlap",
    "outside_project",
    "symlink_in_path",
    "unknown_guest",
    "unknown_language",
    "unreadable",
    "unsupported_file",
];

#[test]
fn what_the_schema_can_see_is_not_valid() {
    let folder = repository().join("tests/fixtures/wetfiles");
    let mut not_seen = Vec::new();
    for path in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        let text = fs::read_to_string(&path).unwrap();
        // What is not TOML never gets to a schema.
        if text.parse::<toml::Table>().is_ok() && check(&text).is_empty() {
            not_seen.push(path.file_stem().unwrap().to_str().unwrap().to_owned());
        }
    }
    not_seen.sort();
    assert_eq!(not_seen, NOT_SEEN);
}
