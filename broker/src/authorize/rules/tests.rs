//! Rules from both sides, and patterns against a slow and simple reading of them.

use proptest::prelude::*;

use super::*;

fn patterns(texts: &[&str]) -> Vec<Pattern> {
    texts.iter().map(|text| text.parse().expect(text)).collect()
}

fn rule(name: &str, message_type: &[&str], allow: &[&str], deny: &[&str]) -> Rule {
    Rule {
        name: name.to_owned(),
        about: About {
            message_type: patterns(message_type),
            ..About::default()
        },
        allow: patterns(allow),
        deny: patterns(deny),
    }
}

fn decide<'a>(rules: &'a RuleSet, certname: &str, message_type: &str) -> Decision<'a> {
    rules.decide(&Question {
        certname: &Certname::parse(certname).expect("a certname"),
        sender: &format!("pcp://{certname}/agent"),
        target: "pcp://orch/controller",
        message_type: &format!("{PREFIX}{message_type}"),
    })
}

#[test]
fn the_first_rule_that_fits_decides_and_deny_beats_allow() {
    let rules = RuleSet::new(
        vec![
            rule("requests", &["rpc_*_request"], &["orch"], &[]),
            rule(
                "answers",
                &["rpc_*"],
                &["*.example.com"],
                &["old.example.com"],
            ),
            rule("late", &["rpc_*"], &["*"], &[]),
        ],
        Origin::Ours,
    );
    for (certname, message_type, expected) in [
        (
            "orch",
            "rpc_blocking_request",
            Decision::Allowed("requests"),
        ),
        (
            "a.example.com",
            "rpc_blocking_request",
            Decision::Denied("requests"),
        ),
        (
            "a.example.com",
            "rpc_blocking_response",
            Decision::Allowed("answers"),
        ),
        (
            "old.example.com",
            "rpc_blocking_response",
            Decision::Denied("answers"),
        ),
        (
            "elsewhere",
            "rpc_blocking_response",
            Decision::Denied("answers"),
        ),
        ("orch", "inventory_request", Decision::NoRule),
    ] {
        assert_eq!(
            decide(&rules, certname, message_type),
            expected,
            "{certname} {message_type}"
        );
    }
}

#[test]
fn no_rule_allows_nothing() {
    assert_eq!(
        decide(&RuleSet::default(), "orch", "rpc_blocking_request"),
        Decision::NoRule
    );
}

#[test]
fn sender_and_target_are_compared_as_addresses() {
    let about = About {
        sender: patterns(&["pcp://*/controller"]),
        target: patterns(&["pcp://web*/agent", "pcp:///server"]),
        ..About::default()
    };
    let fits = |sender, target| {
        about.fits(&Question {
            certname: &Certname::parse("orch").expect("a certname"),
            sender,
            target,
            message_type: "http://puppetlabs.com/x",
        })
    };
    assert!(fits("pcp://orch/controller", "pcp://web1/agent"));
    assert!(fits("pcp://orch/controller", "pcp:///server"));
    assert!(!fits("pcp://orch/controller", "pcp://db1/agent"));
    assert!(!fits("pcp://orch/agent", "pcp://web1/agent"));
}

#[test]
fn rules_for_the_original_say_who_connects_and_who_is_a_controller() {
    let list = || {
        vec![
            rule(
                "requests",
                &["rpc_*_request", "inventory_request"],
                &["orch"],
                &[],
            ),
            rule("all", &["associate_request", "rpc_*"], &["*"], &["thief"]),
        ]
    };
    let client = |certname: &str| {
        format!("pcp://{certname}/controller")
            .parse::<Uri>()
            .expect("one")
    };
    let original = RuleSet::new(list(), Origin::Original);
    assert!(original.make_controller(&client("orch")));
    assert!(!original.make_controller(&client("node")));
    assert!(original.lets_connect(&client("node")));
    assert!(!original.lets_connect(&client("thief")));
    // Ours leave both to the keys that say so.
    let ours = RuleSet::new(list(), Origin::Ours);
    assert!(!ours.make_controller(&client("orch")));
    assert!(ours.lets_connect(&client("thief")));
}

#[test]
fn a_pattern_is_a_text_a_glob_or_a_regular_expression() {
    let matches =
        |pattern: &str, text| pattern.parse::<Pattern>().expect("a pattern").matches(text);
    assert!(matches("web1", "web1"));
    assert!(!matches("web1", "web11"));
    assert!(matches("/^web[0-9]+$/", "web11"));
    assert!(!matches("/^web[0-9]+$/", "web"));
    assert!(matches("/", "/"));
    assert_eq!("".parse::<Pattern>().map(drop), Err(PatternError::Empty));
    assert!(matches!(
        "/(/".parse::<Pattern>(),
        Err(PatternError::Regex(_))
    ));
}

proptest! {
    #[test]
    fn globs_mean_what_the_same_regular_expression_means(
        glob in "[ab*]{1,8}",
        text in "[ab]{0,10}",
    ) {
        let regex = format!("^{}$", regex::escape(&glob).replace(r"\*", ".*"));
        let expected = Regex::new(&regex).expect("a regular expression").is_match(&text);
        prop_assert_eq!(glob_matches(&glob, &text), expected);
    }

    #[test]
    fn no_text_makes_a_pattern_panic(pattern in any::<String>(), text in any::<String>()) {
        if let Ok(pattern) = pattern.parse::<Pattern>() {
            // A glob without its stars is in every text that it matches.
            if let Pattern::Glob(glob) = &pattern && pattern.matches(&text) {
                prop_assert!(glob.split('*').all(|part| text.contains(part)));
            }
        }
    }
}
