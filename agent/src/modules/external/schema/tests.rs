//! Each keyword from both sides.

use proptest::prelude::*;
use serde_json::json;

use super::*;

fn schema(schema: &Value) -> Schema {
    Schema::parse(schema).unwrap()
}

#[test]
fn each_keyword_takes_what_it_says_and_nothing_else() {
    for (keywords, good, bad) in [
        (json!({}), json!([1, {"a": null}]), None),
        (json!({"type": "string"}), json!("a"), Some(json!(1))),
        (json!({"type": "integer"}), json!(1), Some(json!(1.5))),
        (json!({"type": "number"}), json!(1.5), Some(json!("1"))),
        (json!({"type": "boolean"}), json!(false), Some(json!(null))),
        (
            json!({"type": ["null", "array"]}),
            json!([]),
            Some(json!({})),
        ),
        (json!({"enum": ["a", 1]}), json!(1), Some(json!("b"))),
        (
            json!({"required": ["a"]}),
            json!({"a": null}),
            Some(json!({"b": 1})),
        ),
        (
            json!({"properties": {"a": {"type": "string"}}}),
            json!({"b": 1}),
            Some(json!({"a": 1})),
        ),
        (
            json!({"properties": {"a": {}}, "additionalProperties": false}),
            json!({"a": 1}),
            Some(json!({"a": 1, "b": 1})),
        ),
        (
            json!({"properties": {"a": {}}, "additionalProperties": {"type": "null"}}),
            json!({"a": 1, "b": null}),
            Some(json!({"a": 1, "b": 1})),
        ),
        (
            json!({"items": {"type": "string"}}),
            json!(["a"]),
            Some(json!(["a", 1])),
        ),
        (
            json!({"minItems": 1, "maxItems": 2}),
            json!([1, 2]),
            Some(json!([])),
        ),
        (json!({"maxItems": 2}), json!([1]), Some(json!([1, 2, 3]))),
        (
            json!({"uniqueItems": true}),
            json!([1, "1"]),
            Some(json!([{"a": 1}, {"a": 1}])),
        ),
        (json!({"minLength": 2}), json!("äö"), Some(json!("ä"))),
        (json!({"maxLength": 2}), json!("äö"), Some(json!("äöü"))),
        (
            json!({"minProperties": 1}),
            json!({"a": 1}),
            Some(json!({})),
        ),
        (
            json!({"maxProperties": 1}),
            json!({"a": 1}),
            Some(json!({"a": 1, "b": 1})),
        ),
        (json!({"minimum": 2}), json!(2), Some(json!(1.9))),
        (
            json!({"minimum": 2, "exclusiveMinimum": true}),
            json!(2.1),
            Some(json!(2)),
        ),
        (json!({"maximum": 2}), json!(2), Some(json!(3))),
        (
            json!({"maximum": 2, "exclusiveMaximum": true}),
            json!(-5),
            Some(json!(2)),
        ),
        (
            json!({"allOf": [{"minimum": 1}, {"maximum": 3}]}),
            json!(2),
            Some(json!(4)),
        ),
        (
            json!({"anyOf": [{"minimum": 3}, {"maximum": 1}]}),
            json!(0),
            Some(json!(2)),
        ),
        (
            json!({"oneOf": [{"minimum": 1}, {"maximum": 3}]}),
            json!(0),
            Some(json!(2)),
        ),
        (
            json!({"not": {"type": "string"}}),
            json!(1),
            Some(json!("a")),
        ),
        (
            json!({"title": "t", "description": "d", "default": 1, "id": "x",
                "$schema": "http://json-schema.org/draft-04/schema#"}),
            json!(1),
            None,
        ),
    ] {
        let schema = schema(&keywords);
        assert_eq!(schema.check(&good), Ok(()), "{keywords} and {good}");
        if let Some(bad) = bad {
            assert!(schema.check(&bad).is_err(), "{keywords} and {bad}");
        }
    }
}

#[test]
fn what_is_not_checked_is_no_schema() {
    for keywords in [
        json!({"$ref": "#/definitions/a"}),
        json!({"definitions": {}}),
        json!({"pattern": "^a"}),
        json!({"patternProperties": {}}),
        json!({"dependencies": {}}),
        json!({"format": "uri"}),
        json!({"multipleOf": 2}),
        json!({"additionalItems": false}),
        json!({"properties": {"a": {"items": {"const": 1}}}}),
    ] {
        let error = Schema::parse(&keywords).unwrap_err();
        assert!(
            matches!(error, SchemaError::Unsupported { .. }),
            "{keywords}: {error}"
        );
    }
    for keywords in [
        json!({"required": true}),
        json!({"required": []}),
        json!({"type": "text"}),
        json!({"items": [{}, {}]}),
        json!({"minimum": "1"}),
        json!({"minItems": -1}),
        json!({"exclusiveMinimum": 3}),
        json!({"$schema": "http://json-schema.org/draft-07/schema#"}),
        json!("string"),
    ] {
        assert!(Schema::parse(&keywords).is_err(), "{keywords}");
    }
    let deep = (0..=MAX_DEPTH + 1).fold(json!({}), |schema, _| json!({"not": schema}));
    assert_eq!(Schema::parse(&deep), Err(SchemaError::Deep));
}

#[test]
fn a_fault_names_its_place_and_never_the_value() {
    let schema = schema(&json!({"properties": {"a/b": {"items": {"type": "integer"}}}}));
    let error = schema.check(&json!({"a/b": [1, "hunter2"]})).unwrap_err();
    assert_eq!(error.to_string(), "/a~1b/1: it is not of the type integer");
    let error = Schema::parse(&json!({"properties": {"x": {"pattern": "a"}}})).unwrap_err();
    assert_eq!(
        error.to_string(),
        "/properties/x: the keyword \"pattern\" is not supported"
    );
}

const WORDS: [&str; 9] = [
    "type",
    "properties",
    "required",
    "items",
    "not",
    "anyOf",
    "enum",
    "object",
    "a",
];

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(json!(null)),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        proptest::sample::select(&WORDS[..]).prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 4, |inner| {
        let name = proptest::sample::select(&WORDS[..]);
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::btree_map(name, inner, 0..4).prop_map(|members| {
                let members = members.into_iter();
                Value::Object(
                    members
                        .map(|(name, value)| (name.to_owned(), value))
                        .collect(),
                )
            }),
        ]
    })
}

proptest! {
    #[test]
    fn whatever_a_module_says_is_read_or_refused(schema in any_json(), value in any_json()) {
        if let Ok(schema) = Schema::parse(&schema) {
            // Either answer will do; that there is one is the point.
            drop(schema.check(&value));
        }
    }

    #[test]
    fn what_fits_does_not_fit_the_opposite(schema in any_json(), value in any_json()) {
        if let (Ok(plain), Ok(opposite)) = (Schema::parse(&schema), Schema::parse(&json!({"not": schema}))) {
            prop_assert_ne!(plain.check(&value).is_ok(), opposite.check(&value).is_ok());
        }
    }
}
