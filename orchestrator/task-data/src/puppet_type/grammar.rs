//! The grammar of type expressions. It knows literals, names and brackets; what a name makes of its
//! arguments is decided in `build`.
//!
//! Depth is counted, so that hostile metadata cannot exhaust the stack. Faults that the grammar
//! does not cause (a wrong argument, a bad regular expression) end the parse at once.

use winnow::ascii::multispace0;
use winnow::combinator::{alt, cut_err, delimited, opt, preceded, separated, terminated};
use winnow::error::{ErrMode, ParserError};
use winnow::prelude::*;
use winnow::stream::{LocatingSlice, Location};
use winnow::token::{any, one_of, take_while};

use super::{Argument, MAX_TYPE_DEPTH, PuppetType, TypeError, build};

type Input<'a> = LocatingSlice<&'a str>;
type Parsed<T> = Result<T, ErrMode<Fault>>;

/// Why a parse ended: `None` where only the grammar was broken, and then the place tells all.
#[derive(Debug)]
struct Fault(Option<TypeError>);

impl ParserError<Input<'_>> for Fault {
    type Inner = Self;

    fn from_input(_: &Input<'_>) -> Self {
        Self(None)
    }

    fn into_inner(self) -> Result<Self::Inner, Self> {
        Ok(self)
    }
}

pub(super) fn parse(text: &str) -> Result<PuppetType, TypeError> {
    let mut input = LocatingSlice::new(text);
    let outcome =
        terminated(|i: &mut Input<'_>| type_expression(i, 0), multispace0).parse_next(&mut input);
    let at = text
        .get(..input.current_token_start())
        .unwrap_or_default()
        .chars()
        .count()
        + 1;
    match outcome {
        Ok(parsed) if input.is_empty() => Ok(parsed),
        Ok(_) => Err(TypeError::Syntax { at }),
        Err(ErrMode::Cut(Fault(Some(error))) | ErrMode::Backtrack(Fault(Some(error)))) => {
            Err(error)
        }
        Err(_) => Err(TypeError::Syntax { at }),
    }
}

/// `Name`, or `Name[argument, …]`.
fn type_expression(input: &mut Input<'_>, depth: usize) -> Parsed<PuppetType> {
    let name = preceded(multispace0, type_name).parse_next(input)?;
    if depth >= MAX_TYPE_DEPTH {
        return Err(ErrMode::Cut(Fault(Some(TypeError::TooDeep))));
    }
    let open = opt(preceded(multispace0, '[')).parse_next(input)?;
    let arguments = match open {
        None => None,
        Some(_) => Some(
            cut_err(terminated(
                |i: &mut Input<'_>| list(i, |i| argument(i, depth + 1)),
                (multispace0, ']'),
            ))
            .parse_next(input)?,
        ),
    };
    build::build(&name, arguments).map_err(|error| ErrMode::Cut(Fault(Some(error))))
}

/// At least one item, separated by commas; a comma may follow the last.
fn list<'a, T>(
    input: &mut Input<'a>,
    item: impl FnMut(&mut Input<'a>) -> Parsed<T>,
) -> Parsed<Vec<T>> {
    terminated(
        separated(1.., item, (multispace0, ',')),
        opt((multispace0, ',')),
    )
    .parse_next(input)
}

/// `Integer`, `Stdlib::Absolutepath`, `::Foo`.
fn type_name(input: &mut Input<'_>) -> Parsed<String> {
    opt("::").parse_next(input)?;
    let segments: Vec<&str> = separated(1.., segment, "::").parse_next(input)?;
    Ok(segments.join("::"))
}

fn segment<'a>(input: &mut Input<'a>) -> Parsed<&'a str> {
    (
        one_of('A'..='Z'),
        take_while(0.., ('a'..='z', 'A'..='Z', '0'..='9', '_')),
    )
        .take()
        .parse_next(input)
}

fn argument(input: &mut Input<'_>, depth: usize) -> Parsed<Argument> {
    multispace0.parse_next(input)?;
    alt((
        (|i: &mut Input<'_>| type_expression(i, depth)).map(Argument::Type),
        single_quoted.map(Argument::Text),
        double_quoted.map(Argument::Text),
        regex.map(Argument::Regex),
        (|i: &mut Input<'_>| hash(i, depth)).map(Argument::Hash),
        number,
        word,
    ))
    .parse_next(input)
}

/// `{ key => value, … }`
fn hash(input: &mut Input<'_>, depth: usize) -> Parsed<Vec<(Argument, Argument)>> {
    if depth >= MAX_TYPE_DEPTH {
        return Err(ErrMode::Cut(Fault(Some(TypeError::TooDeep))));
    }
    '{'.parse_next(input)?;
    let entry = |i: &mut Input<'_>| {
        let key = argument(i, depth + 1)?;
        cut_err((multispace0, "=>")).parse_next(i)?;
        Ok((
            key,
            cut_err(|i: &mut Input<'_>| argument(i, depth + 1)).parse_next(i)?,
        ))
    };
    let entries = opt(|i: &mut Input<'_>| list(i, entry)).parse_next(input)?;
    cut_err((multispace0, '}')).parse_next(input)?;
    Ok(entries.unwrap_or_default())
}

/// In single quotes only `\'` and `\\` are escapes.
fn single_quoted(input: &mut Input<'_>) -> Parsed<String> {
    '\''.parse_next(input)?;
    let mut text = String::new();
    loop {
        match cut_err(any).parse_next(input)? {
            '\'' => return Ok(text),
            '\\' => match cut_err(any).parse_next(input)? {
                escaped @ ('\'' | '\\') => text.push(escaped),
                other => text.extend(['\\', other]),
            },
            other => text.push(other),
        }
    }
}

/// In double quotes there are more escapes. Interpolation has nothing to interpolate here.
fn double_quoted(input: &mut Input<'_>) -> Parsed<String> {
    '"'.parse_next(input)?;
    let mut text = String::new();
    loop {
        match cut_err(any).parse_next(input)? {
            '"' => return Ok(text),
            '$' if input.starts_with('{') => return Err(broken(input)),
            '\\' => {
                let escaped = match cut_err(any).parse_next(input)? {
                    'n' => '\n',
                    't' => '\t',
                    'r' => '\r',
                    's' => ' ',
                    'u' => unicode_escape(input)?,
                    escaped @ ('\'' | '"' | '\\' | '$') => escaped,
                    other => {
                        text.push('\\');
                        other
                    }
                };
                text.push(escaped);
            }
            other => text.push(other),
        }
    }
}

/// What follows `\u`: four hexadecimal digits, or one to six in braces.
fn unicode_escape(input: &mut Input<'_>) -> Parsed<char> {
    let hex = |range| take_while(range, |c: char| c.is_ascii_hexdigit());
    let digits = cut_err(alt((delimited('{', hex(1..=6), '}'), hex(4..=4)))).parse_next(input)?;
    u32::from_str_radix(digits, 16)
        .ok()
        .and_then(char::from_u32)
        .ok_or_else(|| broken(input))
}

/// `/…/` on one line. `\/` stands for `/`; every other escape belongs to the regular expression.
fn regex(input: &mut Input<'_>) -> Parsed<String> {
    '/'.parse_next(input)?;
    let mut source = String::new();
    loop {
        match cut_err(any).parse_next(input)? {
            '/' => return Ok(source),
            '\n' => return Err(broken(input)),
            '\\' => match cut_err(any).parse_next(input)? {
                '/' => source.push('/'),
                '\n' => return Err(broken(input)),
                other => source.extend(['\\', other]),
            },
            other => source.push(other),
        }
    }
}

/// Decimal, hexadecimal (`0x`) and octal (`0`) integers, and decimal fractions.
fn number(input: &mut Input<'_>) -> Parsed<Argument> {
    let text = (
        opt('-'),
        one_of('0'..='9'),
        take_while(0.., ('0'..='9', 'a'..='z', 'A'..='Z', '.')),
        opt(preceded('-', take_while(1.., '0'..='9'))),
    )
        .take()
        .parse_next(input)?;
    read_number(text).ok_or_else(|| broken(input))
}

fn read_number(text: &str) -> Option<Argument> {
    let (sign, digits) = match text.strip_prefix('-') {
        Some(rest) => ("-", rest),
        None => ("", text),
    };
    let (digits, radix) = match digits
        .strip_prefix("0x")
        .or_else(|| digits.strip_prefix("0X"))
    {
        Some(rest) => (rest, 16),
        None if digits.len() > 1 && digits.bytes().all(|b| b.is_ascii_digit()) => digits
            .strip_prefix('0')
            .map_or((digits, 10), |rest| (rest, 8)),
        None => (digits, 10),
    };
    if digits.chars().all(|c| c.is_digit(radix)) {
        return i64::from_str_radix(&format!("{sign}{digits}"), radix)
            .ok()
            .map(Argument::Integer);
    }
    let is_float = radix == 10
        && digits.ends_with(|c: char| c.is_ascii_digit())
        && digits
            .chars()
            .all(|c| c.is_ascii_digit() || matches!(c, '.' | 'e' | 'E' | '-'));
    let value: f64 = if is_float {
        text.parse().ok()?
    } else {
        return None;
    };
    value.is_finite().then_some(Argument::Float(value))
}

/// `default`, `undef`, `true`, `false`; any other bare word is a text, as in Puppet's language.
fn word(input: &mut Input<'_>) -> Parsed<Argument> {
    let text: &str = (
        one_of('a'..='z'),
        take_while(0.., ('a'..='z', 'A'..='Z', '0'..='9', '_', '-')),
    )
        .take()
        .parse_next(input)?;
    Ok(match text {
        "default" => Argument::Default,
        "undef" => Argument::Undef,
        "true" => Argument::Boolean(true),
        "false" => Argument::Boolean(false),
        other => Argument::Text(other.to_owned()),
    })
}

fn broken(input: &Input<'_>) -> ErrMode<Fault> {
    ErrMode::Backtrack(Fault::from_input(input)).cut()
}
