//! Times of the week: `08:00-18:00`, `mon-fri 08:00-18:00`, `sat,sun`, `fri 22:00-06:00`, which ends on
//! Saturday.

use std::fmt;
use std::str::FromStr;

use jiff::Zoned;
use jiff::civil::Weekday;
use serde::Deserialize;

/// Times of the week.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct Hours {
    text: String,
    /// From Monday.
    days: [bool; 7],
    /// Minutes of the day; from the first, before the second. When the first is not the smaller one
    /// they end on the day after.
    from: u16,
    to: u16,
}

/// Why a text is no times of the week.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum HoursError {
    /// A word is no day.
    #[error("{0:?} is none of mon, tue, wed, thu, fri, sat, sun")]
    Day(String),
    /// A word is no time.
    #[error("{0:?} is not a time such as 08:00, from 00:00 to 24:00")]
    Time(String),
    /// There is no time span.
    #[error("{0:?} is not of the form \"mon-fri 08:00-18:00\": days, times, or both")]
    Form(String),
    /// It is over when it begins.
    #[error("{0:?} begins when it ends")]
    Empty(String),
}

const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
const DAY: u16 = 24 * 60;

impl Hours {
    /// Whether a moment, as it is told in its own time zone, lies in them.
    #[must_use]
    pub(super) fn contain(&self, moment: &Zoned) -> bool {
        let minute = u16::try_from(moment.hour()).unwrap_or(0) * 60
            + u16::try_from(moment.minute()).unwrap_or(0);
        self.contain_minute(moment.weekday(), minute)
    }

    fn contain_minute(&self, weekday: Weekday, minute: u16) -> bool {
        let on = |weekday: Weekday| {
            let day = usize::try_from(weekday.to_monday_zero_offset()).unwrap_or(0);
            self.days.get(day).copied().unwrap_or(false)
        };
        if self.from < self.to {
            return on(weekday) && (self.from..self.to).contains(&minute);
        }
        (on(weekday) && minute >= self.from) || (on(weekday.previous()) && minute < self.to)
    }
}

impl FromStr for Hours {
    type Err = HoursError;

    fn from_str(text: &str) -> Result<Self, HoursError> {
        let form = || HoursError::Form(text.to_owned());
        let words: Vec<_> = text.split_whitespace().collect();
        let (days, times) = match words.as_slice() {
            [times] if times.starts_with(|c: char| c.is_ascii_digit()) => (None, Some(*times)),
            [days] => (Some(*days), None),
            [days, times] => (Some(*days), Some(*times)),
            _ => return Err(form()),
        };
        let days = days.map_or(Ok([true; 7]), parse_days)?;
        let (from, to) = match times {
            None => (0, DAY),
            Some(times) => {
                let (from, to) = times.split_once('-').ok_or_else(form)?;
                (parse_time(from)?, parse_time(to)?)
            }
        };
        if from == to || from == DAY {
            return Err(HoursError::Empty(text.to_owned()));
        }
        Ok(Self {
            text: text.to_owned(),
            days,
            from,
            to,
        })
    }
}

/// `mon-fri`, `sat,sun`, `fri-mon,wed`.
fn parse_days(text: &str) -> Result<[bool; 7], HoursError> {
    let day = |word: &str| {
        let word = word.to_ascii_lowercase();
        let found = DAYS.iter().position(|day| *day == word);
        found.ok_or(HoursError::Day(word))
    };
    let mut days = [false; 7];
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (mut at, last) = (day(first)?, day(last)?);
        loop {
            if let Some(day) = days.get_mut(at) {
                *day = true;
            }
            if at == last {
                break;
            }
            at = (at + 1) % DAYS.len();
        }
    }
    Ok(days)
}

fn parse_time(text: &str) -> Result<u16, HoursError> {
    let number = |text: &str| {
        let plain = (1..=2).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
        plain.then(|| text.parse::<u16>().ok()).flatten()
    };
    let parsed = text
        .split_once(':')
        .and_then(|(hours, minutes)| Some((number(hours)?, number(minutes)?)))
        .filter(|(hours, minutes)| *minutes < 60 && hours * 60 + minutes <= DAY);
    parsed
        .map(|(hours, minutes)| hours * 60 + minutes)
        .ok_or_else(|| HoursError::Time(text.to_owned()))
}

impl TryFrom<String> for Hours {
    type Error = HoursError;

    fn try_from(text: String) -> Result<Self, HoursError> {
        text.parse()
    }
}

impl fmt::Display for Hours {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn contain(hours: &str, moment: &str) -> bool {
        let hours: Hours = hours.parse().unwrap();
        hours.contain(&moment.parse().unwrap())
    }

    #[test]
    fn times_begin_with_their_first_minute_and_end_before_their_last() {
        // 2026-11-27 is a Friday.
        assert!(contain("08:00-18:00", "2026-11-27T08:00[UTC]"));
        assert!(!contain("08:00-18:00", "2026-11-27T18:00[UTC]"));
        assert!(contain("mon-fri 8:00-18:00", "2026-11-27T17:59[UTC]"));
        assert!(!contain("mon-fri 08:00-18:00", "2026-11-28T12:00[UTC]"));
        assert!(contain("SAT,sun", "2026-11-28T00:00[UTC]"));
        assert!(contain("00:00-24:00", "2026-11-28T23:59[UTC]"));
        assert!(contain("fri-mon", "2026-11-29T12:00[UTC]"));
        assert!(!contain("fri-mon", "2026-12-01T12:00[UTC]"));
    }

    #[test]
    fn a_night_belongs_to_the_day_on_which_it_begins() {
        for (moment, wanted) in [
            ("2026-11-27T21:59[UTC]", false),
            ("2026-11-27T22:00[UTC]", true),
            ("2026-11-28T05:59[UTC]", true),
            ("2026-11-28T06:00[UTC]", false),
            ("2026-11-28T22:00[UTC]", false),
            ("2026-11-27T05:00[UTC]", false),
        ] {
            assert_eq!(contain("fri 22:00-06:00", moment), wanted, "{moment}");
        }
    }

    #[test]
    fn what_is_no_time_is_named() {
        for (text, problem) in [
            ("moon 08:00-09:00", "\"moon\" is none of mon"),
            ("08:00", "is not of the form"),
            ("08:00-25:00", "\"25:00\" is not a time"),
            ("08:00-24:01", "\"24:01\" is not a time"),
            ("8-9", "\"8\" is not a time"),
            ("+8:00-9:00", "is none of mon"),
            ("08:60-09:00", "\"08:60\" is not a time"),
            ("08:00-08:00", "begins when it ends"),
            ("", "is not of the form"),
            ("a b c", "is not of the form"),
        ] {
            let error = text.parse::<Hours>().unwrap_err().to_string();
            assert!(error.contains(problem), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn no_text_is_a_panic(text in any::<String>()) {
            text.parse::<Hours>().ok();
        }

        #[test]
        fn a_span_and_its_other_half_are_the_whole_day(
            from in 0_u16..DAY, to in 0_u16..DAY, minute in 0_u16..DAY,
        ) {
            prop_assume!(from != to);
            let hours = |from: u16, to: u16| -> Hours {
                let text = format!("{}:{:02}-{}:{:02}", from / 60, from % 60, to / 60, to % 60);
                text.parse().unwrap()
            };
            let inside = hours(from, to).contain_minute(Weekday::Monday, minute);
            let outside = hours(to, from).contain_minute(Weekday::Monday, minute);
            prop_assert!(inside != outside);
        }
    }
}
