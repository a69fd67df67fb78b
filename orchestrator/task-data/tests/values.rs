//! Types and values that are made together: what a type was made for it takes, what breaks one of its
//! rules it refuses, however deep the rule stands.

#![expect(
    clippy::indexing_slicing,
    reason = "each case has a good value, and a list that was made has its places"
)]

use proptest::prelude::*;
use serde_json::{Value, json};
use task_data::PuppetType;

/// A type, values of it, and values that it does not take.
#[derive(Debug, Clone)]
struct Case {
    text: String,
    good: Vec<Value>,
    bad: Vec<Value>,
}

/// A value that no type of these tests takes: hashes of theirs have other keys.
fn alien() -> Value {
    json!({"alien": true})
}

fn case(text: String, good: Vec<Value>, mut bad: Vec<Value>) -> Case {
    bad.push(alien());
    Case { text, good, bad }
}

fn leaf() -> impl Strategy<Value = Case> {
    let integer = (-1000..1000_i64, 0..1000_i64).prop_map(|(low, span)| {
        let high = low + span;
        case(
            format!("Integer[{low}, {high}]"),
            vec![json!(low), json!(high), json!(low + span / 2)],
            vec![
                json!(low - 1),
                json!(high + 1),
                json!(low.to_string()),
                json!(0.5),
                json!(true),
            ],
        )
    });
    let float = (-1000..1000_i32, 1..1000_i32).prop_map(|(low, span)| {
        let (low, span) = (f64::from(low), f64::from(span));
        case(
            format!("Float[{low:?}, {:?}]", low + span),
            vec![json!(low), json!(low + span), json!(low + span / 3.0)],
            vec![
                json!(low - 0.5),
                json!(low + span + 0.5),
                json!("1.5"),
                json!(7),
            ],
        )
    });
    let string = (1..8_usize, 0..8_usize).prop_map(|(least, more)| {
        // Characters are counted, and not bytes.
        let text = |length: usize| json!("\u{fc}".repeat(length));
        case(
            format!("String[{least}, {}]", least + more),
            vec![text(least), text(least + more)],
            vec![
                text(least - 1),
                text(least + more + 1),
                json!(least),
                json!(["x"]),
            ],
        )
    });
    let words = prop::sample::subsequence(vec!["a", "b", "c", "d"], 1..4).prop_map(|words| {
        let quoted: Vec<String> = words.iter().map(|word| format!("'{word}'")).collect();
        case(
            format!("Enum[{}]", quoted.join(", ")),
            words.iter().map(|word| json!(word)).collect(),
            vec![json!("A"), json!("ab"), json!(""), json!(1)],
        )
    });
    let pattern = (1..5_usize).prop_map(|count| {
        case(
            format!("Pattern[/\\A[a-c]{{{count}}}\\z/]"),
            vec![json!("b".repeat(count))],
            vec![
                json!("b".repeat(count + 1)),
                json!("d".repeat(count)),
                json!(format!("{}\n", "b".repeat(count))),
                json!(5),
            ],
        )
    });
    let boolean = Just(case(
        "Boolean".to_owned(),
        vec![json!(true), json!(false)],
        vec![json!("true"), json!(0)],
    ));
    prop_oneof![integer, float, string, words, pattern, boolean]
}

fn optional(inner: Case) -> Case {
    let mut good = inner.good;
    good.push(Value::Null);
    case(format!("Optional[{}]", inner.text), good, inner.bad)
}

fn array(inner: &Case, least: usize, more: usize) -> Case {
    let item = &inner.good[0];
    let of = |length: usize| Value::Array(vec![item.clone(); length]);
    let mut bad: Vec<Value> = vec![of(least - 1), of(least + more + 1), item.clone()];
    // One bad item among good ones is enough.
    bad.extend(inner.bad.iter().map(|wrong| {
        let mut items = vec![item.clone(); least];
        items[least - 1] = wrong.clone();
        Value::Array(items)
    }));
    let mut good: Vec<Value> = inner
        .good
        .iter()
        .map(|it| Value::Array(vec![it.clone(); least]))
        .collect();
    good.push(of(least + more));
    // The item itself may be an array that fits by its form.
    bad.retain(|value| value != item || !value.is_array());
    case(
        format!("Array[{}, {least}, {}]", inner.text, least + more),
        good,
        bad,
    )
}

fn hash(inner: &Case) -> Case {
    let good = inner.good.iter().map(|it| json!({"k": it}));
    let mut bad: Vec<Value> = inner.bad.iter().map(|it| json!({"k": it})).collect();
    bad.push(json!({"k": inner.good[0], "other": inner.good[0]}));
    bad.push(json!({}));
    bad.push(json!("k"));
    case(
        format!("Hash[Enum['k'], {}, 1, 1]", inner.text),
        good.collect(),
        bad,
    )
}

fn structure(needed: &Case, optional: &Case) -> Case {
    let (first, second) = (&needed.good[0], &optional.good[0]);
    let mut bad = vec![
        json!({"need": first, "more": second, "other": 1}),
        json!("need"),
        json!([first]),
    ];
    bad.extend(needed.bad.iter().map(|it| json!({"need": it})));
    bad.extend(
        optional
            .bad
            .iter()
            .map(|it| json!({"need": first, "more": it})),
    );
    // A member whose type takes null may be absent.
    if !needed.good.contains(&Value::Null) {
        bad.push(json!({"more": second}));
    }
    case(
        format!(
            "Struct[{{'need' => {}, Optional['more'] => {}}}]",
            needed.text, optional.text
        ),
        vec![
            json!({"need": first}),
            json!({"need": first, "more": second}),
        ],
        bad,
    )
}

fn tuple(first: &Case, second: &Case) -> Case {
    let (a, b) = (&first.good[0], &second.good[0]);
    let mut bad = vec![json!([a]), json!([a, b, b]), json!([]), json!("a")];
    bad.extend(first.bad.iter().map(|it| json!([it, b])));
    bad.extend(second.bad.iter().map(|it| json!([a, it])));
    case(
        format!("Tuple[{}, {}]", first.text, second.text),
        vec![json!([a, b])],
        bad,
    )
}

fn variant(first: Case, second: Case) -> Case {
    let mut good = first.good;
    good.extend(second.good);
    // What the one does not take the other may.
    case(
        format!("Variant[{}, {}]", first.text, second.text),
        good,
        vec![],
    )
}

fn cases() -> impl Strategy<Value = Case> {
    leaf().prop_recursive(4, 24, 3, |inner| {
        prop_oneof![
            inner.clone().prop_map(optional),
            (inner.clone(), 1..4_usize, 0..3_usize)
                .prop_map(|(it, least, more)| array(&it, least, more)),
            inner.clone().prop_map(|it| hash(&it)),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| structure(&a, &b)),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| tuple(&a, &b)),
            (inner.clone(), inner).prop_map(|(a, b)| variant(a, b)),
        ]
    })
}

proptest! {
    #[test]
    fn a_type_takes_its_own_values_and_none_that_break_a_rule(case in cases()) {
        let parsed: PuppetType = case.text.parse().expect("a type");
        for value in &case.good {
            prop_assert!(parsed.matches(value), "{} refuses {value}", case.text);
        }
        for value in &case.bad {
            prop_assert!(!parsed.matches(value), "{} takes {value}", case.text);
        }
        // What may be left out is what takes null; and wrapping changes only what it says it does.
        prop_assert_eq!(parsed.accepts_absence(), parsed.matches(&Value::Null));
        let wrap = |name: &str| format!("{name}[{}]", case.text).parse::<PuppetType>().expect("a type");
        let (optional, present) = (wrap("Optional"), wrap("NotUndef"));
        prop_assert!(optional.matches(&Value::Null) && !present.matches(&Value::Null));
        for value in case.good.iter().chain(&case.bad).filter(|value| !value.is_null()) {
            let takes = parsed.matches(value);
            prop_assert_eq!((optional.matches(value), present.matches(value)), (takes, takes));
        }
    }
}
