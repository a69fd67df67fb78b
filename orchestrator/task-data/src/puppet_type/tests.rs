//! Types against values: what Puppet's type system says, and that no text can do harm.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{MAX_TYPE_DEPTH, MAX_TYPE_LENGTH, PuppetType, TypeError};

fn parse(text: &str) -> PuppetType {
    text.parse()
        .unwrap_or_else(|error| panic!("{text}: {error}"))
}

#[track_caller]
fn check(text: &str, yes: &[Value], no: &[Value]) {
    let parsed = parse(text);
    for value in yes {
        assert!(parsed.matches(value), "{text} should take {value}");
    }
    for value in no {
        assert!(!parsed.matches(value), "{text} should not take {value}");
    }
}

#[test]
fn strings_and_their_length_in_characters() {
    check(
        "String",
        &[json!(""), json!("x")],
        &[json!(5), json!(null), json!(["x"])],
    );
    check("String[1]", &[json!("x")], &[json!("")]);
    check("String[1,2]", &[json!("\u{e9}\u{e9}")], &[json!("abc")]);
    check("String[default, 2]", &[json!("")], &[json!("abc")]);
}

#[test]
fn numbers_are_not_texts_and_floats_are_not_integers() {
    check(
        "Integer",
        &[json!(-5), json!(u64::MAX)],
        &[json!("5"), json!(5.0), json!(true)],
    );
    check(
        "Integer[0,default]",
        &[json!(0), json!(u64::MAX)],
        &[json!(-1)],
    );
    check(
        "Integer[1, 10]",
        &[json!(1), json!(10)],
        &[json!(0), json!(11), json!(u64::MAX)],
    );
    check("Integer[-0x10, 010]", &[json!(-16), json!(8)], &[json!(9)]);
    check(
        "Float[0.5, 1e3]",
        &[json!(0.5), json!(999.9)],
        &[json!(0.4), json!(1)],
    );
    check("Numeric", &[json!(1), json!(1.5)], &[json!("1")]);
    check("Boolean", &[json!(true)], &[json!("true")]);
    check("Boolean[true]", &[json!(true)], &[json!(false)]);
}

#[test]
fn enums_and_patterns() {
    check(
        "Enum['a', \"b\", c_d]",
        &[json!("a"), json!("b"), json!("c_d")],
        &[json!("A"), json!(1)],
    );
    check(
        "Enum[fast, Slow, true]".replace("Slow", "slow").as_str(),
        &[json!("FAST")],
        &[json!("x")],
    );
    check(
        "Pattern[/\\A[a-z\\/]+\\Z/, 'x\\d']",
        &[json!("a/b"), json!("ax9")],
        &[json!("A")],
    );
    check("Pattern[Regexp[/^a/]]", &[json!("ab")], &[json!("ba")]);
    check("Pattern", &[json!("anything")], &[json!(1)]);
}

#[test]
fn absence_is_a_value_of_optional_and_undef() {
    check(
        "Optional[String[1]]",
        &[json!(null), json!("a")],
        &[json!("")],
    );
    check(
        "Optional['only']",
        &[json!(null), json!("only")],
        &[json!("other")],
    );
    check("Optional", &[json!(null), json!(1)], &[]);
    check("Undef", &[json!(null)], &[json!("")]);
    check("NotUndef", &[json!("")], &[json!(null)]);
    check("NotUndef[Optional[Integer]]", &[json!(1)], &[json!(null)]);
    for (text, expected) in [
        ("Any", true),
        ("Data", true),
        ("Variant[Undef, String]", true),
        ("Optional[Stdlib::Port]", true),
        ("String", false),
        ("Stdlib::Port", false),
    ] {
        assert_eq!(parse(text).accepts_absence(), expected, "{text}");
    }
}

#[test]
fn collections_and_what_is_in_them() {
    check(
        "Array[Integer, 1, 2]",
        &[json!([1]), json!([1, 2])],
        &[json!([]), json!([1, 2, 3]), json!(["1"])],
    );
    check("Array[1]", &[json!(["a"])], &[json!([])]);
    check("Array", &[json!([]), json!([null])], &[json!({})]);
    check(
        "Hash[String[2], Integer]",
        &[json!({"ab": 1}), json!({})],
        &[json!({"a": 1}), json!({"ab": "1"})],
    );
    check(
        "Hash[Enum[a], Any, 1, 1]",
        &[json!({"a": null})],
        &[json!({}), json!({"b": 1})],
    );
    check("Hash[0, 1]", &[json!({"a": 1})], &[json!({"a": 1, "b": 2})]);
    check(
        "Collection[1]",
        &[json!([1]), json!({"a": 1})],
        &[json!([]), json!("a")],
    );
    check(
        "Tuple[String, Integer]",
        &[json!(["a", 1])],
        &[json!(["a"]), json!(["a", 1, 1])],
    );
    check(
        "Tuple[String, Integer, 1]",
        &[json!(["a"]), json!(["a", 1, 2])],
        &[json!([]), json!(["a", "b"])],
    );
    check("Iterable[String]", &[json!(["a"])], &[json!([1]), json!(5)]);
}

#[test]
fn structs_know_which_keys_must_be_there() {
    let text = "Struct[{'name' => String[1], Optional['mode'] => Enum['a','b'], age => Optional[Integer], NotUndef['id'] => Any}]";
    check(
        text,
        &[
            json!({"name": "x", "id": 1}),
            json!({"name": "x", "mode": "a", "age": 3, "id": "y"}),
        ],
        &[
            json!({"name": "x"}),
            json!({"name": "", "id": 1}),
            json!({"name": "x", "id": null}),
            json!({"name": "x", "id": 1, "mode": null}),
            json!({"name": "x", "id": 1, "more": 1}),
            json!([]),
        ],
    );
    check("Struct", &[json!({})], &[json!({"a": 1})]);
}

#[test]
fn variants_scalars_and_wide_types() {
    check(
        "Variant[String, Integer]",
        &[json!("a"), json!(1)],
        &[json!(1.5), json!([])],
    );
    for text in ["Scalar", "ScalarData"] {
        check(
            text,
            &[json!("a"), json!(1), json!(1.5), json!(true)],
            &[json!([]), json!(null)],
        );
    }
    for text in ["Data", "RichData", "Any"] {
        check(text, &[json!(null), json!({"a": [1]})], &[]);
    }
    check(
        "Sensitive[String[8]]",
        &[json!("12345678")],
        &[json!("short")],
    );
    assert!(parse("Optional[Sensitive[String]]").is_sensitive());
    check(
        "TargetSpec",
        &[json!("a"), json!(["a", ["b"]])],
        &[json!(1), json!([1])],
    );
    check(
        "Timestamp",
        &[
            json!("2026-11-22T14:30:00Z"),
            json!("2026-11-22T14:30:00.5 UTC"),
            json!("2026-11-22T14:30+01:00"),
        ],
        &[json!("yesterday"), json!("2026-11-22"), json!(5)],
    );
}

#[test]
fn what_json_cannot_express_matches_nothing() {
    for text in [
        "Regexp",
        "Regexp[/a/]",
        "Binary",
        "Callable[String, 1]",
        "Type[Integer]",
        "Default",
        "SemVer['>= 1.0.0']",
    ] {
        check(text, &[], &[json!("a"), json!(1), json!({}), json!(null)]);
    }
}

#[test]
fn aliases_of_modules_are_taken_and_reported() {
    let parsed = parse("Optional[Variant[Stdlib::Absolutepath, Array[Foo::Bar['x', 1]]]]");
    assert_eq!(
        parsed.unknown_aliases(),
        ["Stdlib::Absolutepath", "Foo::Bar"]
    );
    check(
        "Stdlib::Absolutepath",
        &[json!("/x"), json!(1)],
        &[json!(null)],
    );
}

#[test]
fn spaces_lines_and_trailing_commas_are_free() {
    let parsed =
        parse(" Struct [ {\n 'a' => Optional [ Array [ String [ 1 , default ] , ] ] ,\n} ]\n");
    assert_eq!(
        parsed.to_string(),
        "Struct[{'a' => Optional[Array[String[1]]]}]"
    );
}

#[test]
fn the_text_is_canonical() {
    for (text, canonical) in [
        ("Integer[0,default]", "Integer[0]"),
        ("Integer[default,5]", "Integer[default, 5]"),
        ("Array[Any]", "Array"),
        ("Hash[Any,Any,1]", "Hash[1]"),
        (r"Enum['it\'s', 'a\\b']", r"Enum['it\'s', 'a\\b']"),
        ("Pattern[/a\\/b/]", "Pattern[/a\\/b/]"),
        ("Float[1,2.5]", "Float[1.0, 2.5]"),
        (r#"Enum["a\tb\u0041\u{1F600}"]"#, "Enum['a\tbA\u{1F600}']"),
        (
            "::Foo::Bar[{'a' => 1, b => undef}]",
            "Foo::Bar[{'a' => 1, 'b' => undef}]",
        ),
    ] {
        assert_eq!(parse(text).to_string(), canonical, "{text}");
        assert_eq!(parse(canonical), parse(text), "{text}");
    }
}

#[test]
fn faults_say_where_and_what() {
    for (text, expected) in [
        ("", "syntax error at character 1"),
        ("string", "syntax error at character 1"),
        ("String[", "syntax error at character 8"),
        ("String]", "syntax error at character 7"),
        ("String[1] x", "syntax error at character 11"),
        ("Enum['a]", "syntax error at character 9"),
        (
            "String['a']",
            "String takes at most two numbers, or 'default' for an open end",
        ),
        ("Data[1]", "Data takes no arguments"),
        (
            "Integer[5, 1]",
            "the range of Integer ends before it begins",
        ),
        (
            "Optional[String, Integer]",
            "Optional takes one type or one string",
        ),
        (
            "Struct[{1 => String}]",
            "Struct takes one hash of names and types",
        ),
        (
            "Pattern[/(?=a)/]",
            "the regular expression /(?=a)/ cannot be used: look-ahead is not supported",
        ),
    ] {
        let error = text.parse::<PuppetType>().expect_err(text);
        assert_eq!(error.to_string(), expected, "{text:?}");
    }
}

#[test]
fn hostile_depth_and_length_are_refused() {
    let deep = format!("{}String{}", "Array[".repeat(1000), "]".repeat(1000));
    assert_eq!(deep.parse::<PuppetType>(), Err(TypeError::TooDeep));
    let deep = format!("Foo[{}{}", "{'a' => ".repeat(1000), "}".repeat(1000));
    assert_eq!(deep.parse::<PuppetType>(), Err(TypeError::TooDeep));
    let fits = MAX_TYPE_DEPTH - 1;
    parse(&format!(
        "{}String{}",
        "Array[".repeat(fits),
        "]".repeat(fits)
    ));
    let long = format!("Enum['{}']", "a".repeat(MAX_TYPE_LENGTH));
    assert_eq!(long.parse::<PuppetType>(), Err(TypeError::TooLong));
}

/// Texts of types as people could write them, nested.
fn type_text() -> impl Strategy<Value = String> {
    let quoted = "[ -~\u{e9}]{0,6}"
        .prop_map(|s| format!("'{}'", s.replace('\\', "\\\\").replace('\'', "\\'")));
    let leaf = prop_oneof![
        prop::sample::select(vec![
            "Any",
            "Data",
            "Boolean",
            "Stdlib::Port",
            "Numeric",
            "Undef",
            "Hash"
        ])
        .prop_map(str::to_owned),
        (0..50_u8, 50..99_u8).prop_map(|(a, b)| format!("Integer[{a},{b}]")),
        (any::<f32>().prop_filter("finite", |f| f.is_finite()))
            .prop_map(|f| format!("Float[{f:?}]")),
        (0..50_u8).prop_map(|a| format!("String[{a}]")),
        prop::collection::vec(quoted, 1..4).prop_map(|v| format!("Enum[{}]", v.join(","))),
        Just("Pattern[/\\Aa\\/[\\/\\]]\\\\\\z/]".to_owned()),
        Just("Optional['x']".to_owned()),
    ];
    leaf.prop_recursive(5, 40, 4, |inner| {
        prop_oneof![
            inner.clone().prop_map(|t| format!("Optional[{t}]")),
            (inner.clone(), 0..5_u8).prop_map(|(t, n)| format!("Array[{t}, {n}]")),
            (inner.clone(), inner.clone()).prop_map(|(k, v)| format!("Hash[{k}, {v}]")),
            prop::collection::vec(inner.clone(), 1..4)
                .prop_map(|v| format!("Variant[{}]", v.join(", "))),
            prop::collection::vec(inner.clone(), 1..4)
                .prop_map(|v| format!("Tuple[{}, 1, default]", v.join(", "))),
            prop::collection::vec(inner, 1..4).prop_map(|v| {
                let members: Vec<_> = v
                    .iter()
                    .enumerate()
                    .map(|(i, t)| format!("Optional['k{i}'] => {t}"))
                    .collect();
                format!("Struct[{{{}}}]", members.join(", "))
            }),
        ]
    })
}

proptest! {
    #[test]
    fn arbitrary_text_never_panics(text in any::<String>()) {
        text.parse::<PuppetType>().map_or_else(|error| drop(error.to_string()), drop);
    }

    #[test]
    fn text_of_the_grammar_never_panics(
        text in "(Struct|Enum|Pattern|Array|Integer|Hash|Tuple|[A-Z]|[\\[\\]{},/'\"\\\\ =>0-9.a-z-]|\u{e9}){0,40}",
    ) {
        if let Ok(parsed) = text.parse::<PuppetType>() {
            prop_assert_eq!(parsed.to_string().parse::<PuppetType>().ok(), Some(parsed));
        }
    }

    #[test]
    fn display_parses_to_the_same_type(text in type_text()) {
        let parsed: PuppetType = text.parse().unwrap();
        let again: PuppetType = parsed.to_string().parse().unwrap();
        prop_assert_eq!(&again, &parsed);
        prop_assert_eq!(again.to_string(), parsed.to_string());
    }
}
