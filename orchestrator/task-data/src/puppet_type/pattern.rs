//! Ruby's regular expressions, as far as they can be said in the syntax of the crate `regex`, which
//! matches in linear time whatever the expression.
//!
//! What differs in meaning is rewritten (`\Z`, `\h`, `\d` for ASCII digits, `^` and `$` at every
//! line); what needs backtracking (look-around, back-references, possessive repeats) is refused.

use std::iter::Peekable;
use std::str::Chars;

use regex::{Regex, RegexBuilder};

use super::TypeError;

/// How large a compiled expression may be: enough for any that people write, too little for
/// `(a{1000}){1000}` to take the process's memory.
const MAX_COMPILED: usize = 1 << 20;

/// How deep groups may nest, which bounds the stack of the compiler.
const MAX_NESTING: u32 = 64;

/// A regular expression of a `Pattern`, with the Ruby source it came from.
#[derive(Debug, Clone)]
pub(crate) struct Pattern {
    source: String,
    regex: Regex,
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source
    }
}

impl Pattern {
    pub(crate) fn new(source: String) -> Result<Self, TypeError> {
        let compiled = translate(&source).and_then(|translated| {
            RegexBuilder::new(&translated)
                .multi_line(true)
                .size_limit(MAX_COMPILED)
                .nest_limit(MAX_NESTING)
                .build()
                .map_err(|error| last_line(&error.to_string()))
        });
        match compiled {
            Ok(regex) => Ok(Self { source, regex }),
            Err(reason) => Err(TypeError::Pattern {
                source_text: source,
                reason,
            }),
        }
    }

    pub(crate) fn source(&self) -> &str {
        &self.source
    }

    pub(crate) fn is_match(&self, text: &str) -> bool {
        self.regex.is_match(text)
    }
}

/// The crate's errors draw the place over several lines; the last says what is wrong.
fn last_line(error: &str) -> String {
    let line = error.lines().last().unwrap_or_default().trim();
    line.strip_prefix("error: ").unwrap_or(line).to_owned()
}

/// Rewrites a Ruby regular expression, or says what cannot be rewritten.
fn translate(source: &str) -> Result<String, String> {
    let mut out = String::with_capacity(source.len() + 16);
    let mut rest = source.chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            '\\' => escape(&mut rest, &mut out)?,
            '[' => class(&mut rest, &mut out)?,
            '(' => group(&mut rest, &mut out)?,
            '{' => brace(&mut rest, &mut out),
            '*' | '+' | '?' => {
                out.push(c);
                if rest.peek() == Some(&'+') {
                    return Err(format!("possessive repeats ({c}+) are not supported"));
                }
                if rest.next_if_eq(&'?').is_some() {
                    out.push('?');
                }
            }
            other => out.push(other),
        }
    }
    Ok(out)
}

/// An escape outside of a class.
fn escape(rest: &mut Peekable<Chars<'_>>, out: &mut String) -> Result<(), String> {
    let Some(c) = rest.next() else {
        return Err("it ends in a backslash".to_owned());
    };
    match c {
        'A' | 'z' | 'b' | 'B' | 'n' | 't' | 'r' | 'f' | 'v' | 'a' | 'p' | 'P' | 'u' => {
            out.extend(['\\', c]);
        }
        'Z' => out.push_str(r"(?:\n?\z)"),
        'R' => out.push_str(r"(?:\r\n|[\n\x0B\f\r])"),
        'h' | 'd' | 'w' | 's' => out.push_str(&format!("[{}]", shorthand(c))),
        'H' | 'D' | 'W' | 'S' => {
            out.push_str(&format!("[^{}]", shorthand(c.to_ascii_lowercase())));
        }
        'G' | 'K' | 'X' | 'k' | 'g' => {
            return Err(format!("the escape \\{c} is not supported"));
        }
        '1'..='9' => return Err("back-references are not supported".to_owned()),
        other => common_escape(other, rest, out)?,
    }
    Ok(())
}

/// The characters that Ruby's shorthand classes hold: ASCII only, unlike those of the crate.
fn shorthand(c: char) -> &'static str {
    match c {
        'h' => "0-9a-fA-F",
        'd' => "0-9",
        'w' => "a-zA-Z0-9_",
        _ => r"\x20\t\r\n\f\x0B",
    }
}

/// Escapes that mean the same inside and outside of a class.
fn common_escape(c: char, rest: &mut Peekable<Chars<'_>>, out: &mut String) -> Result<(), String> {
    match c {
        'e' => out.push_str(r"\x1B"),
        '0' => out.push_str(r"\x00"),
        'x' => {
            let mut digits = String::new();
            while digits.len() < 2
                && let Some(digit) = rest.next_if(char::is_ascii_hexdigit)
            {
                digits.push(digit);
            }
            if digits.is_empty() {
                return Err("\\x needs hexadecimal digits".to_owned());
            }
            out.push_str(&format!(r"\x{{{digits}}}"));
        }
        'c' | 'C' | 'M' => return Err(format!("the escape \\{c} is not supported")),
        other => out.push_str(&literal(other)),
    }
    Ok(())
}

/// A character that stands for itself, wherever it stands.
fn literal(c: char) -> String {
    match c {
        '<' | '>' | ' ' => format!(r"\x{{{:X}}}", u32::from(c)),
        other if other.is_ascii_punctuation() => format!("\\{other}"),
        other => other.to_string(),
    }
}

/// After `(`: flags and names are rewritten, what needs backtracking is refused.
fn group(rest: &mut Peekable<Chars<'_>>, out: &mut String) -> Result<(), String> {
    out.push('(');
    if rest.next_if_eq(&'?').is_none() {
        return Ok(());
    }
    match rest.peek() {
        Some('=' | '!') => return Err("look-ahead is not supported".to_owned()),
        Some('>') => return Err("atomic groups are not supported".to_owned()),
        Some('~' | '(') => return Err("conditional groups are not supported".to_owned()),
        Some('#') => {
            // A comment: the crate has none, so an empty group takes its place.
            rest.by_ref().find(|c| *c == ')');
            out.push_str("?:)");
            return Ok(());
        }
        Some('<') => {
            rest.next();
            if matches!(rest.peek(), Some('=' | '!')) {
                return Err("look-behind is not supported".to_owned());
            }
            out.push_str("?<");
        }
        _ => out.push('?'),
    }
    // Flags: Ruby's m lets the dot match line ends, which the crate calls s.
    while let Some(flag) = rest.next_if(|c| matches!(c, 'a'..='z' | '-')) {
        if out.ends_with('<') || !is_flag_group(out) {
            out.push(flag);
        } else if flag == 'm' {
            out.push('s');
        } else if matches!(flag, 'i' | 'x' | '-') {
            out.push(flag);
        } else {
            return Err(format!("the flag {flag} is not supported"));
        }
    }
    Ok(())
}

/// Whether what has been written last is the beginning of a flag group and not of a name.
fn is_flag_group(out: &str) -> bool {
    out.rfind("(?")
        .is_some_and(|at| !out.get(at..).unwrap_or_default().contains('<'))
}

/// A brace is a repeat only when it reads as one; `{,n}` is from zero.
fn brace(rest: &mut Peekable<Chars<'_>>, out: &mut String) {
    let body: String = rest.clone().take_while(|c| *c != '}').collect();
    let is_closed = rest.clone().nth(body.chars().count()) == Some('}');
    let (min, max) = body.split_once(',').unwrap_or((&body, ""));
    let is_digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    let is_repeat =
        is_closed && is_digits(min) && is_digits(max) && body.bytes().any(|b| b != b',');
    if is_repeat {
        out.push_str(if min.is_empty() { "{0" } else { "{" });
    } else {
        out.push_str(r"\{");
    }
}

/// A bracketed class, up to its closing bracket; classes nest.
fn class(rest: &mut Peekable<Chars<'_>>, out: &mut String) -> Result<(), String> {
    let mut depth = 1_u32;
    open_class(rest, out);
    while let Some(c) = rest.next() {
        match c {
            ']' => {
                out.push(']');
                depth -= 1;
                if depth == 0 {
                    return Ok(());
                }
            }
            '[' if rest.peek() == Some(&':') => posix(rest, out)?,
            '[' => {
                depth += 1;
                open_class(rest, out);
            }
            '\\' => class_escape(rest, out)?,
            // Operators of the crate's classes, but plain characters in Ruby.
            '-' if rest.next_if_eq(&'-').is_some() => out.push_str(r"-\-"),
            '~' | ' ' | '#' => out.push_str(&literal(c)),
            other => out.push(other),
        }
    }
    Err("a class is not closed".to_owned())
}

/// After `[`: the negation, and a closing bracket that stands first and so for itself.
fn open_class(rest: &mut Peekable<Chars<'_>>, out: &mut String) {
    out.push('[');
    if rest.next_if_eq(&'^').is_some() {
        out.push('^');
    }
    if rest.next_if_eq(&']').is_some() {
        out.push_str(r"\]");
    }
}

/// An escape inside of a class.
fn class_escape(rest: &mut Peekable<Chars<'_>>, out: &mut String) -> Result<(), String> {
    let Some(c) = rest.next() else {
        return Err("it ends in a backslash".to_owned());
    };
    match c {
        'n' | 't' | 'r' | 'f' | 'v' | 'a' | 'p' | 'P' | 'u' => out.extend(['\\', c]),
        'b' => out.push_str(r"\x08"),
        'h' | 'd' | 'w' | 's' => out.push_str(shorthand(c)),
        'H' | 'D' | 'W' | 'S' => {
            out.push_str(&format!("[^{}]", shorthand(c.to_ascii_lowercase())));
        }
        other => common_escape(other, rest, out)?,
    }
    Ok(())
}

/// A POSIX class such as `[:alpha:]`: Unicode in Ruby, ASCII in the crate.
fn posix(rest: &mut Peekable<Chars<'_>>, out: &mut String) -> Result<(), String> {
    let name: String = rest.by_ref().skip(1).take_while(|c| *c != ':').collect();
    let (negated, name) = match name.strip_prefix('^') {
        Some(name) => (true, name),
        None => (false, name.as_str()),
    };
    let members = match name {
        "alpha" => r"\p{Alphabetic}",
        "digit" => r"\p{Nd}",
        "alnum" => r"\p{Alphabetic}\p{Nd}",
        "upper" => r"\p{Uppercase}",
        "lower" => r"\p{Lowercase}",
        "space" => r"\p{White_Space}",
        "blank" => r"\p{Zs}\t",
        "punct" => r"\p{P}$+<=>^`|~",
        "cntrl" => r"\p{Cc}",
        "xdigit" => "0-9a-fA-F",
        "word" => r"\p{Alphabetic}\p{M}\p{Nd}\p{Pc}",
        other => return Err(format!("the class [:{other}:] is not supported")),
    };
    if rest.next_if_eq(&']').is_none() {
        return Err("a class is not closed".to_owned());
    }
    // Nested, so that a range cannot begin or end with it.
    out.push_str(if negated { "[^" } else { "[" });
    out.push_str(members);
    out.push(']');
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_match(source: &str, text: &str) -> bool {
        Pattern::new(source.to_owned()).unwrap().is_match(text)
    }

    #[test]
    fn means_what_ruby_means() {
        for (source, text, expected) in [
            (r"\A[a-z]+\z", "abc", true),
            (r"\A[a-z]+\z", "abc\n", false),
            (r"\A[a-z]+\Z", "abc\n", true),
            (r"\A[a-z]+\Z", "abc\nd", false),
            (r"^b$", "a\nb\nc", true),
            (r"a.b", "a\nb", false),
            (r"(?m)a.b", "a\nb", true),
            (r"(?mi-x:A.b)", "a\nB", true),
            (r"\A\h{4}\z", "beEF", true),
            (r"\A[\h-]+\z", "be-ef", true),
            (r"\A\H\z", "g", true),
            (r"\A\d\z", "\u{0663}", false),
            (r"\A[[:digit:]]\z", "\u{0663}", true),
            (r"\A\w+\z", "\u{e9}", false),
            (r"\A[[:alpha:]_]+\z", "\u{e9}_", true),
            (r"\A[^[:space:]]+\z", "a b", false),
            (r"\Aa{,2}\z", "aa", true),
            (r"\Aa{2}\z", "aa", true),
            (r"\A${a}\z", "x", false),
            (r"\A\{x{y}\z", "{x{y}", true),
            (r"\A[+--]+\z", "+,-", true),
            (r"\A[a~~b]+\z", "~", true),
            (r"\A[]x]+\z", "]x", true),
            (r"\A[\-\/\.]+\z", "-/.", true),
            (r"\A\<\>\_\-\z", "<>_-", true),
            (r"a(?#remark)b", "ab", true),
            (r"(?<year>\d{4})-(?:x|y)", "2026-x", true),
            (r"\A\x41\e\z", "A\u{1b}", true),
            (r"\A\/(?:[^\/\0]+\/*)+\z", "/etc/hosts", true),
            (r"a+?b??", "aab", true),
        ] {
            assert_eq!(is_match(source, text), expected, "/{source}/ on {text:?}");
        }
    }

    #[test]
    fn refuses_what_needs_backtracking() {
        for source in [
            "(?=a)",
            "(?!a)",
            "(?<=a)",
            "(?<!a)",
            "(?>a)",
            r"(a)\1",
            r"\k<a>",
            "a++",
            "a*+",
            r"\G",
            "a\\",
            "[a",
            "(a",
            "[[:nope:]]",
            r"\xz",
            "(?z)",
            r"\cA",
        ] {
            let error = Pattern::new(source.to_owned()).unwrap_err();
            let TypeError::Pattern { reason, .. } = error else {
                panic!("{error:?}")
            };
            assert!(
                !reason.is_empty() && !reason.contains('\n'),
                "{source}: {reason:?}"
            );
        }
    }

    #[test]
    fn refuses_expressions_that_would_take_the_memory() {
        assert!(Pattern::new("((a{1000}){1000}){1000}".to_owned()).is_err());
        assert!(Pattern::new("(".repeat(5000)).is_err());
    }
}
