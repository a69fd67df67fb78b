//! Standard output and standard error: lines, and on a terminal a progress bar below them.
//!
//! What is printed on is decided once. A reader that goes away (`| head`) is no error: the job is
//! followed to its end all the same, since the exit code still counts.

use std::io::{self, IsTerminal as _, Write as _};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::Value;

use crate::printable::steers;

/// How often the bar is drawn at most, per second.
const DRAWS: u8 = 10;

/// How often the bar is drawn when nothing happens, so that the clock in it goes.
const TICK: Duration = Duration::from_millis(500);

/// Where lines and progress go.
#[derive(Debug)]
pub(crate) struct Screen {
    bar: Option<ProgressBar>,
    quiet: bool,
    color: bool,
}

/// What a line's colour says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mood {
    Good,
    Bad,
    Odd,
}

impl Screen {
    /// For people; `quiet` keeps standard output free for a document.
    pub(crate) fn new(color: bool, quiet: bool) -> Self {
        Self {
            bar: None,
            quiet,
            color: color && io::stdout().is_terminal() && is_capable(),
        }
    }

    /// Puts the bar up, if standard error is a terminal.
    pub(crate) fn start_bar(&mut self, nodes: u64) {
        if !io::stderr().is_terminal() || !is_capable() {
            return;
        }
        let bar =
            ProgressBar::with_draw_target(Some(nodes), ProgressDrawTarget::stderr_with_hz(DRAWS));
        let template = "{bar:24} {pos}/{len} nodes  {msg}  {elapsed}";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("=> "));
        }
        bar.enable_steady_tick(TICK);
        self.bar = Some(bar);
    }

    /// Moves the bar.
    pub(crate) fn progress(&self, ended: u64, counts: String) {
        if let Some(bar) = &self.bar {
            bar.set_message(counts);
            bar.set_position(ended);
        }
    }

    /// Whether a bar shows how far the job is.
    pub(crate) fn has_bar(&self) -> bool {
        self.bar.as_ref().is_some_and(|bar| !bar.is_hidden())
    }

    /// Takes the bar away.
    pub(crate) fn end_bar(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }

    /// Lines of text on standard output.
    pub(crate) fn lines(&self, text: &str) {
        if !self.quiet {
            self.above_bar(|| print(text));
        }
    }

    /// What nodes write: where lines go, or on standard error when standard output is for a document.
    pub(crate) fn output(&self, text: &str) {
        if self.quiet {
            self.remark(text.trim_end_matches('\n'));
        } else {
            self.lines(text);
        }
    }

    /// A headline whose colour says how it went, and the lines below it.
    pub(crate) fn headline(&self, mood: Mood, headline: &str, body: &str) {
        let code = match mood {
            Mood::Good => "32",
            Mood::Bad => "31",
            Mood::Odd => "33",
        };
        if self.color {
            self.lines(&format!("\u{1b}[{code}m{headline}\u{1b}[0m\n{body}"));
        } else {
            self.lines(&format!("{headline}\n{body}"));
        }
    }

    /// A remark on standard error.
    pub(crate) fn remark(&self, text: &str) {
        self.above_bar(|| complain(text));
    }

    fn above_bar(&self, write: impl FnOnce()) {
        match &self.bar {
            Some(bar) => bar.suspend(write),
            None => write(),
        }
    }
}

/// How wide the terminal of standard output is; nothing when it is none.
pub(crate) fn width() -> Option<usize> {
    let (terminal_size::Width(columns), _) = terminal_size::terminal_size_of(io::stdout())?;
    Some(usize::from(columns))
}

/// Whether the terminal can do more than print.
fn is_capable() -> bool {
    std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// One line on standard error.
pub(crate) fn complain(text: &str) {
    writeln!(io::stderr().lock(), "{text}").unwrap_or_default();
}

/// Text on standard output, which ends in a line's end.
fn print(text: &str) {
    let mut out = io::stdout().lock();
    let end = if text.ends_with('\n') { "" } else { "\n" };
    write!(out, "{text}{end}")
        .and_then(|()| out.flush())
        .unwrap_or_default();
}

/// A JSON document on standard output. Characters that would steer a terminal stand in strings only,
/// and are written as escapes there.
pub(crate) fn put(document: &Value) {
    let mut safe = String::new();
    for character in format!("{document:#}").chars() {
        if character.is_ascii() && character != '\u{7f}' || !steers(character) {
            safe.push(character);
        } else {
            safe.push_str(&format!("\\u{:04x}", u32::from(character)));
        }
    }
    print(&safe);
}
