//! Points in time as the API writes them: ISO 8601, UTC, whole seconds.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A point in time. Written with whole seconds (`2026-11-22T14:30:00Z`), as clients of the original
/// expect it; any RFC 3339 form is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time(jiff::Timestamp);

/// The text is not a point in time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a time like 2026-11-22T14:30:00Z")]
pub struct TimeError(String);

impl Time {
    /// From milliseconds since 1970. What lies outside the years -9999 to 9999 becomes 1970.
    #[must_use]
    pub fn from_millis(millis: i64) -> Self {
        Self(jiff::Timestamp::from_millisecond(millis).unwrap_or(jiff::Timestamp::UNIX_EPOCH))
    }

    /// Milliseconds since 1970.
    #[must_use]
    pub fn as_millis(self) -> i64 {
        self.0.as_millisecond()
    }
}

impl FromStr for Time {
    type Err = TimeError;

    fn from_str(text: &str) -> Result<Self, TimeError> {
        match text.parse() {
            Ok(time) => Ok(Self(time)),
            Err(_) => Err(TimeError(text.to_owned())),
        }
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.0}", self.0)
    }
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

/// A day in UTC, written as `2026-11-22`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Date(jiff::civil::Date);

impl Date {
    /// The day of a time in milliseconds since 1970.
    #[must_use]
    pub fn of_millis(millis: i64) -> Self {
        let time = Time::from_millis(millis).0;
        Self(jiff::tz::Offset::UTC.to_datetime(time).date())
    }

    /// When it begins, in milliseconds since 1970.
    #[must_use]
    pub fn as_millis(self) -> i64 {
        let midnight = self.0.at(0, 0, 0, 0);
        let time = jiff::tz::Offset::UTC.to_timestamp(midnight);
        time.map_or(0, jiff::Timestamp::as_millisecond)
    }

    /// So many days before; the first day of all when there are not so many.
    #[must_use]
    pub fn before(self, days: usize) -> Self {
        let days = i64::try_from(days).unwrap_or(i64::MAX);
        let span = jiff::Span::new().try_days(days);
        let date = span.and_then(|span| self.0.checked_sub(span));
        Self(date.unwrap_or(jiff::civil::Date::MIN))
    }
}

impl fmt::Display for Date {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Serialize for Date {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Date {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        let is_date = text.len() == "2026-11-22".len();
        let date = text.parse().ok().filter(|_| is_date).map(Self);
        date.ok_or_else(|| de::Error::custom(format!("{text:?} is not a date like 2026-11-22")))
    }
}

impl schemars::JsonSchema for Date {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Date".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({"type": "string", "format": "date"})
    }
}

impl schemars::JsonSchema for Time {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Time".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({"type": "string", "format": "date-time"})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_whole_seconds_in_utc() {
        assert_eq!(
            Time::from_millis(1_795_357_800_999).to_string(),
            "2026-11-22T14:30:00Z"
        );
    }

    #[test]
    fn days_are_those_of_utc() {
        let day: Date = serde_json::from_str("\"2026-03-01\"").unwrap();
        assert_eq!(day.before(1).to_string(), "2026-02-28");
        assert_eq!(Date::of_millis(day.as_millis()), day);
        assert_eq!(Date::of_millis(day.as_millis() - 1), day.before(1));
        for text in ["\"2026-3-1\"", "\"2026-02-30\"", "\"now\"", "1"] {
            assert!(serde_json::from_str::<Date>(text).is_err(), "{text}");
        }
    }

    #[test]
    fn reads_other_offsets_and_fractions() {
        let time: Time = "2026-11-22T15:30:00.250+01:00".parse().unwrap();
        assert_eq!(time.as_millis(), 1_795_357_800_250);
        assert!("yesterday".parse::<Time>().is_err());
    }
}
