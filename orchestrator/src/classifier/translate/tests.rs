//! A rule and its translation mean the same nodes: checked by playing both the classifier, to which
//! all facts are strings, and PuppetDB, to which a comparison may be neither true nor false.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::super::rule::{Field, Operator, Rule, Step};
use super::inventory;

fn translated(rule: &Value) -> Result<Value, String> {
    let rule = Rule::read(rule).map_err(|error| error.to_string())?;
    inventory(&rule).map_err(|error| error.to_string())
}

#[test]
fn comparisons_are_translated_one_by_one() {
    for (rule, expected) in [
        (json!(["=", "name", "a.b"]), json!(["=", "certname", "a.b"])),
        (
            json!(["~", "name", "^web"]),
            json!(["~", "certname", "^web"]),
        ),
        (
            json!(["=", ["fact", "os", "name"], "Debian"]),
            json!(["=", "facts.os.name", "Debian"]),
        ),
        (
            json!(["=", ["fact", "is_virtual"], "true"]),
            json!([
                "or",
                ["=", "facts.is_virtual", "true"],
                ["=", "facts.is_virtual", true]
            ]),
        ),
        (
            json!(["=", ["fact", "processors", "count"], "2"]),
            json!([
                "or",
                ["=", "facts.processors.count", "2"],
                ["=", "facts.processors.count", 2]
            ]),
        ),
        (
            json!(["=", ["fact", "x"], " 2"]),
            json!(["=", "facts.x", " 2"]),
        ),
        (
            json!([">=", ["fact", "load"], "1.5"]),
            json!([
                "and",
                [">=", "facts.load", 1.5],
                ["<=", "facts.load", 1e300]
            ]),
        ),
        (
            json!(["<", ["fact", "load"], "2"]),
            json!(["and", ["<", "facts.load", 2], [">=", "facts.load", -1e300]]),
        ),
        (
            json!(["=", ["fact", "disks", 0, "/dev/vda"], "x"]),
            json!(["=", "facts.disks[0].\"/dev/vda\"", "x"]),
        ),
        (
            json!(["=", ["trusted", "extensions", "pp_role"], "web"]),
            json!(["=", "trusted.extensions.pp_role", "web"]),
        ),
        (
            json!(["not", ["~", ["fact", "x"], "a"]]),
            json!([
                "not",
                [
                    "in",
                    "certname",
                    [
                        "from",
                        "inventory",
                        ["extract", "certname", ["~", "facts.x", "a"]]
                    ]
                ]
            ]),
        ),
        (
            json!(["not", ["=", ["fact", "x"], "a"]]),
            json!(["not", ["=", "facts.x", "a"]]),
        ),
    ] {
        assert_eq!(translated(&rule), Ok(expected), "{rule}");
    }
}

#[test]
fn what_puppetdb_cannot_be_asked_is_said() {
    for (rule, expected) in [
        (
            json!([">", ["fact", "x"], "many"]),
            "'>' compares numbers, and \"many\" is none",
        ),
        (
            json!(["<", "name", "5"]),
            "'<' compares numbers, and the name of a node is none",
        ),
        (
            json!(["=", ["fact", "a\"b"], "5"]),
            "PuppetDB cannot be asked for a fact that is called \"a\\\"b\"",
        ),
    ] {
        assert_eq!(translated(&rule), Err(expected.to_owned()), "{rule}");
    }
}

/// The values of the facts `a`, `b[0]` and `b[1]`, each of which may be missing.
type Node = [Option<Value>; 3];

fn node() -> impl Strategy<Value = Node> {
    let value = prop_oneof![
        Just(json!(true)),
        Just(json!("true")),
        Just(json!("web")),
        Just(json!("")),
        (0..4_i64).prop_map(Value::from),
        Just(json!(1.5)),
    ];
    let fact = prop::option::of(value);
    [fact.clone(), fact.clone(), fact]
}

fn field() -> impl Strategy<Value = Field> {
    let key = |key: &str| Step::Key(key.to_owned());
    prop::sample::select(vec![
        Field::Fact(vec![key("a")]),
        Field::Fact(vec![key("b"), Step::Index(0)]),
        Field::Fact(vec![key("b"), Step::Index(1)]),
    ])
}

fn rule() -> impl Strategy<Value = Rule> {
    let compare = |operators: &'static [Operator], values: &'static [&'static str]| {
        (
            prop::sample::select(operators),
            field(),
            prop::sample::select(values),
        )
            .prop_map(|(operator, field, value)| Rule::Compare {
                operator,
                field,
                value: value.to_owned(),
            })
    };
    let leaf = prop_oneof![
        compare(
            &[Operator::Equal, Operator::Matches],
            &["true", "web", "2", "1.5", "", "e", "5"]
        ),
        compare(
            &[
                Operator::Greater,
                Operator::GreaterOrEqual,
                Operator::Less,
                Operator::LessOrEqual
            ],
            &["0", "1.5", "2", "3"]
        ),
    ];
    leaf.prop_recursive(4, 24, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 1..4).prop_map(Rule::All),
            prop::collection::vec(inner.clone(), 1..4).prop_map(Rule::Any),
            inner.prop_map(|rule| Rule::Not(Box::new(rule))),
        ]
    })
}

/// What the classifier says.
fn classified(rule: &Rule, node: &Node) -> bool {
    match rule {
        Rule::All(rules) => rules.iter().all(|rule| classified(rule, node)),
        Rule::Any(rules) => rules.iter().any(|rule| classified(rule, node)),
        Rule::Not(rule) => !classified(rule, node),
        Rule::Compare {
            operator,
            field,
            value,
        } => {
            let place = match field {
                Field::Fact(steps) => match steps.get(1) {
                    None => 0,
                    Some(Step::Index(0)) => 1,
                    Some(_) => 2,
                },
                Field::Name | Field::Trusted(_) => unreachable!("not made by field()"),
            };
            let Some(fact) = &node[place] else {
                return false;
            };
            let text = match fact {
                Value::String(text) => text.clone(),
                other => other.to_string(),
            };
            let number = |text: &str| text.parse::<f64>().ok();
            match operator {
                Operator::Equal => text == *value,
                Operator::Matches => text.contains(value.as_str()),
                ordered => match (number(&text), number(value)) {
                    (Some(fact), Some(value)) => holds(*ordered, fact, value),
                    _ => false,
                },
            }
        }
    }
}

fn holds(operator: Operator, left: f64, right: f64) -> bool {
    match operator {
        Operator::Greater => left > right,
        Operator::GreaterOrEqual => left >= right,
        Operator::Less => left < right,
        Operator::LessOrEqual => left <= right,
        Operator::Equal | Operator::Matches => unreachable!("not ordered"),
    }
}

/// What PuppetDB says of a node: `None` is SQL's NULL.
fn answered(tree: &Value, node: &Node) -> Option<bool> {
    let items = tree.as_array().expect("a tree");
    let operator = items[0].as_str().expect("an operator");
    match operator {
        "and" => items[1..].iter().try_fold(true, |all, part| {
            // NULL and false is false.
            match answered(part, node) {
                Some(false) => Some(false),
                None if all => None,
                None => Some(false),
                Some(true) => Some(all),
            }
        }),
        "or" => {
            let parts: Vec<_> = items[1..].iter().map(|part| answered(part, node)).collect();
            if parts.contains(&Some(true)) {
                Some(true)
            } else if parts.contains(&None) {
                None
            } else {
                Some(false)
            }
        }
        "not" => answered(&items[1], node).map(|inside| !inside),
        "in" => Some(answered(&items[2][2][2], node) == Some(true)),
        operator => {
            let place = match items[1].as_str().expect("a path") {
                "facts.a" => 0,
                "facts.b[0]" => 1,
                "facts.b[1]" => 2,
                other => panic!("no such path: {other}"),
            };
            match (operator, &node[place], &items[2]) {
                ("=", fact, value) => Some(fact.as_ref() == Some(value)),
                (_, None, _) => None,
                ("~", Some(Value::String(text)), pattern) => {
                    Some(text.contains(pattern.as_str().expect("a pattern")))
                }
                ("~", Some(other), pattern) => Some(
                    other
                        .to_string()
                        .contains(pattern.as_str().expect("a pattern")),
                ),
                (ordered, Some(fact), value) => {
                    let operator = match ordered {
                        ">" => Operator::Greater,
                        ">=" => Operator::GreaterOrEqual,
                        "<" => Operator::Less,
                        _ => Operator::LessOrEqual,
                    };
                    let value = value.as_f64().expect("a number");
                    // Values of other kinds have their places beside the numbers.
                    let fact = match fact {
                        Value::String(_) => f64::NEG_INFINITY,
                        Value::Bool(_) => f64::INFINITY,
                        number => number.as_f64().expect("a number"),
                    };
                    Some(holds(operator, fact, value))
                }
            }
        }
    }
}

proptest! {
    #[test]
    fn the_translation_means_the_same_nodes(rule in rule(), node in node()) {
        let tree = inventory(&rule).expect("a translation");
        // A row is in the answer when the condition is true; NULL leaves it out.
        prop_assert_eq!(
            answered(&tree, &node) == Some(true),
            classified(&rule, &node),
            "{} of {:?}", tree, node
        );
    }

    #[test]
    fn what_is_written_is_read_again(rule in rule()) {
        fn written(rule: &Rule) -> Value {
            match rule {
                Rule::All(rules) => list("and", rules),
                Rule::Any(rules) => list("or", rules),
                Rule::Not(rule) => json!(["not", written(rule)]),
                Rule::Compare { operator, field, value } => {
                    let Field::Fact(steps) = field else { unreachable!() };
                    let mut path = vec![json!("fact")];
                    path.extend(steps.iter().map(|step| match step {
                        Step::Key(key) => json!(key),
                        Step::Index(index) => json!(index),
                    }));
                    json!([operator.text(), path, value])
                }
            }
        }
        fn list(operator: &str, rules: &[Rule]) -> Value {
            let mut items = vec![json!(operator)];
            items.extend(rules.iter().map(written));
            json!(items)
        }
        prop_assert_eq!(Rule::read(&written(&rule)), Ok(rule));
    }
}
