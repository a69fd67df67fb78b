//! Policies as they are written, and what they decide.

use std::fs;
use std::time::Duration;

use proptest::prelude::*;

use super::*;

const A: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
const B: &str = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";

fn load(files: &[(&str, &str)]) -> Result<Policy, Vec<String>> {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in files {
        fs::write(dir.path().join(name), text).unwrap();
    }
    Policy::load(dir.path()).map_err(|PolicyError(faults)| {
        let prefix = format!("{}/", dir.path().display());
        let faults = faults.iter();
        faults
            .map(|fault| fault.to_string().replace(&prefix, ""))
            .collect()
    })
}

fn policy(text: &str) -> Policy {
    load(&[("a.conf", text)]).unwrap()
}

fn standing() -> Grant {
    Grant {
        rule: String::new(),
        profile: Profile::Standard,
        limits: Limits {
            time: Duration::from_secs(3600),
            grace: Duration::from_secs(10),
            output: 1000,
            memory: None,
            processes: None,
            cpu_percent: None,
            open_files: None,
        },
        run_as: None,
    }
}

fn question(task: &str) -> Question {
    Question {
        requester: Certname::parse("orch.example.net").unwrap(),
        module: "task".to_owned(),
        action: "run".to_owned(),
        task: Some(task.to_owned()),
        digests: vec![A.parse().unwrap()],
        environments: vec!["production".to_owned()],
        run_as: "root".to_owned(),
        // A Sunday.
        at: "2026-11-29T10:00:00Z".parse().unwrap(),
    }
}

/// `+RULE` or `-RULE`.
fn judged(policy: &Policy, question: &Question) -> String {
    match policy.judge(question, &Wishes::default(), &standing()) {
        Verdict::Allowed(grant) => format!("+{}", grant.rule),
        Verdict::Refused(refusal) => format!("-{}", refusal.rule),
    }
}

#[test]
fn without_files_what_controllers_ask_is_allowed() {
    let policy = load(&[]).unwrap();
    assert_eq!(judged(&policy, &question("package")), "+default");
    let missing = Policy::load(std::path::Path::new("/no/such/directory")).unwrap();
    assert_eq!(judged(&missing, &question("package")), "+default");
}

#[test]
fn the_first_rule_that_is_about_a_request_decides() {
    let policy = load(&[
        ("20.conf", "rules: { late: { then: refuse }, never: { then: allow } }"),
        (
            "10.conf",
            "rules: { z-first: { when: { tasks: [\"service\", \"package*\"] }, then: allow },\n\
             a-second: { when: { tasks: [\"package::linux\", reboot] }, then: refuse, reason: \"ask ops\" } }",
        ),
        ("ignored.txt", "not a policy"),
    ])
    .unwrap();
    assert_eq!(judged(&policy, &question("package::linux")), "+z-first");
    assert_eq!(judged(&policy, &question("reboot")), "-a-second");
    assert_eq!(judged(&policy, &question("other")), "-late");
    let refused = policy.judge(&question("reboot"), &Wishes::default(), &standing());
    let Verdict::Refused(refusal) = refused else {
        panic!("{refused:?}");
    };
    assert_eq!(
        refusal.to_string(),
        "refused by the rule \"a-second\" of this node's policy: ask ops"
    );
}

#[test]
fn each_condition_goes_by_its_own_part_of_the_request() {
    let ask = question("package");
    for (condition, holds) in [
        ("tasks: [\"pack*\"]", true),
        ("tasks: [x]", false),
        ("modules: [task]", true),
        ("modules: [command, script]", false),
        ("actions: [run]", true),
        ("actions: [walk]", false),
        ("requesters: [\"*.example.net\"]", true),
        ("requesters: [orch]", false),
        ("environments: [production]", true),
        ("environments: [\"dev*\"]", false),
        ("run-as: [root]", true),
        ("run-as: [nobody]", false),
        (&format!("digests: [{}]", A.to_uppercase()), true),
        (&format!("digests: [{B}]"), false),
        ("hours: [\"sun 09:00-11:00\"]", true),
        ("hours: [\"mon-sat\", \"10:01-11:00\"]", false),
        ("tasks: [package], modules: [task], hours: [sun]", true),
        ("tasks: [package], modules: [command]", false),
    ] {
        for verdict in ["allow", "refuse"] {
            let rule = |key: &str| {
                let text =
                    format!("rules: {{ r: {{ {key}: {{ {condition} }}, then: {verdict} }} }}");
                judged(&policy(&text), &ask).ends_with('r')
            };
            assert_eq!(rule("when"), holds, "{condition}, {verdict}");
            // All that stands under `when` must hold; one of what stands under `unless` is enough.
            let several = condition.contains("], ");
            assert_eq!(
                rule("unless"),
                !holds && !several,
                "unless {condition}, {verdict}"
            );
        }
    }
}

#[test]
fn hours_are_those_of_the_zone() {
    let text = |zone: &str| {
        format!(
            "zone: {zone}\nrules: {{ r: {{ when: {{ hours: [\"11:00-12:00\"] }}, then: refuse }} }}"
        )
    };
    assert_eq!(judged(&policy(&text("UTC")), &question("x")), "+default");
    if TimeZone::get("Europe/Berlin").is_ok() {
        let berlin = policy(&text("\"Europe/Berlin\""));
        assert_eq!(judged(&berlin, &question("x")), "-r");
    }
}

#[test]
fn every_file_must_be_named_to_allow_and_one_is_enough_to_refuse() {
    let mut two = question("package");
    two.digests = vec![A.parse().unwrap(), B.parse().unwrap()];
    let mut none = question("package");
    none.digests.clear();
    let rule = |verdict: &str, key: &str, digests: &str| {
        let text =
            format!("rules: {{ r: {{ {key}: {{ digests: [{digests}] }}, then: {verdict} }} }}");
        policy(&text)
    };
    let both = format!("{A}, {B}");
    for (verdict, key, digests, question, about) in [
        ("allow", "when", A, &two, false),
        ("allow", "when", &both, &two, true),
        ("refuse", "when", A, &two, true),
        ("allow", "unless", A, &two, false),
        ("refuse", "unless", A, &two, true),
        ("refuse", "unless", &both, &two, false),
        ("allow", "when", A, &none, false),
        ("refuse", "when", A, &none, false),
        ("refuse", "unless", A, &none, true),
    ] {
        let judged = judged(&rule(verdict, key, digests), question);
        assert_eq!(judged.ends_with('r'), about, "{verdict} {key} {digests}");
    }
}

#[test]
fn a_rule_says_how_a_request_is_run_and_wishes_only_make_it_stricter() {
    let policy = policy(
        "rules: { r: { then: allow, sandbox: standard, run-as: app, \
         limits: { time: 2h, memory: 1GiB, processes: 50, cpu: \"150%\", output: 1MiB } } }",
    );
    let judge = |wishes: Wishes| policy.judge(&question("x"), &wishes, &standing());
    let Verdict::Allowed(grant) = judge(Wishes::default()) else {
        panic!("refused");
    };
    assert_eq!(grant.limits.time, Duration::from_secs(7200));
    assert_eq!(grant.limits.memory, Some(1 << 30));
    assert_eq!(grant.limits.processes, Some(50));
    assert_eq!(grant.limits.cpu_percent, Some(150));
    assert_eq!(grant.limits.output, 1 << 20);
    assert_eq!(grant.limits.grace, Duration::from_secs(10));
    assert_eq!(grant.run_as.as_ref().unwrap().as_str(), "app");
    let wishes = |time_limit, profile, run_as: Option<&str>| Wishes {
        time_limit,
        profile,
        run_as: run_as.map(|user| UserName::parse(user).unwrap()),
    };
    for (wish, profile) in [
        (pxp::Profile::Host, Profile::Standard),
        (pxp::Profile::Standard, Profile::Standard),
        (pxp::Profile::Confined, Profile::Confined),
    ] {
        let judged = judge(wishes(Some(99_999), Some(wish), Some("app")));
        let Verdict::Allowed(grant) = judged else {
            panic!("{judged:?}");
        };
        assert_eq!(grant.profile, profile);
        assert_eq!(grant.limits.time, Duration::from_secs(7200));
    }
    let judged = judge(wishes(Some(5), None, None));
    let Verdict::Allowed(grant) = judged else {
        panic!("{judged:?}");
    };
    assert_eq!(grant.limits.time, Duration::from_secs(5));
    let judged = judge(wishes(None, None, Some("root")));
    let Verdict::Refused(refusal) = judged else {
        panic!("{judged:?}");
    };
    assert!(
        refusal.to_string().contains("it is run as \"app\""),
        "{refusal}"
    );
}

#[test]
fn a_policy_may_refuse_whatever_no_rule_allows() {
    let policy = policy("default: refuse\nrules: { r: { when: { tasks: [facts] }, then: allow } }");
    assert_eq!(judged(&policy, &question("facts")), "+r");
    assert_eq!(judged(&policy, &question("package")), "-default");
}

#[test]
fn every_fault_is_told_with_its_file_and_line_and_there_is_no_policy() {
    let faults = load(&[
        (
            "a.conf",
            "default: refuse\nzone: Nowhere/Land\nrules: {\n  one: { then: maybe }\n  two: {\n    then: refuse\n    \
             sandbox: confined\n    when: { task: [x], hours: [\"25:00-26:00\"], digests: [zz] }\n  }\n  \
             three: { when: { tasks: [] } }\n  four: { then: allow, reason: why, limits: { time: 0 }, run-as: \"a b\" }\n  \
             default: { then: allow }\n  \"a.b\": { then: allow }\n}\ncontrollers: [\"..\"]\n",
        ),
        ("b.conf", "default: allow\nrules: { two: { then: allow } }\n"),
        ("c.conf", "rules: {"),
    ])
    .unwrap_err();
    for wanted in [
        "a.conf:2: zone: ",
        "a.conf:4: rules.one.then: \"maybe\" is none of allow, refuse",
        "a.conf:7: rules.two.sandbox: means nothing in a rule that refuses",
        "a.conf:8: rules.two.when.task: unknown key; did you mean \"tasks\"?",
        "a.conf:8: rules.two.when.hours: \"25:00\" is not a time",
        "a.conf:8: rules.two.when.digests: \"zz\" is not 64 hexadecimal digits",
        "a.conf:10: rules.three: `then` is required",
        "a.conf:11: rules.four.reason: is only told",
        "a.conf:11: rules.four.limits.time: must not be zero",
        "a.conf:11: rules.four.run-as: the name of a user",
        "a.conf:3: rules: the rule name \"default\" is not one",
        "a.conf:3: rules: the rule name \"a.b\" is not one",
        "a.conf:15: controllers: a certname is",
        "b.conf:1: default: is set in ",
        "b.conf:2: rules.two: there is a rule of this name in ",
        "c.conf:",
    ] {
        let told = faults.iter().any(|fault| fault.starts_with(wanted));
        assert!(told, "{wanted} is not in {faults:#?}");
    }
}

#[test]
fn a_file_that_anybody_can_change_is_no_policy() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.conf");
    fs::write(&path, "default: refuse").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
    let error = Policy::load(dir.path()).unwrap_err().to_string();
    assert!(error.contains("chmod o-w"), "{error}");
}

#[test]
fn an_explanation_names_every_rule_that_was_passed() {
    let policy = policy(
        "rules: { a: { when: { tasks: [reboot] }, then: refuse }, \
         b: { when: { hours: [\"mon-fri 08:00-18:00\"] }, then: refuse }, \
         c: { unless: { requesters: [\"orch*\"] }, then: refuse }, \
         d: { then: allow, sandbox: confined } }",
    );
    let explanation = policy.explain(&question("facts"), &Wishes::default(), &standing());
    let text = explanation.to_string();
    for line in [
        "allowed by d",
        "  profile  confined",
        "  limits   time 1h, output 1000B",
        "  not a: the task is \"facts\", not tasks [\"reboot\"]",
        "  not b: it is Sun 10:00 UTC, not hours [\"mon-fri 08:00-18:00\"]",
        "  not c: excepted: requesters [\"orch*\"]",
    ] {
        assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
    }
    let json = explanation.to_json();
    assert_eq!(json["verdict"], "allow");
    assert_eq!(json["passed"][2]["rule"], "c");
}

prop_compose! {
    fn any_condition()(condition in prop_oneof![
        Just("tasks: [a]".to_owned()), Just("tasks: [\"a*\", b]".to_owned()),
        Just("requesters: [orch]".to_owned()), Just("environments: [dev]".to_owned()),
        Just(format!("digests: [{A}]")), Just("hours: [sun]".to_owned()), Just(String::new()),
    ]) -> String { condition }
}

proptest! {
    #[test]
    fn no_bytes_are_a_panic_and_none_that_are_broken_are_a_policy(
        bytes in prop::collection::vec(any::<u8>(), 0..300),
        text in "(rules|default|zone|when|then|\\{|\\}|:|\\[|\\]|allow|refuse|hours|\"| |\n|x){0,40}",
    ) {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("a.conf"), &bytes).unwrap();
        Policy::load(dir.path()).ok();
        fs::write(dir.path().join("a.conf"), &text).unwrap();
        Policy::load(dir.path()).ok();
    }

    #[test]
    fn a_verdict_always_names_the_first_rule_without_an_obstacle_and_wishes_never_loosen(
        rules in prop::collection::vec((any_condition(), any_condition(), any::<bool>(), 0..3_usize), 0..6),
        task in "[ab]{1,2}",
        wish in prop::option::of(0..3_usize),
        seconds in prop::option::of(0_u64..10_000),
    ) {
        let profiles = ["host", "standard", "confined"];
        let written: Vec<_> = rules.iter().enumerate().map(|(n, (when, unless, allow, profile))| {
            let effect = if *allow {
                format!("allow, sandbox: {}", profiles[*profile])
            } else {
                "refuse".to_owned()
            };
            let unless = if unless.is_empty() { String::new() } else { format!("unless: {{ {unless} }},") };
            format!("r{n}: {{ when: {{ {when} }}, {unless} then: {effect} }}")
        }).collect();
        let policy = policy(&format!("rules: {{ {} }}", written.join(",\n")));
        let wishes = Wishes {
            time_limit: seconds,
            profile: wish.map(|n| [pxp::Profile::Host, pxp::Profile::Standard, pxp::Profile::Confined][n]),
            run_as: None,
        };
        let question = question(&task);
        let explanation = policy.explain(&question, &wishes, &standing());
        let verdict = policy.judge(&question, &wishes, &standing());
        prop_assert_eq!(&verdict, &explanation.verdict);
        let without = policy.judge(&question, &Wishes::default(), &standing());
        match (verdict, without) {
            (Verdict::Allowed(grant), Verdict::Allowed(granted)) => {
                prop_assert_eq!(&grant.rule, &explanation.rule);
                prop_assert!(grant.profile >= granted.profile);
                prop_assert!(grant.limits.time <= granted.limits.time);
                prop_assert!(!grant.limits.time.is_zero());
            }
            (Verdict::Refused(refusal), Verdict::Refused(_)) => {
                prop_assert_eq!(&refusal.rule, &explanation.rule);
                prop_assert!(!refusal.reason.is_empty());
            }
            other => prop_assert!(false, "{other:?}"),
        }
        prop_assert_eq!(explanation.passed.len(), policy.rules.iter()
            .position(|rule| rule.name() == explanation.rule).unwrap_or(policy.rules.len()));
    }
}

#[test]
fn the_shipped_example_restricts_nothing_and_is_sound_when_it_is_used() {
    let shipped = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../packaging/config/policy.d/50-example.conf");
    let text = fs::read_to_string(shipped).unwrap();
    assert_eq!(policy(&text).rules(), 0);
    let (_, rules) = text.split_once("# rules: {").unwrap();
    let rules = rules.replace("\n# ", "\n");
    let policy = policy(&format!("rules: {{{rules}"));
    assert_eq!(policy.rules(), 4);
    // A Sunday.
    assert_eq!(judged(&policy, &question("reboot")), "+default");
    let mut weekday = question("reboot");
    weekday.at = "2026-11-27T10:00:00Z".parse().unwrap();
    assert_eq!(judged(&policy, &weekday), "-maintenance-window");
}
