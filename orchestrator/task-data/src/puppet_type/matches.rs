//! Whether a JSON value is of a type.
//!
//! Recursion follows the type, whose depth is limited, so no value can exhaust the stack. Puppet's
//! own types are strict: `Integer` does not take `"5"`, nor `Float` the integer 5.

use serde_json::{Map, Number, Value};

use super::{Case, Key, Kind, Member, PuppetType, Range, Wrapped};

impl PuppetType {
    /// Whether `value` is of this type.
    #[must_use]
    pub fn matches(&self, value: &Value) -> bool {
        match &self.0 {
            // All of JSON is Data.
            Kind::Any | Kind::Data | Kind::RichData => true,
            Kind::Undef => value.is_null(),
            Kind::Boolean(only) => value.as_bool().is_some_and(|v| only.is_none_or(|o| o == v)),
            Kind::Scalar | Kind::ScalarData => {
                value.is_string() || value.is_number() || value.is_boolean()
            }
            Kind::Numeric => value.is_number(),
            Kind::Integer(range) => value.as_number().is_some_and(|n| integer_in(n, range)),
            Kind::Float(range) => value
                .as_number()
                .filter(|number| number.is_f64())
                .and_then(Number::as_f64)
                .is_some_and(|number| range.contains(number)),
            Kind::Optional(inner) => value.is_null() || inner.matches(value),
            Kind::NotUndef(inner) => !value.is_null() && inner.matches(value),
            Kind::Sensitive(inner) => inner.matches(value),
            Kind::Variant(types) => types.iter().any(|inner| inner.matches(value)),
            Kind::Array(element, size) => value.as_array().is_some_and(|items| {
                size.contains(length(items.len())) && items.iter().all(|item| element.matches(item))
            }),
            Kind::Hash(key, element, size) => value.as_object().is_some_and(|entries| {
                size.contains(length(entries.len()))
                    && entries
                        .iter()
                        .all(|(k, v)| key.matches_text(k) && element.matches(v))
            }),
            Kind::Collection(size) => match value {
                Value::Array(items) => size.contains(length(items.len())),
                Value::Object(entries) => size.contains(length(entries.len())),
                _ => false,
            },
            Kind::Iterable(element) => match value {
                Value::Array(items) => items.iter().all(|item| element.matches(item)),
                Value::Object(_) => matches!(element.0, Kind::Any),
                _ => false,
            },
            Kind::Tuple(types, size) => value
                .as_array()
                .is_some_and(|items| tuple_matches(types, *size, items)),
            Kind::Struct(members) => value
                .as_object()
                .is_some_and(|entries| struct_matches(members, entries)),
            Kind::TargetSpec => is_target_spec(value),
            Kind::Alias(..) => !value.is_null(),
            Kind::Inexpressible(..) => false,
            Kind::String(_) | Kind::Enum { .. } | Kind::Pattern(_) | Kind::Timestamp(_) => {
                value.as_str().is_some_and(|text| self.matches_text(text))
            }
        }
    }

    /// Whether a string, or the key of an object, is of this type.
    fn matches_text(&self, text: &str) -> bool {
        match &self.0 {
            Kind::Any
            | Kind::Data
            | Kind::RichData
            | Kind::Scalar
            | Kind::ScalarData
            | Kind::TargetSpec
            | Kind::Alias(..) => true,
            Kind::String(size) => size.contains(length(text.chars().count())),
            Kind::Enum { values, .. } if values.is_empty() => true,
            Kind::Enum {
                values,
                case: Case::Sensitive,
            } => values.iter().any(|v| v == text),
            Kind::Enum {
                values,
                case: Case::Insensitive,
            } => {
                let lower = text.to_lowercase();
                values.iter().any(|value| value.to_lowercase() == lower)
            }
            Kind::Pattern(patterns) => {
                patterns.is_empty() || patterns.iter().any(|pattern| pattern.is_match(text))
            }
            Kind::Timestamp(_) => is_timestamp(text),
            Kind::Optional(inner) | Kind::NotUndef(inner) => inner.matches_text(text),
            Kind::Sensitive(inner) => inner.matches_text(text),
            Kind::Variant(types) => types.iter().any(|inner| inner.matches_text(text)),
            Kind::Undef
            | Kind::Numeric
            | Kind::Boolean(_)
            | Kind::Integer(_)
            | Kind::Float(_)
            | Kind::Array(..)
            | Kind::Hash(..)
            | Kind::Collection(_)
            | Kind::Iterable(_)
            | Kind::Tuple(..)
            | Kind::Struct(_)
            | Kind::Inexpressible(..) => false,
        }
    }

    /// Whether a parameter of this type may be left out. An alias that cannot be resolved may not.
    #[must_use]
    pub fn accepts_absence(&self) -> bool {
        self.matches(&Value::Null)
    }
}

impl Wrapped {
    fn matches(&self, value: &Value) -> bool {
        match self {
            Self::Type(inner) => inner.matches(value),
            Self::Text(only) => value.as_str() == Some(only),
        }
    }

    fn matches_text(&self, text: &str) -> bool {
        match self {
            Self::Type(inner) => inner.matches_text(text),
            Self::Text(only) => text == only,
        }
    }
}

/// Integers above those of 64 bits with sign exist in JSON; they are beyond every closed range.
fn integer_in(number: &Number, range: &Range<i64>) -> bool {
    match number.as_i64() {
        Some(number) => range.contains(number),
        None => number.is_u64() && range.max.is_none(),
    }
}

fn length(items: usize) -> u64 {
    u64::try_from(items).unwrap_or(u64::MAX)
}

/// A tuple has as many items as types, or as its size says; the last type stands for all further ones.
fn tuple_matches(types: &[PuppetType], size: Option<Range<u64>>, items: &[Value]) -> bool {
    let Some(last) = types.last() else {
        return true;
    };
    let fits = match size {
        None => items.len() == types.len(),
        Some(size) => size.contains(length(items.len())),
    };
    let types = types.iter().chain(std::iter::repeat(last));
    fits && items
        .iter()
        .zip(types)
        .all(|(item, inner)| inner.matches(item))
}

/// Every entry is a member and of its type; what is not there may be left out.
fn struct_matches(members: &[Member], entries: &Map<String, Value>) -> bool {
    let mut present = 0;
    let all_match = members
        .iter()
        .all(|member| match entries.get(&member.name) {
            Some(value) => {
                present += 1;
                member.value.matches(value) && !(member.key == Key::NotUndef && value.is_null())
            }
            None => match member.key {
                Key::Plain => member.value.accepts_absence(),
                Key::Optional => true,
                Key::NotUndef => false,
            },
        });
    all_match && present == entries.len()
}

/// A string, or arrays of strings at any depth; walked without recursion, since here the value and
/// not the type sets the depth.
fn is_target_spec(value: &Value) -> bool {
    let mut open = vec![value];
    while let Some(value) = open.pop() {
        match value {
            Value::String(_) => {}
            Value::Array(items) => open.extend(items),
            _ => return false,
        }
    }
    true
}

/// The form of ISO 8601 that Puppet writes: `2026-11-22T14:30:00.000 UTC`, with `Z` or an offset
/// for the zone. Whether the day exists is the task's to say.
fn is_timestamp(text: &str) -> bool {
    let Some((date, time)) = text.split_once('T') else {
        return false;
    };
    let (clock, zone) = match time.find(['Z', ' ', '+', '-']) {
        Some(at) => time.split_at(at),
        None => (time, ""),
    };
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, "0"));
    let zone = zone.trim_start();
    let zone_fits = matches!(zone, "" | "Z" | "UTC")
        || zone
            .strip_prefix(['+', '-'])
            .is_some_and(|offset| has_shape(offset, "00:00") || has_shape(offset, "0000"));
    has_shape(date, "0000-00-00")
        && (has_shape(clock, "00:00:00") || has_shape(clock, "00:00"))
        && !fraction.is_empty()
        && fraction.bytes().all(|b| b.is_ascii_digit())
        && zone_fits
}

/// Whether `text` is `shape` with any digit in the place of each `0`.
fn has_shape(text: &str, shape: &str) -> bool {
    text.len() == shape.len()
        && text.bytes().zip(shape.bytes()).all(|(byte, expected)| {
            if expected == b'0' {
                byte.is_ascii_digit()
            } else {
                byte == expected
            }
        })
}
