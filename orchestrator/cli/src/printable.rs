//! Text from nodes and servers, made safe for a terminal. A task's output could otherwise move the
//! cursor, rewrite what stands above it, or hide what it does.

use std::fmt::Write as _;

/// The text with every character that steers a terminal or reorders text written as an escape.
/// Tabs stay; line ends are the caller's business (see [`lines`]) and are escaped here.
pub(crate) fn printable(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\t' => safe.push('\t'),
            '\n' => safe.push_str("\\n"),
            '\r' => safe.push_str("\\r"),
            c if c.is_ascii_control() => {
                write!(safe, "\\x{:02x}", u32::from(c)).unwrap_or_default()
            }
            c if steers(c) => write!(safe, "\\u{{{:x}}}", u32::from(c)).unwrap_or_default(),
            c => safe.push(c),
        }
    }
    safe
}

/// The lines of a text, each made printable.
pub(crate) fn lines(text: &str) -> impl Iterator<Item = String> + '_ {
    text.lines().map(printable)
}

/// At most so many characters of a text, which says when some are missing.
pub(crate) fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let kept: String = text.chars().take(width.saturating_sub(3)).collect();
    format!("{kept}...")
}

/// Whether a character beyond ASCII steers a terminal or reorders the text around it.
pub(crate) fn steers(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_steers_a_terminal_is_written_out() {
        assert_eq!(
            printable("\u{1b}[31mred\u{7}\u{7f}\u{9b}2J\r"),
            r"\x1b[31mred\x07\x7f\u{9b}2J\r"
        );
        assert_eq!(printable("a\u{202e}b\u{2066}"), r"a\u{202e}b\u{2066}");
        assert_eq!(printable("\u{61c}"), r"\u{61c}");
        assert_eq!(
            printable("\ttab \u{e9} \u{1f600}"),
            "\ttab \u{e9} \u{1f600}"
        );
        assert_eq!(lines("a\r\nb\nc").collect::<Vec<_>>(), ["a", "b", "c"]);
    }
}
