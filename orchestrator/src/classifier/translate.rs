//! From a rule to a query of PuppetDB's inventory that means the same nodes.
//!
//! The two differ in four ways. To the classifier every fact is a string, while PuppetDB keeps
//! types: a value that reads as a boolean or a number is looked for as both. A comparison with a
//! fact that a node does not have is false to the classifier; PuppetDB's `~` and `>` are then
//! neither true nor false, so that `not` of them would leave the node out: within `not` they stand
//! in a subquery, which is true or false. PuppetDB has an order for values of all kinds, in which every
//! text is below and every boolean above all numbers: a comparison is bounded on its other side, so that
//! numbers only are found. And a number that a fact holds as text is a number to the classifier and a
//! text to PuppetDB, where `>` does not find it: the one difference that stays.

use serde_json::{Number, Value, json};

use super::rule::{Field, Operator, Rule, Step};

/// No fact is a larger number than this, nor a smaller one than its negative.
const BEYOND: f64 = 1e300;

/// The rule is right, but PuppetDB has no query for it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Untranslatable {
    /// `>` and the like compare numbers.
    #[error("'{operator}' compares numbers, and {value:?} is none")]
    NoNumber { operator: Operator, value: String },
    /// Names of nodes are texts.
    #[error("'{0}' compares numbers, and the name of a node is none")]
    Name(Operator),
    /// Paths of PuppetDB cannot have it.
    #[error("PuppetDB cannot be asked for a fact that is called {0:?}")]
    Key(String),
}

/// The condition on PuppetDB's `inventory` that means the nodes of a rule.
///
/// # Errors
/// [`Untranslatable`].
pub(crate) fn inventory(rule: &Rule) -> Result<Value, Untranslatable> {
    condition(rule, Place::Plain)
}

/// Where a condition stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Plain,
    /// Below a `not`.
    Negated,
}

fn condition(rule: &Rule, place: Place) -> Result<Value, Untranslatable> {
    match rule {
        Rule::All(rules) => joined("and", rules, place),
        Rule::Any(rules) => joined("or", rules, place),
        Rule::Not(rule) => Ok(json!(["not", condition(rule, Place::Negated)?])),
        Rule::Compare {
            operator,
            field,
            value,
        } => {
            let compared = comparison(*operator, field, value)?;
            let undecided = *operator != Operator::Equal && *field != Field::Name;
            Ok(if place == Place::Negated && undecided {
                json!([
                    "in",
                    "certname",
                    ["from", "inventory", ["extract", "certname", compared]]
                ])
            } else {
                compared
            })
        }
    }
}

fn joined(operator: &str, rules: &[Rule], place: Place) -> Result<Value, Untranslatable> {
    let mut tree = vec![Value::from(operator)];
    for rule in rules {
        tree.push(condition(rule, place)?);
    }
    Ok(Value::from(tree))
}

fn comparison(operator: Operator, field: &Field, value: &str) -> Result<Value, Untranslatable> {
    let text = operator.text();
    let path = match field {
        Field::Name => {
            return match operator {
                Operator::Equal | Operator::Matches => Ok(json!([text, "certname", value])),
                other => Err(Untranslatable::Name(other)),
            };
        }
        Field::Fact(steps) => path("facts", steps)?,
        Field::Trusted(steps) => path("trusted", steps)?,
    };
    match operator {
        Operator::Matches => Ok(json!([text, path, value])),
        Operator::Equal => {
            let plain = json!([text, path, value]);
            let typed = match value {
                "true" => Some(json!(true)),
                "false" => Some(json!(false)),
                _ => number(value).map(Value::Number),
            };
            Ok(match typed {
                Some(typed) => json!(["or", plain, [text, path, typed]]),
                None => plain,
            })
        }
        _ => match number(value) {
            Some(number) => {
                let bound = match operator {
                    Operator::Less | Operator::LessOrEqual => json!([">=", path, -BEYOND]),
                    _ => json!(["<=", path, BEYOND]),
                };
                Ok(json!(["and", [text, path, number], bound]))
            }
            None => Err(Untranslatable::NoNumber {
                operator,
                value: value.to_owned(),
            }),
        },
    }
}

/// A number that is written as JSON writes it.
fn number(text: &str) -> Option<Number> {
    let number: Number = serde_json::from_str(text).ok()?;
    // With white space around it, it is a text.
    (text.trim() == text).then_some(number)
}

/// A path in dots, such as `facts.os."my fact"[0]`.
fn path(root: &str, steps: &[Step]) -> Result<String, Untranslatable> {
    let mut path = root.to_owned();
    for step in steps {
        match step {
            Step::Index(index) => path.push_str(&format!("[{index}]")),
            Step::Key(key) if key.is_empty() || key.contains(['"', '\\']) => {
                return Err(Untranslatable::Key(key.clone()));
            }
            Step::Key(key) => {
                let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
                path.push('.');
                if key.bytes().all(plain) && !key.starts_with(|c: char| c.is_ascii_digit()) {
                    path.push_str(key);
                } else {
                    path.push('"');
                    path.push_str(key);
                    path.push('"');
                }
            }
        }
    }
    Ok(path)
}

#[cfg(test)]
mod tests;
