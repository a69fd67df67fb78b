//! The canonical text of a type: what Puppet prints, and what parses to the same type again.

use std::fmt::{self, Display, Formatter, Write};

use super::{Argument, Case, Key, Kind, Member, Pattern, PuppetType, Range, Wrapped};

impl Display for PuppetType {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Any => f.write_str("Any"),
            Kind::Data => f.write_str("Data"),
            Kind::RichData => f.write_str("RichData"),
            Kind::Undef => f.write_str("Undef"),
            Kind::Scalar => f.write_str("Scalar"),
            Kind::ScalarData => f.write_str("ScalarData"),
            Kind::Numeric => f.write_str("Numeric"),
            Kind::TargetSpec => f.write_str("TargetSpec"),
            Kind::Boolean(None) => f.write_str("Boolean"),
            Kind::Boolean(Some(only)) => write!(f, "Boolean[{only}]"),
            Kind::Integer(range) => named(f, "Integer", &bounds(range)),
            Kind::Float(range) => named(f, "Float", &float_bounds(range)),
            Kind::String(size) => named(f, "String", &bounds(size)),
            Kind::Collection(size) => named(f, "Collection", &bounds(size)),
            Kind::Enum { values, case } => {
                let mut arguments: Vec<String> = values.iter().map(|v| quoted(v)).collect();
                if *case == Case::Insensitive {
                    arguments.push("true".to_owned());
                }
                named(f, "Enum", &arguments)
            }
            Kind::Pattern(patterns) => named(f, "Pattern", &texts(patterns)),
            Kind::Optional(inner) => wrapped(f, "Optional", inner),
            Kind::NotUndef(inner) => wrapped(f, "NotUndef", inner),
            Kind::Sensitive(inner) => with_inner(f, "Sensitive", inner),
            Kind::Iterable(inner) => with_inner(f, "Iterable", inner),
            Kind::Variant(types) => named(f, "Variant", &texts(types)),
            Kind::Array(element, size) => {
                let mut arguments = Vec::new();
                if element.0 != Kind::Any {
                    arguments.push(element.to_string());
                }
                arguments.extend(bounds(size));
                named(f, "Array", &arguments)
            }
            Kind::Hash(key, value, size) => {
                let mut arguments = Vec::new();
                if key.0 != Kind::Any || value.0 != Kind::Any {
                    arguments.extend([key.to_string(), value.to_string()]);
                }
                arguments.extend(bounds(size));
                named(f, "Hash", &arguments)
            }
            Kind::Tuple(types, size) => {
                let mut arguments = texts(types);
                match size {
                    Some(size) if *size == Range::ALL => arguments.push("default".to_owned()),
                    Some(size) => arguments.extend(bounds(size)),
                    None => {}
                }
                named(f, "Tuple", &arguments)
            }
            Kind::Struct(members) if members.is_empty() => f.write_str("Struct"),
            Kind::Struct(members) => write!(f, "Struct[{{{}}}]", texts(members).join(", ")),
            Kind::Timestamp(arguments) => named(f, "Timestamp", &texts(arguments)),
            Kind::Inexpressible(name, arguments) => named(f, name, &texts(arguments)),
            Kind::Alias(name, arguments) => named(f, name, &texts(arguments)),
        }
    }
}

impl Display for Member {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let name = quoted(&self.name);
        match self.key {
            Key::Plain => write!(f, "{name} => {}", self.value),
            Key::Optional => write!(f, "Optional[{name}] => {}", self.value),
            Key::NotUndef => write!(f, "NotUndef[{name}] => {}", self.value),
        }
    }
}

impl Display for Argument {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Type(inner) => inner.fmt(f),
            Self::Text(text) => f.write_str(&quoted(text)),
            Self::Regex(source) => write_regex(f, source),
            Self::Integer(number) => number.fmt(f),
            Self::Float(number) => write!(f, "{number:?}"),
            Self::Boolean(value) => value.fmt(f),
            Self::Default => f.write_str("default"),
            Self::Undef => f.write_str("undef"),
            Self::Hash(entries) => {
                let entries: Vec<_> = entries.iter().map(|(k, v)| format!("{k} => {v}")).collect();
                write!(f, "{{{}}}", entries.join(", "))
            }
        }
    }
}

impl Display for Pattern {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        // A regular expression literal ends at the line's end, a string does not.
        if self.source().contains('\n') {
            f.write_str(&quoted(self.source()))
        } else {
            write_regex(f, self.source())
        }
    }
}

fn named(f: &mut Formatter<'_>, name: &str, arguments: &[String]) -> fmt::Result {
    if arguments.is_empty() {
        f.write_str(name)
    } else {
        write!(f, "{name}[{}]", arguments.join(", "))
    }
}

fn with_inner(f: &mut Formatter<'_>, name: &str, inner: &PuppetType) -> fmt::Result {
    match inner.0 {
        Kind::Any => f.write_str(name),
        _ => write!(f, "{name}[{inner}]"),
    }
}

fn wrapped(f: &mut Formatter<'_>, name: &str, inner: &Wrapped) -> fmt::Result {
    match inner {
        Wrapped::Type(inner) => with_inner(f, name, inner),
        Wrapped::Text(text) => write!(f, "{name}[{}]", quoted(text)),
    }
}

fn texts<T: Display>(items: &[T]) -> Vec<String> {
    items.iter().map(ToString::to_string).collect()
}

fn bounds<N: Display>(range: &Range<N>) -> Vec<String> {
    ends(
        range.min.as_ref().map(ToString::to_string),
        range.max.as_ref().map(ToString::to_string),
    )
}

fn float_bounds(range: &Range<f64>) -> Vec<String> {
    ends(
        range.min.map(|min| format!("{min:?}")),
        range.max.map(|max| format!("{max:?}")),
    )
}

fn ends(min: Option<String>, max: Option<String>) -> Vec<String> {
    let open = || "default".to_owned();
    match (min, max) {
        (None, None) => Vec::new(),
        (Some(min), None) => vec![min],
        (min, Some(max)) => vec![min.unwrap_or_else(open), max],
    }
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
}

/// Writes `/source/`, with each bare slash escaped.
fn write_regex(f: &mut Formatter<'_>, source: &str) -> fmt::Result {
    f.write_char('/')?;
    let mut characters = source.chars();
    while let Some(character) = characters.next() {
        match character {
            '/' => f.write_str("\\/")?,
            '\\' => {
                f.write_char('\\')?;
                characters
                    .next()
                    .map_or(Ok(()), |escaped| f.write_char(escaped))?;
            }
            other => f.write_char(other)?,
        }
    }
    f.write_char('/')
}
