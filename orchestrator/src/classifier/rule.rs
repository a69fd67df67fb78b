//! The rules of node groups, in the grammar of Puppet Enterprise's classifier: which nodes belong to
//! a group by their names, facts and trusted facts. Pure: a rule is read here, and translated by
//! [`super::translate`].

use std::fmt;

use serde_json::Value;

/// Which nodes belong to a group.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Rule {
    /// Those that all of these mean.
    All(Vec<Self>),
    /// Those that any of these means.
    Any(Vec<Self>),
    /// Those that this one does not mean.
    Not(Box<Self>),
    /// Those of which this is true.
    Compare {
        operator: Operator,
        field: Field,
        value: String,
    },
}

/// How a field is compared with a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operator {
    Equal,
    /// The value is a regular expression and matches anywhere.
    Matches,
    /// The others compare numbers, and are false where there is none.
    Greater,
    GreaterOrEqual,
    Less,
    LessOrEqual,
}

/// What is compared.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Field {
    /// The certname.
    Name,
    /// A fact, or what stands within it.
    Fact(Vec<Step>),
    /// A trusted fact, or what stands within it.
    Trusted(Vec<Step>),
}

/// One step of the way into a structured fact.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    Key(String),
    Index(u64),
}

/// The text of a rule breaks the grammar.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{problem}: {part}")]
pub(crate) struct RuleError {
    problem: &'static str,
    /// The offending part as JSON.
    part: String,
}

impl Operator {
    const ALL: [(Self, &'static str); 6] = [
        (Self::Equal, "="),
        (Self::Matches, "~"),
        (Self::Greater, ">"),
        (Self::GreaterOrEqual, ">="),
        (Self::Less, "<"),
        (Self::LessOrEqual, "<="),
    ];

    fn from_text(text: &str) -> Option<Self> {
        let mut all = Self::ALL.iter();
        all.find(|(_, known)| *known == text)
            .map(|(operator, _)| *operator)
    }

    /// As it is written, here and in PuppetDB.
    pub(crate) fn text(self) -> &'static str {
        Self::ALL
            .iter()
            .find(|(known, _)| *known == self)
            .map_or("", |(_, text)| text)
    }
}

impl fmt::Display for Operator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

impl Rule {
    /// Reads a rule.
    ///
    /// # Errors
    /// [`RuleError`], which shows the part that is no rule.
    pub(crate) fn read(value: &Value) -> Result<Self, RuleError> {
        let fault = |problem| fault(problem, value);
        let Value::Array(items) = value else {
            return Err(fault("a rule is an array"));
        };
        let Some((Value::String(operator), operands)) = items.split_first() else {
            return Err(fault("a rule begins with an operator"));
        };
        match (operator.as_str(), operands) {
            ("and" | "or", []) => Err(fault("'and' and 'or' take one rule or more")),
            ("and", rules) => Ok(Self::All(Self::read_all(rules)?)),
            ("or", rules) => Ok(Self::Any(Self::read_all(rules)?)),
            ("not", [rule]) => Ok(Self::Not(Box::new(Self::read(rule)?))),
            ("not", _) => Err(fault("'not' takes one rule")),
            (other, [field, Value::String(value)]) => match Operator::from_text(other) {
                Some(operator) => Ok(Self::Compare {
                    operator,
                    field: Field::read(field)?,
                    value: value.clone(),
                }),
                None => Err(fault("no such operator")),
            },
            (other, [_, _]) if Operator::from_text(other).is_some() => {
                Err(fault("a comparison is with a string"))
            }
            (other, _) if Operator::from_text(other).is_some() => {
                Err(fault("a comparison has a field and a value"))
            }
            _ => Err(fault("no such operator")),
        }
    }

    fn read_all(rules: &[Value]) -> Result<Vec<Self>, RuleError> {
        rules.iter().map(Self::read).collect()
    }

    /// Whether the rule can be decided by certnames alone.
    pub(crate) fn needs_names_only(&self) -> bool {
        match self {
            Self::All(rules) | Self::Any(rules) => rules.iter().all(Self::needs_names_only),
            Self::Not(rule) => rule.needs_names_only(),
            Self::Compare { field, .. } => *field == Field::Name,
        }
    }

    /// Whether the rule means the node of this certname. Nothing but names is looked at: where
    /// there are only names, [`Rule::needs_names_only`] must hold.
    pub(crate) fn matches_name(&self, certname: &str) -> bool {
        match self {
            Self::All(rules) => rules.iter().all(|rule| rule.matches_name(certname)),
            Self::Any(rules) => rules.iter().any(|rule| rule.matches_name(certname)),
            Self::Not(rule) => !rule.matches_name(certname),
            Self::Compare {
                operator: Operator::Equal,
                value,
                ..
            } => value == certname,
            Self::Compare {
                operator: Operator::Matches,
                value,
                ..
            } => regex::Regex::new(value).is_ok_and(|regex| regex.is_match(certname)),
            // A certname is no number.
            Self::Compare { .. } => false,
        }
    }
}

impl Field {
    fn read(value: &Value) -> Result<Self, RuleError> {
        let fault = |problem| fault(problem, value);
        match value {
            Value::String(text) if text == "name" => Ok(Self::Name),
            Value::Array(parts) => {
                let Some((Value::String(kind), path)) = parts.split_first() else {
                    return Err(fault(
                        "a field is \"name\", [\"fact\", …] or [\"trusted\", …]",
                    ));
                };
                let path = path.iter().map(Step::read).collect::<Result<Vec<_>, _>>()?;
                match (kind.as_str(), path.first()) {
                    ("fact", Some(Step::Key(_))) => Ok(Self::Fact(path)),
                    ("trusted", Some(Step::Key(_))) => Ok(Self::Trusted(path)),
                    ("fact" | "trusted", _) => Err(fault("a fact has a name")),
                    _ => Err(fault(
                        "a field is \"name\", [\"fact\", …] or [\"trusted\", …]",
                    )),
                }
            }
            _ => Err(fault(
                "a field is \"name\", [\"fact\", …] or [\"trusted\", …]",
            )),
        }
    }
}

impl Step {
    fn read(value: &Value) -> Result<Self, RuleError> {
        match value {
            Value::String(key) => Ok(Self::Key(key.clone())),
            Value::Number(index) => index
                .as_u64()
                .map(Self::Index)
                .ok_or_else(|| fault("an index is a whole number", value)),
            _ => Err(fault("a path has names and indices", value)),
        }
    }
}

fn fault(problem: &'static str, part: &Value) -> RuleError {
    /// Enough to find the place.
    const SHOWN: usize = 200;
    let text = part.to_string();
    let part = match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text,
    };
    RuleError { problem, part }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn rules_are_read_as_the_classifier_writes_them() {
        let rule = Rule::read(&json!([
            "and",
            [
                "or",
                ["=", "name", "a"],
                ["not", ["~", ["fact", "disks", 0, "size"], "G"]]
            ],
            [">=", ["trusted", "extensions", "pp_role"], "5"]
        ]))
        .unwrap();
        let disks = [
            Step::Key("disks".into()),
            Step::Index(0),
            Step::Key("size".into()),
        ];
        let expected = Rule::All(vec![
            Rule::Any(vec![
                Rule::Compare {
                    operator: Operator::Equal,
                    field: Field::Name,
                    value: "a".into(),
                },
                Rule::Not(Box::new(Rule::Compare {
                    operator: Operator::Matches,
                    field: Field::Fact(disks.to_vec()),
                    value: "G".into(),
                })),
            ]),
            Rule::Compare {
                operator: Operator::GreaterOrEqual,
                field: Field::Trusted(vec![
                    Step::Key("extensions".into()),
                    Step::Key("pp_role".into()),
                ]),
                value: "5".into(),
            },
        ]);
        assert_eq!(rule, expected);
        assert!(!rule.needs_names_only());
    }

    #[test]
    fn what_is_no_rule_is_shown() {
        for (rule, expected) in [
            (json!({}), "a rule is an array: {}"),
            (json!([]), "a rule begins with an operator: []"),
            (json!(["and"]), "'and' and 'or' take one rule or more"),
            (
                json!(["not", ["=", "name", "a"], []]),
                "'not' takes one rule",
            ),
            (json!(["!=", "name", "a"]), "no such operator"),
            (json!(["=", "name", 5]), "a comparison is with a string"),
            (json!(["=", "name"]), "a comparison has a field and a value"),
            (json!(["=", "certname", "a"]), "a field is \"name\""),
            (json!(["=", ["fact"], "a"]), "a fact has a name"),
            (json!(["=", ["fact", 1], "a"]), "a fact has a name"),
            (json!(["=", ["resource", "x"], "a"]), "a field is"),
            (
                json!(["=", ["fact", "x", -1], "a"]),
                "an index is a whole number: -1",
            ),
            (
                json!(["or", ["=", "name", "a"], "b"]),
                "a rule is an array: \"b\"",
            ),
        ] {
            let error = Rule::read(&rule).unwrap_err().to_string();
            assert!(error.contains(expected), "{rule}: {error}");
        }
    }

    #[test]
    fn names_alone_decide_rules_of_names() {
        let rule = Rule::read(&json!([
            "and",
            ["~", "name", "^web"],
            ["not", ["or", ["=", "name", "web2"], [">", "name", "1"]]]
        ]))
        .unwrap();
        assert!(rule.needs_names_only());
        let meant: Vec<_> = ["web1", "web2", "db1"]
            .into_iter()
            .filter(|name| rule.matches_name(name))
            .collect();
        assert_eq!(meant, ["web1"]);
    }
}
