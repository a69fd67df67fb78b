//! From a name and its arguments to a type: which arguments each type of the language takes.

use super::{Argument, Case, Key, Kind, Member, Pattern, PuppetType, Range, TypeError, Wrapped};

/// Types of the language whose values cannot be written in JSON, with any arguments.
const INEXPRESSIBLE: [&str; 20] = [
    "Binary",
    "Callable",
    "CatalogEntry",
    "Class",
    "Default",
    "Error",
    "Init",
    "Iterator",
    "Object",
    "Regexp",
    "Resource",
    "Runtime",
    "SemVer",
    "SemVerRange",
    "Timespan",
    "Type",
    "TypeAlias",
    "TypeReference",
    "TypeSet",
    "URI",
];

/// Makes a type of what the grammar has read. `arguments` is `None` without brackets.
pub(super) fn build(name: &str, arguments: Option<Vec<Argument>>) -> Result<PuppetType, TypeError> {
    if let Some(known) = INEXPRESSIBLE.iter().find(|known| **known == name) {
        return Ok(PuppetType(Kind::Inexpressible(
            known,
            arguments.unwrap_or_default(),
        )));
    }
    let plain = |name, kind| match &arguments {
        None => Ok(kind),
        Some(_) => Err(TypeError::Arguments {
            name,
            takes: "no arguments",
        }),
    };
    let any = || Box::new(PuppetType::any());
    let kind = match name {
        "Any" => plain("Any", Kind::Any)?,
        "Data" => plain("Data", Kind::Data)?,
        "RichData" => plain("RichData", Kind::RichData)?,
        "Undef" => plain("Undef", Kind::Undef)?,
        "Scalar" => plain("Scalar", Kind::Scalar)?,
        "ScalarData" => plain("ScalarData", Kind::ScalarData)?,
        "Numeric" => plain("Numeric", Kind::Numeric)?,
        "TargetSpec" => plain("TargetSpec", Kind::TargetSpec)?,
        "Timestamp" => Kind::Timestamp(arguments.unwrap_or_default()),
        "Boolean" => Kind::Boolean(match arguments.as_deref() {
            None => None,
            Some([Argument::Boolean(value)]) => Some(*value),
            Some(_) => return Err(takes("Boolean", "nothing, true or false")),
        }),
        "Integer" => Kind::Integer(range("Integer", arguments.as_deref(), integer)?),
        "Float" => Kind::Float(range("Float", arguments.as_deref(), float)?),
        "String" => Kind::String(size("String", arguments.as_deref())?),
        "Collection" => Kind::Collection(size("Collection", arguments.as_deref())?),
        "Enum" => enumeration(arguments)?,
        "Pattern" => patterns(arguments)?,
        "Optional" => Kind::Optional(Box::new(wrapped("Optional", arguments)?)),
        "NotUndef" => Kind::NotUndef(Box::new(wrapped("NotUndef", arguments)?)),
        "Sensitive" => Kind::Sensitive(single("Sensitive", arguments)?.unwrap_or_else(any)),
        "Iterable" => Kind::Iterable(single("Iterable", arguments)?.unwrap_or_else(any)),
        "Variant" => Kind::Variant(
            arguments
                .unwrap_or_default()
                .into_iter()
                .map(|a| only_type("Variant", a))
                .collect::<Result<_, _>>()?,
        ),
        "Array" => array(arguments)?,
        "Hash" => hash(arguments)?,
        "Tuple" => tuple(arguments)?,
        "Struct" => structure(arguments)?,
        _ => Kind::Alias(name.to_owned(), arguments.unwrap_or_default()),
    };
    Ok(PuppetType(kind))
}

fn takes(name: &'static str, takes: &'static str) -> TypeError {
    TypeError::Arguments { name, takes }
}

fn integer(argument: &Argument) -> Option<i64> {
    match argument {
        Argument::Integer(value) => Some(*value),
        _ => None,
    }
}

fn count(argument: &Argument) -> Option<u64> {
    integer(argument).and_then(|value| u64::try_from(value).ok())
}

#[expect(
    clippy::cast_precision_loss,
    reason = "the bounds of Float are floats, however written"
)]
fn float(argument: &Argument) -> Option<f64> {
    match argument {
        Argument::Float(value) => Some(*value),
        Argument::Integer(value) => Some(*value as f64),
        _ => None,
    }
}

/// Nothing, `[min]` or `[min, max]`, each a number or `default`.
fn range<N: PartialOrd + Copy>(
    name: &'static str,
    arguments: Option<&[Argument]>,
    number: impl Fn(&Argument) -> Option<N>,
) -> Result<Range<N>, TypeError> {
    const TAKES: &str = "at most two numbers, or 'default' for an open end";
    let end = |argument: &Argument| match argument {
        Argument::Default => Ok(None),
        other => number(other).map(Some).ok_or_else(|| takes(name, TAKES)),
    };
    let range = match arguments {
        None => Range::ALL,
        Some([min]) => Range {
            min: end(min)?,
            max: None,
        },
        Some([min, max]) => Range {
            min: end(min)?,
            max: end(max)?,
        },
        Some(_) => return Err(takes(name, TAKES)),
    };
    if range.is_sound() {
        Ok(range)
    } else {
        Err(TypeError::EmptyRange { name })
    }
}

fn size(name: &'static str, arguments: Option<&[Argument]>) -> Result<Range<u64>, TypeError> {
    range(name, arguments, count)
}

/// A range behind other arguments: `None` when there is none.
fn trailing_size(name: &'static str, rest: &[Argument]) -> Result<Option<Range<u64>>, TypeError> {
    if rest.is_empty() {
        Ok(None)
    } else {
        size(name, Some(rest)).map(Some)
    }
}

fn is_number(argument: &Argument) -> bool {
    matches!(argument, Argument::Integer(_) | Argument::Default)
}

fn only_type(name: &'static str, argument: Argument) -> Result<PuppetType, TypeError> {
    match argument {
        Argument::Type(inner) => Ok(inner),
        _ => Err(takes(name, "types")),
    }
}

fn single(
    name: &'static str,
    arguments: Option<Vec<Argument>>,
) -> Result<Option<Box<PuppetType>>, TypeError> {
    let Some(arguments) = arguments else {
        return Ok(None);
    };
    match <[Argument; 1]>::try_from(arguments) {
        Ok([Argument::Type(inner)]) => Ok(Some(Box::new(inner))),
        _ => Err(takes(name, "one type")),
    }
}

fn wrapped(name: &'static str, arguments: Option<Vec<Argument>>) -> Result<Wrapped, TypeError> {
    let Some(arguments) = arguments else {
        return Ok(Wrapped::Type(PuppetType::any()));
    };
    match <[Argument; 1]>::try_from(arguments) {
        Ok([Argument::Type(inner)]) => Ok(Wrapped::Type(inner)),
        Ok([Argument::Text(text)]) => Ok(Wrapped::Text(text)),
        _ => Err(takes(name, "one type or one string")),
    }
}

fn enumeration(arguments: Option<Vec<Argument>>) -> Result<Kind, TypeError> {
    let refused = || takes("Enum", "strings, and 'true' at the end to ignore case");
    let mut arguments = arguments.unwrap_or_default();
    let case = match arguments.pop_if(|last| matches!(last, Argument::Boolean(_))) {
        Some(Argument::Boolean(true)) => Case::Insensitive,
        _ => Case::Sensitive,
    };
    let values = arguments
        .into_iter()
        .map(|argument| match argument {
            Argument::Text(text) => Ok(text),
            _ => Err(refused()),
        })
        .collect::<Result<Vec<_>, _>>()?;
    if values.is_empty() && case == Case::Insensitive {
        return Err(refused());
    }
    Ok(Kind::Enum { values, case })
}

fn patterns(arguments: Option<Vec<Argument>>) -> Result<Kind, TypeError> {
    const TAKES: &str = "regular expressions";
    let patterns = arguments
        .unwrap_or_default()
        .into_iter()
        .map(|argument| match argument {
            Argument::Regex(source) | Argument::Text(source) => Pattern::new(source),
            Argument::Type(PuppetType(Kind::Inexpressible("Regexp", mut inner))) => {
                match (inner.pop(), inner.is_empty()) {
                    (Some(Argument::Regex(source) | Argument::Text(source)), true) => {
                        Pattern::new(source)
                    }
                    _ => Err(takes("Pattern", TAKES)),
                }
            }
            _ => Err(takes("Pattern", TAKES)),
        });
    Ok(Kind::Pattern(patterns.collect::<Result<_, _>>()?))
}

fn array(arguments: Option<Vec<Argument>>) -> Result<Kind, TypeError> {
    let mut arguments = arguments.unwrap_or_default();
    let element = match arguments.first() {
        None => PuppetType::any(),
        Some(first) if is_number(first) => PuppetType::any(),
        Some(_) => only_type("Array", arguments.remove(0))?,
    };
    let size = trailing_size("Array", &arguments)?.unwrap_or(Range::ALL);
    Ok(Kind::Array(Box::new(element), size))
}

fn hash(arguments: Option<Vec<Argument>>) -> Result<Kind, TypeError> {
    let mut arguments = arguments.unwrap_or_default().into_iter().peekable();
    let (key, value) = match arguments.peek() {
        None => (PuppetType::any(), PuppetType::any()),
        Some(first) if is_number(first) => (PuppetType::any(), PuppetType::any()),
        Some(_) => match (arguments.next(), arguments.next()) {
            (Some(Argument::Type(key)), Some(Argument::Type(value))) => (key, value),
            _ => return Err(takes("Hash", "a key type, a value type and a size")),
        },
    };
    let rest: Vec<_> = arguments.collect();
    let size = trailing_size("Hash", &rest)?.unwrap_or(Range::ALL);
    Ok(Kind::Hash(Box::new(key), Box::new(value), size))
}

fn tuple(arguments: Option<Vec<Argument>>) -> Result<Kind, TypeError> {
    let mut arguments = arguments.unwrap_or_default();
    let types = arguments
        .iter()
        .take_while(|argument| !is_number(argument))
        .count();
    let rest = arguments.split_off(types);
    let size = trailing_size("Tuple", &rest)?;
    let types: Vec<_> = arguments
        .into_iter()
        .map(|a| only_type("Tuple", a))
        .collect::<Result<_, _>>()?;
    if types.is_empty() && size.is_some() {
        return Err(takes("Tuple", "types and a size"));
    }
    Ok(Kind::Tuple(types, size))
}

fn structure(arguments: Option<Vec<Argument>>) -> Result<Kind, TypeError> {
    const TAKES: &str = "one hash of names and types";
    let Some(arguments) = arguments else {
        return Ok(Kind::Struct(Vec::new()));
    };
    let Ok([Argument::Hash(entries)]) = <[Argument; 1]>::try_from(arguments) else {
        return Err(takes("Struct", TAKES));
    };
    let members = entries.into_iter().map(|(key, value)| {
        let (name, key) = match key {
            Argument::Text(name) => (name, Key::Plain),
            Argument::Type(PuppetType(Kind::Optional(inner))) => match *inner {
                Wrapped::Text(name) => (name, Key::Optional),
                Wrapped::Type(_) => return Err(takes("Struct", TAKES)),
            },
            Argument::Type(PuppetType(Kind::NotUndef(inner))) => match *inner {
                Wrapped::Text(name) => (name, Key::NotUndef),
                Wrapped::Type(_) => return Err(takes("Struct", TAKES)),
            },
            _ => return Err(takes("Struct", TAKES)),
        };
        Ok(Member {
            name,
            key,
            value: only_type("Struct", value)?,
        })
    });
    Ok(Kind::Struct(members.collect::<Result<_, _>>()?))
}
