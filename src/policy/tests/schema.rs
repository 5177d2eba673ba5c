//! The schema and the reader know the same keys, words and limits, and agree on documents.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::*;
use crate::policy::{approval, document, matchers, overrides, people, settings, waiting, yaml};

fn schema_value() -> Value {
    serde_json::from_str(schema()).unwrap()
}

fn keys(at: &str) -> BTreeSet<String> {
    schema_value().pointer(at).unwrap().as_object().unwrap().keys().cloned().collect()
}

fn words(list: &[&str]) -> BTreeSet<String> {
    list.iter().map(|word| (*word).to_owned()).collect()
}

#[test]
fn the_schema_and_the_reader_know_the_same_keys() {
    assert_eq!(keys("/properties"), words(&document::DOCUMENT_KEYS));
    assert_eq!(keys("/$defs/rule/properties"), words(&document::RULE_KEYS));
    assert_eq!(keys("/$defs/tests/properties"), words(&matchers::OPERATORS));
    assert_eq!(keys("/properties/people/additionalProperties/properties"), words(&people::PERSON_KEYS));
    assert_eq!(keys("/properties/servers/additionalProperties/properties"), words(&settings::SERVER_KEYS));
    assert_eq!(keys("/properties/tools/additionalProperties/properties"), words(&settings::TOOL_KEYS));
    assert_eq!(keys("/$defs/rule/properties/requires/items/properties"), words(&approval::SEAT_KEYS));
    assert_eq!(keys("/$defs/rule/properties/escalate/items/properties"), words(&approval::STEP_KEYS));
    assert_eq!(keys("/$defs/rule/properties/remember/anyOf/1/properties"), words(&approval::REMEMBER_KEYS));
    assert_eq!(keys("/properties/overrides/items/properties"), words(&overrides::OVERRIDE_KEYS));
    assert_eq!(keys("/properties/waiting/properties"), words(&waiting::WAITING_KEYS));
    assert_eq!(
        keys("/properties/waiting/properties/clients/additionalProperties/properties"),
        words(&waiting::CLIENT_KEYS)
    );
    let modes: Vec<&str> = Mode::ALL.map(Mode::word).to_vec();
    assert_eq!(schema_value().pointer("/$defs/mode/enum"), Some(&json!(modes)));
    for object in ["", "/$defs/rule", "/$defs/tests"] {
        assert_eq!(
            schema_value().pointer(&format!("{object}/additionalProperties")),
            Some(&json!(false)),
            "{object}"
        );
    }
}

#[test]
fn the_schema_has_the_limits_of_the_reader() {
    for (at, limit) in [
        ("/properties/rules/maxItems", RULES_MAX),
        ("/$defs/rule/properties/name/maxLength", NAME_CHARS_MAX),
        ("/$defs/rule/properties/reason/maxLength", REASON_CHARS_MAX),
        ("/$defs/rule/properties/hold_message/maxLength", HOLD_MESSAGE_CHARS_MAX),
        ("/$defs/pattern/maxLength", pattern::PATTERN_BYTES_MAX),
        ("/$defs/patterns/anyOf/1/maxItems", document::PATTERNS_MAX),
        ("/$defs/condition/anyOf/0/maxLength", condition::CONDITION_BYTES_MAX),
        ("/properties/overrides/maxItems", overrides::OVERRIDES_MAX),
        ("/properties/people/maxProperties", people::PEOPLE_MAX),
        ("/properties/waiting/properties/clients/maxProperties", waiting::CLIENTS_MAX),
        ("/properties/teams/maxProperties", people::TEAMS_MAX),
        ("/properties/servers/maxProperties", settings::SETTINGS_MAX),
        ("/properties/tools/maxProperties", settings::SETTINGS_MAX),
        ("/$defs/names/anyOf/1/maxItems", people::WORDS_MAX),
        ("/$defs/names/anyOf/1/maxItems", approval::APPROVERS_MAX),
        ("/$defs/rule/properties/requires/maxItems", approval::SEATS_MAX),
        ("/$defs/rule/properties/escalate/maxItems", approval::STEPS_MAX),
        ("/$defs/count/maximum", crate::hold::SEAT_PEOPLE_MAX as usize),
    ] {
        assert_eq!(schema_value().pointer(at), Some(&json!(limit)), "{at}");
    }
    let effects: Vec<&str> = [Effect::Allow, Effect::Hold, Effect::Deny].map(Effect::word).to_vec();
    assert_eq!(schema_value().pointer("/$defs/effect/enum"), Some(&json!(effects)));
}

#[test]
fn every_key_of_the_schema_is_described() {
    for at in ["/properties", "/$defs/rule/properties", "/$defs/tests/properties"] {
        for (key, value) in schema_value().pointer(at).unwrap().as_object().unwrap() {
            assert!(value["description"].as_str().is_some_and(|text| text.ends_with('.')), "{at}/{key}");
        }
    }
}

/// A YAML document as JSON.
fn document(text: &str) -> Value {
    fn json(node: &yaml::Node) -> Value {
        match &node.value {
            yaml::Value::Null => Value::Null,
            yaml::Value::Bool(value) => (*value).into(),
            yaml::Value::Number(number) => serde_json::from_str(number).unwrap(),
            yaml::Value::Text(text) => text.clone().into(),
            yaml::Value::List(items) => items.iter().map(json).collect(),
            yaml::Value::Map(entries) => {
                let key = |key: &yaml::Node| match &key.value {
                    yaml::Value::Text(text) => text.clone(),
                    other => panic!("{other:?} is a key"),
                };
                entries
                    .iter()
                    .map(|(name, value)| (key(name), json(value)))
                    .collect::<serde_json::Map<_, _>>()
                    .into()
            }
        }
    }
    let source = Arc::new(Source { name: "policy.yaml".to_owned(), text: text.to_owned() });
    let mut problems = Vec::new();
    let root = yaml::read(&source, &mut problems).unwrap();
    assert!(problems.is_empty(), "{text}");
    json(&root)
}

/// Whether `value` fits `schema`. Knows the keywords that the schema uses; any other is a failure of the test.
fn fits(schema: &Value, value: &Value) -> bool {
    let Some(keywords) = schema.as_object() else { return schema == &json!(true) };
    let at_most = |limit: &Value, count: usize| count as u64 <= limit.as_u64().unwrap();
    let at_least = |limit: &Value, count: usize| count as u64 >= limit.as_u64().unwrap();
    let of_type = |name: &Value| match name.as_str().unwrap() {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "number" => value.is_number(),
        "integer" => value.is_i64() || value.is_u64(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        other => panic!("the type `{other}` is new to this test"),
    };
    let empty = serde_json::Map::new();
    let entries = value.as_object().unwrap_or(&empty);
    keywords.iter().all(|(keyword, told)| match keyword.as_str() {
        "$schema" | "$defs" | "title" | "description" | "default" => true,
        "$ref" => {
            let place = told.as_str().unwrap().trim_start_matches('#');
            fits(schema_value().pointer(place).unwrap(), value)
        }
        "type" => told.as_array().map_or_else(|| of_type(told), |types| types.iter().any(of_type)),
        "maxProperties" => at_most(told, entries.len()),
        "minimum" => value.as_f64().is_none_or(|number| number >= told.as_f64().unwrap()),
        "maximum" => value.as_f64().is_none_or(|number| number <= told.as_f64().unwrap()),
        "const" => value == told,
        "enum" => told.as_array().unwrap().contains(value),
        "anyOf" => told.as_array().unwrap().iter().any(|schema| fits(schema, value)),
        "allOf" => told.as_array().unwrap().iter().all(|schema| fits(schema, value)),
        "if" => {
            let branch = if fits(told, value) { "then" } else { "else" };
            keywords.get(branch).is_none_or(|schema| fits(schema, value))
        }
        "then" | "else" => true,
        "required" => told.as_array().unwrap().iter().all(|key| entries.contains_key(key.as_str().unwrap())),
        "properties" => told
            .as_object()
            .unwrap()
            .iter()
            .all(|(key, schema)| entries.get(key).is_none_or(|value| fits(schema, value))),
        "additionalProperties" => {
            let known = |key: &str| keywords.get("properties").is_some_and(|known| known.get(key).is_some());
            entries.iter().all(|(key, value)| known(key) || fits(told, value))
        }
        "minProperties" => !value.is_object() || at_least(told, entries.len()),
        "items" => value.as_array().is_none_or(|items| items.iter().all(|item| fits(told, item))),
        "minItems" => value.as_array().is_none_or(|items| at_least(told, items.len())),
        "maxItems" => value.as_array().is_none_or(|items| at_most(told, items.len())),
        "minLength" => value.as_str().is_none_or(|text| at_least(told, text.chars().count())),
        "maxLength" => value.as_str().is_none_or(|text| at_most(told, text.chars().count())),
        other => panic!("the keyword `{other}` is new to this test"),
    })
}

#[test]
fn every_policy_of_the_library_fits_the_schema() {
    let directory = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("policies");
    let mut seen = 0;
    for file in std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()) {
        if is_test_file(&file) {
            continue;
        }
        let text = std::fs::read_to_string(&file).unwrap();
        assert!(fits(&schema_value(), &document(&text)), "{}", file.display());
        seen += 1;
    }
    assert!(seen >= 5);
}

#[test]
fn the_schema_and_the_reader_agree_on_documents() {
    let rule = |body: &str| format!("version: 1\nrules:\n  - {{name: r, {body}}}\n");
    for good in [
        "version: 1\n".to_owned(),
        "version: 1\ndefault: deny\nrules:\n".to_owned(),
        rule(
            "action: hold, tool: [a, 'b*'], server: s, timeout: 1h 30m, on_timeout: deny, on_rejection: fail, hold_message: x",
        ),
        rule("action: deny, method: [resources/read], on_rejection: continue, reason: no"),
        rule("action: allow, tool: t, when: args.a > 1"),
        rule("action: hold, tool: t, when: {args.a: {gt: 1, not: {in: [1, x, null]}}, tool: {ne: z}}"),
        rule(
            "action: hold, tool: t, when: {args.a: {not: [x]}, args.b: {not: z, exists: true, matches: '^a$'}}",
        ),
    ] {
        let good = good.replace("reason: no", "reason: 'no'");
        assert_eq!(codes(&good), [""; 0], "{good}");
        assert!(fits(&schema_value(), &document(&good)), "{good}");
    }
    for bad in [
        "version: 2\n".to_owned(),
        "rules: []\n".to_owned(),
        "version: 1\nmod: x\n".to_owned(),
        "version: 1\ndefault: Hold\n".to_owned(),
        "version: 1\nrules: {}\n".to_owned(),
        "- a\n".to_owned(),
        "version: 1\nrules: [{action: hold}]\n".to_owned(),
        rule("tool: t"),
        rule("tool: t, action: escalate"),
        rule("tool: t, action: hold, approve: x"),
        rule("tool: [], action: hold"),
        rule("tool: '', action: hold"),
        rule("tool: 5, action: hold"),
        rule("tool: t, action: allow, timeout: 5m"),
        rule("tool: t, action: deny, hold_message: x"),
        rule("tool: t, action: deny, on_timeout: deny"),
        rule("tool: t, action: allow, on_rejection: fail"),
        rule("tool: t, action: hold, on_rejection: stop"),
        rule("tool: t, action: hold, on_timeout: allow"),
        rule("tool: t, action: hold, timeout: 30"),
        rule("tool: t, action: hold, reason: ''"),
        rule(&format!("tool: t, action: hold, reason: {}", "é".repeat(501))),
        rule("tool: t, action: hold, when: ''"),
        rule("tool: t, action: hold, when: 5"),
        rule("tool: t, action: hold, when: {}"),
        rule("tool: t, action: hold, when: {args.a: {}}"),
        rule("tool: t, action: hold, when: {args.a: 5}"),
        rule("tool: t, action: hold, when: {args.a: {gtt: 1}}"),
        rule("tool: t, action: hold, when: {args.a: {gt: '1'}}"),
        rule("tool: t, action: hold, when: {args.a: {in: []}}"),
        rule("tool: t, action: hold, when: {args.a: {in: x}}"),
        rule("tool: t, action: hold, when: {args.a: {eq: [x]}}"),
        rule("tool: t, action: hold, when: {args.a: {exists: 1}}"),
        rule("tool: t, action: hold, when: {args.a: {contains: ''}}"),
        rule("tool: t, action: hold, when: {args.a: {not: {}}}"),
    ] {
        assert_ne!(codes(&bad), [""; 0], "{bad}");
        assert!(!fits(&schema_value(), &document(&bad)), "{bad}");
    }
}
