//! Puppet data type expressions, as the `type` of a task's parameter has them: `Integer[0, 10]`,
//! `Optional[Array[Enum['a', 'b']]]`. Parsed once, then asked for each value.
//!
//! Values come from JSON. Types whose values JSON cannot express (`Regexp`, `Binary`, `Callable`)
//! are understood and match nothing; aliases that only a module could resolve
//! (`Stdlib::Absolutepath`) match every value and are reported by [`PuppetType::unknown_aliases`].

mod build;
mod display;
mod grammar;
mod matches;
mod pattern;
mod range;
#[cfg(test)]
mod tests;

use std::str::FromStr;

pub(crate) use pattern::Pattern;
pub(crate) use range::Range;

/// The longest type expression that is read, in bytes: the longest of the Puppet Forge are enums of
/// a few kilobytes.
pub const MAX_TYPE_LENGTH: usize = 16 * 1024;

/// How deep type expressions may nest. Real ones stay below ten; the stack is good for thousands.
pub const MAX_TYPE_DEPTH: usize = 48;

/// A Puppet data type. Its text form (`Display`) is canonical and parses to the same type.
#[derive(Debug, Clone, PartialEq)]
pub struct PuppetType(pub(crate) Kind);

/// What can be wrong with a type expression.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TypeError {
    /// The metadata have something other than a string.
    #[error("a type is a string")]
    NotText,
    /// The expression is longer than any real one.
    #[error("the type is longer than {MAX_TYPE_LENGTH} bytes")]
    TooLong,
    /// The expression nests deeper than any real one.
    #[error("the type nests deeper than {MAX_TYPE_DEPTH} levels")]
    TooDeep,
    /// The expression breaks the grammar at this place.
    #[error("syntax error at character {at}")]
    Syntax {
        /// Counted from 1.
        at: usize,
    },
    /// A known type has arguments that it does not take.
    #[error("{name} takes {takes}")]
    Arguments {
        /// The type.
        name: &'static str,
        /// What it takes.
        takes: &'static str,
    },
    /// A range has its end before its beginning.
    #[error("the range of {name} ends before it begins")]
    EmptyRange {
        /// The type.
        name: &'static str,
    },
    /// A regular expression cannot be used.
    #[error("the regular expression /{source_text}/ cannot be used: {reason}")]
    Pattern {
        /// The expression as it is written.
        source_text: String,
        /// What is wrong with it.
        reason: String,
    },
}

/// The types, each with its arguments.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Kind {
    Any,
    Data,
    RichData,
    Undef,
    Scalar,
    ScalarData,
    Numeric,
    Boolean(Option<bool>),
    Integer(Range<i64>),
    Float(Range<f64>),
    String(Range<u64>),
    Enum {
        values: Vec<String>,
        case: Case,
    },
    Pattern(Vec<Pattern>),
    Optional(Box<Wrapped>),
    NotUndef(Box<Wrapped>),
    Sensitive(Box<PuppetType>),
    Variant(Vec<PuppetType>),
    Array(Box<PuppetType>, Range<u64>),
    Hash(Box<PuppetType>, Box<PuppetType>, Range<u64>),
    Collection(Range<u64>),
    Tuple(Vec<PuppetType>, Option<Range<u64>>),
    Struct(Vec<Member>),
    Iterable(Box<PuppetType>),
    Timestamp(Vec<Argument>),
    TargetSpec,
    /// A type of the language whose values cannot be written in JSON.
    Inexpressible(&'static str, Vec<Argument>),
    /// A name that a module defines.
    Alias(String, Vec<Argument>),
}

/// Whether an enum tells upper from lower case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Case {
    Sensitive,
    Insensitive,
}

/// What stands in `Optional[…]` and `NotUndef[…]`: a type, or a text that is the only value.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Wrapped {
    Type(PuppetType),
    Text(String),
}

/// One entry of a `Struct`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Member {
    pub(crate) name: String,
    pub(crate) key: Key,
    pub(crate) value: PuppetType,
}

/// How the key of a `Struct` entry is written, which decides whether it must be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Key {
    Plain,
    Optional,
    NotUndef,
}

/// An argument between brackets, before it is known what the type makes of it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Argument {
    Type(PuppetType),
    Text(String),
    Regex(String),
    Integer(i64),
    Float(f64),
    Boolean(bool),
    Default,
    Undef,
    Hash(Vec<(Self, Self)>),
}

impl PuppetType {
    /// The type that everything matches: that of a parameter without one.
    #[must_use]
    pub fn any() -> Self {
        Self(Kind::Any)
    }

    /// Whether the type is `Sensitive[…]`, in JSON written as the bare value.
    #[must_use]
    pub fn is_sensitive(&self) -> bool {
        match &self.0 {
            Kind::Sensitive(_) => true,
            Kind::Optional(inner) | Kind::NotUndef(inner) => match inner.as_ref() {
                Wrapped::Type(inner) => inner.is_sensitive(),
                Wrapped::Text(_) => false,
            },
            Kind::Variant(types) => types.iter().any(Self::is_sensitive),
            _ => false,
        }
    }

    /// The names that only a module could resolve, in the order of the text. They match everything.
    #[must_use]
    pub fn unknown_aliases(&self) -> Vec<&str> {
        let mut found = Vec::new();
        self.collect_aliases(&mut found);
        found
    }

    fn collect_aliases<'a>(&'a self, found: &mut Vec<&'a str>) {
        match &self.0 {
            Kind::Alias(name, _) => found.push(name),
            Kind::Optional(inner) | Kind::NotUndef(inner) => {
                if let Wrapped::Type(inner) = inner.as_ref() {
                    inner.collect_aliases(found);
                }
            }
            Kind::Sensitive(inner) | Kind::Array(inner, _) | Kind::Iterable(inner) => {
                inner.collect_aliases(found);
            }
            Kind::Hash(key, value, _) => {
                key.collect_aliases(found);
                value.collect_aliases(found);
            }
            Kind::Variant(types) | Kind::Tuple(types, _) => {
                types.iter().for_each(|inner| inner.collect_aliases(found));
            }
            Kind::Struct(members) => {
                members
                    .iter()
                    .for_each(|member| member.value.collect_aliases(found));
            }
            _ => {}
        }
    }
}

impl TypeError {
    pub(crate) fn not_text() -> Self {
        Self::NotText
    }
}

impl FromStr for PuppetType {
    type Err = TypeError;

    fn from_str(text: &str) -> Result<Self, TypeError> {
        if text.len() > MAX_TYPE_LENGTH {
            return Err(TypeError::TooLong);
        }
        grammar::parse(text)
    }
}
